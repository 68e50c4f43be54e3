"""Learning from days in order, one epoch after another, as on a day that is scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marlin.fleet.simulator import step
from marlin.fleet.world import TRAIN
from marlin.schedulers.base import Scheduler

if TYPE_CHECKING:
    from marlin.task import Task


def live_through(task: Task, scheduler: Scheduler, days: int) -> None:
    """Let a scheduler plan and observe the last `days` training days, or all if there are fewer.

    What it has learned carries over from day to day; the fleet starts each day with everything on.
    """
    training = task.days(TRAIN)
    for first in training[max(len(training) - days, 0) :]:
        state = task.world.idle_state(1)
        for epoch in range(first, first + task.world.epochs_per_day):
            plan = scheduler.plan(task.observation(epoch, state))
            state, outcome = step(task.world, state, plan, task.truth(np.array([epoch])))
            scheduler.observe(outcome)
