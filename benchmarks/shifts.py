"""What a shift does to marlin_nash, with and without its accounts, and to mpc.

    python benchmarks/shifts.py RUN_FOLDER... [--write shifts.csv]

RUN_FOLDERs are those of trained seeds of marlin_nash (`policy.npz`, `resolved.yaml`). Days of the
test follow one another without a new start, under the fluid model; on the third day something
happens. Set beside the same network under the best of 35 fixed weights in hindsight, known for the
shifted days alone: `regret_percent` is how much larger the geometric mean of the four costs is from
the shift on, `epochs_to_recover` after how many epochs the mean of eight is within 5 % of it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from marlin.compose import compose, load
from marlin.config import Fault, FaultsConfig
from marlin.fleet.contract import OBJECTIVES, Outcome
from marlin.fleet.simulator import step
from marlin.fleet.world import TEST
from marlin.schedulers.learning.rewards import metric_table
from marlin.schedulers.marlin_nash import MarlinNash
from marlin.schedulers.marlin_nash.bargaining import candidates, play
from marlin.schedulers.marlin_nash.fleets import home_fleet
from marlin.schedulers.marlin_nash.practice import Practice, heard_weights, make_record
from marlin.schedulers.marlin_nash.training import make_policy, unpack
from marlin.task import Task, load_run, make_scheduler

DAYS, BEFORE = 8, 2
MEAN, NEAR = 8, 1.05  # epochs, and times the reference
LEAST_COST = 0.02  # of the mean: prices may be negative
SHIFTS = {
    "outage": ({"kind": "site_outage", "hours": 24},),
    "price shock": ({"kind": "price_shock", "factor": 4.0, "hours": 72},),
    "surge": ({"kind": "demand_surge", "factor": 1.5, "hours": 24},),
}
AT_ONE_SITE = ("outage", "price shock")


def stretch(task: Task) -> np.ndarray:
    """First epochs of `DAYS` days of the test that follow one another."""
    days = np.array(task.days(TEST))
    for at in range(len(days) - DAYS + 1):
        found = days[at : at + DAYS]
        if (np.diff(found) == task.world.epochs_per_day).all():
            return found
    raise SystemExit(f"the scenario's test has no {DAYS} days in a row: take scenario=year")


def played(
    task: Task, scheduler, days: np.ndarray, weights: np.ndarray | None = None
) -> list[Outcome]:
    """Outcomes by epoch of days that follow one another; `weights` [4] hold if given."""
    scheduler.reset(task.world, task.run.seed)
    if weights is not None:
        scheduler._online.weights = weights
    state, outcomes = task.world.idle_state(1), []
    for epoch in range(days[0], days[-1] + task.world.epochs_per_day):
        plan = scheduler.plan(task.observation(epoch, state))
        state, outcome = step(task.world, state, plan, task.truth(np.array([epoch])))
        scheduler.observe(outcome)
        outcomes.append(outcome)
    return outcomes


def costs(outcomes: list[Outcome]) -> np.ndarray:
    """Objectives [T, 4] by epoch, TTFT times requests."""
    table = np.concatenate([metric_table(outcome) for outcome in outcomes])
    table[:, 0] *= [outcome.arrived[0] for outcome in outcomes]
    return table


def best_fixed(task: Task, options, policy, days: np.ndarray, after: int) -> np.ndarray:
    """Weights [4] of the least geometric mean of costs from epoch `after` on."""
    practice = Practice(replace(options, fleets=0), task, np.random.default_rng(0))
    record = make_record(task, days[after // task.world.epochs_per_day :], options.lookahead)
    tried = candidates()
    heard = heard_weights(torch.as_tensor(tried, dtype=torch.float32), options.least_weight)
    fleet, first = home_fleet(task.world, practice.mix), torch.zeros(len(heard), dtype=torch.long)
    epochs = len(record.truth.available)
    found, _ = play(policy, options.market, fleet, record, first, heard, epochs)
    return heard[found.clamp_min(1e-3).log().mean(1).argmin()].numpy()


def rows_of(folder: Path) -> list[dict]:
    """A row a shift and form."""
    run = load(folder / "resolved.yaml")
    usual = load_run(run)
    days = stretch(usual)
    options = make_scheduler(run)
    if not isinstance(options, MarlinNash):
        raise SystemExit(f"{folder} is a run of {run.method['name']}: give runs of marlin_nash")
    options.load(folder / "policy.npz")
    still = replace(options, memory_days=0.0)
    still.load(folder / "policy.npz")
    mpc = make_scheduler(run.model_copy(update={"method": compose(["method=mpc"]).method}))
    policy = make_policy(options, run.seed)
    unpack(policy, options.weights())
    shift = days[BEFORE]
    start = str(usual.epochs.time[shift].astype("datetime64[m]"))
    before = played(usual, still, days[:BEFORE])
    on = np.sum([outcome.site_nodes_on[0] for outcome in before], axis=0)
    busiest = usual.world.sites[int(on.argmax())]
    rows = []
    for name, events in tqdm(SHIFTS.items(), desc=f"seed {run.seed}"):
        site = {"site": busiest} if name in AT_ONE_SITE else {}
        faults = FaultsConfig(
            name=name, events=[Fault(start=start, **event, **site) for event in events]
        )
        task = load_run(run.model_copy(update={"faults": faults}))
        after = BEFORE * task.world.epochs_per_day
        best = best_fixed(task, options, policy, days, after)
        reference = costs(played(task, still, days, best))[after:]
        scale = LEAST_COST * np.abs(reference).mean(axis=0)
        for form, scheduler in (("accounts", options), ("fixed weights", still), ("mpc", mpc)):
            found = costs(played(task, scheduler, days))[after:]
            ratio = found.clip(scale) / reference.clip(scale)
            by_epoch = np.exp(np.log(ratio).mean(axis=1))
            mean = np.convolve(by_epoch, np.full(MEAN, 1.0 / MEAN), mode="valid")
            near = np.flatnonzero(mean <= NEAR)
            total = np.exp(np.log(found.sum(0) / reference.sum(0)).mean())
            rows.append(
                {
                    "seed": run.seed, "shift": name, "site": site.get("site", "all"), "form": form,
                    "regret_percent": 100.0 * (total - 1.0),
                    "epochs_to_recover": int(near[0]) if len(near) else np.nan,
                }
                | dict(zip(OBJECTIVES, found.sum(0) / reference.sum(0), strict=True))
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = pd.DataFrame([row for folder in given.folder for row in rows_of(folder)])
    if given.write:
        table.round(4).to_csv(given.write, index=False)
    columns = ["regret_percent", "epochs_to_recover", *OBJECTIVES]
    print(table.groupby(["shift", "form"], sort=False)[columns].mean().round(3).to_string())


if __name__ == "__main__":
    main()
