"""MARLIN: four agents, one per objective, propose a plan each; critics vote, refine and veto.

A reconstruction of the published method from public descriptions; docs/schedulers/marlin.md says
what is taken over and what is adapted. The modules: `codec` (what agents see and what their
numbers mean), `agents` (soft actor-critic), `replay`, `play` (one epoch), `training` (offline).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Outcome, Plan
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.schemes import SCHEMES


@dataclass
class Marlin(Scheduler):
    """Settings of the method; defaults are the paper's where they are known."""

    name: str = "marlin"
    actor_width: int = Field(128, ge=8, le=1024)
    critic_width: int = Field(128, ge=8, le=1024)
    actor_rate: float = Field(1e-3, gt=0, le=1)
    critic_rate: float = Field(1e-3, gt=0, le=1)
    temperature_rate: float = Field(1e-3, gt=0, le=1)
    discount: float = Field(0.3, ge=0, lt=1)
    target_rate: float = Field(0.02, gt=0, le=1)
    target_entropy: float = Field(-0.5, le=2, description="per number of the action")
    batch_size: int = Field(128, ge=8, le=4096)
    online_batch_size: int = Field(64, ge=8, le=4096)
    across_share: float = Field(0.7, ge=0, le=1, description="of a batch, from carried-out plans")
    across_capacity: int = Field(20_000, ge=100)
    within_capacity: int = Field(20_000, ge=100)
    across_priority: float = Field(3.0, gt=0)
    tried_priority: float = Field(0.4, gt=0)
    updates_per_round: int = Field(10, ge=0, le=100, description="while training, per vector step")
    blend_start: float = Field(0.6, ge=0, le=1, description="weight of the rule of thumb")
    blend_decay: float = Field(0.98, ge=0, le=1, description="per vector step")
    drop_penalty: float = Field(12.0, ge=0)
    explorations: int = Field(4, ge=0, le=64, description="simulated tries per agent and epoch")
    exploration_updates: int = Field(0, ge=0, le=100)
    online_updates: int = Field(1, ge=0, le=100, description="after an epoch was carried out")

    def variants(self) -> tuple[str, ...]:
        """Balanced first, then one variant per objective: schemes of the same agents."""
        return tuple(SCHEMES)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """Start from what was trained; chance is seeded by seed and variant."""
        from marlin.schedulers.marlin.online import Online

        self._online = Online(self, world, seed, variant, getattr(self, "_trained", None))

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        return self._online.plan(observation)

    def observe(self, outcome: Outcome) -> None:
        """Update capital and learn from the epoch that was carried out."""
        self._online.observe(outcome)

    def train(self, task: Any) -> list[dict[str, Any]]:
        """Learn on the training days of `task`; rows of the learning curve on validation days."""
        from marlin.schedulers.marlin.training import train

        self._trained, rows = train(self, task)
        return rows

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters of all networks by name."""
        return self._trained or {}

    def load(self, path: Path) -> None:
        """Read the parameters that `save` wrote."""
        with np.load(path) as stored:
            self._trained = dict(stored)
