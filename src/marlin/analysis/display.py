"""The one place where numbers become text: every printed figure is rounded here, once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd

from marlin.analysis.statistics import Estimate

MINUS = "−"
THIN_SPACE = "\u202f"  # narrow and without a line break
NOTHING = "–"
# Above this many base units a total reads better in the larger unit.
LARGE = 10_000.0
UNITS = {
    "ttft_s": (("s", 1.0), ("s", 1.0)),
    "carbon_kg": (("kg/day", 1.0), ("t/day", 1e-3)),
    "water_l": (("L/day", 1.0), ("m³/day", 1e-3)),
    "cost_usd": (("USD/day", 1.0), ("kUSD/day", 1e-3)),
}


def unit(objective: str, typical: float) -> tuple[str, float]:
    """Name of the display unit of an objective and the factor into it, by a typical value."""
    small, large = UNITS[objective]
    return large if abs(typical) >= LARGE else small


def decimals(value: float, digits: int = 4) -> int:
    """Decimals that show `value` with `digits` significant digits; none for large values."""
    if value == 0.0 or not math.isfinite(value):
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def number(value: float, places: int) -> str:
    """Fixed decimals, a true minus sign, thin spaces between thousands, no negative zero."""
    text = f"{value:,.{places}f}"
    if float(text.replace(",", "")) == 0.0:
        text = text.removeprefix("-")
    return text.replace(",", THIN_SPACE).replace("-", MINUS)


def with_interval(estimate: Estimate, places: int) -> str:
    """`point [low, high]`, all with the same decimals; the point alone where seeds agree."""
    if estimate.high - estimate.low <= 1e-12 * abs(estimate.point):
        return number(estimate.point, places)
    point, low, high = (number(v, places) for v in (estimate.point, estimate.low, estimate.high))
    return f"{point} [{low}, {high}]"


def count_word(count: int) -> str:
    """Small counts as words, as prose wants them."""
    words = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[count] if 0 <= count < len(words) else number(count, 0)


def listing(items: list[str]) -> str:
    """`a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


@dataclass(frozen=True)
class Table:
    """A table as text, and the same values unrounded.

    `rows` hold display strings in the order of `columns`; a cell `value [low, high]` may be set
    on two lines; the first `text_columns` are aligned left, and `bold` names cells (row, column)
    to stand out. `frame` goes to CSV with full precision.
    """

    name: str
    columns: list[str]
    rows: list[list[str]]
    frame: pd.DataFrame
    text_columns: int = 1
    bold: list[tuple[int, int]] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """What the paper and the report read."""
        return {
            "bold": self.bold,
            "columns": self.columns,
            "rows": self.rows,
            "text_columns": self.text_columns,
        }

    def as_tex(self) -> str:
        """The same strings as a booktabs table."""
        align = "l" * self.text_columns + "r" * (len(self.columns) - self.text_columns)
        lines = [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
        lines.append(" & ".join(tex(cell) for cell in self.columns) + r" \\")
        lines.append(r"\midrule")
        for y, row in enumerate(self.rows):
            cells = [_tex_cell(c, (y, x) in self.bold) for x, c in enumerate(row)]
            lines.append(" & ".join(cells) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        return "\n".join(lines) + "\n"


TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MINUS: "$-$",
    NOTHING: "--",
    THIN_SPACE: r"\,",
    "³": "$^3$",
    "≥": r"$\geq$",
    "Δ": r"$\Delta$",
    "×": r"$\times$",
}


def _tex_cell(text: str, bold: bool) -> str:
    """A cell; where it stands out, its value does and its interval does not."""
    value, bracket, rest = text.partition(" [")
    return rf"\textbf{{{tex(value)}}}{tex(bracket + rest)}" if bold else tex(text)


def tex(text: str) -> str:
    """Plain text with LaTeX's special characters escaped."""
    return "".join(TEX.get(character, character) for character in text)
