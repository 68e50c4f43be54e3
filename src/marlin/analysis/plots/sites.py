"""The sites of a fleet by what a kWh of computing takes there."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from marlin.analysis.plots.style import BLUE, GREY, PAGE_IN, VERMILION, panel_label

PANELS = {
    "carbon_g_per_kwh": ("a  Carbon", "g CO$_2$e per kWh of IT"),
    "price_usd_per_mwh": ("b  Energy price", "USD per MWh of IT"),
    "water_l_per_kwh": ("c  Water", "L per kWh of IT"),
}


def draw(frame: pd.DataFrame) -> Figure:
    """Three panels of bars, sites in the order of their carbon; best and worst are hatched.

    `frame` has a row a site with the columns of `PANELS`.
    """
    frame = frame.sort_values("carbon_g_per_kwh", ascending=False)
    places = np.arange(len(frame))
    figure = Figure(figsize=(PAGE_IN, 0.9 + 0.19 * len(frame)), layout="constrained")
    grid = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (column, (title, unit)) in zip(grid, PANELS.items(), strict=True):
        values = frame[column].to_numpy()
        best, worst = values == values.min(), values == values.max()
        for chosen, colour, hatch, label in (
            (~best & ~worst, GREY, "", None),
            (best, BLUE, "///", "lowest"),
            (worst, VERMILION, "...", "highest"),
        ):
            axes.barh(
                places[chosen], values[chosen], color=colour, hatch=hatch, edgecolor="white",
                linewidth=0, height=0.7, label=label,
            )  # fmt: skip
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f"{value:.3g}", (max(value, 0), place), (2, 0), textcoords="offset points",
                va="center", fontsize=6,
            )  # fmt: skip
        axes.margins(x=0.18)
        axes.set_yticks(places, frame["site"])
        axes.set_xlabel(unit)
        axes.grid(visible=False, axis="y")
        panel_label(axes, title)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
