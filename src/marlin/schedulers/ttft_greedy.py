"""TTFT-greedy: near sites, filled and powered as the forecast says is fastest."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.fleet.power_down import sized_plan
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.fill import fill_by_cost


@dataclass
class TtftGreedy(Scheduler):
    """Tries how full near sites may get and which nodes to keep on; carries out the fastest plan.

    Half of the candidates keep every node on; the others let slower nodes sleep, which serves
    prompts faster where cold starts can be avoided.
    """

    name: str = "ttft_greedy"
    ceilings: tuple[float, ...] = Field((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), min_length=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, demand = observation.world, observation.forecast.arrival_rate_per_s
        routing = np.concatenate(
            [fill_by_cost(world, world.constants.rtt_s, demand, limit) for limit in self.ceilings]
        )
        demand = np.repeat(demand, len(routing), axis=0)
        targets = np.array(self.ceilings)[:, None]
        sized = sized_plan(world, routing, demand, targets, observation.forecast.available)
        plans = Plan(
            np.concatenate([routing, sized.routing]),
            np.concatenate([np.ones_like(sized.power), sized.power]),
        )
        _, outcome = observation.simulate(plans)
        best = int(np.argmin(outcome.ttft_s))
        return Plan(plans.routing[best : best + 1], plans.power[best : best + 1])
