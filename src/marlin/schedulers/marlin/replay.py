"""Prioritised dual replay: what was carried out, and what was only tried.

Source: Schaul et al. (2016), Prioritized Experience Replay.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from marlin.schedulers.marlin.agents import Batch

EXPONENT = 0.6
IMPORTANCE_START = 0.4
IMPORTANCE_SAMPLES = 50_000


class Replay:
    """A ring of transitions, drawn in proportion to priority^0.6."""

    def __init__(self, capacity: int, states: int, actions: int, agents: int) -> None:
        self.capacity, self.size, self._next = capacity, 0, 0
        self.state = torch.zeros(capacity, states)
        self.action = torch.zeros(capacity, actions)
        self.reward = torch.zeros(capacity, agents)
        self.next_state = torch.zeros(capacity, states)
        self.priority = np.zeros(capacity)

    def add(
        self,
        state: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_state: np.ndarray,
        scale: float = 1.0,
    ) -> None:
        """Store rows [R, ...] at `scale` times the highest priority so far."""
        rows = (self._next + np.arange(len(state))) % self.capacity
        top = self.priority[: self.size].max() if self.size else 1.0
        for name, values in (
            ("state", state), ("action", action), ("reward", reward), ("next_state", next_state),
        ):  # fmt: skip
            getattr(self, name)[rows] = torch.as_tensor(values, dtype=torch.float32)
        self.priority[rows] = scale * min(top, 10.0)
        self._next = int((rows[-1] + 1) % self.capacity)
        self.size = min(self.size + len(rows), self.capacity)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of `count` rows."""
        cumulative = np.cumsum(self.priority[: self.size] ** EXPONENT)
        return np.searchsorted(cumulative, rng.random(count) * cumulative[-1]).clip(
            max=self.size - 1
        )

    def importance(self, rows: np.ndarray, exponent: float) -> np.ndarray:
        """Weights that undo the bias of drawing by priority, at most one."""
        chance = self.priority[rows] ** EXPONENT
        weight = (chance / chance.min()) ** -exponent
        return weight / weight.max()


class DualReplay:
    """Carried-out transitions across epochs, and those tried within an epoch."""

    def __init__(self, states: int, actions: int, agents: int, across: int, within: int) -> None:
        self.across = Replay(across, states, actions, agents)
        self.within = Replay(within, states, actions, agents)
        self._drawn = 0

    def draw(
        self, count: int, across_share: float, rng: np.random.Generator
    ) -> tuple[Batch, list[tuple[Replay, np.ndarray]]]:
        """A mixed batch, and where its rows came from."""
        wanted = round(count * across_share) if self.within.size else count
        parts = [(self.across, wanted), (self.within, count - wanted)]
        drawn = [(ring, ring.draw(n, rng)) for ring, n in parts if n and ring.size]
        progress = min(self._drawn / IMPORTANCE_SAMPLES, 1.0)
        exponent = IMPORTANCE_START + (1.0 - IMPORTANCE_START) * progress
        self._drawn += count
        weight = np.concatenate([ring.importance(rows, exponent) for ring, rows in drawn])

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(ring, name)[rows] for ring, rows in drawn])

        batch = Batch(
            state=joined("state"),
            action=joined("action"),
            reward=joined("reward"),
            next_state=joined("next_state"),
            weight=torch.as_tensor(weight, dtype=torch.float32),
        )
        return batch, drawn

    @staticmethod
    def reprioritise(drawn: list[tuple[Replay, np.ndarray]], error: Tensor) -> None:
        """Give rows the priority of their last error."""
        start = 0
        for ring, rows in drawn:
            ring.priority[rows] = error[start : start + len(rows)].numpy() + 1e-3
            start += len(rows)
