"""How figures look and how they are saved: sizes, colours, markers, repeatable bytes."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from marlin.analysis.schema import is_marlin, parts_of
from marlin.files import write_bytes

# Widths of one column and of the page in the paper, in inches.
COLUMN_IN = 3.35
PAGE_IN = 7.0

# Colours that people with any colour vision tell apart. Source: Okabe and Ito, "Color universal
# design" (2008), without the yellow that is hard to see on paper.
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
BLACK, GREY = "#000000", "#7F7F7F"

BASELINE_COLOURS = (GREY, ORANGE, GREEN, PURPLE, BLUE, SKY)
# As many as share no divisor with the colours: each of the first 66 pairs is new.
BASELINE_MARKERS = ("s", "D", "^", "v", "P", "X", "<", ">", "h", "d", "p")
MARLIN_STYLES = {
    "marlin": (VERMILION, "o"),
    "marlin_ttft": (BLUE, "^"),
    "marlin_carbon": (BLACK, "s"),
    "marlin_water": (SKY, "v"),
    "marlin_cost": (GREEN, "D"),
    "marlin_as_run": (ORANGE, "X"),
}
VARIANT_STYLES = {
    "balanced": (VERMILION, "-"),
    "ttft": (BLUE, "--"),
    "carbon": (BLACK, "-."),
    "water": (SKY, (0, (5, 1, 1, 1, 1, 1))),
    "cost": (GREEN, ":"),
}

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "figure.dpi": 100,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.hspace": 0.03,
    "figure.constrained_layout.wspace": 0.03,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.hashsalt": "marlin",
}
# Metadata that would differ from one build to the next is left out.
METADATA = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


@contextmanager
def style() -> Generator[None]:
    """Settings of all figures, without a display."""
    mpl.use("Agg")
    with mpl.rc_context(RC):
        yield


def method_style(method: str, methods: list[str]) -> tuple[str, str]:
    """Colour and marker of a method among `methods` (in table order).

    MARLIN's markers are to be filled, those of baselines hollow. A baseline's variants look like
    itself.
    """
    if method in MARLIN_STYLES:
        return MARLIN_STYLES[method]
    if is_marlin(method):
        return PURPLE, "P"
    others = list(dict.fromkeys(parts_of(name)[0] for name in methods if not is_marlin(name)))
    index = others.index(parts_of(method)[0])
    colour = BASELINE_COLOURS[index % len(BASELINE_COLOURS)]
    return colour, BASELINE_MARKERS[index % len(BASELINE_MARKERS)]


def panel_label(axes: Axes, text: str) -> None:
    """A bold letter and a title, left above the panel."""
    axes.set_title(text, loc="left", fontweight="bold")


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PDF, SVG and PNG; equal figures are equal bytes."""
    for kind, metadata in METADATA.items():
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, metadata=metadata)
        write_bytes(folder / f"{name}.{kind}", stream.getvalue())
