"""A ring of transitions of all worlds, drawn evenly, to be learned from under any scheme."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marlin.fleet.contract import OBJECTIVES
from marlin.schedulers.learning.practice import Transition
from marlin.schedulers.schemes import SCHEMES


@dataclass(frozen=True)
class Draw:
    """Rows of a batch under schemes of their own."""

    seen: np.ndarray  # [R, F]
    weights: np.ndarray  # [R, N]
    action: np.ndarray  # [R, A]
    reward: np.ndarray  # [R, N] one an objective
    after: np.ndarray  # [R, F]


class Ring:
    """The last `capacity` transitions.

    Rewards are kept by objective, so that each draw can take a row under any scheme: what one
    scheme tried teaches all.
    """

    def __init__(self, capacity: int, states: int, actions: int) -> None:
        self.capacity, self.size, self._next = capacity, 0, 0
        self.seen = np.zeros((capacity, states))
        self.action = np.zeros((capacity, actions))
        self.reward = np.zeros((capacity, len(OBJECTIVES)))
        self.after = np.zeros((capacity, states))

    def add(self, action: np.ndarray, transition: Transition) -> None:
        """Store what actions [B, A] led to."""
        rows = (self._next + np.arange(len(action))) % self.capacity
        self.seen[rows], self.action[rows] = transition.seen, action
        self.reward[rows], self.after[rows] = transition.reward, transition.after
        self._next = int((rows[-1] + 1) % self.capacity)
        self.size = min(self.size + len(rows), self.capacity)

    def draw(self, count: int, rng: np.random.Generator) -> Draw:
        """`count` rows, each under a scheme drawn for it."""
        rows = rng.integers(0, self.size, count)
        weights = np.array(list(SCHEMES.values()))[rng.integers(0, len(SCHEMES), count)]
        return Draw(
            self.seen[rows], weights, self.action[rows], self.reward[rows], self.after[rows]
        )
