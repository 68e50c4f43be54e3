"""Pictures of every scheduler on one day: `python -m marlin.analysis.behaviour RESULTS FOLDER`.

Writes `FOLDER/<method>.png` for every method of a result tree, from the day that its
`epochs.parquet` follows; the docs' pages of the schedulers show them.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from marlin.analysis.plots import behaviour
from marlin.analysis.plots.style import METADATA, style
from marlin.analysis.schema import EPOCHS, parts_of, read
from marlin.entry import guard
from marlin.files import write_bytes


def build(results: Path, folder: Path) -> list[Path]:
    """Draw every method, not its variants; returns the files."""
    epochs = read(results / EPOCHS.name, EPOCHS)
    paths = []
    with style():
        for method in sorted(set(epochs["method"])):
            if parts_of(method)[1]:
                continue
            stream = io.BytesIO()
            behaviour.draw(epochs, method).savefig(
                stream, format="png", dpi=120, metadata=METADATA["png"]
            )
            paths.append(folder / f"{method}.png")
            write_bytes(paths[-1], stream.getvalue())
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m marlin.analysis.behaviour", description=__doc__
    )
    parser.add_argument("results", type=Path, help="result tree of a suite")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    given = parser.parse_args(arguments)
    with guard():
        paths = build(given.results, given.folder)
        print(f"{len(paths)} pictures in {given.folder}")


if __name__ == "__main__":
    main()
