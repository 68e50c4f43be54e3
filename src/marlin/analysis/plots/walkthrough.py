"""One epoch of MARLIN: proposals, votes, what came of them, and who pulled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from marlin.analysis.plots.style import GREY, PAGE_IN, SKY, VERMILION, panel_label
from marlin.analysis.schema import OBJECTIVE_NAMES

AGENT_NAMES = tuple(OBJECTIVE_NAMES.values())


@dataclass(frozen=True)
class EpochWalk:
    """What happened between the forecast of an epoch and its plan. N agents, D sites."""

    sites: tuple[str, ...]
    proposals: np.ndarray  # [N, D] mean routing share over models
    stages: np.ndarray  # [3, D] the same of consensus, refined and agreed plan
    sliders: np.ndarray  # [N + 3, D] power sliders of all of these
    scores: np.ndarray  # [N, N] of proposals (columns) by voters (rows)
    shares: np.ndarray  # [N] weight of every proposal in the consensus
    power: np.ndarray  # [N] voting power, sums to one
    capital: np.ndarray  # [2, N] before and after
    pulls: np.ndarray  # [N] of vetoes
    requests: np.ndarray  # [D] share of the requests that the plan sends to a site
    nodes_on: np.ndarray  # [D] share of a site's nodes


def draw(walk: EpochWalk) -> Figure:
    """Five panels.

    a: routing shares of proposals and of what came of them; b: power sliders; c: how voters score
    proposals, and the weight that these get; d: capital and vetoes; e: the plan carried out.
    """
    rows = [*AGENT_NAMES, "Consensus", "Refined", "Agreed"]
    figure = Figure(figsize=(PAGE_IN, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=(1.15, 1.0))
    routing, power = figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])
    votes, money, plan = (figure.add_subplot(grid[1, 2 * i : 2 * i + 2]) for i in range(3))
    table = np.concatenate([walk.proposals, walk.stages])
    _heat(routing, 100.0 * table, rows, walk.sites, "{:.0f}")
    panel_label(routing, "a  Routing share, %")
    _heat(power, 100.0 * walk.sliders, rows, walk.sites, "{:.0f}")
    panel_label(power, "b  Power slider, %")
    for panel in (routing, power):
        panel.axhline(len(AGENT_NAMES) - 0.5, color="black", linewidth=0.8)
    scored = np.concatenate([walk.scores, walk.shares[None]])
    voters = [f"{n} ({100 * p:.0f} %)" for n, p in zip(AGENT_NAMES, walk.power, strict=True)]
    _heat(votes, scored, [*voters, "Weight"], AGENT_NAMES, "{:.2f}")
    votes.axhline(len(AGENT_NAMES) - 0.5, color="black", linewidth=0.8)
    panel_label(votes, "c  Scores of proposals, by voter (power)")
    _capital(money, walk)
    _carried_out(plan, walk)
    return figure


def _heat(
    axes: Axes, table: np.ndarray, rows: list[str], columns: tuple[str, ...], text: str
) -> None:
    """A table whose cells are shaded by their value."""
    axes.imshow(table, cmap="Blues", aspect="auto", vmin=0.0, vmax=1.25 * max(table.max(), 1e-9))
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    for (y, x), value in np.ndenumerate(table):
        axes.text(x, y, text.format(value), ha="center", va="center", fontsize=5.5)


def _capital(axes: Axes, walk: EpochWalk) -> None:
    place = np.arange(len(AGENT_NAMES))
    axes.bar(place - 0.2, walk.capital[0], 0.38, color=GREY, label="before")
    axes.bar(place + 0.2, walk.capital[1], 0.38, color=VERMILION, label="after")
    axes.axhline(150.0, color="black", linewidth=0.8, linestyle="--")
    top = 1.35 * max(float(walk.capital.max()), 150.0)
    for x, pull in zip(place, walk.pulls, strict=True):
        if pull > 0.0:
            axes.text(x, 0.76 * top, f"veto\n{100 * pull:.0f} %", ha="center", va="bottom")
    axes.set_ylim(0.0, top)
    axes.set_xticks(place, AGENT_NAMES, rotation=30, ha="right", rotation_mode="anchor")
    axes.legend(loc="upper left", ncols=2)
    panel_label(axes, "d  Capital (line: veto allowed)")


def _carried_out(axes: Axes, walk: EpochWalk) -> None:
    place = np.arange(len(walk.sites))
    axes.barh(place - 0.2, 100.0 * walk.requests, 0.38, color=VERMILION, label="requests")
    axes.barh(place + 0.2, 100.0 * walk.nodes_on, 0.38, color=SKY, label="nodes on, of the site's")
    axes.set_yticks(place, walk.sites)
    axes.invert_yaxis()
    axes.set_xlabel("%", labelpad=1.5)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.36), ncols=2)
    panel_label(axes, "e  Carried out")
