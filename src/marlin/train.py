"""Train a method: `python -m marlin.train -m method=marlin,round_robin seed=0,1`.

Writes `policy.npz` and `learning.parquet` into the run's folder. Methods without anything to
learn write an empty policy, so that every run has the same files.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from marlin.config import RunConfig
from marlin.entry import hydra_entry
from marlin.files import write_parquet
from marlin.fleet.contract import OBJECTIVES
from marlin.task import load_run, make_scheduler

LEARNING_COLUMNS = (
    "scenario", "method", "ablation", "seed", "training_epochs", "variant", *OBJECTIVES,
)  # fmt: skip


def run_one(run: RunConfig, folder: Path) -> None:
    """Train one run and leave its policy and learning curve in `folder`."""
    task = load_run(run)
    scheduler = make_scheduler(run)
    scheduler.reset(task.world, run.seed)
    rows = scheduler.train(task)
    scheduler.save(folder / "policy.npz")
    identity = {
        "scenario": run.scenario.name,
        "method": run.method["name"],
        "ablation": run.ablation,
        "seed": run.seed,
    }
    table = pd.DataFrame([identity | row for row in rows], columns=list(LEARNING_COLUMNS))
    write_parquet(folder / "learning.parquet", table)
    print(f"{run.method['name']} seed {run.seed}: policy and learning curve in {folder}")


def main() -> None:
    """Command line of the stage."""
    hydra_entry(run_one)


if __name__ == "__main__":
    main()
