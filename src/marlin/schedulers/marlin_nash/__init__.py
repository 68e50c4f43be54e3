"""Four agents bid for their objectives and bargain over one plan; trained through the simulator.

This project's own method; docs/schedulers/marlin_nash.md tells how it works and what was tried.
The modules: `pools` (a fleet as tensors), `tokens` (what is seen), `network` (one policy for any
fleet), `deciding` (from bids to a plan), `whole` (small sites close, nodes are whole), `fleets` and
`practice` (what is trained on), `training` (slopes through the simulator), `bargaining` (the
weights that the agents agree on), `online` (at work).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Outcome, Plan
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.schedulers.marlin_nash.bargaining import Terms
    from marlin.schedulers.marlin_nash.deciding import Market


@dataclass
class MarlinNash(Scheduler):
    """Settings of the method."""

    name: str = "marlin_nash"
    width: int = Field(64, ge=4, le=1024, description="of the network")
    messages: bool = Field(True, description="agents and pools hear agents")
    lookahead: bool = Field(True, description="boot for the forecast of the epoch after")
    bargaining: bool = Field(True, description="weights by bargaining, not equal ones")
    sharpness: float = Field(12.0, gt=0, le=100)
    later_rounds: int = Field(12, ge=1, le=100, description="price updates, epoch after")
    rounds: int = Field(8, ge=1, le=100, description="price updates, coming epoch, in training")
    settled_rounds: int = Field(16, ge=1, le=100, description="the same, at work")
    relaxation: float = Field(1.6, ge=1, lt=2)
    least_nodes: float = Field(2.0, ge=0, description="of a site that runs; 0: nodes in part")
    powers: tuple[float, float, float, float] = Field((1.0, 1.0, 1.0, 1.0))
    otherwise: Literal["nothing", "even_split", "lottery"] = Field(
        "nothing", description="what happens if the agents do not agree"
    )
    least_weight: float = Field(0.005, ge=0, le=0.25, description="of every objective")
    caution: float = Field(
        2.0, ge=0, le=10, description="room for errors of the forecast beyond those learned from"
    )
    memory_days: float = Field(4.0, ge=0, description="of accounts of gains; 0: not kept")
    rate: float = Field(4e-3, gt=0, le=1)
    horizon: int = Field(8, ge=1, le=96, description="epochs that slopes pass through")
    worlds: int = Field(12, ge=4, le=4096, description="on a fleet of 12 sites or fewer")
    logarithmic: bool = Field(True, description="learn by the logarithms of a day's costs")
    drop_penalty: float = Field(30.0, ge=0)
    record_days: int = Field(120, ge=1, description="of the training days, evenly spaced")
    bargaining_days: int = Field(12, ge=1, description="of these, for the agreement")
    fleets: int = Field(4, ge=0, le=64, description="random ones, at a time")
    home_share: float = Field(0.8, ge=0, le=1, description="of steps, on the run's own fleet")

    @property
    def market(self) -> Market:
        """How prices of pools are found, at work."""
        from marlin.schedulers.marlin_nash.deciding import Market

        return Market(
            sharpness=self.sharpness,
            later_rounds=self.later_rounds,
            rounds=self.settled_rounds,
            relaxation=self.relaxation,
            least_nodes=self.least_nodes,
            rescue=True,
        )

    @property
    def terms(self) -> Terms:
        """Under which the agents bargain."""
        from marlin.schedulers.marlin_nash.bargaining import Terms

        powers = np.array(self.powers) / sum(self.powers)
        return Terms(powers, self.otherwise, self.least_weight)

    def variants(self) -> tuple[str, ...]:
        """The agreement first, then each agent by itself: one network, turned by its weights."""
        return tuple(SCHEMES)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`."""
        from marlin.schedulers.marlin_nash.online import Online

        self._online = Online(self, seed, variant, self.weights())

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        return self._online.plan(observation)

    def observe(self, outcome: Outcome) -> None:
        """Enter into the accounts what each agent gained."""
        self._online.observe(outcome)

    def train(self, task: Any) -> list[dict[str, Any]]:
        """Learn on training days, then agree; rows of the learning curve on validation days."""
        from marlin.schedulers.marlin_nash.training import train

        self._learned, rows = train(self, task)
        return rows

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters of the network by name, and what was agreed."""
        return getattr(self, "_learned", {})

    def load(self, path: Path) -> None:
        """See `Scheduler.load`."""
        with np.load(path) as stored:
            self._learned = dict(stored)
