"""Bounds of a scenario's test days: `python -m marlin.bounds SETTINGS... --output FILE`.

Writes one row a day, judge, target and kind. Kinds: `bound`, which no plan goes below;
`mpc_perfect` and `best_static`, which can be reached; `weighted_round_robin`, in whose objectives
under the fluid model weighted sums are measured. What can be reached is scored by replay too where
the run's days are, as its schedulers are: on the same epochs and requests.
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
from marlin.bounds.targets import ALONE, SCORED, TARGETS, target_value
from marlin.bounds.work import Work, fluid_work
from marlin.config import InputsConfig, RunConfig
from marlin.entry import guard
from marlin.evaluate import run_day, summary
from marlin.files import write_parquet
from marlin.fleet.contract import OBJECTIVES, Inputs, joined
from marlin.fleet.world import World, chosen_profiles
from marlin.judge import Judge, Played, load_judge
from marlin.schedulers.weighted_round_robin import WeightedRoundRobin
from marlin.serving import profiles as serving
from marlin.serving.profiles import ServingProfile
from marlin.task import Task, load_task

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """The test day that begins at epoch `start`, under both judges.

    `baseline` is weighted round robin's; sums are measured in its objectives [4] under the fluid
    model, `reference`. `judge` scores what can be reached by replay; none leaves it out.
    """

    world: World
    start: int
    truth: Inputs
    fluid: Day
    replay: Day
    given: Asked
    baseline: Played
    reference: np.ndarray
    judge: Judge | None

    def rows(self, target: str) -> Iterator[Row]:
        """What is known of a target on this day."""
        weights = TARGETS[target]
        scale = np.ones(len(OBJECTIVES)) if target in ALONE else np.abs(self.reference)
        fluid = fluid_bound(self.world, self.fluid, self.truth, weights, scale)
        replay = replay_bound(self.replay, self.given, weights, scale)
        yield _row("fluid", target, "bound", fluid.value, fluid.objectives, 0.0)
        yield _row("replay", target, "bound", replay.value, replay.objectives, 0.0)
        reached = {
            reach.__name__: reach(self.world, self.fluid, self.truth, weights, scale)
            for reach in (mpc_perfect, best_static)
        }
        for kind, day in (reached | {WeightedRoundRobin.name: self.baseline}).items():
            fluid_score = summary(list(day.outcomes))
            unserved = 1.0 - fluid_score["served"] / fluid_score["requests"]
            yield self._scored("fluid", target, kind, fluid_score, unserved)
            if self.judge is not None and target in SCORED:
                score = self.judge.score(day, self.start)
                yield self._scored("replay", target, kind, score, score["replay_lost_share"])

    def _scored(
        self, judge: str, target: str, kind: str, score: dict[str, float], unserved: float
    ) -> Row:
        """What a judge's score of a day makes of a target."""
        objectives = _objectives(score)
        value = target_value(target, objectives, self.reference)
        return _row(judge, target, kind, value, objectives, unserved)


def _objectives(score: dict[str, float]) -> np.ndarray:
    """Objectives [4] of a score."""
    return np.array([score[name] for name in OBJECTIVES])


def _row(
    judge: str, target: str, kind: str, value: float, objectives: np.ndarray, unserved: float
) -> Row:
    found = dict(zip(OBJECTIVES, objectives.tolist(), strict=True))
    row = {"judge": judge, "target": target, "kind": kind, "value": value}
    return row | found | {"unserved_share": unserved}


def make_case(
    task: Task,
    work: Work,
    chosen: list[list[ServingProfile]],
    lengths: np.ndarray,
    start: int,
    judge: Judge | None,
) -> Case:
    """The day that begins at epoch `start`; `lengths` [S, Q] are equally likely prompts."""
    world, max_batch = task.world, task.run.serving.max_batch
    truth = task.truth(start + np.arange(world.epochs_per_day))
    groups = expected(world, truth.arrival_rate_per_s, lengths)
    given = asked(world, chosen, groups, truth.available)
    of_replay = replay_work(world, chosen, max_batch, mean_context_tokens(given))
    day = run_day(task, WeightedRoundRobin(), start, task.run.seed, "")
    return Case(
        world=world,
        start=start,
        truth=truth,
        fluid=fluid_day(world, work, truth),
        replay=replay_day(world, of_replay, truth, given),
        given=given,
        baseline=Played(joined(day.plans), joined(day.states), truth, day.outcomes),
        reference=_objectives(summary(day.outcomes)),
        judge=judge,
    )


def bounds(
    task: Task,
    chosen: list[list[ServingProfile]],
    lengths: np.ndarray,
    judge: Judge | None = None,
) -> pd.DataFrame:
    """The table of the stage; `chosen` [G][M] as of `chosen_profiles`, `lengths` as above.

    Without a judge, what can be reached has no rows of replay.
    """
    run, work, starts = task.run, fluid_work(task.world), task.test_days()
    rows = []
    count = len(starts) * len(TARGETS)
    with tqdm(total=count, unit="target", disable=not sys.stderr.isatty()) as bar:
        for start in starts:
            case = make_case(task, work, chosen, lengths, start, judge)
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
    judge = load_judge(run, task.world, ready.scenario, ready.profiles)
    return bounds(task, chosen, 0.5 * (edges[:, 1:] + edges[:, :-1]), judge)


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
