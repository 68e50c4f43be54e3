"""How much of the front searches find in one epoch, and how long a decision takes them.

    OMP_NUM_THREADS=1 python benchmarks/fronts.py

Hypervolume of all plans tried, mean of five seeds, over that of what all searches find together
with 8,192 calls each; 12 sites, noon of the first validation day, a warm fleet, nothing carried
over from the epoch before, SLIT untrained. The reference point is twice the even split. Times are
CPU times, medians over epochs at 64 calls; 64 sites are the 12 over and over.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import moocore
import numpy as np
from simulator import of_size

from marlin import compose
from marlin.fleet.contract import repeat, row
from marlin.fleet.simulator import step
from marlin.fleet.world import VALIDATION
from marlin.schedulers.base import Budget, Observation
from marlin.schedulers.nsga2 import Nsga2, Nsga2AsRun
from marlin.schedulers.nsga3 import Nsga3
from marlin.schedulers.plan_search import Trials
from marlin.schedulers.slit import Slit
from marlin.task import Task, load_run

SEARCHES = (Nsga2, Nsga3, Slit)
CALLS = (64, 256, 1024)
MANY = 8192
SEEDS = 5
REFERENCE = np.full(4, 2.0)
EPOCHS = 24


def tried(kind, observation: Observation, calls: int, seed: int) -> np.ndarray:
    """Objectives of every plan that a search tried, over the even split's, [P, 4]."""
    scheduler = kind()
    scheduler.reset(observation.world, seed)
    trials = Trials(replace(observation, budget=Budget(calls)), scheduler.decode)
    scheduler.search(trials, scheduler.start(observation))
    return np.concatenate(trials.costs) / scheduler.scale(trials)


def volume(costs: np.ndarray) -> float:
    return float(moocore.hypervolume(costs, ref=REFERENCE))


def decision_s(kind, task: Task, sites: int) -> float:
    """Median CPU seconds of a decision over the first epochs of a day."""
    scheduler, rng, seconds = kind(), np.random.default_rng(0), []
    start = task.days(VALIDATION)[0]
    pick = np.arange(start, start + EPOCHS)
    world, seen = task.world, row(task.forecast, pick)
    if sites != len(world.sites):
        world, seen = of_size(world, seen, sites, rng)
    scheduler.reset(world, 0)
    state = world.idle_state(1)
    for epoch in range(EPOCHS):
        now = row(seen, slice(epoch, epoch + 1))
        ahead = partial(repeat, now)
        time_of = task.epochs.time[start + epoch]
        observation = Observation(world, time_of, now, state, Budget(64), ahead)
        began = time.process_time()
        plan = scheduler.plan(observation)
        seconds.append(time.process_time() - began)
        state, _ = step(world, state, plan, now)
    return float(np.median(seconds))


def main() -> None:
    task = load_run(compose.compose(["method=nsga2"]))
    noon = task.days(VALIDATION)[0] + task.world.epochs_per_day // 2
    observation = task.observation(noon, task.world.idle_state(1))
    known = volume(np.concatenate([tried(kind, observation, MANY, 0) for kind in SEARCHES]))
    print(f"{'search':>12} " + " ".join(f"{calls:>7}" for calls in CALLS) + "   calls")
    for kind in SEARCHES:
        shares = [
            np.mean([volume(tried(kind, observation, calls, seed)) for seed in range(SEEDS)])
            / known
            for calls in CALLS
        ]
        print(f"{kind.__name__:>12} " + " ".join(f"{100 * share:6.1f}%" for share in shares))
    print(f"\n{'search':>12} {'12 sites':>9} {'64 sites':>9}   ms a decision")
    for kind in (*SEARCHES, Nsga2AsRun):
        times = [1e3 * decision_s(kind, task, sites) for sites in (12, 64)]
        print(f"{kind.__name__:>12} " + " ".join(f"{ms:9.1f}" for ms in times))


if __name__ == "__main__":
    main()
