"""The networks of advantage actor-critic, and of the form that MARLIN was compared with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from marlin.fleet.contract import OBJECTIVES
from marlin.schedulers.learning.networks import (
    Mlps,
    descend,
    joined,
    mixed,
    pack,
    seeded,
    set_rate,
    tensor,
    unpack,
)
from marlin.schedulers.learning.practice import Transition
from marlin.schedulers.learning.presets import presets, start_logits
from marlin.schedulers.learning.returns import advantages, td_target

if TYPE_CHECKING:
    from marlin.schedulers.actor_critic import ActorCritic, ActorCriticAsRun

OBJECTIVE_COUNT = len(OBJECTIVES)
AS_RUN_WIDTH = 128


class Learner:
    """A policy over presets and a critic of every objective."""

    def __init__(self, options: ActorCritic, inputs: int, seed: int) -> None:
        self.options, self.presets = options, presets()
        self.generator = seeded(seed)
        outputs = OBJECTIVE_COUNT * len(self.presets)
        self.actor = Mlps(1, inputs, outputs, self.generator, torch.tanh, last=0.01)
        self.critic = Mlps(1, inputs, OBJECTIVE_COUNT, self.generator, torch.tanh)
        parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.step = torch.optim.Adam(parameters, options.rate)

    def set_rate(self, rate: float) -> None:
        """Learn at `rate` from here on."""
        set_rate([self.step], rate)

    def log_chances(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the presets, [R, P]."""
        weights = rows[:, -OBJECTIVE_COUNT:]
        start = tensor(start_logits(weights.numpy()))
        return torch.log_softmax(start + mixed(self.actor(rows)[0], weights), dim=-1)

    def act(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Actions [B, A] of the likeliest presets."""
        with torch.no_grad():
            return self.presets[self.log_chances(joined(seen, weights)).argmax(dim=1).numpy()]

    def draw(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Presets [B] drawn from the policy."""
        with torch.no_grad():
            chances = self.log_chances(joined(seen, weights)).exp()
            return torch.multinomial(chances, 1, generator=self.generator)[:, 0].numpy()

    def update(self, chosen: np.ndarray, walked: list[Transition]) -> None:
        """One step on presets [T, B] and what they led to."""
        options = self.options
        weights = np.concatenate([t.weights for t in walked])
        rows = joined(np.concatenate([t.seen for t in walked]), weights)
        after = joined(np.concatenate([t.after for t in walked]), weights)
        value = self.critic(rows)[0]
        shape = (*chosen.shape, OBJECTIVE_COUNT)
        with torch.no_grad():
            next_value = self.critic(after)[0].reshape(shape).numpy()
            gain = advantages(
                np.stack([t.reward for t in walked]),
                value.reshape(shape).numpy(),
                next_value,
                np.stack([t.moved for t in walked])[..., None],
                options.discount,
                options.trace,
            )
        gain = tensor(gain.reshape(-1, OBJECTIVE_COUNT))
        better = (gain * tensor(weights)).sum(-1)
        better = better / (better.std() + 1e-6)
        log_chances = self.log_chances(rows)
        taken = log_chances.gather(1, torch.as_tensor(chosen.reshape(-1, 1)))[:, 0]
        spread = -(log_chances.exp() * log_chances).sum(-1).mean()
        misjudged = ((value - (gain + value.detach())) ** 2).mean()
        loss = -(taken * better).mean() - options.entropy * spread
        descend(self.step, loss + options.value_weight * misjudged, options.gradient_limit)

    def pack(self) -> dict[str, np.ndarray]:
        """The actor's parameters."""
        return pack({"actor": self.actor})

    def unpack(self, named: dict[str, np.ndarray]) -> None:
        """Take what `pack` gave."""
        unpack({"actor": self.actor}, named)


class AsRunLearner:
    """A policy over sites and a critic; `learned` is what `pack` gave, or empty."""

    def __init__(
        self,
        options: ActorCriticAsRun,
        inputs: int,
        sites: int,
        seed: int,
        learned: dict[str, np.ndarray],
    ) -> None:
        self.options, self._generator = options, seeded(seed)
        self._actor = Mlps(1, inputs, sites, self._generator, width=AS_RUN_WIDTH, hidden=1)
        self._critic = Mlps(1, inputs, 1, self._generator, width=AS_RUN_WIDTH, hidden=1)
        if learned:
            unpack({"actor": self._actor, "critic": self._critic}, learned)
        parameters = [*self._actor.parameters(), *self._critic.parameters()]
        self._step = torch.optim.Adam(parameters, options.rate)
        self._last: tuple[torch.Tensor, int, float] | None = None

    def choose(self, seen: np.ndarray) -> int:
        """A step on what is remembered, which led to `seen` [1, F]; then a draw of a site."""
        self._seen = tensor(seen)
        if self._last is not None:
            self._update(*self._last, self._seen)
        with torch.no_grad():
            chances = torch.softmax(self._actor(self._seen)[0, 0], dim=0)
        return int(torch.multinomial(chances, 1, generator=self._generator))

    def remember(self, site: int, reward: float) -> None:
        """What the last choice brought."""
        self._last = (self._seen, site, reward)

    def _update(self, seen: torch.Tensor, site: int, reward: float, after: torch.Tensor) -> None:
        value = self._critic(seen)[0, 0, 0]
        with torch.no_grad():
            goal = td_target(reward, self._critic(after)[0, 0, 0], self.options.discount)
        error = goal - value
        log_chance = torch.log_softmax(self._actor(seen)[0, 0], dim=0)[site]
        descend(self._step, error**2 - error.detach() * log_chance, math.inf)

    def pack(self) -> dict[str, np.ndarray]:
        """Parameters of both networks."""
        return pack({"actor": self._actor, "critic": self._critic})
