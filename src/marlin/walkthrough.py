"""One epoch of MARLIN, step by step: `python -m marlin.walkthrough RUN PICTURE`.

Plays the first test day with the policy of a run folder of `marlin.train` up to an epoch, and draws
what the agents proposed, how they voted, who pulled, and the plan that came out.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from marlin import compose
from marlin.analysis.plots import walkthrough
from marlin.analysis.plots.style import METADATA, style
from marlin.analysis.plots.walkthrough import EpochWalk
from marlin.entry import guard
from marlin.errors import UserError
from marlin.files import write_bytes
from marlin.fleet.contract import Plan
from marlin.fleet.simulator import step
from marlin.schedulers.marlin import Marlin
from marlin.schedulers.schemes import SCHEMES
from marlin.task import Task, load_run, make_scheduler


def walked(task: Task, scheduler: Marlin, variant: str, epoch: int) -> EpochWalk:
    """The negotiation of the `epoch`-th epoch of the first test day under a scheme."""
    world, start = task.world, task.test_days()[0]
    scheduler.reset(world, task.run.seed, variant)
    state, online = world.idle_state(1), scheduler.online
    for now in range(start, start + epoch + 1):
        before = online.capital
        plan = scheduler.plan(task.observation(now, state, scheduler.plans_on_truth))
        truth = task.truth(np.array([now]))
        state, outcome = step(world, state, plan, truth)
        scheduler.observe(outcome)
    sites, scheme = len(world.sites), list(SCHEMES).index(variant)
    bargain, proposals = online.bargain, online.proposals[scheme]

    def mean_share(actions: Tensor) -> np.ndarray:
        shares = actions[..., :-sites].unflatten(-1, (-1, sites)).mean(-2)
        return np.atleast_2d(shares.detach().numpy())

    stages = [part[scheme] for part in (bargain.consensus, bargain.refined, bargain.plan)]
    sliders = [*proposals, *stages]
    power = np.array(SCHEMES[variant]) * before[0].numpy()
    return EpochWalk(
        sites=world.sites,
        proposals=mean_share(proposals),
        stages=np.concatenate([mean_share(stage) for stage in stages]),
        sliders=np.stack([row[-sites:].detach().numpy() for row in sliders]),
        scores=bargain.scores[scheme].numpy(),
        shares=bargain.shares[scheme].numpy(),
        power=power / power.sum(),
        capital=np.concatenate([before.numpy(), online.capital.numpy()]),
        pulls=bargain.pulls[scheme].numpy(),
        requests=_requests(plan, truth.arrival_rate_per_s),
        nodes_on=state.nodes_on[0].sum(axis=1) / world.constants.nodes.sum(axis=1),
    )


def _requests(plan: Plan, arrivals: np.ndarray) -> np.ndarray:
    """Share of all requests that a plan sends to each site, [D]."""
    sent = np.einsum("boms,bomsd->d", arrivals, plan.routing)
    return sent / sent.sum()


def build(run_folder: Path, picture: Path, variant: str, epoch: int) -> None:
    """Draw an epoch of the run in a folder.

    Raises:
        UserError: the run is of another method, or the epoch is not one of the day.
    """
    run = compose.load(run_folder / "resolved.yaml")
    scheduler = make_scheduler(run)
    if not isinstance(scheduler, Marlin):
        raise UserError(f"{run_folder} holds a run of {run.method['name']}: give one of marlin")
    task = load_run(run)
    if not 0 <= epoch < task.world.epochs_per_day:
        raise UserError(f"--epoch {epoch} is not in 0..{task.world.epochs_per_day - 1}")
    scheduler.load(run_folder / "policy.npz")
    stream = io.BytesIO()
    with style():
        figure = walkthrough.draw(walked(task, scheduler, variant, epoch))
        figure.savefig(stream, format="png", dpi=150, metadata=METADATA["png"])
    write_bytes(picture, stream.getvalue())
    print(f"epoch {epoch} of {task.day_name(task.test_days()[0])} in {picture}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m marlin.walkthrough", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of one seed, made by marlin.train")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--scheme", choices=[n for n in SCHEMES if n], help="default: balanced")
    parser.add_argument("--epoch", type=int, default=48, help="of the day, default 48")
    given = parser.parse_args(arguments)
    with guard():
        build(given.run, given.picture, given.scheme or "", given.epoch)


if __name__ == "__main__":
    main()
