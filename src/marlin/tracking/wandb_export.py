"""Replay finished runs into offline Weights & Biases runs: `python -m ... RESULTS`.

Results are the files of the run folders; this is a copy of them for dashboards. It needs no
account and no network. Ids are stable, so that sending a suite twice updates the same runs:
`wandb sync RESULTS/wandb/offline-run-*`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from marlin import provenance
from marlin.entry import guard
from marlin.errors import UserError
from marlin.files import write_json

PROJECT = "marlin"
OBJECTIVES = ("ttft_s", "carbon_kg", "water_l", "cost_usd")


def run_id(suite: str, record: dict[str, Any]) -> str:
    """Id of a run on the tracker: the same suite, cell, seed and settings give the same id."""
    keys = ("scenario", "method", "ablation", "seed", "config_sha256")
    text = "/".join([suite, *(str(record[key]) for key in keys)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def history(learning: pd.DataFrame) -> list[dict[str, float]]:
    """Learning curves as one row a step: `<variant>/<objective>` beside `training_epochs`."""
    rows = []
    for step, part in learning.groupby("training_epochs"):
        row = {"training_epochs": float(str(step))}
        for _, values in part.iterrows():
            row |= {f"{values['variant']}/{name}": float(values[name]) for name in OBJECTIVES}
        rows.append(row)
    return rows


def summary(episodes: pd.DataFrame) -> dict[str, float]:
    """Means over the test days: `<method or variant>/<column>`."""
    means = episodes.groupby("method").mean(numeric_only=True).drop(columns="seed")
    return {
        f"{method}/{name}": float(value)
        for method, values in means.iterrows()
        for name, value in values.items()
    }


def export(results: Path) -> dict[str, dict[str, Any]]:
    """Write all runs of a result tree to `RESULTS/wandb`, replacing an earlier export.

    Returns the index that is written beside them: id, group and folder of every run.

    Raises:
        UserError: there is no finished run.
    """
    folders = sorted(path.parent for path in results.glob("runs/*/*/*/seed-*/run.json"))
    if not folders:
        raise UserError(f"{results / 'runs'} holds no finished run: run the suite first")
    shutil.rmtree(results / "wandb", ignore_errors=True)
    index = {
        folder.relative_to(results).as_posix(): replay(folder, results.name, results)
        for folder in folders
    }
    write_json(results / "wandb" / "index.json", index)
    return index


def replay(folder: Path, suite: str, into: Path) -> dict[str, Any]:
    """Write one finished run to `into/wandb`, scores too if it was evaluated; returns its entry.

    Raises:
        UserError: the run did not finish.
    """
    record = provenance.read(folder)
    learning = pd.read_parquet(folder / "learning.parquet")
    scores = folder / "episodes.parquet"
    settings = yaml.safe_load((folder / provenance.RESOLVED).read_text(encoding="utf-8"))
    cell = f"{record['scenario']}/{record['method']}"
    about: dict[str, Any] = {
        "group": cell,
        "id": run_id(suite, record),
        "job_type": "train" if len(learning) else "baseline",
        "name": f"{cell}/{record['ablation']}/seed-{record['seed']}",
        "tags": [suite, record["ablation"], record["code_sha256"][:12]],
    }
    run = _quiet_run(into, {"settings": settings, "provenance": record}, about)
    try:
        run.define_metric("*", step_metric="training_epochs")
        for row in history(learning):
            run.log(row)
        if scores.is_file():
            run.summary.update(summary(pd.read_parquet(scores)))
    finally:
        run.finish()
    return about


def _quiet_run(into: Path, config: dict[str, Any], about: dict[str, Any]) -> Any:
    """An offline run without console, git, code and machine statistics."""
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    quiet = wandb.Settings(
        mode="offline",
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    into.mkdir(parents=True, exist_ok=True)
    return wandb.init(project=PROJECT, dir=str(into), config=config, settings=quiet, **about)


def main() -> None:
    """Command line: RESULTS."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="result tree of a suite")
    given = parser.parse_args()
    with guard():
        index = export(given.results)
        print(f"{len(index)} offline runs in {given.results / 'wandb'}")


if __name__ == "__main__":
    main()
