"""Time of a day's bounds, and how far above them schedulers are: `python benchmarks/bounds.py`.

Settings are arguments, as in `python benchmarks/bounds.py scenario=fortnight`. A scheduler's value
is its mean over the test days, divided by the mean of the bounds; that of a weighted sum has the
objectives of weighted round robin on the same day as its units.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd

from marlin import compose, inputs
from marlin.bounds.__main__ import bounds_of
from marlin.bounds.judges import fluid_bound, fluid_day
from marlin.bounds.targets import ALONE, TARGETS, target_value
from marlin.bounds.work import fluid_work
from marlin.evaluate import run_day, summary
from marlin.fleet.contract import OBJECTIVES
from marlin.task import Task, load_task, make_scheduler

METHODS = (
    "weighted_round_robin", "nearest", "ttft_greedy", "carbon_greedy", "water_greedy",
    "cost_greedy", "weighted_greedy", "helix", "waterwise", "casper",
)  # fmt: skip


def seconds_of_bounds(task: Task) -> float:
    """CPU time of all fluid bounds of the first test day."""
    began = time.process_time()
    truth = task.truth(task.test_days()[0] + np.arange(task.world.epochs_per_day))
    day = fluid_day(task.world, fluid_work(task.world), truth)
    for weights in TARGETS.values():
        fluid_bound(task.world, day, truth, weights, np.ones(len(OBJECTIVES)))
    return time.process_time() - began


def main() -> None:
    settings = sys.argv[1:]
    run = compose.compose(settings)
    ready = inputs.ready(run)
    task = load_task(run, ready.scenario, ready.profiles)
    sites, seconds = len(task.world.sites), seconds_of_bounds(task)
    print(f"all fluid bounds of a day, {sites} sites: {seconds:.1f} s of processor time")
    table = bounds_of(run)
    fluid = table[table["judge"] == "fluid"]
    bound = fluid[fluid["kind"] == "bound"].groupby("target")["value"].mean()
    replay = table[(table["judge"] == "replay") & (table["kind"] == "bound")]
    least = replay.groupby("target")["value"].mean()
    columns = {"replay bound": least / bound}
    for kind in ("mpc_perfect", "best_static"):
        columns[kind] = fluid[fluid["kind"] == kind].groupby("target")["value"].mean() / bound
    reference = fluid[fluid["kind"] == "weighted_round_robin"].drop_duplicates("day")
    for method in METHODS:
        scheduler = make_scheduler(compose.compose([*settings, f"method={method}"]))
        values, unserved = [], 0.0
        for start, own in zip(
            task.test_days(), reference[list(OBJECTIVES)].to_numpy(), strict=True
        ):
            found = summary(run_day(task, scheduler, start, 0, "").outcomes)
            objectives = np.array([found[name] for name in OBJECTIVES])
            values.append({name: target_value(name, objectives, own) for name in TARGETS})
            unserved = max(unserved, 1.0 - found["served"] / found["requests"])
        columns[f"{method} ({unserved:.1e} unserved)"] = pd.DataFrame(values).mean() / bound
    targets = [*ALONE, *(name for name in TARGETS if name not in ALONE)]
    print(pd.DataFrame(columns).loc[targets].T.round(3).to_string())


if __name__ == "__main__":
    main()
