"""Pictures of what was read: a user's trace and a user's fleet."""

from __future__ import annotations

import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from marlin.analysis.plots.style import BASELINE_COLOURS, BLUE, PAGE_IN, panel_label, style

BIN_S = (1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400)
UNITS = ((86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "s"))
MOST_BINS = 400
LENGTHS = np.linspace(0.0, 1.0, 201)
SHOWN = 12


def trace_figure(
    stamps_us: dict[str, np.ndarray],
    lengths: dict[str, dict[str, np.ndarray]],
    bars: dict[str, int],
    bars_title: str,
) -> Figure:
    """Rate over time, prompt and output lengths by service, and requests by name.

    `stamps_us` holds sorted arrivals by service, `lengths` quantiles at LENGTHS by kind (prompt,
    output) and service, `bars` numbers of requests.
    """
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(PAGE_IN, 4.4), layout="constrained")
        _rates(axes[0, 0], stamps_us)
        for axis, (kind, by_service) in zip(axes[1], lengths.items(), strict=True):
            for colour, (service, values) in zip(
                BASELINE_COLOURS, list(by_service.items())[: len(BASELINE_COLOURS)], strict=False
            ):
                axis.plot(values, LENGTHS, color=colour, label=service)
            axis.set(xscale="log", xlabel=f"{kind} length (tokens)", ylabel="share of requests")
            axis.set_ylim(0, 1.02)
            panel_label(axis, f"{kind} length")
        _bars(axes[0, 1], bars)
        panel_label(axes[0, 1], bars_title)
        if len(stamps_us) > 1:
            axes[1, 0].legend()
        plt.close(figure)
    return figure


def fleet_figure(
    names: list[str],
    zones: list[str],
    nodes: dict[str, list[int]],
    places: np.ndarray,
    rtt_ms: np.ndarray,
) -> Figure:
    """Sites on a grid of degrees, nodes by type and site, and round trips between sites.

    `nodes` holds node counts by type, `places` [D, 2] latitudes and longitudes, `rtt_ms` [D, D]
    round trips with NaN where none was measured.
    """
    with style():
        height = max(4.6, 2.4 + 0.16 * len(names))
        figure = plt.figure(figsize=(PAGE_IN, height), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=[2.0, height - 2.0])
        chart = figure.add_subplot(grid[0, :])
        total = np.sum(list(nodes.values()), axis=0)
        chart.scatter(places[:, 1], places[:, 0], s=15 + 120 * total / total.max(), color=BLUE,
                      alpha=0.6)  # fmt: skip
        labelled: list[tuple[float, float]] = []
        for zone in dict.fromkeys(zones):
            latitude, longitude = places[zones.index(zone)]
            # The bars name every zone; here a label that would lie on another is left out.
            near = (abs(latitude - a) < 10 and abs(longitude - b) < 40 for a, b in labelled)
            if any(near):
                continue
            labelled.append((latitude, longitude))
            chart.annotate(zone, (longitude, latitude), (4, 4), textcoords="offset points")
        chart.set(xlim=(-180, 180), ylim=(-60, 75), xlabel="longitude (°)", ylabel="latitude (°)")
        chart.set_xticks(range(-180, 181, 60))
        panel_label(chart, "zones of the sites (area: nodes)")
        axis = figure.add_subplot(grid[1, 0])
        left = np.zeros(len(names))
        for colour, (kind, counts) in zip(BASELINE_COLOURS, nodes.items(), strict=False):
            axis.barh(range(len(names)), counts, left=left, color=colour, label=kind)
            left += counts
        labels = [f"{name} ({zone})" for name, zone in zip(names, zones, strict=True)]
        axis.set_yticks(range(len(names)), labels)
        axis.invert_yaxis()
        axis.set_xlabel("nodes")
        axis.grid(axis="y", visible=False)
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        heat = figure.add_subplot(grid[1, 1])
        sns.heatmap(
            rtt_ms, ax=heat, cmap="cividis_r", annot=len(names) <= SHOWN, fmt=".0f",
            annot_kws={"size": 5.5}, xticklabels=names, yticklabels=False,
            cbar_kws={"label": "round trip between sites (ms)"},
        )  # fmt: skip
        heat.tick_params(axis="x", rotation=90)
        plt.close(figure)
    return figure


def _rates(axis: Axes, stamps_us: dict[str, np.ndarray]) -> None:
    first = min(int(stamps[0]) for stamps in stamps_us.values())
    last = max(int(stamps[-1]) for stamps in stamps_us.values())
    span = max((last - first) / 1e6, 1.0)
    size = next((size for size in BIN_S if span / size <= MOST_BINS), span / MOST_BINS)
    edges = np.arange(np.ceil(span / size) + 1) * size
    unit, name = next(
        (unit, name) for unit, name in UNITS
        if span >= 2 * unit or unit == 1
    )  # fmt: skip
    for colour, (_, stamps) in zip(
        BASELINE_COLOURS, list(stamps_us.items())[: len(BASELINE_COLOURS)], strict=False
    ):
        number, _ = np.histogram((stamps - first) / 1e6, edges)
        axis.step(edges[:-1] / unit, number / size, where="post", color=colour, lw=0.8)
    start = np.datetime64(first, "us").astype("datetime64[s]")
    axis.set(xlabel=f"{name} since {start} UTC", ylabel="requests per second")
    axis.set_ylim(bottom=0)
    panel_label(axis, f"rate (means of {size:g} s)")


def _bars(axis: Axes, bars: dict[str, int]) -> None:
    ordered = sorted(bars.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:SHOWN]
    if len(ordered) > SHOWN:
        shown.append((f"{len(ordered) - SHOWN} others", sum(n for _, n in ordered[SHOWN:])))
    axis.barh([name.replace("$", r"\$") for name, _ in shown], [n for _, n in shown], color=BLUE)
    axis.invert_yaxis()
    axis.set_xlabel("requests")
    axis.grid(axis="y", visible=False)
