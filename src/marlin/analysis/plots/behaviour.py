"""One scheduler on one day: where it sends requests, what it keeps on, how long users wait."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from marlin.analysis.plots.day import (
    HOURS,
    by_site,
    cleanest_first,
    epoch_objective,
    hours,
    site_legend,
)
from marlin.analysis.plots.style import GREY, PAGE_IN, VERMILION, panel_label
from marlin.analysis.schema import NO_ABLATION, REFERENCE_METHOD, method_name


def draw(epochs: pd.DataFrame, method: str) -> Figure:
    """Three panels of the first scenario's day, mean over seeds.

    a: requests routed to each site; b: nodes on at each site; c: TTFT beside round robin's. Sites
    are stacked from the cleanest grid of the day at the bottom to the dirtiest.
    """
    frame = epochs[epochs["ablation"] == NO_ABLATION]
    frame = frame[frame["scenario"] == frame["scenario"].min()]
    own, reference = (frame[frame["method"] == m] for m in (method, REFERENCE_METHOD))
    sites, colours = cleanest_first(by_site(own, "carbon_g_per_kwh"))
    figure = Figure(figsize=(PAGE_IN, 2.3), layout="constrained")
    panels = figure.subplots(1, 3)
    requests = by_site(own, "requests_per_s")[sites]
    time = hours(requests.index)
    panels[0].stackplot(time, 1e-3 * requests.T.to_numpy(), colors=colours, linewidth=0)
    panel_label(panels[0], "a  Requests, thousand/s")
    nodes = by_site(own, "nodes_on")[sites]
    panels[1].stackplot(time, nodes.T.to_numpy(), colors=colours, linewidth=0)
    panel_label(panels[1], "b  Nodes on")
    for part, colour, dash, name in (
        (reference, GREY, "--", method_name(REFERENCE_METHOD)),
        (own, VERMILION, "-", method_name(method)),
    ):
        values = epoch_objective(part, "ttft_s")
        panels[2].plot(hours(values.index), values, color=colour, linestyle=dash, label=name)
    panel_label(panels[2], "c  TTFT, s")
    for panel in panels:
        panel.set_xlim(0, 24)
        panel.set_ylim(bottom=0)
        panel.set_xticks(HOURS)
        panel.set_xlabel("Hour of day, UTC", labelpad=1.5)
    site_legend(figure, sites, colours)
    # Below: a spike of TTFT may be anywhere.
    figure.legend(*panels[2].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure
