"""What a dated shift does to marlin_nash, with and without its reserve, and to mpc.

    python benchmarks/shifts.py RUN_FOLDER... [--split train] [--first 120] [--caution 2 0]

RUN_FOLDERs hold trained seeds of marlin_nash (`policy.npz`, `resolved.yaml`). Eight days follow one
another without a new start, under the fluid model; from the third on something happens, or nothing.

Loss of an epoch: mean over the objectives of cost over weighted round robin's mean in the same
world, so that what no plan can avoid is in both. The reference is the same network under the best
fixed weights (35 and those agreed on), chosen in hindsight on the days from the shift on, in the
same world; mpc may do better than it. `regret` is the sum of the loss above the reference's from
the shift on, in epochs of weighted round robin; `by_shift` is what it is more than without the
shift. `recovery` is the number of epochs from the shift on until the mean of eight epochs' excess
is, and for eight epochs stays, at most 0.05 above that without the shift; a seed that does not
recover counts with all epochs and is counted in `never`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.lib.stride_tricks import sliding_window_view

from marlin.agreement import trained
from marlin.compose import compose
from marlin.config import Fault, FaultsConfig, RunConfig
from marlin.errors import UserError
from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.simulator import step
from marlin.fleet.world import TEST, TRAIN
from marlin.schedulers.base import Scheduler
from marlin.schedulers.learning.rewards import metric_table
from marlin.schedulers.marlin_nash import MarlinNash
from marlin.schedulers.marlin_nash.bargaining import candidates, play
from marlin.schedulers.marlin_nash.fleets import home_fleet
from marlin.schedulers.marlin_nash.practice import heard_weights, make_record
from marlin.schedulers.marlin_nash.training import AGREEMENT, make_policy, unpack
from marlin.task import Task, load_run, make_scheduler

DAYS, BEFORE = 8, 2
WINDOW, NEAR = 8, 0.05  # epochs, and loss above that without the shift
SPLITS = {"test": TEST, "train": TRAIN}


def stretch(task: Task, split: int, first: int) -> np.ndarray:
    """First epochs of `DAYS` days in a row of a split, from its day `first` on or the next such."""
    days = np.array(task.days(split))
    for at in range(first, len(days) - DAYS + 1):
        found = days[at : at + DAYS]
        if (np.diff(found) == task.world.epochs_per_day).all():
            return found
    raise UserError(f"no {DAYS} days in a row from day {first} of the split: take scenario=year")


def costs(task: Task, scheduler: Scheduler, days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Objectives [T, 4] by epoch, TTFT times requests, and mean nodes on by site [D]."""
    scheduler.reset(task.world, task.run.seed)
    state, found, on = task.world.idle_state(1), [], np.zeros(len(task.world.sites))
    for epoch in range(days[0], days[-1] + task.world.epochs_per_day):
        plan = scheduler.plan(task.observation(epoch, state, scheduler.plans_on_truth))
        state, outcome = step(task.world, state, plan, task.truth(np.array([epoch])))
        scheduler.observe(outcome)
        found.append(metric_table(outcome)[0] * np.array([outcome.arrived[0], 1.0, 1.0, 1.0]))
        on = on + outcome.site_nodes_on[0] / (DAYS * task.world.epochs_per_day)
    return np.array(found), on


def loss(found: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Loss [T] of costs [T, 4], measured in the means of those of another scheduler [T, 4]."""
    return (found / beside.mean(axis=0)).mean(axis=1)


def best_fixed(task: Task, options: MarlinNash, days: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Weights [4] of least loss beside costs [T, 4] on whole `days`."""
    policy = make_policy(options, task.run.seed)
    unpack(policy, options.weights())
    record = make_record(task, days, options.lookahead)
    demand = record.forecast.arrival_rate_per_s[0].sum(dim=0)
    fleet = home_fleet(task.world, (demand / demand.sum()).numpy())
    tried = np.vstack([candidates(), options.weights()[f"{AGREEMENT}weights"]])
    heard = heard_weights(torch.as_tensor(tried).float(), options.least_weight)
    start = torch.zeros(len(heard), dtype=torch.long)
    found, _ = play(policy, options.market, fleet, record, start, heard, len(beside))
    total = beside.sum(axis=0)
    total[0] /= record.truth.arrival_rate_per_s.sum() * task.world.epoch_s
    return tried[int((found.numpy() / total).mean(axis=1).argmin())]


def fixed(options: MarlinNash, weights: np.ndarray) -> MarlinNash:
    """The same network under other weights, which stay."""
    still = replace(options, memory_days=0.0)
    still._learned = options.weights() | {f"{AGREEMENT}weights": weights}
    return still


def recovery(shifted: np.ndarray, usual: np.ndarray) -> int:
    """Epochs until the mean excess [T] of `WINDOW` is near the usual and stays so; T if never."""
    above = sliding_window_view(shifted - usual, WINDOW).mean(axis=1)
    near = sliding_window_view(above <= NEAR, WINDOW).all(axis=1)
    return int(near.argmax()) if near.any() else len(shifted)


def worlds(run: RunConfig, usual: Task, days: np.ndarray, busiest: str) -> dict[str, Task]:
    """The task without a shift and with each."""
    price = usual.truth(np.arange(days[0], days[-1])).price_usd_per_mwh.mean(axis=0)
    cheap = [usual.world.sites[place] for place in price.argsort()[:2]]
    start = str(usual.epochs.time[days[BEFORE]].astype("datetime64[m]"))
    shifts = {
        "outage": [Fault(kind="site_outage", start=start, hours=24, site=busiest)],
        "price x 4": [
            Fault(kind="price_shock", start=start, hours=72, factor=4.0, site=site)
            for site in cheap
        ],
        "demand x 1.5": [Fault(kind="demand_surge", start=start, hours=24, factor=1.5)],
    }
    tasks = {"none": usual}
    for name, events in shifts.items():
        faults = FaultsConfig(name=name, events=events)
        tasks[name] = load_run(run.model_copy(update={"faults": faults}))
    print(f"seed {run.seed}: from {start}, busiest {busiest}, cheapest {', '.join(cheap)}")
    return tasks


def rows_of(folder: Path, given: argparse.Namespace) -> list[dict]:
    """A row a shift and form."""
    run, options = trained(folder)
    usual = load_run(run)
    days = stretch(usual, SPLITS[given.split], given.first)
    methods = {
        name: make_scheduler(run.model_copy(update={"method": compose([f"method={name}"]).method}))
        for name in ("mpc", "weighted_round_robin")
    }
    forms: dict[str, Scheduler] = {
        f"caution {caution:g}": replace(options, caution=caution) for caution in given.caution
    }
    for form in forms.values():
        form.load(folder / "policy.npz")
    forms["mpc"] = methods["mpc"]
    agreed = fixed(options, options.weights()[f"{AGREEMENT}weights"])
    busiest = usual.world.sites[int(costs(usual, agreed, days[:BEFORE])[1].argmax())]
    after = BEFORE * usual.world.epochs_per_day
    rows, without = [], {}
    for shift, task in worlds(run, usual, days, busiest).items():
        beside = costs(task, methods["weighted_round_robin"], days)[0][after:]
        weights = best_fixed(task, options, days[BEFORE:], beside)
        reference = loss(costs(task, fixed(options, weights), days)[0][after:], beside)
        for form, scheduler in forms.items():
            found = costs(task, scheduler, days)[0][after:]
            each = loss(found, beside)
            excess = each - reference
            usual_excess = without.setdefault(form, excess)
            taken = recovery(excess, usual_excess)
            rows.append(
                {
                    "seed": run.seed, "shift": shift, "form": form, "loss": each.mean(),
                    "regret": excess.sum(), "by_shift": (excess - usual_excess).sum(),
                    "recovery": taken, "never": int(taken == len(excess)),
                }
                | dict(zip(OBJECTIVES, found.sum(axis=0) / beside.sum(axis=0), strict=True))
            )  # fmt: skip
        print(shift, "reference", weights.round(3), round(float(reference.mean()), 4), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--first", type=int, default=0, help="day of the split to start from")
    parser.add_argument(
        "--caution", type=float, nargs="+", default=[2.0, 0.0], help="of the reserve; 0: none"
    )
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = pd.DataFrame([row for folder in given.folder for row in rows_of(folder, given)])
    if given.write:
        table.round(4).to_csv(given.write, index=False)
    means = table.groupby(["shift", "form"], sort=False).mean(numeric_only=True)
    means["never"] = table.groupby(["shift", "form"], sort=False)["never"].sum()
    print(means.drop(columns="seed").round(3).to_string())


if __name__ == "__main__":
    main()
