"""MARLIN: four agents, one per objective, propose a plan each; critics vote, refine and veto.

A reconstruction of the published method from public descriptions; docs/schedulers/marlin.md says
what is taken over and what is adapted. The modules: `codec` (what agents see and what their
numbers mean), `reward` (equation 7), `agents` (soft actor-critic), `replay`, `council` (one epoch's
proposals, tries and negotiation), `training` (offline) and `online`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.errors import UserError
from marlin.fleet.contract import Outcome, Plan
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.learning.scheduler import part
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.games.negotiation import Rules


@dataclass
class Marlin(Scheduler):
    """Settings of the method: the published ones where they are known, unless they would let it
    know or do what other schedulers cannot. `conf/method/marlin_as_run.yaml` is the form as run.
    """

    name: str = "marlin"
    # What is known and what may be done.
    plans_on_truth: bool = Field(False, description="plans with the epoch's truth as its forecast")
    weights_act: bool = Field(True, description="routing shares say what sites get")
    source_routing: bool = Field(True, description="requests stay near where that is possible")
    shared_power: bool = Field(True, description="power through the layer that all share")
    steady: bool = Field(True, description="sites do not flicker at the line to be switched off")
    # Reward.
    per_request: bool = Field(True, description="totals over the requests served")
    damped: bool = Field(True, description="ratios above one count by their logarithm")
    settled: bool = Field(True, description="pays for a plan as if it had stood before")
    # Learners.
    film: bool = True
    actor_width: int = Field(128, ge=8, le=1024)
    critic_width: int = Field(256, ge=8, le=1024)
    actor_rate: float = Field(3e-4, gt=0, le=1)
    critic_rate: float = Field(1e-3, gt=0, le=1)
    temperature_rate: float = Field(3e-4, gt=0, le=1)
    discount: float = Field(0.95, ge=0, lt=1)
    target_rate: float = Field(0.005, gt=0, le=1)
    target_entropy: float = Field(-0.5, le=2, description="per number of the action")
    batch_size: int = Field(64, ge=8, le=4096)
    # Replay.
    dual_buffer: bool = True
    across_share: float = Field(0.7, ge=0, le=1, description="of a batch, from carried-out plans")
    across_capacity: int = Field(5_000, ge=100)
    within_capacity: int = Field(20_000, ge=100)
    across_priority: float = Field(3.0, gt=0)
    hindsight: bool = Field(True, description="agents learn from the tries of the others")
    hindsight_priority: float = Field(0.4, gt=0)
    # Training.
    start_from: str = Field("", description="policy.npz of another fleet, for layers that fit")
    training_tries: int = Field(3, ge=0, le=16, description="an agent and epoch")
    training_updates: int = Field(30, ge=0, le=100, description="after each epoch of all worlds")
    blend_start: float = Field(0.6, ge=0, le=1, description="weight of the rule of thumb")
    blend_decay: float = Field(0.9, ge=0, le=1, description="per epoch of all worlds")
    # At work.
    explorations: int = Field(4, ge=0, le=64, description="simulated tries an agent and epoch")
    exploration_updates: int = Field(4, ge=0, le=100, description="after each try of all agents")
    online_pace: float = Field(1.0, gt=0, le=1, description="of the learning rates")
    online_updates: int = Field(40, ge=0, le=100, description="after an epoch was carried out")
    # Negotiation.
    phase2: bool = Field(True, description="otherwise the agent with most power decides")
    score_exponent: float = Field(2.0, gt=0, le=64)
    refinement_steps: int = Field(5, ge=0, le=100)
    refinement_rate: float = Field(0.05, ge=0, le=1, description="a step, times the slope")
    veto: bool = True
    capital: bool = True

    @property
    def rules(self) -> Rules:
        """Of the negotiation."""
        from marlin.games.negotiation import Rules

        return Rules(
            phase2=self.phase2,
            score_exponent=self.score_exponent,
            refinement_steps=self.refinement_steps,
            refinement_rate=self.refinement_rate,
            veto=self.veto,
            capital=self.capital,
        )

    def variants(self) -> tuple[str, ...]:
        """Balanced first, then one variant per objective: schemes of the same agents."""
        return tuple(SCHEMES)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """Start from what was trained; chance is seeded by seed and variant."""
        from marlin.schedulers.marlin.online import Online

        self.online = Online(self, world, seed, variant, part(self.weights(), variant))

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        return self.online.plan(observation)

    def observe(self, outcome: Outcome) -> None:
        """Update capital and learn from the epoch that was carried out."""
        self.online.observe(outcome)

    def train(self, task: Any) -> list[dict[str, Any]]:
        """Learn on the training days of `task`; rows of the learning curve on validation days.

        Each scheme keeps the checkpoint that did best on it there.
        """
        from marlin.schedulers.marlin.training import train

        self._learned, rows = train(self, task)
        return rows

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters by scheme and name."""
        return getattr(self, "_learned", {})

    def load(self, path: Path) -> None:
        """Read the parameters that `save` wrote."""
        with np.load(path) as stored:
            self._learned = dict(stored)

    def earlier(self) -> dict[str, np.ndarray]:
        """Parameters of the balanced scheme in `start_from`; none without it.

        Raises:
            UserError: the file is not there.
        """
        if not self.start_from:
            return {}
        path = Path(self.start_from)
        if not path.is_file():
            raise UserError(f"method.start_from={path} is not a file: name a policy.npz")
        with np.load(path) as stored:
            return part(dict(stored), "")
