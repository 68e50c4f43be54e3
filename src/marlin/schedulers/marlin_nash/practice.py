"""Practice: fleets, days and weights of worlds to train on, and what costs are measured against."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from marlin.fleet.contract import OBJECTIVES, Inputs, Outcome, Plan, State
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import step
from marlin.fleet.terms import TINY
from marlin.fleet.world import TRAIN
from marlin.schedulers.marlin_nash.fleets import (
    Fleet,
    Record,
    as_tensors,
    detached,
    home_fleet,
    random_fleet,
)
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.schedulers.marlin_nash import MarlinNash
    from marlin.task import Task

WORLD_SITES = 12  # larger fleets get fewer worlds, so that a step costs about the same
EVEN_TARGET = 0.75  # utilisation of the even split, which costs are measured against
EVEN_EPOCHS = 16  # of a day, to know what the even split costs on it
LEAST_DAY = 0.2  # of what it costs on other days: prices may be negative for a day
USUAL_PAID = 0.6  # of the even split's cost, before a world has paid any
PAID_KEPT = 0.75  # of what was paid before, from step to step
LEAST_PAID, MOST_PAID = 0.05, 2.0  # that slopes go by
RENEW_AFTER = 24  # steps on a random fleet
SHARPEST_DRAW = 0.7  # Dirichlet: below one, most weights are near a corner


@dataclass
class Walk:
    """Worlds [B] of one fleet on their way through days."""

    fleet: Fleet
    even: Tensor  # [N, J] what an epoch of each day costs under the even split; NaN: not looked up
    weights: Tensor  # [B, J]
    paid: Tensor  # [B, J] running mean of costs over those of the even split on the same day
    day: Tensor  # [B]
    offset: Tensor  # [B]
    state: State
    steps: int = 0

    @property
    def reference(self) -> Tensor:
        """What the even split costs in an epoch of each world's day [B, J], TTFT times requests."""
        return self.even[self.day].maximum(LEAST_DAY * self.even.abs().nanmean(dim=0))


class Practice:
    """Fleets, worlds and the record that they are made of."""

    def __init__(self, options: MarlinNash, task: Task, rng: np.random.Generator) -> None:
        self.options, self.task, self.rng = options, task, rng
        days = spread(np.array(task.days(TRAIN)), options.record_days)
        self.record = make_record(task, days, options.lookahead)
        self.days = np.arange(len(days)) * task.world.epochs_per_day
        demand = task.epochs.inputs.arrival_rate_per_s[task.epochs.split == TRAIN]
        self.busiest = demand[demand.sum(axis=(1, 2, 3)).argmax()]
        self.demand_error = demand_error(self.record)
        self.spent = 0
        self.home = self._walk(home_of(task))
        self.others = [self._random() for _ in range(options.fleets)]

    def next(self) -> Walk:
        """The fleet of the next step: the run's own, or one of the others in turn."""
        if not self.others or self.rng.random() < self.options.home_share:
            return self.home
        place = int(self.rng.integers(len(self.others)))
        if self.others[place].steps >= RENEW_AFTER:
            self.others[place] = self._random()
        return self.others[place]

    def advance(self, walk: Walk, state: State, ratios: Tensor) -> None:
        """Move on by the epochs of a step; worlds at the end of a day go to another.

        `ratios` [B, J]: what was paid in the step, over what the even split costs on the day.
        """
        walk.steps += 1
        paid = PAID_KEPT * walk.paid + (1.0 - PAID_KEPT) * ratios
        walk.paid = paid.clamp(LEAST_PAID, MOST_PAID)
        walk.offset = walk.offset + self.options.horizon
        walk.state = detached(state)
        over = walk.offset + self.options.horizon > self.task.world.epochs_per_day
        if over.any():
            count = int(over.sum())
            walk.offset = torch.where(over, 0, walk.offset)
            walk.day = walk.day.clone()
            walk.day[over] = torch.as_tensor(self.rng.integers(len(self.days), size=count))
            self._look_up(walk)
            walk.paid[over] = USUAL_PAID
            walk.weights = walk.weights.clone()
            walk.weights[over] = self._weights(len(over))[over]
            fresh = walk.fleet.pools.world.idle_state(len(over))
            walk.state = _where(over, fresh, walk.state)

    def _random(self) -> Walk:
        return self._walk(random_fleet(self.task.world, self.busiest, self.rng))

    def _walk(self, fleet: Fleet) -> Walk:
        sites, _ = fleet.pools.shape
        worlds = max(4, round(self.options.worlds * min(1.0, WORLD_SITES / sites)))
        steps = self.task.world.epochs_per_day // self.options.horizon
        walk = Walk(
            fleet=fleet,
            even=torch.full((len(self.days), len(OBJECTIVES)), torch.nan),
            weights=self._weights(worlds),
            paid=torch.full((worlds, len(OBJECTIVES)), USUAL_PAID),
            day=torch.as_tensor(self.rng.integers(len(self.days), size=worlds)),
            offset=self.options.horizon * torch.as_tensor(self.rng.integers(steps, size=worlds)),
            state=fleet.pools.world.idle_state(worlds),
        )
        self._look_up(walk)
        return walk

    def _weights(self, count: int) -> Tensor:
        """Weights [B, J]: schemes in turn for most worlds, random ones for the rest."""
        drawn = self.rng.dirichlet(np.full(len(OBJECTIVES), SHARPEST_DRAW), count)
        schemes = np.array(list(SCHEMES.values()))
        places = np.arange(count) % (len(schemes) + 3)
        known = places < len(schemes)
        drawn[known] = schemes[places[known]]
        return heard_weights(torch.as_tensor(drawn, dtype=torch.float32), self.options.least_weight)

    def _look_up(self, walk: Walk) -> None:
        """Find what the even split costs, from a warm fleet, on days that are new to the walk."""
        days = walk.day[walk.even[walk.day].isnan().any(dim=1)].unique()
        if not len(days):
            return
        offset = torch.arange(EVEN_EPOCHS) * self.task.world.epochs_per_day // EVEN_EPOCHS
        day, offset = days.repeat_interleave(EVEN_EPOCHS), offset.repeat(len(days))
        known = walk.fleet.inputs(self.record, self.days, day, offset)
        self.spent += len(day)
        world = walk.fleet.pools.world
        plan = even_split(walk.fleet, known.forecast)
        _, outcome = step(world, world.idle_state(len(day)), plan, known.truth)
        walk.even[days] = totals(outcome).reshape(len(days), EVEN_EPOCHS, -1).mean(dim=1)


def home_of(task: Task) -> Fleet:
    """The run's own fleet, serving the mean mix of its training days."""
    demand = task.epochs.inputs.arrival_rate_per_s[task.epochs.split == TRAIN]
    mix = demand.mean(axis=(0, 1))
    return home_fleet(task.world, mix / mix.sum())


def demand_error(record: Record) -> float:
    """Relative error of the forecast of all demand, root mean square."""
    truth, forecast = (
        inputs.arrival_rate_per_s.sum((1, 2, 3)) for inputs in (record.truth, record.forecast)
    )
    return float((truth / forecast.clamp_min(TINY) - 1.0).square().mean().sqrt())


def even_split(fleet: Fleet, forecast: Inputs) -> Plan:
    """The plan that sends every class to all sites by capacity: where agents do not agree."""
    demand = forecast.arrival_rate_per_s
    routing = fleet.pools.site_size.expand(*demand.shape, -1)
    return sized_plan(fleet.pools.world, routing, demand, EVEN_TARGET, forecast.available)


def totals(outcome: Outcome) -> Tensor:
    """Objectives [B, J] that may be summed over epochs: TTFT times requests, and the rest."""
    first, *rest = outcome.objectives()
    return torch.stack([first * outcome.arrived, *rest], dim=1)


def heard_weights(weights: Tensor, least: float) -> Tensor:
    """Weights [..., J] that sum to one, `least` at least of each before that."""
    raised = weights + least
    return raised / raised.sum(dim=-1, keepdim=True)


def spread(days: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the days, evenly spaced."""
    if len(days) <= count:
        return days
    return days[np.linspace(0, len(days) - 1, count).round().astype(int)]


def make_record(task: Task, days: np.ndarray, lookahead: bool) -> Record:
    """Truth and forecasts of the given days, one after another.

    Without `lookahead` the forecast of the epoch after is that of the coming epoch.
    """
    epochs = (days[:, None] + np.arange(task.world.epochs_per_day)).ravel()
    forecast = task.forecasts(epochs)
    later = later_forecasts(task, epochs) if lookahead else forecast
    return Record(*(as_tensors(inputs) for inputs in (task.truth(epochs), forecast, later)))


def later_forecasts(task: Task, epochs: np.ndarray) -> Inputs:
    """Forecasts of the epoch after each of `epochs`, made before each."""
    ahead = [task.ahead(int(epoch), 2) for epoch in _progress(epochs, "forecasts")]
    return Inputs(
        **{f.name: np.stack([getattr(a, f.name)[1] for a in ahead]) for f in fields(Inputs)}
    )


def _where(rows: Tensor, then: State, otherwise: State) -> State:
    return State(
        *(
            torch.where(
                rows.reshape(-1, *[1] * (getattr(then, f.name).ndim - 1)),
                getattr(then, f.name),
                getattr(otherwise, f.name),
            )
            for f in fields(State)
        )
    )


def _progress(epochs: np.ndarray, label: str) -> Iterator:
    return iter(tqdm(epochs, desc=label, unit="epoch", disable=not sys.stderr.isatty()))
