"""What the agents of marlin_nash agreed on, and what each could gain by leaving it.

`python -m marlin.agreement --output FILE [RUN_FOLDER...]` plays the training days that they
bargained about once more, under the fluid model: an agent's cost beside that of the even split, and
the share of it that the agent would save by claiming another weight while others keep to theirs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from marlin.compose import load
from marlin.config import RunConfig
from marlin.entry import guard
from marlin.errors import UserError
from marlin.files import write_parquet
from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import TRAIN
from marlin.schedulers.marlin_nash import MarlinNash
from marlin.schedulers.marlin_nash.bargaining import claim_gains
from marlin.schedulers.marlin_nash.practice import home_of, make_record, spread
from marlin.schedulers.marlin_nash.training import bargaining_days, make_policy, unpack
from marlin.task import Task, load_run, make_scheduler

COLUMNS = (
    "scenario", "method", "ablation", "seed", "objective", "weight", "cost_ratio", "claim_gain",
)  # fmt: skip


def agents_of(task: Task, options: MarlinNash) -> Iterator[dict[str, Any]]:
    """A row an agent of what a trained method agreed on; none where no day was bargained about."""
    run = task.run
    days = bargaining_days(options, task)
    if not days:
        return
    policy = make_policy(options, run.seed)
    agreement = unpack(policy, options.weights())
    practised = spread(np.array(task.days(TRAIN)), options.record_days)
    record = make_record(task, spread(practised, days), options.lookahead)
    epochs = task.world.epochs_per_day
    gained = claim_gains(
        policy, options.market, home_of(task), record, torch.arange(days) * epochs, epochs,
        agreement.weights, options.least_weight,
    )  # fmt: skip
    identity = (run.scenario.name, options.name, run.ablation, run.seed)
    for agent in zip(OBJECTIVES, agreement.weights, agreement.costs, gained, strict=True):
        yield dict(zip(COLUMNS, (*identity, *agent), strict=True))


def trained(folder: Path) -> tuple[RunConfig, MarlinNash]:
    """The run in a folder and what it trained. Raises UserError where it is of another method."""
    run = load(folder / "resolved.yaml")
    options = make_scheduler(run)
    if not isinstance(options, MarlinNash):
        raise UserError(f"{folder} is a run of {run.method['name']}: give runs of marlin_nash")
    options.load(folder / "policy.npz")
    return run, options


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The agents of the run in a folder, as `agents_of`; raises what `trained` does."""
    run, options = trained(folder)
    rows = list(agents_of(load_run(run), options))
    if not rows:
        print(f"{folder}: the budget left no day to bargain about, so nothing was agreed on")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table of the stage; of no runs, an empty one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*", metavar="RUN_FOLDER")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [row for folder in given.folders for row in rows_of(folder)]
    write_parquet(given.output, pd.DataFrame(rows, columns=list(COLUMNS)))
    print(f"{len(rows)} agents of {len(given.folders)} runs in {given.output}")


if __name__ == "__main__":
    with guard():
        main()
