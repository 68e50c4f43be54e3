"""Trade-offs between objectives: all pairs, all schedulers, relative to round robin."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from marlin.analysis.plots.style import GREY, MARLIN_STYLES, PAGE_IN, method_style
from marlin.analysis.schema import (
    BALANCED,
    OBJECTIVE_NAMES,
    OBJECTIVES,
    is_marlin,
    method_name,
    parts_of,
)
from marlin.analysis.summary import methods_of, relative_to_reference

# Beyond this spread a linear axis would press the good schedulers together.
LOG_SPREAD = 4.0
LOG_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
LEGEND_COLUMNS = 5


def draw(frame: pd.DataFrame) -> Figure:
    """Six panels from episodes: point, and interval where seeds differ; lower left is better.

    Variants of a baseline for one objective are smaller points that look like it.
    """
    table = relative_to_reference(frame)
    methods = methods_of(frame)
    wide = table.pivot(index="method", columns="objective", values="ratio").loc[methods]
    low = table.pivot(index="method", columns="objective", values="ratio_low").loc[methods]
    high = table.pivot(index="method", columns="objective", values="ratio_high").loc[methods]
    named = [m for m in methods if m in MARLIN_STYLES or not parts_of(m)[1]]
    legend_rows = -(-len(named) // LEGEND_COLUMNS)
    figure = Figure(figsize=(PAGE_IN, 4.25 + 0.16 * legend_rows), layout="constrained")
    grid = figure.subplots(2, 3)
    for panel, (first, second) in zip(grid.flat, combinations(OBJECTIVES, 2), strict=True):
        _front(panel, wide[[first, second]].to_numpy())
        for method in methods:
            point = wide.loc[method]
            colour, _ = method_style(method, methods)
            errors = [
                [[point[name] - low.loc[method, name]], [high.loc[method, name] - point[name]]]
                for name in (first, second)
            ]
            panel.errorbar(
                point[first], point[second], xerr=errors[0], yerr=errors[1], ecolor=colour,
                elinewidth=0.9, **_marker(method, methods),
            )  # fmt: skip
        _axis(panel, "x", first, wide[first].to_numpy())
        _axis(panel, "y", second, wide[second].to_numpy())
    handles = [Line2D([], [], label=method_name(m), **_marker(m, methods)) for m in named]
    figure.legend(handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS)
    return figure


def _marker(method: str, methods: list[str]) -> dict[str, Any]:
    """Filled markers for MARLIN, hollow ones for baselines."""
    colour, marker = method_style(method, methods)
    filled = is_marlin(method)
    drawn_large = method in MARLIN_STYLES or not parts_of(method)[1]
    return {
        "marker": marker,
        "markersize": 6.5 if method == BALANCED else 5.5 if drawn_large else 3.5,
        "markeredgecolor": "white" if filled else colour,
        "markeredgewidth": 0.4 if filled else 1.0,
        "markerfacecolor": colour if filled else "white",
        "linestyle": "none",
    }


def _front(panel: Axes, points: np.ndarray) -> None:
    """Staircase through the points that no other dominates in this pair."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    best = np.minimum.accumulate(ordered[:, 1])
    front = ordered[np.r_[True, best[1:] < best[:-1]]]
    panel.step(front[:, 0], front[:, 1], where="post", color=GREY, linewidth=0.7, zorder=1)


def _axis(panel: Axes, which: str, objective: str, values: np.ndarray) -> None:
    """Label in words; per cent of round robin; logarithmic where schedulers differ widely."""
    label = f"{OBJECTIVE_NAMES[objective]}, % of round robin"
    panel.set(**{f"{which}label": label})
    axis = panel.xaxis if which == "x" else panel.yaxis
    if values.max() > LOG_SPREAD * values.min():
        panel.set(**{f"{which}scale": "log"})
        axis.set_major_locator(FixedLocator(LOG_TICKS))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    panel.margins(0.08)
    line = panel.axvline if which == "x" else panel.axhline
    line(1.0, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
