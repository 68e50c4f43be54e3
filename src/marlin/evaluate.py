"""Score trained schedulers on the test days: the only place that does.

`python -m marlin.evaluate FOLDER... [--settings OVERRIDE...]` reads `resolved.yaml` and
`policy.npz` of each run folder and writes `episodes.parquet` (one row a test day and variant) and
`epochs.parquet` (the first test day, by epoch and site, as the fluid model has it). Planning sees
forecasts alone; scoring uses what came true. With `scoring=replay` the objectives are those of
request-level replay (`marlin.judge`), and the fluid model's stand beside them. `evaluated.yaml` and
`evaluation.json` say with which settings, code and inputs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from marlin import compose, inputs, provenance
from marlin.compose import load
from marlin.config import InputsConfig, RunConfig
from marlin.entry import guard
from marlin.errors import UserError
from marlin.files import write_json, write_parquet
from marlin.fleet.accounting import beside
from marlin.fleet.contract import OBJECTIVES, Outcome, Plan, State, joined
from marlin.fleet.simulator import step
from marlin.judge import Judge, Played, load_judge
from marlin.provenance import RESOLVED
from marlin.schedulers.base import Scheduler
from marlin.task import Task, load_run, make_scheduler

SITE_COLUMNS = {
    "requests_per_s": "site_requests_per_s",
    "energy_kwh": "site_energy_kwh",
    "carbon_kg": "site_carbon_kg",
    "water_l": "site_water_l",
    "cost_usd": "site_cost_usd",
    "ttft_s": "site_ttft_s",
    "nodes_on": "site_nodes_on",
}
SUMS = (
    "carbon_kg", "water_l", "cost_usd", "energy_kwh", "scarcity_water_l", "served", "dropped",
)  # fmt: skip


@dataclass(frozen=True)
class Day:
    """One day of T epochs under the fluid model, and how long each decision took."""

    start: int
    plans: list[Plan]
    states: list[State]  # before each epoch
    outcomes: list[Outcome]
    nodes_on: np.ndarray  # [T, D, G]
    decision_s: list[float]


def run_day(task: Task, scheduler: Scheduler, start: int, seed: int, variant: str) -> Day:
    """Plan, score, then let the scheduler learn; epoch by epoch through the day at `start`."""
    scheduler.reset(task.world, seed, variant)
    state = task.world.idle_state(1)
    plans, states, outcomes, nodes_on, decisions = [], [], [], [], []
    for epoch in range(start, start + task.world.epochs_per_day):
        observation = task.observation(epoch, state, scheduler.plans_on_truth)
        began = time.perf_counter()
        plan = scheduler.plan(observation)
        decisions.append(time.perf_counter() - began)
        plans.append(plan)
        states.append(state)
        state, outcome = step(task.world, state, plan, task.truth(np.array([epoch])))
        scheduler.observe(outcome)
        outcomes.append(outcome)
        nodes_on.append(state.nodes_on[0])
    return Day(start, plans, states, outcomes, np.stack(nodes_on), decisions)


def summary(outcomes: list[Outcome]) -> dict[str, float]:
    """Totals of a day; TTFT and utilisation are means, TTFT weighted by arrivals."""
    arrived = np.array([o.arrived[0] for o in outcomes])
    ttft = np.array([o.ttft_s[0] for o in outcomes])
    used = np.array([o.utilisation[0] for o in outcomes])
    sums = {name: float(sum(getattr(o, name)[0] for o in outcomes)) for name in SUMS}
    return sums | {
        "ttft_s": float((ttft * arrived).sum() / arrived.sum()),
        "requests": float(arrived.sum()),
        "utilisation_mean": float(used.mean()),
        "utilisation_peak": float(used.max()),
    }


def judged(task: Task, day: Day, judge: Judge | None, fluid: dict[str, float]) -> dict[str, float]:
    """What replay makes of a day, and of its `fluid` summary the objectives as `fluid_*`.

    Without a judge the objectives are the fluid model's, and nothing stands beside them.
    """
    if judge is None:
        return {}
    epochs = np.arange(day.start, day.start + len(day.outcomes))
    played = Played(joined(day.plans), joined(day.states), task.truth(epochs), day.outcomes)
    return judge.score(played, day.start) | {f"fluid_{name}": fluid[name] for name in OBJECTIVES}


def reported(task: Task, day: Day) -> dict[str, float]:
    """What is reported of a day beside its objectives; see `accounting.beside`.

    `stale_share` is that of sites and epochs planned with a signal missing for long.
    """
    epochs = range(day.start, day.start + len(day.outcomes))
    rate = task.epochs.inputs.arrival_rate_per_s[epochs.start : epochs.stop]
    requests = rate.sum(axis=(0, 1, 2)) * task.world.epoch_s
    stale = sum(len(task.stale_sites(epoch - 1)) for epoch in epochs)
    return beside(task.world, task.run.physics, day.outcomes, day.nodes_on, requests) | {
        "stale_share": stale / (len(epochs) * len(task.world.sites))
    }


def epoch_rows(task: Task, day: Day) -> pd.DataFrame:
    """One row an epoch and site."""
    frames = []
    for offset, outcome in enumerate(day.outcomes):
        epoch = day.start + offset
        truth = task.epochs.inputs
        columns = {name: getattr(outcome, field)[0] for name, field in SITE_COLUMNS.items()}
        frames.append(
            pd.DataFrame(
                {"time": task.epochs.time[epoch], "site": task.world.sites}
                | columns
                | {
                    "carbon_g_per_kwh": truth.carbon_g_per_kwh[epoch],
                    "price_usd_per_mwh": truth.price_usd_per_mwh[epoch],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def evaluate(
    task: Task, scheduler: Scheduler, seed: int, judge: Judge | None = None
) -> tuple[pd.DataFrame, ...]:
    """Episodes, epochs of the first test day, and decision times, for every variant."""
    episodes, epochs, timings = [], [], []
    starts = task.test_days()
    jobs = [(variant, start) for variant in scheduler.variants() for start in starts]
    label = f"{task.run.method['name']} seed {seed}"
    for variant, start in _progress(jobs, label):
        name = "_".join(filter(None, (task.run.method["name"], variant)))
        identity = {
            "scenario": task.run.scenario.name,
            "method": name,
            "ablation": task.run.ablation,
            "seed": seed,
        }
        day = run_day(task, scheduler, start, seed, variant)
        date = {"day": task.day_name(start)}
        fluid = summary(day.outcomes)
        scores = fluid | judged(task, day, judge, fluid) | reported(task, day)
        episodes.append(identity | date | scores)
        timings += [identity | date | {"decision_s": value} for value in day.decision_s]
        if start == starts[0]:
            epochs.append(epoch_rows(task, day).assign(**identity))
    table = pd.DataFrame(episodes)
    first = ["scenario", "method", "ablation", "seed", "day", *OBJECTIVES]
    table = table[first + sorted(set(table.columns) - set(first))]
    return table, pd.concat(epochs, ignore_index=True), pd.DataFrame(timings)


def evaluate_folder(
    folder: Path, given: InputsConfig, wanted: RunConfig | None, judges: dict[str, Judge | None]
) -> None:
    """Score the run in `folder`, one seed, and write its tables there.

    Test days and scoring are those of `wanted`, or of training where it is none. `judges` keeps the
    judge of each setting from one folder to the next.

    Raises:
        UserError: `wanted` differs from the run in what training reads.
    """
    run = load(folder / RESOLVED)
    if wanted is not None:
        if compose.training_fingerprint(wanted) != compose.training_fingerprint(run):
            raise UserError(
                f"{folder} was trained with other settings than those given: train it again, or "
                "vary scoring and scenario.test_days alone"
            )
        run = wanted.model_copy(update={"seed": run.seed})
    run = run.model_copy(update={"inputs": given})
    task = load_run(run)
    scheduler = make_scheduler(run)
    scheduler.reset(task.world, run.seed)
    scheduler.load(folder / "policy.npz")
    settings = compose.fingerprint(run)
    if settings not in judges:
        ready = inputs.ready(run)
        judges[settings] = load_judge(run, task.world, ready.scenario, ready.profiles)
    episodes, epochs, timings = evaluate(task, scheduler, run.seed, judges[settings])
    write_parquet(folder / "epochs.parquet", epochs)
    write_parquet(folder / "episodes.parquet", episodes)
    decision = {
        str(method): {"median_s": part["decision_s"].median(), "max_s": part["decision_s"].max()}
        for method, part in timings.groupby("method")
    }
    write_json(folder / "timings" / "decision.json", decision)
    provenance.evaluated(folder, run, ("epochs.parquet", "episodes.parquet"))
    print(f"{run.method['name']} seed {run.seed}: {len(episodes)} episodes scored in {folder}")


def _progress(jobs: list, label: str) -> Iterator:
    return iter(tqdm(jobs, desc=label, unit="day", disable=not sys.stderr.isatty()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="marlin evaluate", description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="run folder of one seed")
    parser.add_argument("--scenario", help="scenario.nc (default: made in the cache)")
    parser.add_argument("--profiles", help="profiles.parquet (default: made in the cache)")
    parser.add_argument(
        "--settings",
        nargs="+",
        metavar="OVERRIDE",
        help="settings of the runs, where test days or scoring are not those they trained with",
    )
    given = parser.parse_args(arguments)
    paths = InputsConfig(scenario=given.scenario, profiles=given.profiles)
    judges: dict[str, Judge | None] = {}
    with guard():
        wanted = compose.compose(given.settings) if given.settings else None
        for folder in given.folder:
            evaluate_folder(folder, paths, wanted, judges)


if __name__ == "__main__":
    main()
