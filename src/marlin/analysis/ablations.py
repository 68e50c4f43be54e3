"""Ablations run by hand, as a table and a figure.

`python -m marlin.analysis.ablations FOLDER RUN_FOLDER...` takes evaluated runs of a sweep over
`ablation` (`none` among them) and writes `ablations.csv` and `ablations.{pdf,svg,png}` to FOLDER.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marlin.analysis import summary
from marlin.analysis.plots import ablations
from marlin.analysis.plots.style import save, style
from marlin.analysis.schema import EPISODES, NO_ABLATION, read
from marlin.entry import guard
from marlin.errors import UserError
from marlin.files import write_text


def build(folder: Path, runs: Sequence[Path]) -> Path:
    """Write table and figure of evaluated run folders; returns where the picture is.

    Raises UserError where a run is not evaluated, occurs twice (a sweep over more than ablations
    and seeds), or has no full method to be held against.
    """
    episodes = pd.concat([read(run / EPISODES.name, EPISODES) for run in runs], ignore_index=True)
    if episodes.duplicated(list(EPISODES.keys)).any():
        raise UserError(
            "two of the folders hold the same ablation and seed: give runs of one sweep over "
            "ablations and seeds alone"
        )
    whole = episodes.loc[episodes["ablation"] == NO_ABLATION, "method"]
    alone = sorted(set(episodes["method"]) - set(whole))
    if alone:
        raise UserError(
            f"no run of {alone[0]} without ablation is among the folders: add those of "
            f"ablation={NO_ABLATION}"
        )
    changes = summary.ablations(episodes)
    with style():
        figure = ablations.draw(changes, episodes["seed"].nunique())
        save(figure, folder, "ablations")
    write_text(folder / "ablations.csv", changes.to_csv(index=False, lineterminator="\n"))
    return folder / "ablations.png"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where table and figure go")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_FOLDER")
    given = parser.parse_args(arguments)
    print(f"figure: {build(given.folder, given.runs)}")


if __name__ == "__main__":
    with guard():
        main()
