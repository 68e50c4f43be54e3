"""Bounds of a scenario's test days: `python -m marlin.bounds SETTINGS... --output FILE`.

Writes one row a day, judge, target and kind. Kinds: `bound`, which no plan goes below;
`mpc_perfect` and `best_static`, which can be reached; `weighted_round_robin`, in whose objectives
weighted sums are measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from marlin import compose, inputs
from marlin.bounds.judges import fluid_bound, fluid_day, replay_bound, replay_day
from marlin.bounds.programs import Day
from marlin.bounds.references import best_static, mpc_perfect
from marlin.bounds.requests import Asked, asked, expected, mean_context_tokens, replay_work
from marlin.bounds.targets import ALONE, TARGETS, target_value
from marlin.bounds.work import Work, fluid_work
from marlin.config import InputsConfig, RunConfig
from marlin.entry import guard
from marlin.evaluate import run_day, summary
from marlin.files import write_parquet
from marlin.fleet.contract import OBJECTIVES, Inputs
from marlin.fleet.world import World, chosen_profiles
from marlin.schedulers.weighted_round_robin import WeightedRoundRobin
from marlin.serving import profiles as serving
from marlin.serving.profiles import ServingProfile
from marlin.task import Task, load_task

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A test day under both judges, and the objectives [4] that sums are measured in."""

    world: World
    truth: Inputs
    fluid: Day
    replay: Day
    given: Asked
    reference: np.ndarray
    reference_unserved: float

    def rows(self, target: str) -> Iterator[Row]:
        """What is known of a target on this day."""
        weights = TARGETS[target]
        scale = np.ones(len(OBJECTIVES)) if target in ALONE else np.abs(self.reference)
        fluid = fluid_bound(self.world, self.fluid, self.truth, weights, scale)
        replay = replay_bound(self.replay, self.given, weights, scale)
        yield _row("fluid", target, "bound", fluid.value, fluid.objectives, 0.0)
        yield _row("replay", target, "bound", replay.value, replay.objectives, 0.0)
        for reach in (mpc_perfect, best_static):
            found = reach(self.world, self.fluid, self.truth, weights, scale)
            value = target_value(target, found.objectives, self.reference)
            kind = reach.__name__
            yield _row("fluid", target, kind, value, found.objectives, found.unserved_share)
        value = target_value(target, self.reference, self.reference)
        yield _row(
            "fluid", target, WeightedRoundRobin.name, value, self.reference, self.reference_unserved
        )


def _row(
    judge: str, target: str, kind: str, value: float, objectives: np.ndarray, unserved: float
) -> Row:
    found = dict(zip(OBJECTIVES, objectives.tolist(), strict=True))
    row = {"judge": judge, "target": target, "kind": kind, "value": value}
    return row | found | {"unserved_share": unserved}


def make_case(
    task: Task, work: Work, chosen: list[list[ServingProfile]], lengths: np.ndarray, start: int
) -> Case:
    """The day that begins at epoch `start`; `lengths` [S, Q] are equally likely prompts."""
    world, max_batch = task.world, task.run.serving.max_batch
    truth = task.truth(start + np.arange(world.epochs_per_day))
    groups = expected(world, truth.arrival_rate_per_s, lengths)
    given = asked(world, chosen, groups, truth.available)
    of_replay = replay_work(world, chosen, max_batch, mean_context_tokens(given))
    found = summary(run_day(task, WeightedRoundRobin(), start, task.run.seed, "").outcomes)
    return Case(
        world=world,
        truth=truth,
        fluid=fluid_day(world, work, truth),
        replay=replay_day(world, of_replay, truth, given),
        given=given,
        reference=np.array([found[name] for name in OBJECTIVES]),
        reference_unserved=1.0 - found["served"] / found["requests"],
    )


def bounds(task: Task, chosen: list[list[ServingProfile]], lengths: np.ndarray) -> pd.DataFrame:
    """The table of the stage; `chosen` [G][M] as of `chosen_profiles`, `lengths` as above."""
    run, work, starts = task.run, fluid_work(task.world), task.test_days()
    rows = []
    count = len(starts) * len(TARGETS)
    with tqdm(total=count, unit="target", disable=not sys.stderr.isatty()) as bar:
        for start in starts:
            case = make_case(task, work, chosen, lengths, start)
            identity = {"scenario": run.scenario.name, "ablation": run.ablation}
            identity |= {"day": task.day_name(start)}
            for target in TARGETS:
                rows += [identity | row for row in case.rows(target)]
                bar.update()
    return pd.DataFrame(rows)


def bounds_of(run: RunConfig) -> pd.DataFrame:
    """The table of a run, from its scenario and profiles."""
    from marlin.data.prepare import read

    ready = inputs.ready(run)
    task = load_task(run, ready.scenario, ready.profiles, noise_seed=run.seed)
    chosen = chosen_profiles(run.fleet, run.serving, serving.load(ready.profiles))
    edges = read(ready.scenario)["prompt_tokens_quantile"].to_numpy().astype(float)
    return bounds(task, chosen, 0.5 * (edges[:, 1:] + edges[:, :-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m marlin.bounds", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE")
    parser.add_argument("--output", type=Path, default=Path("results/adhoc/bounds.parquet"))
    parser.add_argument("--scenario", help="scenario.nc (default: made in the cache)")
    parser.add_argument("--profiles", help="profiles.parquet (default: made in the cache)")
    given = parser.parse_args(arguments)
    with guard():
        paths = InputsConfig(scenario=given.scenario, profiles=given.profiles)
        run = compose.compose(given.overrides).model_copy(update={"inputs": paths})
        table = bounds_of(run)
        write_parquet(given.output, table)
        print(f"bounds of {table['day'].nunique()} days: {given.output}")


if __name__ == "__main__":
    main()
