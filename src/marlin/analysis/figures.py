"""Figures of a suite as PDF, SVG and PNG: Pareto, day, learning, calibration, power."""

from __future__ import annotations

from pathlib import Path

from marlin.analysis import summary
from marlin.analysis.plots import calibration, day, learning, pareto, power
from marlin.analysis.plots.style import save, style
from marlin.analysis.schema import EPISODES, EPOCHS, LEARNING, read
from marlin.analysis.tables import measured_power, serving
from marlin.entry import results_entry


def build(results_dir: Path) -> None:
    """Write `figures/{pareto,day,learning,calibration,power}.{pdf,svg,png}` of a result tree.

    Raises UserError when an input file is missing or incomplete.
    """
    frame = summary.main_runs(read(results_dir / EPISODES.name, EPISODES))
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
        for name, figure in figures.items():
            save(figure, results_dir / "figures", name)


if __name__ == "__main__":
    results_entry(build)
