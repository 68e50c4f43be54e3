"""What marlin_nash loses on a fleet that it was not trained on.

    python benchmarks/transfer.py [--seeds 2] [--write FILE] scenario=year signals=measured [...]

The run's fleet is split by zone: every third site is held out, the others train. Both parts have as
many nodes in all as the whole fleet had, so that they serve the same users. A policy is trained on
each part and scored on both, on the run's test days; its loss is what the balanced score (geometric
mean of the four costs) or an objective's own variant is above that of the policy trained there.
What else is given are Hydra overrides, as `marlin.train` takes them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from marlin.compose import compose
from marlin.config import FleetConfig, RunConfig, Site
from marlin.entry import guard
from marlin.errors import UserError
from marlin.evaluate import evaluate
from marlin.fleet.contract import OBJECTIVES
from marlin.inputs import ready
from marlin.judge import load_judge
from marlin.schedulers.schemes import SCHEMES
from marlin.task import load_run, make_scheduler

HELD_OUT = 3  # every third site


def parts(fleet: FleetConfig) -> dict[str, FleetConfig]:
    """The fleet that trains and the one that is held out, by the numbers of their sites."""
    if len(fleet.sites) < HELD_OUT:
        raise UserError(
            f"fleet {fleet.name} has {len(fleet.sites)} sites: {HELD_OUT} or more split"
        )
    held = fleet.sites[HELD_OUT - 1 :: HELD_OUT]
    kept = [site for site in fleet.sites if site not in held]
    return {
        f"{len(part)} sites": fleet.model_copy(
            update={"name": f"{len(part)} sites", "sites": [_grown(s, fleet, part) for s in part]}
        )
        for part in (kept, held)
    }


def _grown(site: Site, fleet: FleetConfig, part: list[Site]) -> Site:
    """A site of a part with as many nodes more as there are sites fewer."""
    factor = len(fleet.sites) / len(part)
    return site.model_copy(update={"nodes": {n: round(factor * c) for n, c in site.nodes.items()}})


def costs(run: RunConfig, folder: Path) -> pd.DataFrame:
    """Mean objectives by variant of the policy of a folder on the test days of a run."""
    task = load_run(run)
    scheduler = make_scheduler(run)
    scheduler.load(folder / "policy.npz")
    inputs = ready(run)
    judge = load_judge(run, task.world, inputs.scenario, inputs.profiles)
    episodes = evaluate(task, scheduler, run.seed, judge)[0]
    return episodes.groupby("method", sort=False)[list(OBJECTIVES)].mean()


def losses(own: pd.DataFrame, foreign: pd.DataFrame) -> dict[str, float]:
    """Per cent above the policy trained there: the balanced score, then each own objective."""
    ratio = (foreign / own).to_numpy()
    percent = {"balanced": float(np.exp(np.log(ratio[0]).mean()))}
    names = list(SCHEMES)[1:]
    percent |= {name: ratio[1 + place, place] for place, name in enumerate(names)}
    return {name: 100.0 * (value - 1.0) for name, value in percent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("results/transfer"))
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(given.seeds):
        whole = compose(["method=marlin_nash", *given.overrides, f"seed={seed}"])
        runs = {
            name: whole.model_copy(update={"fleet": fleet})
            for name, fleet in parts(whole.fleet).items()
        }
        for name, run in runs.items():
            folder = given.folder / name.replace(" ", "-") / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            scheduler = make_scheduler(run)
            scheduler.train(load_run(run))
            scheduler.save(folder / "policy.npz")
        for here, run in runs.items():
            scored = {
                there: costs(run, given.folder / there.replace(" ", "-") / f"seed-{seed}")
                for there in runs
            }
            for there in runs:
                if there != here:
                    found = {"seed": seed, "trained on": there, "scored on": here}
                    rows.append(found | losses(scored[here], scored[there]))
                    print(pd.DataFrame(rows[-1:]).round(1).to_string(index=False), flush=True)
    table = pd.DataFrame(rows)
    if given.write:
        table.round(3).to_csv(given.write, index=False)
    print(table.drop(columns="seed").groupby(["trained on", "scored on"]).mean().round(1))


if __name__ == "__main__":
    with guard():
        main()
