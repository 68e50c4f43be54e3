"""DynamoLLM: classes of requests by length, each on the nodes that serve it with least energy.

Source: DynamoLLM (HPCA 2025). Adapted: it manages one cluster, so demand is first split over sites
by what they can serve; node types stand for its choices of tensor parallelism; frequency scaling
is not modelled. A service is a class of requests: its mean lengths decide which of the nine it is.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.fleet.simulator import TINY
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.curves import USE, curves
from marlin.schedulers.transport import transport

TAIL = float(np.log(100.0))  # 99th percentile of an exponential wait over its mean


@dataclass
class DynamoLlm(Scheduler):
    """Node counts for half an hour: least energy for the peak that is forecast, within limits."""

    chance: ClassVar[bool] = False
    name: str = "dynamollm"
    period_s: float = Field(1800.0, gt=0, description="how long node counts stand")
    headroom: float = Field(0.1, ge=0, le=1, description="over the peak that is forecast")
    medium_tokens: float = Field(256.0, gt=0, description="prompts from here on are medium")
    long_tokens: float = Field(1024.0, gt=0, description="prompts from here on are long")
    ttft_limits_s: tuple[float, float, float] = Field(
        (0.25, 0.4, 2.0), description="99th percentile for short, medium and long prompts"
    )

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`."""
        prompt = world.constants.prompt_tokens
        length = (prompt >= self.medium_tokens).astype(int) + (prompt >= self.long_tokens)
        self._energy_j, self._node_rate = best_use(world, np.array(self.ttft_limits_s)[length])
        self._power, self._nodes = np.zeros((2, *world.constants.nodes.shape))
        self._age_s = self.period_s

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, available = observation.world, observation.forecast.available[0]
        nodes = world.constants.nodes * available
        capacity = np.einsum("dg,gms->msd", nodes, world.constants.node_rate_per_s) + TINY
        share = capacity / capacity.sum(axis=-1, keepdims=True)
        if self._age_s >= self.period_s or not np.array_equal(nodes, self._nodes):
            epochs = max(round(self.period_s / world.epoch_s), 1)
            peak = observation.outlook(epochs).arrival_rate_per_s.sum(axis=1).max(axis=0)
            rate = np.moveaxis((1.0 + self.headroom) * peak[..., None] * share, -1, 0)
            rate += observation.state.backlog[0] / world.epoch_s
            self._power, self._nodes, self._age_s = self._sized(nodes, rate), nodes, 0.0
        self._age_s += world.epoch_s
        routing = np.broadcast_to(share, (1, len(world.origins), *share.shape))
        return Plan(routing.copy(), self._power[None])

    def _sized(self, nodes: np.ndarray, rate_per_s: np.ndarray) -> np.ndarray:
        """Levels [D, G] of whole nodes for the classes' rates [D, M, S]; see `node_counts`."""
        types = nodes.shape[1]
        energy_j, node_rate = (v.reshape(types, -1).T for v in (self._energy_j, self._node_rate))
        counts = [
            node_counts(rate.ravel(), node_rate, energy_j, there)
            for rate, there in zip(rate_per_s, nodes, strict=True)
        ]
        return np.clip(np.array(counts) / np.clip(nodes, TINY, None), 0.0, 1.0)


def node_counts(
    rate_per_s: np.ndarray, node_rate_per_s: np.ndarray, energy_j: np.ndarray, nodes: np.ndarray
) -> np.ndarray:
    """Whole nodes of each type, [G], that serve classes [K] with the least energy.

    `node_rate_per_s` and `energy_j` [K, G] are what a node serves of a class within its limit, and
    the energy of a request then; `nodes` [G] are there. Fragments of nodes that classes leave are
    shared, as DynamoLLM hands them on to the next longer class.
    """
    wanted = rate_per_s[:, None] / node_rate_per_s
    shares = transport(
        rate_per_s[:, None] * energy_j, wanted / np.clip(nodes, TINY, None), np.ones(len(nodes))
    )
    return np.ceil((shares * wanted).sum(axis=0) - 1e-6)


def best_use(world: World, limits_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy of a request and requests per second of a node, [G, M, S] each, within limits.

    Nodes are used as far as the 99th percentile of the time from arrival to first token stays
    within `limits_s` [S]: energy per request falls with use. Where no use does, the least is taken.
    """
    node_rate = world.constants.node_rate_per_s
    energy_j, rate = np.zeros_like(node_rate), np.zeros_like(node_rate)
    for model, service in np.ndindex(node_rate.shape[1:]):
        mix = np.zeros(node_rate.shape[1:])
        mix[model, service] = 1.0
        seen = curves(world, mix)
        latency_s = seen.latency_s.max(axis=0)  # [G, U] at the worst site
        tail_s = latency_s[:, :1] + TAIL * (latency_s - latency_s[:, :1])
        last = np.clip((tail_s <= limits_s[service]).sum(axis=1) - 1, 0, None)
        types = np.arange(len(node_rate))
        rate[:, model, service] = USE[last] * node_rate[:, model, service]
        power_w = seen.node_w.max(axis=0)[types, last]
        energy_j[:, model, service] = power_w / rate[:, model, service]
    return energy_j, rate
