"""Prioritised dual replay: what was carried out, and what was only tried.

Every agent draws rows by priorities of its own: what another agent tried is relabelled with its
reward and enters at a lower priority (hindsight), or not at all.
Axes: N agents, R rows. Source: Schaul et al. (2016), Prioritized Experience Replay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from marlin.schedulers.marlin.agents import AGENTS, Batch

EXPONENT = 0.6
IMPORTANCE_START = 0.4
IMPORTANCE_SAMPLES = 50_000
PRIORITY_MOST = 10.0  # of what is new, so that one error cannot fill all draws
PRIORITY_LEAST = 1e-3

Drawn = list[tuple["Replay", np.ndarray]]


class Replay:
    """A ring of transitions, drawn by each agent in proportion to priority^0.6."""

    def __init__(self, capacity: int, states: int, actions: int) -> None:
        self.capacity, self.size, self._next = capacity, 0, 0
        self.state = torch.zeros(capacity, states)
        self.action = torch.zeros(capacity, actions)
        self.reward = torch.zeros(capacity, AGENTS)
        self.next_state = torch.zeros(capacity, states)
        self.priority = np.zeros((AGENTS, capacity))

    def add(
        self, state: Any, action: Any, reward: Any, next_state: Any, scale: np.ndarray | float = 1.0
    ) -> None:
        """Store rows [R, ...] at `scale` [N, R] times the highest priority of each agent so far.

        A row of scale zero is never drawn by that agent.
        """
        rows = (self._next + np.arange(len(state))) % self.capacity
        top = self.priority[:, : self.size].max(axis=1, initial=0.0)
        top = np.where(top > 0.0, np.minimum(top, PRIORITY_MOST), 1.0)
        for name, values in (
            ("state", state), ("action", action), ("reward", reward), ("next_state", next_state),
        ):  # fmt: skip
            getattr(self, name)[rows] = torch.as_tensor(values, dtype=torch.float32)
        self.priority[:, rows] = scale * top[:, None]
        self._next = int((rows[-1] + 1) % self.capacity)
        self.size = min(self.size + len(rows), self.capacity)

    @property
    def ready(self) -> bool:
        """Whether every agent has something to draw."""
        return bool((self.priority[:, : self.size] > 0.0).any(axis=1).all())

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Indices [N, count] of rows."""
        cumulative = np.cumsum(self.priority[:, : self.size] ** EXPONENT, axis=1)
        points = rng.random((AGENTS, count)) * cumulative[:, -1:]
        pairs = zip(cumulative, points, strict=True)
        found = np.stack([np.searchsorted(*pair, side="right") for pair in pairs])
        return found.clip(max=self.size - 1)

    def importance(self, rows: np.ndarray, exponent: float) -> np.ndarray:
        """Weights [N, R] that undo the bias of drawing by priority, at most one for each agent."""
        chance = np.take_along_axis(self.priority, rows, axis=1) ** EXPONENT
        weight = (chance / chance.min(axis=1, keepdims=True)) ** -exponent
        return weight / weight.max(axis=1, keepdims=True)

    def reprioritise(self, rows: np.ndarray, error: np.ndarray) -> None:
        """Give rows [N, R] the priority of their last error."""
        np.put_along_axis(self.priority, rows, error + PRIORITY_LEAST, axis=1)


class DualReplay:
    """Carried-out transitions across epochs, and those tried within an epoch.

    Without `dual` both are one ring as large as the two.
    """

    def __init__(self, states: int, actions: int, across: int, within: int, dual: bool) -> None:
        self.within = Replay(within if dual else across + within, states, actions)
        self.across = Replay(across, states, actions) if dual else self.within
        self._drawn = 0

    @property
    def ready(self) -> bool:
        """Whether there is something to learn from."""
        return self.across.ready or self.within.ready

    def draw(
        self, count: int, across_share: float, rng: np.random.Generator
    ) -> tuple[Batch, Drawn]:
        """A mixed batch of `count` rows an agent, and where its rows came from."""
        wanted = round(count * across_share) if self.within.ready else count
        if self.within is self.across or not self.across.ready:
            wanted = 0
        parts = [(self.across, wanted), (self.within, count - wanted)]
        drawn = [(ring, ring.draw(n, rng)) for ring, n in parts if n]
        progress = min(self._drawn / IMPORTANCE_SAMPLES, 1.0)
        exponent = IMPORTANCE_START + (1.0 - IMPORTANCE_START) * progress
        self._drawn += count
        weight = np.concatenate([ring.importance(rows, exponent) for ring, rows in drawn], axis=1)

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(ring, name)[rows] for ring, rows in drawn], dim=1)

        own = torch.arange(AGENTS)[:, None, None]
        batch = Batch(
            state=joined("state"),
            action=joined("action"),
            reward=joined("reward").take_along_dim(own, dim=2)[..., 0],
            next_state=joined("next_state"),
            weight=torch.as_tensor(weight, dtype=torch.float32),
        )
        return batch, drawn

    @staticmethod
    def reprioritise(drawn: Drawn, error: Tensor) -> None:
        """Give rows the priority of their last error [N, R]."""
        start, table = 0, error.numpy()
        for ring, rows in drawn:
            ring.reprioritise(rows, table[:, start : start + rows.shape[1]])
            start += rows.shape[1]


def tried_scale(rows: int, own: float, relabelled: float) -> np.ndarray:
    """Priority scale [N, R] of tries whose rows are (world, agent): own and relabelled ones."""
    proposer = np.tile(np.arange(AGENTS), rows // AGENTS)
    return np.where(np.arange(AGENTS)[:, None] == proposer, own, relabelled)
