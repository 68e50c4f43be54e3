"""Double deep Q-learning over a list of greedy plans, and the form that MARLIN was compared with.

Source: van Hasselt, Guez and Silver (2016), Deep Reinforcement Learning with Double Q-learning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import World
from marlin.schedulers.base import Observation
from marlin.schedulers.learning.consolidation import Consolidation, Epoch
from marlin.schedulers.learning.exploration import Perseverance, falling
from marlin.schedulers.learning.features import state_size
from marlin.schedulers.learning.networks import (
    Mlps,
    descend,
    follow,
    joined,
    pack,
    seeded,
    set_rate,
    tensor,
    unpack,
)
from marlin.schedulers.learning.practice import Practice
from marlin.schedulers.learning.presets import presets, start_logits
from marlin.schedulers.learning.replay import Draw, Ring
from marlin.schedulers.learning.returns import td_target
from marlin.schedulers.learning.scheduler import LearnedScheduler

OBJECTIVE_COUNT = len(OBJECTIVES)
AS_RUN_WIDTH = 128


@dataclass
class Ddqn(LearnedScheduler):
    """Settings of the method."""

    name: str = "ddqn"
    rate: float = Field(1e-3, gt=0, le=1, description="at first; falls to zero")
    discount: float = Field(0.8, ge=0, lt=1)
    target_rate: float = Field(0.002, gt=0, le=1, description="of the copy that acts")
    explored: float = Field(0.5, gt=0, le=1, description="of the budget, until epsilon is least")
    epsilon_least: float = Field(0.05, ge=0, le=1)
    spell: float = Field(1.0, ge=1, description="epochs that a trial lasts in the mean")
    batch_size: int = Field(256, ge=8, le=4096)
    capacity: int = Field(50_000, ge=100)
    updates: int = Field(4, ge=0, le=100, description="after each epoch of all worlds")
    gradient_limit: float = Field(10.0, gt=0)
    drop_penalty: float = Field(5.0, ge=0)

    def learner(self, world: World, seed: int) -> Learner:
        """See `LearnedScheduler.learner`."""
        return Learner(self, state_size(world) + OBJECTIVE_COUNT, seed)

    def practise(
        self, learner: Learner, practice: Practice, rng: np.random.Generator
    ) -> Iterator[None]:
        """Epsilon-greedy, epsilon falling from one; `updates` steps after each epoch."""
        ring = Ring(self.capacity, practice.seen.shape[1], 1)
        trials = Perseverance(len(practice.seen), len(learner.presets), self.spell, rng)
        while practice.affords(self.stride):
            epsilon = falling(1.0 - practice.left, self.explored, self.epsilon_least)
            chosen = trials.choose(
                learner.choose(learner.network, practice.seen, practice.weights), epsilon
            )
            ring.add(chosen[:, None], practice.step(learner.presets[chosen]))
            set_rate([learner.step], practice.left * self.rate)
            for _ in range(self.updates):
                learner.update(ring.draw(self.batch_size, rng))
            yield


class Learner:
    """A network of values by preset and objective, and its slow copy."""

    def __init__(self, options: Ddqn, inputs: int, seed: int) -> None:
        self.options, self.presets = options, presets()
        generator, outputs = seeded(seed), len(self.presets) * OBJECTIVE_COUNT
        self.network = Mlps(1, inputs, outputs, generator, last=0.01)
        self.target = Mlps(1, inputs, outputs, generator, last=0.01)
        self.target.load_state_dict(self.network.state_dict())
        self.step = torch.optim.Adam(self.network.parameters(), options.rate)

    def act(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Actions [B, A] of the presets that are best by the slow copy, which wavers less."""
        return self.presets[self.choose(self.target, seen, weights)]

    def choose(self, network: Mlps, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Presets [B] with the largest weighted value of `network`."""
        with torch.no_grad():
            table = self.values(network, joined(seen, weights))
            return (table @ tensor(weights)[..., None])[..., 0].argmax(dim=1).numpy()

    def values(self, network: Mlps, rows: torch.Tensor) -> torch.Tensor:
        """Values [R, P, N] of every preset for every objective, around what speaks for it."""
        start = tensor(start_logits(rows[:, -OBJECTIVE_COUNT:].numpy()))
        table = network(rows)[0].reshape(len(rows), len(self.presets), OBJECTIVE_COUNT)
        return table + start[..., None]

    def update(self, batch: Draw) -> None:
        """One step of the network towards `goals`, then of its slow copy after it."""
        table = self.values(self.network, joined(batch.seen, batch.weights))
        guess = table[torch.arange(len(table)), torch.as_tensor(batch.action[:, 0].astype(int))]
        loss = torch.nn.functional.smooth_l1_loss(guess, self.goals(batch))
        descend(self.step, loss, self.options.gradient_limit)
        follow(self.target, self.network, self.options.target_rate)

    def goals(self, batch: Draw) -> torch.Tensor:
        """Targets [R, N]: the network chooses the next preset, its slow copy says its worth."""
        with torch.no_grad():
            table = self.values(self.target, joined(batch.after, batch.weights))
            best = torch.as_tensor(self.choose(self.network, batch.after, batch.weights))
            value = table[torch.arange(len(table)), best]
            return td_target(tensor(batch.reward), value, self.options.discount)

    def pack(self) -> dict[str, np.ndarray]:
        """The slow copy's parameters: what acts."""
        return pack({"target": self.target})

    def unpack(self, named: dict[str, np.ndarray]) -> None:
        """Take what `pack` gave."""
        unpack({"target": self.target}, named)


@dataclass
class DdqnAsRun(Consolidation):
    """The action is which site to fill; the state is noise, as in the version that was read."""

    name: str = "ddqn_as_run"
    rate: float = Field(1e-3, gt=0, le=1)
    discount: float = Field(0.99, ge=0, lt=1)
    batch_size: int = Field(32, ge=1)
    epsilon_least: float = Field(0.01, ge=0, le=1)
    explored_epochs: int = Field(100, ge=1, description="until epsilon is least, from one")
    copied_every: int = Field(5, ge=1, description="epochs between copies to the target")
    ttft_weight: float = Field(100.0, ge=0, description="USD that a second of TTFT counts as")

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Consolidation.reset`."""
        self._rng, self._sites = np.random.default_rng([seed, 6]), len(world.sites)
        generator = seeded(seed)
        self._network = Mlps(1, self._sites, self._sites, generator, width=AS_RUN_WIDTH)
        self._target = Mlps(1, self._sites, self._sites, generator, width=AS_RUN_WIDTH)
        learned = self.weights()
        self._epochs = int(learned.get("epochs", 0))
        if learned:
            unpack({"network": self._network}, learned)
        follow(self._target, self._network, 1.0)
        self._step = torch.optim.Adam(self._network.parameters(), self.rate)
        self._memory: list[tuple[np.ndarray, int, float, np.ndarray]] = []
        self._state = self._rng.standard_normal(self._sites)

    def choose(self, observation: Observation) -> int:
        """Epsilon-greedy, epsilon falling in proportion to the epochs lived through."""
        epsilon = max(1.0 - self._epochs / self.explored_epochs, self.epsilon_least)
        if self._rng.random() < epsilon:
            return int(self._rng.integers(self._sites))
        with torch.no_grad():
            return int(self._network(tensor(self._state[None]))[0, 0].argmax())

    def learn(self, epoch: Epoch) -> None:
        """One step on a batch of past epochs, the target copied now and then."""
        reward = -epoch.cost_usd - self.ttft_weight * epoch.ttft_s
        after = self._rng.standard_normal(self._sites)
        self._memory.append((self._state, epoch.site, reward, after))
        self._state, self._epochs = after, self._epochs + 1
        if len(self._memory) >= self.batch_size:
            self._update(self._rng.integers(0, len(self._memory), self.batch_size))
        if self._epochs % self.copied_every == 0:
            follow(self._target, self._network, 1.0)

    def _update(self, drawn: np.ndarray) -> None:
        state, site, reward, after = zip(*(self._memory[i] for i in drawn), strict=True)
        before, later = tensor(np.stack(state)), tensor(np.stack(after))
        every, chosen = torch.arange(len(drawn)), torch.as_tensor(site)
        with torch.no_grad():
            best = self._network(later)[0].argmax(dim=1)
            value = self._target(later)[0][every, best]
            goal = td_target(tensor(np.array(reward)), value, self.discount)
        loss = ((self._network(before)[0][every, chosen] - goal) ** 2).mean()
        descend(self._step, loss, math.inf)

    def known(self) -> dict[str, np.ndarray]:
        """See `Consolidation.known`."""
        return pack({"network": self._network}) | {"epochs": np.array(self._epochs)}
