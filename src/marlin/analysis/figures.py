"""Figures of a suite as PDF, SVG and PNG: Pareto, day, learning, calibration, power, ablations."""

from __future__ import annotations

from pathlib import Path

from marlin.analysis import summary
from marlin.analysis.plots import ablations, calibration, day, learning, pareto, power
from marlin.analysis.plots.style import save, style
from marlin.analysis.schema import EPISODES, EPOCHS, LEARNING, NO_ABLATION, read
from marlin.analysis.tables import measured_power, serving
from marlin.entry import results_entry


def build(results_dir: Path) -> None:
    """Write `figures/{pareto,day,learning,calibration,power}.{pdf,svg,png}` of a result tree.

    And `ablations`, where a part of a method was switched off. Raises UserError when an input file
    is missing or incomplete.
    """
    episodes = read(results_dir / EPISODES.name, EPISODES)
    frame = summary.main_runs(episodes)
    changes = summary.ablations(episodes)
    epochs = read(results_dir / EPOCHS.name, EPOCHS)
    curves = read(results_dir / LEARNING.name, LEARNING)
    _, silicon = serving(results_dir)
    baseline = summary.best_baselines(frame)["carbon_kg"]
    with style():
        figures = {
            "pareto": pareto.draw(frame),
            "day": day.draw(epochs, baseline),
            "learning": learning.draw(curves),
            "calibration": calibration.draw(silicon),
            "power": power.draw(measured_power(results_dir)),
        }
        if len(changes):
            ablated = episodes[episodes["ablation"] != NO_ABLATION]
            figures["ablations"] = ablations.draw(changes, ablated["seed"].nunique())
        for name, figure in figures.items():
            save(figure, results_dir / "figures", name)


if __name__ == "__main__":
    results_entry(build)
