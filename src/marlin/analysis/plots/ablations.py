"""What each part of a method is worth: changes of all objectives without it, a panel each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from marlin.analysis.plots.style import BLUE, GREY, PAGE_IN, VERMILION, panel_label
from marlin.analysis.schema import (
    BOUND_TARGETS,
    OBJECTIVE_NAMES,
    method_name,
    order_methods,
    parts_of,
)
from marlin.analysis.summary import MEAN_OF_FOUR
from marlin.errors import UserError

PANELS = {**OBJECTIVE_NAMES, MEAN_OF_FOUR: "Mean of four"}
LINEAR_PERCENT = 10.0  # logarithmic beyond: one part may matter a hundred times as much as another
TICKS_PERCENT = (-10, 0, 10, 100, 1000, 10_000)
ROW_IN = 0.21
BALANCED_POINT: dict[str, Any] = {"marker": "o", "markersize": 4.5, "color": VERMILION}
VARIANT_POINT: dict[str, Any] = {
    "marker": "D", "markersize": 3.5, "color": BLUE, "markerfacecolor": "white",
}  # fmt: skip


def draw(changes: pd.DataFrame, seeds: int) -> Figure:
    """A row an ablation, a panel an objective and one for their geometric mean.

    `changes` is what `summary.ablations` gives. Full circles are the balanced policy; hollow
    diamonds the policy for the panel's objective alone. Raises UserError where nothing was ablated.
    """
    if changes.empty:
        raise UserError("no run switched off a part of a method: add ablations to the runs")
    frame = changes.assign(base=[parts_of(method)[0] for method in changes["method"]])
    rows = _rows(frame)
    figure = Figure(figsize=(PAGE_IN, 0.95 + ROW_IN * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for panel, letter, (objective, name) in zip(panels, "abcde", PANELS.items(), strict=True):
        panel.axvline(0.0, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
        for place, (base, ablation) in enumerate(rows):
            cells = frame[(frame["base"] == base) & (frame["ablation"] == ablation)]
            for _, change in cells[cells["objective"] == objective].iterrows():
                variant = parts_of(str(change["method"]))[1]
                if not variant:
                    _point(panel, change, place - 0.17, BALANCED_POINT)
                elif variant == BOUND_TARGETS.get(objective):
                    _point(panel, change, place + 0.17, VARIANT_POINT)
        panel.set_xscale("symlog", linthresh=LINEAR_PERCENT, linscale=1.0)
        _ticks(panel)
        panel.set_xlabel("Change, %")
        panel_label(panel, f"{letter}  {name}")
    bases = {base for base, _ in rows}
    labels = [f"{method_name(b)}: {a}" if len(bases) > 1 else a for b, a in rows]
    panels[0].set_yticks(range(len(rows)), labels)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    named = method_name(bases.pop()) if len(bases) == 1 else "Methods"
    ran = f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
    handles = [
        Line2D([], [], label=f"{named}, balanced ({ran})", linestyle="none", **BALANCED_POINT),
        Line2D([], [], label="for the panel's objective alone", linestyle="none", **VARIANT_POINT),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _rows(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Methods in the order of the tables, and the ablations of each as they come."""
    return [
        (base, ablation)
        for base in order_methods(set(frame["base"]))
        for ablation in frame.loc[frame["base"] == base, "ablation"].unique()
    ]


def _point(panel: Axes, change: pd.Series, height: float, look: dict[str, Any]) -> None:
    """An estimate with its interval."""
    middle = float(change["change_percent"])
    errors = np.abs([[float(change[f"change_percent_{end}"]) - middle] for end in ("low", "high")])
    panel.errorbar(middle, height, xerr=errors, linestyle="none", elinewidth=1.0, **look)


def _ticks(panel: Axes) -> None:
    """Round numbers of per cent within what is drawn, as many as have room."""
    low, high = panel.get_xlim()
    low, high = min(low, -1.2 * LINEAR_PERCENT), max(high, 1.2 * LINEAR_PERCENT)
    panel.set_xlim(low, high)
    within = [tick for tick in TICKS_PERCENT if low <= tick <= high]
    panel.xaxis.set_major_locator(FixedLocator(within))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(_signed))


def _signed(value: float, _: int) -> str:
    return f"{value:+g}".replace("-", "\u2212") if value else "0"
