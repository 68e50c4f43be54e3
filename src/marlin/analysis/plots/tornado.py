"""Tornado figure: how far each uncertain parameter moves each objective."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from marlin.analysis.plots.style import BLACK, BLUE, ORANGE, PAGE_IN, panel_label
from marlin.analysis.schema import OBJECTIVE_NAMES

LEVELS = {"low": BLUE, "high": ORANGE}
LEAST_PERCENT = 0.05
"""Parameters that move an objective by less are left out of its panel."""


def changes(frame: pd.DataFrame, objective: str) -> pd.DataFrame:
    """Change from the base in per cent by parameter, columns low and high, widest last."""
    base = frame.loc[frame["level"] == "base", objective].iloc[0]
    ends = frame[frame["level"] != "base"].pivot(
        index="parameter", columns="level", values=objective
    )
    percent = 100 * (ends / base - 1)
    widest = percent.abs().max(axis=1)
    return percent[widest >= LEAST_PERCENT].loc[lambda p: widest[p.index].sort_values().index]


def labels(frame: pd.DataFrame) -> dict[str, str]:
    """Name, ends and unit of each parameter."""
    result = {}
    for name, rows in frame[frame["level"] != "base"].groupby("parameter"):
        value = rows.set_index("level")["value"]
        unit = str(rows["unit"].iloc[0])
        ends = f"{value['low']}, {value['high']}" + (f" {unit}" if unit else "")
        result[str(name)] = f"{name}\n({ends})"
    return result


def draw(frame: pd.DataFrame) -> Figure:
    """One panel for each objective; bars from the base to both ends of each range.

    `frame` has columns parameter, unit, level (low, high, base), value and the objectives.
    """
    names = labels(frame)
    figure = Figure(figsize=(PAGE_IN, 5.2), layout="constrained")
    panels = figure.subplots(2, 2)
    for axes, letter, (objective, title) in zip(
        panels.flat, "abcd", OBJECTIVE_NAMES.items(), strict=True
    ):
        percent = changes(frame, objective)
        rows = range(len(percent))
        for row, ends in enumerate(percent.itertuples(index=False)):
            values = {level: getattr(ends, level) for level in LEVELS}
            # The longer bar first: where both point one way, the shorter stays in sight.
            for level in sorted(values, key=lambda name: -abs(values[name])):
                axes.barh(row, values[level], color=LEVELS[level], height=0.6)
            _label(axes, row, values)
        axes.axvline(0, color=BLACK, linewidth=0.6)
        axes.margins(x=0.25)
        axes.set_yticks(list(rows), [names[name] for name in percent.index], fontsize=6)
        axes.set_xlabel("change from the base (%)")
        axes.grid(visible=False, axis="y")
        panel_label(axes, f"{letter}  {title}")
    handles = [Patch(color=colour, label=f"{level} end") for level, colour in LEVELS.items()]
    panels.flat[1].legend(handles=handles, loc="lower right")
    return figure


def _label(axes: Axes, row: int, ends: dict[str, float]) -> None:
    """Write the change at each end of a bar; both at the outer one where they point one way."""
    shown = {k: v for k, v in ends.items() if abs(v) >= LEAST_PERCENT}
    sides = {value > 0 for value in shown.values()}
    texts = {k: f"{v:+.1f}".replace("-", "\N{MINUS SIGN}") for k, v in shown.items()}
    if len(shown) == 2 and len(sides) == 1:
        outer = max(shown, key=lambda level: abs(shown[level]))
        both = ", ".join(f"{texts[level]} {level}" for level in LEVELS)
        shown, texts = {outer: shown[outer]}, {outer: both}
    for level, value in shown.items():
        side = 1 if value > 0 else -1
        axes.annotate(
            texts[level], (value, row), (2 * side, 0), textcoords="offset points",
            ha="left" if side > 0 else "right", va="center", fontsize=6,
        )  # fmt: skip
