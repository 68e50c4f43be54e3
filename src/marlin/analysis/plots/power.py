"""GPU power and energy per token: predicted over measured, a point a configuration."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from marlin.analysis.plots.style import BLUE, COLUMN_IN, GREY, VERMILION, panel_label
from marlin.analysis.schema import groups

COLOURS = (BLUE, VERMILION)
MARKERS = ("o", "^")
BAND = 0.08


def draw(power: pd.DataFrame) -> Figure:
    """Mean W of a GPU and J per output token; the line is agreement, the band 8 % either side."""
    figure = Figure(figsize=(COLUMN_IN, 2.3), layout="constrained")
    panels = figure.subplots(1, 2)
    _panel(panels[0], power, "w", "W per GPU", (1.0, 2.0, 3.0, 4.0, 6.0))
    _panel(panels[1], power[power["predicted_j"].notna()], "j", "J per token", (1.0, 3.0))
    panel_label(panels[0], "a  Power")
    panel_label(panels[1], "b  Energy")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2, columnspacing=1.0, handletextpad=0.1
    )
    return figure


def _panel(
    panel: Axes, power: pd.DataFrame, quantity: str, unit: str, ticks: tuple[float, ...]
) -> None:
    """Scatter of one quantity by GPU and kind of model, on equal logarithmic axes."""
    measured, predicted = power[f"measured_{quantity}"], power[f"predicted_{quantity}"]
    both = np.concatenate([measured, predicted])
    ends = np.array([both.min() / 1.15, both.max() * 1.15])
    panel.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color=GREY, alpha=0.25, lw=0)
    panel.plot(ends, ends, color=GREY, linewidth=0.7)
    gpus = sorted(power["gpu"].unique())
    for (gpu, moe), cells in groups(power.sort_values(["moe", "gpu"]), ["gpu", "moe"]):
        colour = COLOURS[gpus.index(gpu) % len(COLOURS)]
        panel.scatter(
            measured.loc[cells.index],
            predicted.loc[cells.index],
            s=14,
            marker=MARKERS[gpus.index(gpu) % len(MARKERS)],
            facecolors="none" if moe else colour,
            edgecolors=colour,
            linewidths=0.7,
            label=f"{gpu}, {'mixture of experts' if moe else 'dense'}",
        )
    panel.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(LogLocator(subs=ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(f"Measured, {unit}")
    panel.set_ylabel(f"Predicted, {unit}", labelpad=1.5)
