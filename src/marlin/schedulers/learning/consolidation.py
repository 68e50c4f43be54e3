"""What the learners that MARLIN was compared with share: one site takes all that it can hold.

They learn as they go, one epoch after another: on the last training days, then on the day that is
scored, which starts from what those taught.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from marlin.fleet.contract import Outcome, Plan
from marlin.fleet.simulator import TINY
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.learning.online import live_through
from marlin.schedulers.loads import backlog_load, class_load, same_for_all

if TYPE_CHECKING:
    from marlin.task import Task

BUSY = 1e-9  # requests per second above which a site counts as active


@dataclass(frozen=True)
class Epoch:
    """What an epoch was for a learner."""

    site: int  # where everything was sent first
    migrated: float  # share of the requests that were sent away from their nearest site
    active: float  # share of the sites that served any
    cost_usd: float
    ttft_s: float


@checked
class Consolidation(Scheduler):
    """Chooses a site each epoch; what does not fit goes to the sites with most room."""

    target_utilisation: float = Field(0.8, gt=0, le=1)
    training_days: int = Field(14, ge=0, description="last days of train to learn on, in order")

    @abstractmethod
    def choose(self, observation: Observation) -> int:
        """The site of the coming epoch."""

    @abstractmethod
    def learn(self, epoch: Epoch) -> None:
        """Take in what the last choice led to."""

    @abstractmethod
    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """Start a day with what `weights` holds, or with nothing known if that is empty."""

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, forecast = observation.world, observation.forecast
        self._site = self.choose(observation)
        load = class_load(world, forecast.arrival_rate_per_s).sum(axis=(0, 1, 2))
        room = np.clip(self.target_utilisation - backlog_load(world, observation.state), 0.0, None)
        share = consolidated(self._site, load, room)
        demand = forecast.arrival_rate_per_s[0].sum(axis=(1, 2))
        stays = share[world.constants.rtt_s.argmin(axis=1)]
        self._migrated = float(1.0 - (demand * stays).sum() / max(demand.sum(), TINY))
        return plan_for(observation, same_for_all(world, share), self.target_utilisation)

    def observe(self, outcome: Outcome) -> None:
        """See `Scheduler.observe`."""
        active = float((outcome.site_requests_per_s[0] > BUSY).mean())
        cost, ttft = float(outcome.cost_usd[0]), float(outcome.ttft_s[0])
        self.learn(Epoch(self._site, self._migrated, active, cost, ttft))

    def train(self, task: Task) -> list[dict[str, Any]]:
        """Walk training days in order, learning online; as many as the budget holds."""
        world = task.world
        afforded = task.run.budget.training_epochs // world.epochs_per_day
        days = min(self.training_days, afforded)
        self._learned = {}
        self.reset(world, task.run.seed)
        live_through(task, self, days)
        self._learned = self.known()
        return []

    @abstractmethod
    def known(self) -> dict[str, np.ndarray]:
        """What has been learned so far, by name."""

    def weights(self) -> dict[str, np.ndarray]:
        """See `Scheduler.weights`; what training taught, without what scored days added."""
        return getattr(self, "_learned", {})

    def load(self, path: Path) -> None:
        """See `Scheduler.load`."""
        with np.load(path) as stored:
            self._learned = dict(stored)


def consolidated(site: int, load: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Shares [D] of all demand: `site` as far as it holds, then those with most room in turn.

    `load` [D] is what all demand would put on each site, `room` [D] what each may take. What fits
    nowhere is spread evenly.
    """
    share, left = np.zeros(len(load)), 1.0
    by_room = [d for d in np.argsort(-room, kind="stable") if d != site]
    for d in (site, *by_room):
        share[d] = min(left, room[d] / max(load[d], TINY))
        left -= share[d]
    return share + left / len(load)
