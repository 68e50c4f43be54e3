"""Q-learning over a list of greedy plans, and the form that MARLIN was compared with.

Source: Watkins and Dayan (1992), Q-learning.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.terms import TINY
from marlin.fleet.world import World
from marlin.schedulers.base import Observation
from marlin.schedulers.learning.consolidation import Consolidation, Epoch
from marlin.schedulers.learning.exploration import Perseverance, falling
from marlin.schedulers.learning.features import (
    BACKLOG,
    CARBON,
    DEMAND,
    FLEET_LOAD,
    NODES_ON,
    PRICE,
    WATER,
    of_sites,
)
from marlin.schedulers.learning.practice import Practice
from marlin.schedulers.learning.presets import presets, start_logits
from marlin.schedulers.learning.scheduler import LearnedScheduler
from marlin.schedulers.schemes import SCHEMES

LOAD_EDGES = (-0.6, -0.4, -0.2)  # of the feature: fleet loads of 0.2, 0.3 and 0.4
ON_EDGES = (-0.2, 0.0, 0.2)  # of the feature: shares of nodes on of 0.3, 0.5 and 0.7
LEANING_EDGE = 0.2
BACKLOG_EDGE = 0.01  # of an epoch of one whole site
LEANINGS = 5  # running nodes follow demand nearby, low carbon, low water, low prices, or nothing
STATES = (len(LOAD_EDGES) + 1) * (len(ON_EDGES) + 1) * 2 * LEANINGS


@dataclass
class QLearning(LearnedScheduler):
    """Settings of the method."""

    name: str = "q_learning"
    discount: float = Field(0.8, ge=0, lt=1)
    rate_power: float = Field(0.7, gt=0.5, le=1, description="a value's n-th step is n^-power")
    explored: float = Field(0.5, gt=0, le=1, description="of the budget, until epsilon is least")
    epsilon_least: float = Field(0.05, ge=0, le=1)
    spell: float = Field(8.0, ge=1, description="epochs that a trial lasts in the mean")
    drop_penalty: float = Field(5.0, ge=0)

    def learner(self, world: World, seed: int) -> Learner:
        """See `LearnedScheduler.learner`."""
        return Learner(self)

    def practise(
        self, learner: Learner, practice: Practice, rng: np.random.Generator
    ) -> Iterator[None]:
        """Epsilon-greedy under each world's scheme, epsilon falling from one."""
        trials = Perseverance(len(practice.seen), len(learner.presets), self.spell, rng)
        while practice.affords(self.stride):
            epsilon = falling(1.0 - practice.left, self.explored, self.epsilon_least)
            chosen = trials.choose(learner.choose(practice.seen, practice.weights), epsilon)
            walked = practice.step(learner.presets[chosen])
            before, after = learner.states(walked.seen), learner.states(walked.after)
            for row in zip(before, chosen, walked.reward, after, strict=True):
                learner.update(*row)
            yield


class Learner:
    """A table of values by scheme, state and preset."""

    def __init__(self, options: QLearning) -> None:
        self.options, self.presets = options, presets()
        self.schemes = np.array(list(SCHEMES.values()))  # [C, N]
        start = start_logits(self.schemes)[:, None]
        self.table = np.repeat(start, STATES, axis=1)
        self.visits = np.zeros((STATES, len(self.presets)))

    def states(self, seen: np.ndarray) -> np.ndarray:
        """Cells [B] of what is seen [B, F]: load, nodes on, whether anything waits, leaning."""
        load = np.digitize(seen[:, FLEET_LOAD], LOAD_EDGES)
        on = np.digitize(of_sites(seen, NODES_ON).mean(axis=1), ON_EDGES)
        waits = of_sites(seen, BACKLOG).sum(axis=1) > BACKLOG_EDGE
        cell = (load * (len(ON_EDGES) + 1) + on) * 2 + waits
        return cell * LEANINGS + leaning(seen)

    def act(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Actions [B, A] of the best presets."""
        return self.presets[self.choose(seen, weights)]

    def choose(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Presets [B] with the largest value under the scheme nearest to `weights` [B, N]."""
        scheme = np.abs(weights[:, None] - self.schemes).sum(axis=2).argmin(axis=1)
        return self.table[scheme, self.states(seen)].argmax(axis=1)

    def update(self, state: int, preset: int, reward: np.ndarray, after: int) -> None:
        """One step for every scheme from one epoch; `reward` [N] by objective."""
        self.visits[state, preset] += 1
        rate = self.visits[state, preset] ** -self.options.rate_power
        best = self.table[:, after].max(axis=1)
        goal = self.schemes @ reward + self.options.discount * best
        self.table[:, state, preset] += rate * (goal - self.table[:, state, preset])

    def pack(self) -> dict[str, np.ndarray]:
        """The table."""
        return {"table": self.table.copy()}

    def unpack(self, named: dict[str, np.ndarray]) -> None:
        """Take what `pack` gave."""
        self.table = named["table"].copy()


def leaning(seen: np.ndarray) -> np.ndarray:
    """What the nodes that run lean to, [B], out of states [B, F].

    The largest of their correlations over sites with demand nearby, low carbon, low water and low
    prices (0 to 3), or 4 where none is above `LEANING_EDGE`: another order would start cold.
    """
    on = of_sites(seen, NODES_ON)
    good = np.stack(
        [of_sites(seen, DEMAND), *(-of_sites(seen, k) for k in (CARBON, WATER, PRICE))]
    )  # [4, B, D]
    on = on - on.mean(axis=-1, keepdims=True)
    good = good - good.mean(axis=-1, keepdims=True)
    spread = np.sqrt((on**2).sum(axis=-1) * (good**2).sum(axis=-1))
    alike = (on * good).sum(axis=-1) / spread.clip(min=TINY)
    return np.where(alike.max(axis=0) > LEANING_EDGE, alike.argmax(axis=0), len(alike))


@dataclass
class QLearningAsRun(Consolidation):
    """The state is how many sites are active, the action which one to fill."""

    name: str = "q_learning_as_run"
    active_weight: float = Field(0.87, ge=0, le=1, description="theta of the reward")
    discount: float = Field(0.9, ge=0, lt=1)
    rate: float = Field(0.1, gt=0, le=1)
    epsilon: float = Field(0.1, ge=0, le=1)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Consolidation.reset`."""
        self._rng = np.random.default_rng([seed, 5])
        sites = len(world.sites)
        self._table = self.weights().get("table", np.zeros((sites + 1, sites))).copy()
        self._active = sites  # every day starts with all on

    def choose(self, observation: Observation) -> int:
        """Epsilon-greedy."""
        if self._rng.random() < self.epsilon:
            return int(self._rng.integers(self._table.shape[1]))
        return int(self._table[self._active].argmax())

    def learn(self, epoch: Epoch) -> None:
        """See `Consolidation.learn`."""
        reward = -(self.active_weight * epoch.active + (1 - self.active_weight) * epoch.migrated)
        after = round(epoch.active * self._table.shape[1])
        goal = reward + self.discount * self._table[after].max()
        self._table[self._active, epoch.site] += self.rate * (
            goal - self._table[self._active, epoch.site]
        )
        self._active = after

    def known(self) -> dict[str, np.ndarray]:
        """See `Consolidation.known`."""
        return {"table": self._table.copy()}
