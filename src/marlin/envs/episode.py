"""One world walking through a day: the state that both interfaces keep."""

from __future__ import annotations

import numpy as np

from marlin.envs.core import Core, objectives
from marlin.fleet.contract import Outcome, repeat


class Episode:
    """One day of one world. It ends by the clock alone."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def reset(self, rng: np.random.Generator) -> None:
        """Go to the start of a day that `rng` draws."""
        self.first = int(rng.choice(np.array(self.core.days)))
        self.offset = 0
        self.state = self.core.start(1)

    @property
    def over(self) -> bool:
        """Whether the day's last epoch has been carried out."""
        return self.offset >= self.core.world.epochs_per_day

    @property
    def epoch(self) -> np.ndarray:
        """The coming epoch, [1]; after the last day of the data its last epoch again."""
        return np.array([min(self.first + self.offset, len(self.core.day_phase) - 1)])

    def observation(self) -> np.ndarray:
        """What is known before the coming epoch, float32 [F]."""
        return self.core.observe(self.state, self.epoch)[0].astype(np.float32)

    def values(self, actions: np.ndarray) -> np.ndarray:
        """Every agent's reward [N, P] for actions [P, A] if the forecast came true."""
        count = len(actions)
        state, epochs = repeat(self.state, count), np.repeat(self.epoch, count)
        return self.core.rewards(self.core.imagine(state, actions, epochs)[1]).T

    def advance(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, Outcome]:
        """Carry out an action [A]: rewards and objectives, [N] each, and the outcome."""
        limited = np.clip(np.asarray(action, dtype=float), -1.0, 1.0)[None]
        self.state, outcome = self.core.step(self.state, limited, self.epoch)
        self.offset += 1
        return self.core.rewards(outcome)[0], objectives(outcome)[0], outcome
