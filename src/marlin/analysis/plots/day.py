"""One test day: how clean each site is, where the load goes, what each scheduler pays."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from marlin.analysis.plots.style import PAGE_IN, method_style, panel_label
from marlin.analysis.schema import (
    BALANCED,
    NO_ABLATION,
    OBJECTIVE_NAMES,
    OBJECTIVES,
    REFERENCE_METHOD,
    method_name,
    order_methods,
)

EPOCH_UNITS = {
    "ttft_s": "s",
    "carbon_kg": "kg",
    "water_l": "L",
    "cost_usd": "USD",
}
HOURS = (0, 6, 12, 18, 24)
LEGEND_SITES = 14
# The scheduler that is drawn last, over the others, has the solid line.
DASHES = ((0, (5, 1, 1, 1)), (0, (1, 1.2)), (0, (4, 1.5)), "-")


def draw(epochs: pd.DataFrame, baseline: str) -> Figure:
    """Seven panels from the first scenario's day, mean over seeds.

    Sites are ordered and coloured from the lowest to the highest mean carbon intensity of the
    day. `baseline` is the scheduler whose routing stands beside MARLIN's.
    """
    frame = epochs[epochs["ablation"] == NO_ABLATION]
    frame = frame[frame["scenario"] == frame["scenario"].min()]
    methods = order_methods(set(frame["method"]))
    shown = BALANCED if BALANCED in methods else methods[-1]
    # Too tall to share a page with the other wide figure: no room is left then for text and tables.
    figure = Figure(figsize=(PAGE_IN, 5.6), layout="constrained")
    (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.05, 1.0))
    _grid_and_routing(upper, frame, (shown, baseline))
    compared = [m for m in methods if m in {REFERENCE_METHOD, "nearest", baseline, shown}]
    _objectives(lower, frame, compared, methods)
    for panel in (*upper.axes, *lower.axes):
        panel.set_xlim(0, 24)
        panel.set_xticks(HOURS)
        panel.set_xlabel("Hour of day, UTC", labelpad=1.5)
    return figure


def _grid_and_routing(figure: SubFigure, frame: pd.DataFrame, routed: tuple[str, str]) -> None:
    """Carbon intensity by site, and the load by site of two schedulers on one scale."""
    intensity = by_site(frame[frame["method"] == REFERENCE_METHOD], "carbon_g_per_kwh")
    sites, colours = cleanest_first(intensity)
    time = hours(intensity.index)
    panels = figure.subplots(1, 3)
    for site, colour in zip(sites, colours, strict=True):
        panels[0].plot(time, intensity[site], color=colour, linewidth=0.9)
    panels[0].set_ylabel("Carbon intensity, g/kWh")
    panels[0].set_ylim(bottom=0)
    panel_label(panels[0], "a  Grid at each site")
    loads = [by_site(frame[frame["method"] == m], "requests_per_s")[sites] for m in routed]
    highest = max(load.sum(axis=1).max() for load in loads)
    factor, unit = (1e-3, "thousand/s") if highest > 1000 else (1.0, "1/s")
    for panel, letter, method, load in zip(panels[1:], "bc", routed, loads, strict=True):
        panel.stackplot(time, factor * load.T.to_numpy(), colors=colours, linewidth=0)
        panel.set_ylabel(f"Requests routed, {unit}")
        panel.set_ylim(0, 1.05 * factor * highest)
        panel_label(panel, f"{letter}  {method_name(method)}")
    site_legend(figure, sites, colours)


def cleanest_first(intensity: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Sites by their mean carbon intensity [time, site], lowest first, and a colour for each."""
    sites = list(intensity.mean().sort_values(kind="stable").index)
    return sites, mpl.colormaps["viridis_r"](np.linspace(0.05, 1.0, len(sites)))


def by_site(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over seeds, time by site."""
    return frame.groupby(["time", "site"])[column].mean().unstack("site")


def hours(times: pd.Index) -> np.ndarray:
    """Hours since the start of the day."""
    stamps = pd.DatetimeIndex(times)
    return ((stamps - stamps[0]) / pd.Timedelta(hours=1)).to_numpy(dtype=float)


def site_legend(figure: Figure | SubFigure, sites: list[str], colours: np.ndarray) -> None:
    """Names of the sites in the order of the stack; of a large fleet, every second or so."""
    step = -(-len(sites) // LEGEND_SITES)
    figure.legend(
        [Patch(color=colour) for colour in colours[::-step]],
        [site.replace("-", " ").title() for site in sites[::-step]],
        loc="outside right upper",
        handlelength=0.9,
        handleheight=0.9,
        labelspacing=0.28,
        title="Dirtiest grid on top",
        title_fontsize=7.0,
        alignment="left",
    )


def _objectives(
    figure: SubFigure, frame: pd.DataFrame, compared: list[str], methods: list[str]
) -> None:
    """Each objective per epoch: totals over sites, or the mean TTFT weighted by requests."""
    panels = figure.subplots(1, len(OBJECTIVES))
    for panel, letter, objective in zip(panels, "defg", OBJECTIVES, strict=True):
        lowest = 0.0
        for method, dash in zip(compared, DASHES[-len(compared) :], strict=True):
            values = epoch_objective(frame[frame["method"] == method], objective)
            lowest = min(lowest, float(values.min()))
            panel.plot(
                hours(values.index),
                values,
                color=method_style(method, methods)[0],
                linestyle=dash,
                label=method_name(method),
            )
        panel.set_ylim(bottom=1.05 * lowest)
        panel_label(panel, f"{letter}  {OBJECTIVE_NAMES[objective]}, {EPOCH_UNITS[objective]}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(compared))


def epoch_objective(frame: pd.DataFrame, objective: str) -> pd.Series:
    """Fleet value of an objective by epoch, mean over seeds."""
    if objective == "ttft_s":
        weighted = frame.assign(weighted=frame["ttft_s"] * frame["requests_per_s"])
        sums = weighted.groupby(["seed", "time"])[["weighted", "requests_per_s"]].sum()
        values = sums["weighted"] / sums["requests_per_s"]
    else:
        values = frame.groupby(["seed", "time"])[objective].sum()
    return values.groupby("time").mean()
