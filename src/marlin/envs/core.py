"""A batch of worlds as pure functions of arrays: what environments and training step.

NumPy by default; `Core.to_torch` gives the same in torch, on any device and with gradients. Axes:
B worlds, O origins, M models, S services, D sites, G node types, F features, A numbers of an
action, N = 4 objectives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from marlin.errors import UserError
from marlin.fleet.contract import Inputs, Outcome, Plan, State, convert, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import site_capacity, step
from marlin.fleet.world import TEST, TRAIN, VALIDATION, World

if TYPE_CHECKING:
    from marlin.task import Task

Array = Any

AGENTS = ("ttft", "carbon", "water", "cost")
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
LOGIT_REACH = 4.0  # a site's preference spans e^(2 x 4) between -1 and 1
NEAREST_PER_S = 60.0  # strongest weight of a second of RTT in the routing logits
TARGET_LOW, TARGET_HIGH = 0.3, 0.85  # load of the nodes that are on
NEAR_S = 0.02  # an origin is the demand of sites within about this RTT more than its nearest
FEATURE_LIMIT = 10.0
REFERENCE_TARGET = 0.75
SITE_FEATURES, GLOBAL_FEATURES = 7, 3


@dataclass(frozen=True)
class Core:
    """Worlds of one fleet: what comes true, what was forecast one epoch before, and the days."""

    world: World
    truth: Inputs  # [T, ...]
    forecast: Inputs  # [T, ...]
    day_phase: Array  # [T] time of day, 0..1
    days: tuple[int, ...]  # first epochs of the split's days
    reference: Array  # [N] mean objectives of the even split, what rewards are measured in

    @property
    def action_size(self) -> int:
        """A: a preference per model and site, a load target per site, the weight of distance."""
        return (len(self.world.models) + 1) * len(self.world.sites) + 1

    @property
    def observation_size(self) -> int:
        """F: features of every site, then of the whole fleet."""
        of_site = SITE_FEATURES + len(self.world.models)
        return of_site * len(self.world.sites) + GLOBAL_FEATURES

    @property
    def even_split(self) -> np.ndarray:
        """The action [A] that sends every class to all sites alike, sized as the reference is."""
        sites, models = len(self.world.sites), len(self.world.models)
        level = (REFERENCE_TARGET - TARGET_LOW) / (TARGET_HIGH - TARGET_LOW)
        tastes, targets = np.zeros(models * sites), np.full(sites, 2.0 * level - 1.0)
        return np.concatenate([tastes, targets, [-1.0]])

    def to_torch(self, dtype: Any = None, device: str = "cpu") -> Core:
        """The same core with torch tensors (float32 unless said)."""
        import torch

        dtype = dtype or torch.float32

        def tensor(values: Array) -> Any:
            return torch.as_tensor(np.array(values), dtype=dtype, device=device)

        return replace(
            self,
            world=self.world.to_torch(dtype, device),
            truth=convert(self.truth, tensor),
            forecast=convert(self.forecast, tensor),
            day_phase=tensor(self.day_phase),
            reference=tensor(self.reference),
        )

    def start(self, batch: int) -> State:
        """Everything on, nothing waiting, in the core's library."""
        return self.world.idle_state(batch)

    def observe(self, state: State, epochs: Array) -> Array:
        """Observations [B, F] before `epochs` [B] from the state and the forecasts; clipped.

        Per site carbon, price, water, PUE, demand nearby, backlog, nodes on and the nodes that
        hold each model; of the fleet its load and the time of day as sine and cosine. Each number
        is of the order of one.
        """
        constants, known = self.world.constants, row(self.forecast, epochs)
        xp, models = array_namespace(state.backlog), len(self.world.models)
        nodes = xp.sum(constants.nodes, axis=-1)  # [D]
        demand = xp.sum(known.arrival_rate_per_s, axis=(2, 3))  # [B, O]
        capacity = site_capacity(constants, constants.nodes[None])  # [1, D, M, S]
        arrivals = xp.sum(known.arrival_rate_per_s, axis=1)
        load = xp.sum(arrivals / xp.sum(capacity, axis=1), axis=(1, 2))
        nearby = demand @ _softmax(-constants.rtt_s / NEAR_S)
        total = xp.sum(demand, axis=-1)[:, None].clip(min=1e-9)
        water = known.wue_l_per_kwh + known.pue * known.ewif_l_per_kwh
        phase = 2.0 * np.pi * self.day_phase[epochs]
        sites = [
            (known.carbon_g_per_kwh - 300.0) / 200.0,
            (known.price_usd_per_mwh - 50.0) / 50.0,
            water - 1.5,
            (known.pue - 1.2) * 5.0,
            5.0 * nearby / total - 0.4,
            xp.sum(state.backlog / (capacity * self.world.epoch_s), axis=(2, 3)),
            xp.sum(state.nodes_on, axis=-1) / nodes - 0.5,
            *(xp.sum(state.loaded[..., m], axis=-1) / nodes - 0.5 for m in range(models)),
        ]
        fleet = xp.stack([2.0 * load - 1.0, xp.sin(phase), xp.cos(phase)], axis=-1)
        return xp.concat([*sites, fleet], axis=-1).clip(-FEATURE_LIMIT, FEATURE_LIMIT)

    def plan(self, actions: Array, epochs: Array) -> Plan:
        """Plans from actions [B, A] in [-1, 1], sized for the demand forecast.

        Routing is a softmax over sites of a preference per model less a distance term; power
        follows from the load target of each site through the shared power-down layer.
        """
        world, known, xp = self.world, row(self.forecast, epochs), array_namespace(actions)
        sites, models = len(world.sites), len(world.models)
        taste = xp.reshape(actions[:, : models * sites], (-1, 1, models, 1, sites))
        near = xp.reshape(0.5 * NEAREST_PER_S * (1.0 + actions[:, -1]), (-1, 1, 1, 1, 1))
        shares = _softmax(LOGIT_REACH * taste - near * world.constants.rtt_s[:, None, None, :])
        routing = xp.broadcast_to(shares, (len(actions), *world.class_shape, sites))
        level = 0.5 * (1.0 + actions[:, models * sites : -1])
        target = TARGET_LOW + (TARGET_HIGH - TARGET_LOW) * level
        return sized_plan(world, routing, known.arrival_rate_per_s, target, known.available)

    def step(self, state: State, actions: Array, epochs: Array) -> tuple[State, Outcome]:
        """Carry out `actions` [B, A] in `epochs` [B], as they came true."""
        return step(self.world, state, self.plan(actions, epochs), row(self.truth, epochs))

    def imagine(self, state: State, actions: Array, epochs: Array) -> tuple[State, Outcome]:
        """The same if the forecast came true: what may be asked before deciding."""
        return step(self.world, state, self.plan(actions, epochs), row(self.forecast, epochs))

    def rewards(self, outcome: Outcome) -> Array:
        """Rewards [B, N]: minus each objective, in units of what the even split costs."""
        return -objectives(outcome) / self.reference


def objectives(outcome: Outcome) -> Array:
    """Objectives as [B, N]; lower is better."""
    return array_namespace(outcome.ttft_s).stack(list(outcome.objectives()), axis=-1)


def _softmax(logits: Array) -> Array:
    """Over the last axis."""
    xp = array_namespace(logits)
    weight = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return weight / xp.sum(weight, axis=-1, keepdims=True)


def make_core(task: Task, split: str = "train") -> Core:
    """The core of a task on the days of a split; raises UserError if it has none."""
    if split not in SPLITS:
        raise UserError(f"split {split} is unknown: choose one of {', '.join(SPLITS)}")
    days = task.days(SPLITS[split])
    if not days:
        raise UserError(
            f"scenario {task.run.scenario.name} has no whole {split} day with a week before it: "
            "lengthen the period"
        )
    per_day = task.world.epochs_per_day
    return Core(
        world=task.world,
        truth=task.epochs.inputs,
        forecast=task.forecast,
        day_phase=np.arange(len(task.epochs.time)) % per_day / per_day,
        days=tuple(days),
        reference=_even_split(task),
    )


def _even_split(task: Task) -> np.ndarray:
    """Mean size of the objectives [N] of the even split from a warm fleet, on training days."""
    days = np.array(task.days(TRAIN) or task.days(VALIDATION) or task.days(TEST))
    epochs = (days[:, None] + np.arange(task.world.epochs_per_day)).ravel()
    demand = task.forecast.arrival_rate_per_s[epochs]
    sites = len(task.world.sites)
    routing = np.full((*demand.shape, sites), 1.0 / sites)
    plan = sized_plan(task.world, routing, demand, REFERENCE_TARGET)
    start = task.world.idle_state(len(epochs))
    _, outcome = step(task.world, start, plan, task.truth(epochs))
    return np.abs(objectives(outcome)).mean(axis=0).clip(min=1e-9)  # free energy costs nothing
