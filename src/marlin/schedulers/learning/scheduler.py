"""A scheduler that learned what to do from what it sees and from what the objectives weigh."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from marlin.fleet.contract import OBJECTIVES, Plan
from marlin.fleet.simulator import step
from marlin.fleet.world import VALIDATION, World
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.learning.features import observe
from marlin.schedulers.learning.practice import Practice
from marlin.schedulers.learning.ranking import decode
from marlin.schedulers.learning.rewards import metric_table
from marlin.schedulers.schemes import SCHEMES, scheme

if TYPE_CHECKING:
    from marlin.task import Task

DROPS_WEIGHT = 100.0  # a percent of a day's requests dropped outweighs any saving

Act = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Learner(Protocol):
    """What an algorithm keeps while it learns, and what is left of it afterwards."""

    def act(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Best known actions [B, A] for states [B, F] under scheme weights [B, N]."""
        ...

    def pack(self) -> dict[str, np.ndarray]:
        """What was learned, by name."""
        ...

    def unpack(self, named: dict[str, np.ndarray]) -> None:
        """Take what `pack` gave."""
        ...


class LearnedScheduler(Scheduler):
    """One learner for all schemes, trained before it is scored and left as it is afterwards."""

    name: str
    drop_penalty: float

    @property
    def stride(self) -> int:
        """Epochs of all worlds that each turn of `practise` takes."""
        return 1

    @abstractmethod
    def learner(self, world: World, seed: int) -> Learner:
        """A learner that knows nothing yet."""

    @abstractmethod
    def practise(
        self, learner: Any, practice: Practice, rng: np.random.Generator
    ) -> Iterator[None]:
        """Learn while the budget lasts; yields wherever the learner may be scored."""

    def variants(self) -> tuple[str, ...]:
        """Balanced first, then one variant per objective: schemes of the same learner."""
        return tuple(SCHEMES)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`."""
        self._learner = self.learner(world, seed)
        if learned := self.weights():
            self._learner.unpack(part(learned, variant))
        self._weights = scheme(variant)[None]

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, state, forecast = observation.world, observation.state, observation.forecast
        action = self._learner.act(observe(world, state, forecast), self._weights)
        return decode(world, action, forecast, state)

    def train(self, task: Task) -> list[dict[str, Any]]:
        """Learn on training days; rows of the learning curve on validation days.

        Each scheme keeps the checkpoint that did best on it there.
        """
        seed, budget = task.run.seed, task.run.budget
        learner = self.learner(task.world, seed)
        practice = Practice(task, np.random.default_rng([seed, 1]), self.drop_penalty)
        marks = list(np.linspace(0, budget.training_epochs, budget.checkpoints + 1)[1:])
        rows = validated(task, learner.act, 0)
        kept = dict.fromkeys(SCHEMES, learner.pack())
        best = dict.fromkeys(SCHEMES, np.inf)
        turns = self.practise(learner, practice, np.random.default_rng([seed, 2]))
        with _progress(f"{self.name} seed {seed}", budget.training_epochs) as bar:
            for _ in turns:
                bar.update(practice.spent - bar.n)
                if practice.spent >= marks[0] or not practice.affords(self.stride):
                    marks.pop(0)
                    now = validated(task, learner.act, practice.spent)
                    rows += now
                    keep_better(kept, best, learner.pack(), now)
        self._learned = {
            f"{variant}/{name}": value
            for variant, named in kept.items()
            for name, value in named.items()
        }
        return rows

    def weights(self) -> dict[str, np.ndarray]:
        """See `Scheduler.weights`."""
        return getattr(self, "_learned", {})

    def load(self, path: Path) -> None:
        """See `Scheduler.load`."""
        with np.load(path) as stored:
            self._learned = dict(stored)


def validated(task: Task, act: Act, spent: int) -> list[dict[str, Any]]:
    """Mean daily objectives of every scheme on the validation days; one row a scheme.

    Beside what the learning curve holds, a row has the share of requests dropped.
    """
    days, world = np.array(task.days(VALIDATION)), task.world
    weights = np.repeat(np.array(list(SCHEMES.values())), len(days), axis=0)
    start = np.tile(days, len(SCHEMES))
    state = world.idle_state(len(start))
    totals, arrived = np.zeros((len(start), len(OBJECTIVES))), np.zeros(len(start))
    dropped = np.zeros(len(start))
    for offset in range(world.epochs_per_day):
        forecast = task.forecasts(start + offset)
        plan = decode(world, act(observe(world, state, forecast), weights), forecast, state)
        state, outcome = step(world, state, plan, task.truth(start + offset))
        metrics = metric_table(outcome)
        metrics[:, 0] *= outcome.arrived
        totals, arrived = totals + metrics, arrived + outcome.arrived
        dropped += outcome.dropped
    totals[:, 0] /= arrived
    table = np.column_stack([totals, dropped / arrived])
    means = table.reshape(len(SCHEMES), len(days), -1).mean(axis=1)
    return [
        {"training_epochs": spent, "variant": name or "balanced"}
        | dict(zip((*OBJECTIVES, "dropped_share"), mean.tolist(), strict=True))
        for name, mean in zip(SCHEMES, means, strict=True)
    ]


def keep_better(
    kept: dict[str, dict[str, np.ndarray]], best: dict[str, float],
    learned: dict[str, np.ndarray], rows: list[dict[str, Any]],
) -> None:  # fmt: skip
    """Replace, in place, what the schemes keep on which `learned` did better; rows as `validated`.

    A scheme compares weighted sums of the logarithms of the objectives, plus `DROPS_WEIGHT` times
    the share of requests dropped: turning them away is no way to save.
    """
    for variant, row in zip(SCHEMES, rows, strict=True):
        objectives = np.array([row[name] for name in OBJECTIVES])
        logs = np.log(objectives.clip(min=1e-9))
        score = float(scheme(variant) @ logs) + DROPS_WEIGHT * row["dropped_share"]
        if score < best[variant]:
            kept[variant], best[variant] = learned, score


def part(learned: dict[str, np.ndarray], variant: str) -> dict[str, np.ndarray]:
    """What a scheme kept, by name, out of all that was."""
    start = f"{variant}/"
    return {n.removeprefix(start): v for n, v in learned.items() if n.startswith(start)}


def _progress(label: str, epochs: int) -> tqdm:
    return tqdm(total=epochs, desc=label, unit="epoch", disable=not sys.stderr.isatty())
