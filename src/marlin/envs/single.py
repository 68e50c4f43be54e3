"""One controller over the whole fleet as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from marlin.envs.core import AGENTS, FEATURE_LIMIT, Core
from marlin.envs.episode import Episode
from marlin.errors import UserError


class FleetEnv(gymnasium.Env):
    """The reward is the weighted sum of the four agents' rewards; `info` has the vectors.

    Args:
        core: the fleet and its days.
        weights: of the objectives in the order ttft, carbon, water, cost; not negative.
    """

    def __init__(self, core: Core, weights: Sequence[float] = (0.25, 0.25, 0.25, 0.25)) -> None:
        self.weights = np.asarray(weights, dtype=float)
        if self.weights.shape != (len(AGENTS),) or (self.weights < 0).any():
            raise UserError(f"weights {weights} must be four numbers, none of them negative")
        self.core = core
        self.episode = Episode(core)
        limit = np.float32(FEATURE_LIMIT)
        self.observation_space = Box(-limit, limit, (core.observation_size,))
        self.action_space = Box(-1.0, 1.0, (core.action_size,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a day; `seed` decides this one and those after it."""
        super().reset(seed=seed)
        self.episode.reset(self.np_random)
        return self.episode.observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Carry out an action for an epoch."""
        if self.episode.over:
            raise UserError("the episode is over: call reset before step")
        rewards, costs, _ = self.episode.advance(action)
        info = {"objectives": costs, "rewards": rewards}
        seen = self.episode.observation()
        return seen, float(rewards @ self.weights), False, self.episode.over, info
