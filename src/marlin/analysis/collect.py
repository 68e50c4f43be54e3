"""Gather the files of all runs into one table each.

`runs/<scenario>/<method>/<ablation>/seed-<k>/*.parquet` become `episodes.parquet`,
`epochs.parquet` and `learning.parquet` at the root of the result tree, sorted by their keys.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from marlin.analysis.schema import EPISODES, EPOCHS, LEARNING, FileSchema, check, read
from marlin.entry import results_entry
from marlin.errors import UserError
from marlin.files import write_parquet

RUN_FOLDERS = "runs/*/*/*/seed-*"


def run_folders(results: Path) -> list[Path]:
    """All run folders of a result tree, sorted. Raises UserError when there is none."""
    folders = sorted(path for path in results.glob(RUN_FOLDERS) if path.is_dir())
    if not folders:
        raise UserError(f"{results / 'runs'} holds no runs: run the suite's evaluations first")
    return folders


def _check_place(frame: pd.DataFrame, folder: Path, path: Path) -> None:
    """The rows must be those of the folder they lie in; variants extend the method's name."""
    scenario, method, ablation, seed = folder.parts[-4:]
    belongs = (
        (frame["scenario"] == scenario)
        & ((frame["method"] == method) | frame["method"].str.startswith(f"{method}_"))
        & (frame["ablation"] == ablation)
        & (frame["seed"].astype(str) == seed.removeprefix("seed-"))
    )
    if not belongs.all():
        raise UserError(f"{path} holds rows of another run: evaluate that run again")


def gather(folders: list[Path], schema: FileSchema) -> pd.DataFrame:
    """The rows of one kind of file of all runs, checked and sorted.

    Raises UserError naming the file that is missing, malformed or in the wrong folder.
    """
    frames = []
    for folder in folders:
        path = folder / schema.name
        frame = read(path, schema)
        # A method that does not learn has an empty curve, without column types to join.
        if len(frame):
            _check_place(frame, folder, path)
            frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=list(schema.columns))
    return check(pd.concat(frames, ignore_index=True), schema, Path(schema.name))


def collect(results: Path) -> None:
    """Write the three collected tables of a result tree."""
    folders = run_folders(results)
    for schema in (EPISODES, EPOCHS, LEARNING):
        write_parquet(results / schema.name, gather(folders, schema))


if __name__ == "__main__":
    results_entry(collect)
