"""Learning curves: validation objectives against simulated epochs, by variant of MARLIN."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from marlin.analysis.plots.style import COLUMN_IN, GREY, VARIANT_STYLES, panel_label
from marlin.analysis.schema import BALANCED, NO_ABLATION, OBJECTIVE_NAMES, OBJECTIVES
from marlin.errors import UserError

VARIANT_NAMES = {
    "balanced": "Balanced",
    "ttft": "TTFT",
    "carbon": "Carbon",
    "water": "Water",
    "cost": "Cost",
}


def draw(learning: pd.DataFrame) -> Figure:
    """Four panels; the line is the mean over seeds and the band their range.

    Values are relative to the balanced variant's first checkpoint of the same scenario and seed,
    on the same validation days.
    """
    frame = learning[(learning["method"] == BALANCED) & (learning["ablation"] == NO_ABLATION)]
    if frame.empty:
        raise UserError(
            "learning.parquet holds no curve of marlin: train it without ablation in this suite"
        )
    relative = relative_to_start(frame)
    seeds = frame["seed"].nunique()
    figure = Figure(figsize=(COLUMN_IN, 3.6), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    variants = [name for name in VARIANT_STYLES if name in set(relative["variant"])]
    for panel, letter, objective in zip(grid.flat, "abcd", OBJECTIVES, strict=True):
        panel.axhline(1.0, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
        for variant in variants:
            own = relative[relative["variant"] == variant]
            colour, dash = VARIANT_STYLES[variant]
            sns.lineplot(
                own, x="training_epochs", y=objective, errorbar=("pi", 100), color=colour,
                linestyle=dash, label=VARIANT_NAMES[variant], legend=False, err_kws={"lw": 0},
                ax=panel,
            )  # fmt: skip
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}"))
        panel.xaxis.set_major_formatter(FuncFormatter(_thousands))
        panel_label(panel, f"{letter}  {OBJECTIVE_NAMES[objective]}")
    figure.supylabel("Validation days, % of first checkpoint", fontsize=7.5)
    for panel in grid.flat:
        panel.set(xlabel="", ylabel="")
    for panel in grid[-1]:
        panel.set_xlabel("Epochs, thousands")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    title = f"MARLIN variant, mean and range of {seeds} {'seed' if seeds == 1 else 'seeds'}"
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(variants), title=title,
        title_fontsize=7.0, handlelength=1.9, columnspacing=0.9, handletextpad=0.4,
    )  # fmt: skip
    return figure


def relative_to_start(frame: pd.DataFrame) -> pd.DataFrame:
    """Objectives over those of the balanced variant's first checkpoint, by scenario and seed."""
    keys = ["scenario", "seed"]
    balanced = frame[frame["variant"] == "balanced"]
    start = balanced.sort_values("training_epochs").groupby(keys)[list(OBJECTIVES)].first()
    joined = frame.join(start.add_suffix("_start"), on=keys)
    for objective in OBJECTIVES:
        joined[objective] = joined[objective] / joined[f"{objective}_start"]
    return joined


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}"
