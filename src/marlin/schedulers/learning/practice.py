"""Practice: actions carried out on training worlds, what they taught, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from marlin.fleet.contract import OBJECTIVES, State
from marlin.fleet.simulator import step
from marlin.schedulers.learning.features import observe
from marlin.schedulers.learning.ranking import decode
from marlin.schedulers.learning.rewards import even_split, log_ratio_rewards, metrics_per_served
from marlin.schedulers.learning.worlds import Worlds

if TYPE_CHECKING:
    from marlin.task import Task


@dataclass(frozen=True)
class Transition:
    """What an epoch of every world taught."""

    seen: np.ndarray  # [B, F] before
    weights: np.ndarray  # [B, N] of the world's scheme
    reward: np.ndarray  # [B, N] one an objective
    after: np.ndarray  # [B, F] after: always of the day that was walked, never of the next one
    moved: np.ndarray  # [B] whether the world then went to another day: a cut, not an end


class Practice:
    """Carries actions out on training worlds and counts every simulated epoch.

    The even split that rewards are measured against depends on the epoch alone: it is simulated,
    and counted, once for each epoch that is visited.
    """

    def __init__(self, task: Task, rng: np.random.Generator, drop_penalty: float) -> None:
        self.task, self.drop_penalty = task, drop_penalty
        self.worlds = Worlds(task, task.run.budget.worlds, rng)
        self.spent = 0
        self._reference = np.full((len(task.epochs.time), len(OBJECTIVES)), np.nan)
        self._look()

    @property
    def left(self) -> float:
        """Share of the budget that is left, 0 to 1."""
        return 1.0 - self.spent / self.task.run.budget.training_epochs

    def affords(self, steps: int) -> bool:
        """Whether the budget allows every world `steps` more epochs, new references included."""
        most = 2 * steps * self.task.run.budget.worlds
        return self.spent + most <= self.task.run.budget.training_epochs

    def step(self, action: np.ndarray) -> Transition:
        """Carry out actions [B, A] of `ranking.decode` in the worlds' current epochs."""
        task, worlds, epoch = self.task, self.worlds, self.worlds.epoch
        seen, weights = self.seen, self.weights
        plan = decode(task.world, action, task.forecasts(epoch), worlds.state)
        state, outcome = step(task.world, worlds.state, plan, task.truth(epoch))
        self.spent += len(action)
        reward = log_ratio_rewards(outcome, self._references(epoch), self.drop_penalty)
        after = observe(task.world, state, task.forecasts(epoch + 1))
        moved = worlds.advance(state)
        worlds.state = fresh_where(moved, state, task.world.idle_state(len(moved)))
        self._look()
        return Transition(seen, weights, reward, after, moved)

    def _look(self) -> None:
        forecast = self.task.forecasts(self.worlds.epoch)
        self.seen = observe(self.task.world, self.worlds.state, forecast)
        self.weights = self.worlds.weights()

    def _references(self, epoch: np.ndarray) -> np.ndarray:
        new = np.unique(epoch[np.isnan(self._reference[epoch, 0])])
        if len(new):
            outcome = even_split(self.task.world, self.task.forecasts(new), self.task.truth(new))
            self._reference[new] = metrics_per_served(outcome)
            self.spent += len(new)
        return self._reference[epoch]


def fresh_where(moved: np.ndarray, state: State, fresh: State) -> State:
    """`fresh` for the worlds that were moved [B], `state` for the others."""
    rows = moved[:, None, None]
    return State(
        backlog=np.where(rows[..., None], fresh.backlog, state.backlog),
        nodes_on=np.where(rows, fresh.nodes_on, state.nodes_on),
        loaded=np.where(rows[..., None], fresh.loaded, state.loaded),
    )
