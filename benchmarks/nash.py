"""How a trained marlin_nash does on random fleets, and what a decision takes.

    python benchmarks/nash.py RUN_FOLDER [--fleets N]

RUN_FOLDER is that of one seed (`policy.npz`, `resolved.yaml`). Days are of the training year.
Held-out fleets are random ones of seeds that no training draws, with their own even split as the
measure. Decisions are timed without training, in processor time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time

import numpy as np
import torch
from decisions import decision_times, widened

from marlin.agreement import trained
from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.simulator import step
from marlin.schedulers.marlin_nash.deciding import decide
from marlin.schedulers.marlin_nash.fleets import Fleet, random_fleet
from marlin.schedulers.marlin_nash.practice import (
    Practice,
    even_split,
    heard_weights,
    totals,
)
from marlin.schedulers.marlin_nash.tokens import make_tokens
from marlin.schedulers.marlin_nash.training import make_policy, unpack
from marlin.schedulers.schemes import SCHEMES
from marlin.task import load_run

HELD_OUT = 10_000
SITES = (12, 64, 256)


def on_fleet(policy, options, practice: Practice, fleet: Fleet, days: int) -> torch.Tensor:
    """Costs of every scheme over those of the even split, [5, 4], on days of a random fleet."""
    world, epochs = fleet.pools.world, practice.task.world.epochs_per_day
    schemes = heard_weights(torch.tensor(list(SCHEMES.values())), options.least_weight)
    weights = schemes.repeat_interleave(days, 0)
    chosen = torch.linspace(0, len(practice.days) - 1, days).round().long()
    day = chosen.repeat(len(schemes))
    state = world.idle_state(len(day))
    cost, other = torch.zeros(len(day), len(OBJECTIVES)), torch.zeros(days, len(OBJECTIVES))
    even = world.idle_state(days)
    with torch.no_grad():
        for offset in range(epochs):
            at = torch.full_like(day, offset)
            known = fleet.inputs(practice.record, practice.days, day, at)
            tokens = make_tokens(fleet.pools, state, known.forecast, known.later, weights)
            plan = decide(
                fleet.pools, tokens, policy(tokens, fleet.pools.has_nodes), options.market
            )
            state, outcome = step(world, state, plan.plan, known.truth)
            cost = cost + totals(outcome)
            seen = fleet.inputs(practice.record, practice.days, chosen, at[:days])
            even, outcome = step(world, even, even_split(fleet, seen.forecast), seen.truth)
            other = other + totals(outcome)
    return cost.reshape(len(schemes), days, -1).sum(1) / other.sum(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fleets", type=int, default=8)
    given = parser.parse_args()
    run, options = trained(given.folder)
    task, policy = load_run(run), make_policy(options, run.seed)
    unpack(policy, options.weights())
    np.set_printoptions(precision=3, suppress=True)
    practice = Practice(options, task, np.random.default_rng(HELD_OUT))
    for seed in range(given.fleets):
        fleet = random_fleet(task.world, practice.busiest, np.random.default_rng(HELD_OUT + seed))
        ratio = on_fleet(policy, options, practice, fleet, 4).numpy()
        own = [ratio[1 + place, place] for place in range(len(OBJECTIVES))]
        score = float(np.exp(np.log(ratio[0].clip(1e-3)).mean()))
        sites, _ = fleet.pools.shape
        print(
            f"held out: {sites:3} sites, equal weights {ratio[0]} score {score:.3f}; "
            f"each alone {np.array(own)}"
        )
    for sites in SITES:
        times = decision_times(widened(task, sites))
        print(f"decision at {sites} sites: {1e3 * np.median(times):.1f} ms")


if __name__ == "__main__":
    began = process_time()
    main()
    print(f"{process_time() - began:.0f} processor seconds")
