"""TTFT-greedy: the nearest site for everyone, powered as the forecast says is fastest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.fleet.power_down import sized_plan
from marlin.schedulers.base import Observation, Scheduler


@dataclass
class TtftGreedy(Scheduler):
    """Asks for the nearest site and tries which nodes to keep on; carries out the fastest plan.

    What a site cannot hold is left to the dispatcher, which moves it to near sites with room. One
    candidate keeps every node on; the others let slower nodes sleep, which serves prompts faster
    where cold starts can be avoided.
    """

    chance: ClassVar[bool] = False
    name: str = "ttft_greedy"
    targets: tuple[float, ...] = Field((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), min_length=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, seen = observation.world, observation.forecast
        count = len(self.targets)
        nearest = np.eye(len(world.sites))[world.constants.rtt_s.argmin(axis=1)]  # [O, D]
        shape = (count, *world.class_shape, len(world.sites))
        sized = sized_plan(
            world,
            np.broadcast_to(nearest[:, None, None, :], shape),
            np.repeat(seen.arrival_rate_per_s, count, axis=0),
            np.array(self.targets)[:, None],
            seen.available,
        )
        everything = np.ones_like(sized.power[:1])
        plans = Plan(
            np.concatenate([sized.routing[:1], sized.routing]),
            np.concatenate([everything, sized.power]),
        )
        _, outcome = observation.simulate(plans)
        best = int(np.argmin(outcome.ttft_s))
        return Plan(plans.routing[best : best + 1], plans.power[best : best + 1])
