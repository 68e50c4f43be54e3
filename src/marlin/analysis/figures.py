"""Figures of a suite as PDF, SVG and PNG: Pareto, day, learning, calibration."""

from __future__ import annotations

import argparse
from pathlib import Path

from marlin.analysis import summary
from marlin.analysis.plots import calibration, day, learning, pareto
from marlin.analysis.plots.style import save, style
from marlin.analysis.schema import EPISODES, EPOCHS, LEARNING, read
from marlin.analysis.tables import serving
from marlin.entry import guard


def build(results_dir: Path) -> None:
    """Write `figures/{pareto,day,learning,calibration}.{pdf,svg,png}` of a result tree.

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
        }
        for name, figure in figures.items():
            save(figure, results_dir / "figures", name)


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m marlin.analysis.figures RESULTS`."""
    parser = argparse.ArgumentParser(description=build.__doc__)
    parser.add_argument("results", type=Path, help="result tree of a suite")
    with guard():
        build(parser.parse_args(arguments).results)


if __name__ == "__main__":
    main()
