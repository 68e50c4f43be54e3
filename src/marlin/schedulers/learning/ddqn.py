"""The networks of double deep Q-learning, and of the form that MARLIN was compared with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from marlin.fleet.contract import OBJECTIVES
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
from marlin.schedulers.learning.presets import presets, start_logits
from marlin.schedulers.learning.replay import Draw
from marlin.schedulers.learning.returns import td_target

if TYPE_CHECKING:
    from marlin.schedulers.ddqn import Ddqn, DdqnAsRun

OBJECTIVE_COUNT = len(OBJECTIVES)
AS_RUN_WIDTH = 128


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

    def try_out(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Presets [B] that are best by what was learned last."""
        return self.choose(self.network, seen, weights)

    def set_rate(self, rate: float) -> None:
        """Learn at `rate` from here on."""
        set_rate([self.step], rate)

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


class AsRunLearner:
    """A network of values by site and its copy; `learned` is what `pack` gave, or empty."""

    def __init__(
        self, options: DdqnAsRun, sites: int, seed: int, learned: dict[str, np.ndarray]
    ) -> None:
        self.options, self.sites = options, sites
        self._rng = np.random.default_rng([seed, 6])
        generator = seeded(seed)
        self._network = Mlps(1, sites, sites, generator, width=AS_RUN_WIDTH)
        self._target = Mlps(1, sites, sites, generator, width=AS_RUN_WIDTH)
        self._epochs = int(learned.get("epochs", 0))
        if learned:
            unpack({"network": self._network}, learned)
        follow(self._target, self._network, 1.0)
        self._step = torch.optim.Adam(self._network.parameters(), options.rate)
        self._memory: list[tuple[np.ndarray, int, float, np.ndarray]] = []
        self._state = self._rng.standard_normal(sites)

    def choose(self) -> int:
        """A site by chance, or the best for the state."""
        options = self.options
        epsilon = max(1.0 - self._epochs / options.explored_epochs, options.epsilon_least)
        if self._rng.random() < epsilon:
            return int(self._rng.integers(self.sites))
        with torch.no_grad():
            return int(self._network(tensor(self._state[None]))[0, 0].argmax())

    def learn(self, site: int, reward: float) -> None:
        """Remember an epoch; one step on a batch of those that are remembered."""
        options = self.options
        after = self._rng.standard_normal(self.sites)
        self._memory.append((self._state, site, reward, after))
        self._state, self._epochs = after, self._epochs + 1
        if len(self._memory) >= options.batch_size:
            self._update(self._rng.integers(0, len(self._memory), options.batch_size))
        if self._epochs % options.copied_every == 0:
            follow(self._target, self._network, 1.0)

    def _update(self, drawn: np.ndarray) -> None:
        state, site, reward, after = zip(*(self._memory[i] for i in drawn), strict=True)
        before, later = tensor(np.stack(state)), tensor(np.stack(after))
        every, chosen = torch.arange(len(drawn)), torch.as_tensor(site)
        with torch.no_grad():
            best = self._network(later)[0].argmax(dim=1)
            value = self._target(later)[0][every, best]
            goal = td_target(tensor(np.array(reward)), value, self.options.discount)
        loss = ((self._network(before)[0][every, chosen] - goal) ** 2).mean()
        descend(self._step, loss, math.inf)

    def pack(self) -> dict[str, np.ndarray]:
        """The network's parameters and how many epochs it has lived through."""
        return pack({"network": self._network}) | {"epochs": np.array(self._epochs)}
