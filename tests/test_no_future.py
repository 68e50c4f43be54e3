"""No method knows the future: not when it is trained, not when it plans.

Every file of `conf/method` is taken, so that a new method is tested without being named here. One
is excepted by name: a published setting as it was run, which plans on the truth and says so.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import synthetic
from conftest import CONF, read_section
from test_schedulers import make_task

from marlin.fleet.simulator import step
from marlin.schedulers.base import Scheduler
from marlin.task import Task, forecast_inputs, make_scheduler

METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
ON_TRUTH = ["marlin_as_run"]
EPOCHS = 4
KNOWN_AHEAD = ("ewif_l_per_kwh", "aware_m3_per_m3")
BUDGET = {
    "name": "least", "training_epochs": 16, "worlds": 2, "checkpoints": 1,
    "calls_per_decision": 32,
}  # fmt: skip


@cache
def tasks() -> tuple[Task, Task]:
    """A task, and one whose truth is another from the last planned epoch on."""
    task = make_task(budget=BUDGET)
    cut = task.test_days()[0] + EPOCHS - 1
    rng = np.random.default_rng(0)
    later = {}
    for field in fields(task.epochs.inputs):
        values = getattr(task.epochs.inputs, field.name).copy()
        if field.name == "available":
            values[cut:] = rng.random(values[cut:].shape) < 0.5
        elif field.name not in KNOWN_AHEAD:
            values[cut:] = 1.5 * rng.permutation(values[cut:])
        later[field.name] = values
    epochs = replace(task.epochs, inputs=replace(task.epochs.inputs, **later))
    forecast = forecast_inputs(task.run, epochs, task.world.epochs_per_day, 0)
    return task, Task(task.run, task.world, epochs, forecast)


def course(task: Task, scheduler: Scheduler, variant: str) -> list[np.ndarray]:
    """All that is decided for the first epochs of the test day, in order."""
    scheduler.reset(task.world, 0, variant)
    state, decisions = task.world.idle_state(1), []
    start = task.test_days()[0]
    for epoch in range(start, start + EPOCHS):
        plan = scheduler.plan(task.observation(epoch, state, scheduler.plans_on_truth))
        decisions += [plan.routing, plan.power]
        state, outcome = step(task.world, state, plan, task.truth(np.array([epoch])))
        scheduler.observe(outcome)
    return decisions


@pytest.mark.parametrize("method", METHODS)
def test_who_plans_on_the_truth_is_known_by_name(method: str) -> None:
    run = tasks()[0].run.model_copy(update={"method": read_section("method", method)})
    assert make_scheduler(run).plans_on_truth == (method in ON_TRUTH)


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(ON_TRUTH)))
def test_what_comes_later_changes_nothing(method: str, tmp_path: Path) -> None:
    learned, decisions = [], []
    for task in tasks():
        run = task.run.model_copy(update={"method": read_section("method", method)})
        task = replace(task, run=run)
        scheduler = make_scheduler(run)
        scheduler.reset(task.world, 0)
        scheduler.train(task)
        scheduler.save(tmp_path / "policy.npz")
        learned.append(scheduler.weights())
        ready = make_scheduler(run)
        ready.reset(task.world, 0)
        ready.load(tmp_path / "policy.npz")
        decisions.append([d for variant in ready.variants() for d in course(task, ready, variant)])
    assert learned[0].keys() == learned[1].keys()
    for name, values in learned[0].items():
        np.testing.assert_array_equal(values, learned[1][name])
    for before, after in zip(*decisions, strict=True):
        assert before.tobytes() == after.tobytes()
        assert np.isfinite(before).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_keeps_the_contract(method: str) -> None:
    task = tasks()[0]
    scheduler = make_scheduler(
        task.run.model_copy(update={"method": read_section("method", method)})
    )
    scheduler.reset(task.world, 0)
    observation = task.observation(task.test_days()[0], task.world.idle_state(1))
    plan = scheduler.plan(observation)
    assert plan.routing.shape == (1, *task.world.class_shape, len(synthetic.SITES))
    assert plan.power.shape == (1, len(synthetic.SITES), len(task.world.node_types))
    np.testing.assert_allclose(plan.routing.sum(axis=-1), 1.0)
    assert plan.routing.min() >= 0.0
    assert 0.0 <= plan.power.min() <= plan.power.max() <= 1.0
    assert observation.budget.left >= 0


def test_a_method_that_plans_on_the_truth_does_change_with_it() -> None:
    """The exception is one: the test that it is spared would fail."""
    decisions = []
    for task in tasks():
        run = task.run.model_copy(update={"method": read_section("method", ON_TRUTH[0])})
        decisions.append(course(replace(task, run=run), make_scheduler(run), ""))
    assert any(not np.array_equal(*pair) for pair in zip(*decisions, strict=True))


def test_what_comes_later_does_change_what_is_planned_afterwards() -> None:
    """The test above could not fail if the two tasks were one."""
    task, other = tasks()
    last_planned = task.test_days()[0] + EPOCHS - 1
    end = len(task.epochs.time) - 1
    for name in ("arrival_rate_per_s", "carbon_g_per_kwh", "price_usd_per_mwh", "available"):
        now, later = (
            [getattr(t.forecasts(np.array([epoch])), name) for t in (task, other)]
            for epoch in (last_planned, end)
        )
        np.testing.assert_array_equal(*now)
        assert not np.array_equal(*later)
