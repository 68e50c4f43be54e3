"""Model-predictive control: a linear program over the coming epochs; its first step is taken.

Source: receding-horizon control of geographical load balancing (Lin et al., "Online algorithms
for geographical load balancing", 2012), with the four objectives, boot times and delay of this
project; solved by HiGHS. `coefficients`
makes a program of that and a forecast, `program` solves it.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Outcome, Plan
from marlin.fleet.simulator import TINY
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.curves import Curves, curves
from marlin.schedulers.mpc.coefficients import make_program, mix_of
from marlin.schedulers.mpc.program import solve
from marlin.schedulers.schemes import SCHEMES, scheme

LEAST_WEIGHT = 1e-3  # of every objective, so that ties in the others are not left to chance


@dataclass
class Mpc(Scheduler):
    """Routing and nodes of the coming epochs, all at once and for all objectives.

    Nodes that serve are filled until `caution` standard deviations of demand are left as room. How
    far demand is from its forecast is learned as the day goes.
    """

    chance: ClassVar[bool] = False
    name: str = "mpc"
    horizon: int = Field(4, ge=1, le=96, description="epochs")
    caution: float = Field(2.0, ge=0, le=10, description="standard deviations of demand")
    demand_error: float = Field(0.01, gt=0, le=1, description="of all demand, at least")
    error_memory: float = Field(0.9, ge=0, lt=1, description="kept of it from epoch to epoch")

    def variants(self) -> tuple[str, ...]:
        """See `Scheduler.variants`."""
        return tuple(SCHEMES)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`."""
        self._weights = np.maximum(scheme(variant), LEAST_WEIGHT)
        self._square = self.demand_error**2
        self._curves: Curves | None = None

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, forecast = observation.world, observation.forecast
        if self._curves is None:
            self._curves = curves(world, mix_of(forecast))
        demand = forecast.arrival_rate_per_s.sum(axis=(0, 2, 3)) + TINY  # [O]
        self._expected = demand.sum() * world.epoch_s
        ahead = observation.outlook(self.horizon)
        # Origins err independently, so that one of them errs by more than the whole.
        error = max(np.sqrt(self._square), self.demand_error)
        error *= demand.sum() / np.linalg.norm(demand)
        ceiling = 1.0 / (1.0 + self.caution * error)
        problem = make_program(
            world, observation.state, ahead, self._curves, self._weights, ceiling, error
        )
        course = solve(problem)
        routing = np.broadcast_to(
            course.shares[:1, :, None, None, :], (1, *world.class_shape, len(world.sites))
        )
        power = course.nodes_on[:1] / np.clip(problem.nodes[:1], TINY, None)
        return Plan(routing.copy(), np.clip(power, 0.0, 1.0))

    def observe(self, outcome: Outcome) -> None:
        """Learn how far demand is from its forecast."""
        square = (outcome.arrived[0] / self._expected - 1.0) ** 2
        self._square = self.error_memory * self._square + (1.0 - self.error_memory) * square
