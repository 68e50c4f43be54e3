"""Serving profiles against held-out measured points: predicted over measured TPOT and TTFT."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from marlin.analysis.plots.style import (
    BASELINE_MARKERS,
    BLUE,
    COLUMN_IN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    panel_label,
)
from marlin.analysis.schema import engine_name, groups, model_name
from marlin.analysis.summary import kept

COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
BAND = 0.2


def draw(silicon: pd.DataFrame) -> Figure:
    """Predicted against measured; the line is agreement, the band a fifth on either side."""
    keys = ["model", "backend"]
    silicon = kept(silicon)
    if silicon.empty:
        figure = Figure(figsize=(COLUMN_IN, 1.0))
        figure.text(0.5, 0.5, "no measured points of these serving profiles", ha="center")
        return figure
    ordered = silicon.sort_values(keys, kind="stable")
    rows = -(-len(silicon[keys].drop_duplicates()) // 2)
    figure = Figure(figsize=(COLUMN_IN, 1.95 + 0.15 * rows), layout="constrained")
    panels = figure.subplots(1, 2)
    _panel(panels[0], ordered, "tpot", "ms", 1e3)
    _panel(panels[1], ordered, "ttft", "s", 1.0)
    panel_label(panels[0], "a  TPOT")
    panel_label(panels[1], "b  TTFT")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2, columnspacing=1.0, handletextpad=0.1,
        markerscale=1.8,
    )  # fmt: skip
    return figure


def _panel(panel: Axes, silicon: pd.DataFrame, quantity: str, unit: str, factor: float) -> None:
    """Scatter of one quantity by model and engine, on equal logarithmic axes."""
    measured = factor * silicon[f"measured_{quantity}_s"]
    predicted = factor * silicon[f"predicted_{quantity}_s"]
    both = np.concatenate([measured, predicted])
    ends = np.array([both.min() / 1.3, both.max() * 1.3])
    panel.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color=GREY, alpha=0.25, lw=0)
    panel.plot(ends, ends, color=GREY, linewidth=0.7)
    for index, ((model, backend), cells) in enumerate(groups(silicon, ["model", "backend"])):
        panel.scatter(
            measured.loc[cells.index],
            predicted.loc[cells.index],
            s=5,
            marker=BASELINE_MARKERS[index % len(BASELINE_MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            alpha=0.5,
            linewidths=0,
            label=f"{model_name(model)}, {engine_name(backend)}",
        )
    panel.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(
            LogLocator(subs=(1.0,) if ends[1] > 30 * ends[0] else (1.0, 2.0, 5.0))
        )
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(f"Measured, {unit}")
    panel.set_ylabel(f"Predicted, {unit}", labelpad=1.5)
