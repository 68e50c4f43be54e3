"""The contract between a scheduler and the evaluation: what it sees, what it returns."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from marlin.errors import UserError
from marlin.files import write_bytes
from marlin.fleet.contract import Inputs, Outcome, Plan, State, repeat, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import step
from marlin.fleet.world import World


@dataclass
class Budget:
    """Simulated plans that a scheduler may look at before it decides; the same for all."""

    calls_per_decision: int
    used: int = 0

    @property
    def left(self) -> int:
        """Simulated plans that may still be asked for."""
        return self.calls_per_decision - self.used

    def take(self, calls: int) -> None:
        """Count `calls` more; refuse what goes beyond the budget."""
        if self.used + calls > self.calls_per_decision:
            raise UserError(
                f"the scheduler asked for {self.used + calls} simulated plans in one decision but "
                f"budget.calls_per_decision is {self.calls_per_decision}: ask for fewer"
            )
        self.used += calls


@dataclass(frozen=True)
class Observation:
    """What is known when an epoch is planned: the forecast of it, and the state of the fleet.

    Arrays carry a leading batch axis of one. Nothing in here is taken from the epoch's own truth.
    """

    world: World
    time: np.datetime64
    forecast: Inputs
    state: State
    budget: Budget = field(repr=False)
    ahead: Callable[[int], Inputs] = field(repr=False)  # forecast of so many epochs from now on
    stale: tuple[str, ...] = ()  # sites whose carbon or price has been missing for long

    def outlook(self, epochs: int) -> Inputs:
        """Forecast of this epoch and the next, [epochs, ...]; the first row is `forecast`.

        It rests on what had been seen before this epoch, and is made only when asked for.
        """
        if epochs == 1:
            return self.forecast
        later = asdict(row(self.ahead(epochs), slice(1, None)))
        first = asdict(self.forecast)
        return Inputs(**{name: np.concatenate([first[name], later[name]]) for name in first})

    def simulate(self, plans: Plan) -> tuple[State, Outcome]:
        """What `plans` [B, ...] would lead to if the forecast came true; counts B calls."""
        count = plans.routing.shape[0]
        self.budget.take(count)
        return step(self.world, repeat(self.state, count), plans, repeat(self.forecast, count))


class Scheduler(ABC):
    """Base of all schedulers: `plan` is needed, the rest is for those that learn.

    A method with `plans_on_truth` is shown the epoch's truth as its forecast. It is there to run
    a published setting as it was run, never for a comparison.
    """

    plans_on_truth: bool = False

    chance: ClassVar[bool] = True
    """Whether the seed can change a plan. Where it cannot, one seed says what all would."""

    @abstractmethod
    def plan(self, observation: Observation) -> Plan:
        """Routing shares [1, O, M, S, D] and power levels [1, D, G] for the coming epoch."""

    def variants(self) -> tuple[str, ...]:
        """Policies that one training yields; the empty name is the method itself."""
        return ("",)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """Start a day: forget the last one, seed all chance."""

    def observe(self, outcome: Outcome) -> None:
        """Learn from what the last plan cost."""

    def train(self, task: Any) -> list[dict[str, Any]]:
        """Learn before being scored; returns rows of the learning curve."""
        return []

    def save(self, path: Path) -> None:
        """Write what was learned, in one step."""
        weights: dict[str, Any] = self.weights()
        stream = io.BytesIO()
        np.savez(stream, **weights)
        write_bytes(path, stream.getvalue())

    def weights(self) -> dict[str, np.ndarray]:
        """What was learned, by name."""
        return {}

    def load(self, path: Path) -> None:
        """Read what `save` wrote."""


def plan_for(observation: Observation, routing: np.ndarray, target_utilisation: float) -> Plan:
    """A plan for the forecast whose power levels come from the shared power-down layer."""
    seen = observation.forecast
    return sized_plan(
        observation.world, routing, seen.arrival_rate_per_s, target_utilisation, seen.available
    )
