"""PerLLM: a bandit over sites with constraints, and the static form that MARLIN was compared with.

Source: PerLLM (2024), constraint-satisfaction upper confidence bound. Adapted: an arm is a site,
a pull is an epoch of one class of requests, what an arm cannot hold goes to the next best. The
source's servers all run; here a node that has to boot breaks the deadline, so that nodes are woken
only for what no running node has room for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from marlin.fleet.contract import Outcome, Plan
from marlin.fleet.simulator import TINY
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.factors import price_usd_per_mwh
from marlin.schedulers.fill import fill_by_cost
from marlin.schedulers.learning.online import live_through
from marlin.schedulers.loads import backlog_load, class_load, running_share

if TYPE_CHECKING:
    from marlin.task import Task


@dataclass
class CsUcb:
    """What K independent bandits know of D arms each; arrays [K, D] but for `rounds` [].

    Pulls may be parts of one: a round that is split over arms counts for each by its share.
    """

    mean: np.ndarray
    pulls: np.ndarray
    violated: np.ndarray
    rounds: np.ndarray

    @classmethod
    def untried(cls, bandits: int, arms: int) -> Self:
        """Nothing known yet."""
        none = np.zeros((bandits, arms))
        return cls(none, none.copy(), none.copy(), np.zeros(()))

    def index(self, exploration: float, penalty: float) -> np.ndarray:
        """``mean + exploration sqrt(ln t / N) - penalty violations / N``; untried arms first."""
        pulls = np.clip(self.pulls, 1.0, None)
        bonus = exploration * np.sqrt(np.log(np.clip(self.rounds, 1, None)) / pulls)
        known = self.mean + bonus - penalty * self.violated / pulls
        return np.where(self.pulls > 0, known, np.inf)

    def learned(self, reward: np.ndarray, violated: np.ndarray, share: np.ndarray) -> Self:
        """What is known after one more round: rewards, violations and shares [K, D]."""
        pulls = self.pulls + share
        step = share / np.clip(pulls, TINY, None)
        return replace(
            self,
            mean=self.mean + step * (reward - self.mean),
            pulls=pulls,
            violated=self.violated + share * violated,
            rounds=self.rounds + 1,
        )


@checked
class PerLlm(Scheduler):
    """Each class to the arm with the best index among those that meet deadline and capacity."""

    chance: ClassVar[bool] = False
    name: str = "perllm"
    target_utilisation: float = Field(0.8, gt=0, le=1)
    deadline_s: float = Field(2.0, gt=0)
    exploration: float = Field(0.1, ge=0)
    penalty: float = Field(1.0, ge=0)
    training_days: int = Field(14, ge=0, description="last days of train to learn on, in order")

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`; a day starts with what was learned in training."""
        origins, models, services = world.class_shape
        self._rtt_s = np.repeat(world.constants.rtt_s, models * services, axis=0)
        untried = CsUcb.untried(origins * models * services, len(world.sites))
        self._bandit = getattr(self, "_trained", untried)
        self._shares = np.zeros_like(untried.mean)

    def train(self, task: Task) -> list[dict[str, Any]]:
        """Walk training days in order, learning online; the last `training_days` of them."""
        self.reset(task.world, task.run.seed)
        live_through(task, self, self.training_days)
        return []

    def weights(self) -> dict[str, np.ndarray]:
        """See `Scheduler.weights`."""
        return asdict(self._bandit)

    def load(self, path: Path) -> None:
        """See `Scheduler.load`."""
        with np.load(path) as stored:
            self._trained = CsUcb(**stored)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world = observation.world
        load = class_load(world, observation.forecast.arrival_rate_per_s)
        flat = load.reshape(-1, load.shape[-1])
        room = np.clip(self.target_utilisation - backlog_load(world, observation.state), 0.0, None)
        running = self.target_utilisation * running_share(
            world, observation.state, observation.forecast.available
        )
        origins, models, services = world.class_shape
        model = np.tile(np.repeat(np.arange(models), services), origins)
        late = self._rtt_s > self.deadline_s
        # Among arms never pulled the nearest is tried first.
        index = np.where(late, -np.inf, self._bandit.index(self.exploration, self.penalty))
        self._shares = by_index(index, self._rtt_s, flat, running, model, room)
        routing = self._shares.reshape(1, *load.shape)
        return plan_for(observation, routing, self.target_utilisation)

    def observe(self, outcome: Outcome) -> None:
        """See `Scheduler.observe`; a reward is minus the energy per request over its mean."""
        served = np.clip(outcome.site_requests_per_s[0], 1e-9, None)
        energy = outcome.site_energy_kwh[0] / served
        used = outcome.site_requests_per_s[0] > 1e-9
        scale = energy[used].mean() if used.any() else 1.0
        reward = np.broadcast_to(-np.clip(energy / scale, None, 10.0), self._shares.shape)
        late = np.broadcast_to(outcome.site_ttft_s[0] > self.deadline_s, self._shares.shape)
        self._bandit = self._bandit.learned(reward, late.astype(float), self._shares)


@checked
class PerLlmAsRun(Scheduler):
    """No bandit: a delay budget as a constraint, then the cheapest site that has room."""

    chance: ClassVar[bool] = False
    name: str = "perllm_as_run"
    target_utilisation: float = Field(0.8, gt=0, le=1)
    deadline_s: float = Field(2.0, gt=0)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, forecast = observation.world, observation.forecast
        late = world.constants.rtt_s > self.deadline_s
        cost = np.where(late, np.inf, price_usd_per_mwh(forecast)[0])
        routing = fill_by_cost(world, cost, forecast.arrival_rate_per_s, self.target_utilisation)
        return plan_for(observation, routing, self.target_utilisation)


def by_index(
    index: np.ndarray,
    rtt_s: np.ndarray,
    load: np.ndarray,
    running: np.ndarray,
    model: np.ndarray,
    room: np.ndarray,
) -> np.ndarray:
    """Shares [K, D]: each class, heaviest first, to its best arms while they have room.

    `index` [K, D], higher is better, ties to the lower `rtt_s` [K, D]; `load` [K, D] utilisation
    that all of a class puts on a site; `running` [M, D] utilisation that nodes with a model loaded
    have room for, `model` [K] of each class; `room` [D] of the whole site. Nodes that run are
    filled before others are woken. What finds no room is spread evenly.
    """
    shares, left, room = np.zeros_like(load), np.ones(len(load)), room.copy()
    for awake in (running.copy(), np.full_like(running, np.inf)):
        for k in np.argsort(-load.max(axis=1)):
            for d in np.lexsort((rtt_s[k], -index[k])):
                fits = max(min(awake[model[k], d], room[d]), 0.0)
                taken = min(left[k], fits / max(load[k, d], TINY))
                shares[k, d] += taken
                left[k] -= taken
                awake[model[k], d] -= taken * load[k, d]
                room[d] -= taken * load[k, d]
    return shares + left[:, None] / len(room)
