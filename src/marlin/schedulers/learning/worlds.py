"""Worlds to practise on: past days whose outcome is known, walked through many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marlin.fleet.contract import State
from marlin.fleet.world import TRAIN
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.task import Task


class Worlds:
    """A batch of training worlds, each walking through a day, then moved to another.

    Each world has a scheme, drawn anew with every day.
    """

    def __init__(self, task: Task, count: int, rng: np.random.Generator) -> None:
        self.task, self.rng = task, rng
        self.days = np.array(task.days(TRAIN))
        self.per_day = task.world.epochs_per_day
        self.start = rng.choice(self.days, count)
        self.offset = rng.integers(0, self.per_day - 1, count)
        self.scheme = rng.integers(0, len(SCHEMES), count)
        self.state = task.world.idle_state(count)

    @property
    def epoch(self) -> np.ndarray:
        """Current epoch of every world, [B]."""
        return self.start + self.offset

    def weights(self) -> np.ndarray:
        """Scheme weights of every world, [B, N]."""
        return np.array(list(SCHEMES.values()))[self.scheme]

    def advance(self, state: State) -> np.ndarray:
        """Move every world one epoch on; returns which ones were moved to another day [B]."""
        self.state = state
        self.offset += 1
        done = self.offset >= self.per_day - 1
        self.start = np.where(done, self.rng.choice(self.days, len(done)), self.start)
        self.offset = np.where(done, 0, self.offset)
        drawn = self.rng.integers(0, len(SCHEMES), len(done))
        self.scheme = np.where(done, drawn, self.scheme)
        return done
