"""Faults change what comes true; schedulers see them as an operator would."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
from conftest import read_section
from pydantic import ValidationError

from marlin.config import Fault, FaultsConfig
from marlin.errors import UserError
from marlin.evaluate import run_day
from marlin.fleet.faults import last_seen
from marlin.fleet.world import TEST, build_epochs, build_world
from marlin.schedulers.round_robin import RoundRobin
from marlin.task import Task, forecast_inputs

SITE = "dirty-near"
COLUMN = synthetic.SITES.index(SITE)
HOUR = 4  # epochs


def make_task(*events: dict, stale_after_h: float = 2.0) -> Task:
    faults = FaultsConfig(
        name="made-up", stale_after_h=stale_after_h, events=[Fault(**event) for event in events]
    )
    run = synthetic.run_config(faults=faults)
    dataset = synthetic.scenario()
    world = build_world(dataset, run, synthetic.profiles())
    epochs = build_epochs(dataset, run, world)
    return Task(run, world, epochs, forecast_inputs(run, epochs, world.epochs_per_day, 0))


PEACE = make_task()
START = PEACE.test_days()[0]
NOON = START + 12 * HOUR
THAT_NOON = f"{PEACE.day_name(START)}T12:00"


def test_an_outage_takes_a_site_for_its_hours_on_days_of_the_test() -> None:
    task = make_task({"kind": "site_outage", "site": SITE, "start": "12:00", "hours": 2})
    down = task.epochs.inputs.available[:, COLUMN, 0] == 0
    per_day = task.world.epochs_per_day
    expected = (np.arange(per_day) >= 12 * HOUR) & (np.arange(per_day) < 14 * HOUR)
    tested = task.epochs.split == TEST
    np.testing.assert_array_equal(down[tested].reshape(-1, per_day), [expected] * 2)
    assert not down[~tested].any()
    others = np.delete(task.epochs.inputs.available, COLUMN, axis=1)
    assert (others == 1).all()


def test_a_scheduler_learns_of_an_outage_one_epoch_late() -> None:
    task = make_task({"kind": "site_outage", "site": SITE, "start": "12:00", "hours": 2})
    truth = task.epochs.inputs.available[START : START + 96]
    forecast = task.forecast.available[START : START + 96]
    np.testing.assert_array_equal(forecast[1:], truth[:-1])
    assert forecast[12 * HOUR, COLUMN, 0] == 1
    assert truth[12 * HOUR, COLUMN, 0] == 0


def test_a_dated_outage_ends_with_all_requests_accounted_for() -> None:
    event = {"kind": "site_outage", "site": SITE, "start": THAT_NOON, "hours": 2}
    task = make_task(event)
    outcomes = run_day(task, RoundRobin(), START, 0, "").outcomes
    at_site = np.array([o.site_requests_per_s[0, COLUMN] for o in outcomes])
    nodes = np.array([o.site_nodes_on[0, COLUMN] for o in outcomes])
    out = slice(12 * HOUR, 14 * HOUR)
    assert (nodes[out] == 0).all()
    assert nodes[: 12 * HOUR].all()
    # The dispatcher sends what finds no node elsewhere, from the first epoch on.
    assert (at_site[out][1:] < 0.01 * at_site[0]).all()
    arrived, served, dropped = (
        sum(float(getattr(o, name)[0]) for o in outcomes)
        for name in ("arrived", "served", "dropped")
    )
    waiting = float(outcomes[-1].waiting[0])
    assert served + dropped + waiting == pytest.approx(arrived)
    assert served > 0.95 * arrived


def test_a_pool_loss_takes_a_share_of_one_node_type() -> None:
    event = {"kind": "pool_loss", "site": SITE, "node_type": "h100x8", "start": "12:00"}
    task = make_task(event | {"hours": 1, "share": 0.25})
    np.testing.assert_array_equal(task.epochs.inputs.available[NOON, COLUMN], [1.0, 0.75])
    task = make_task(event | {"hours": 1}, event | {"hours": 1, "share": 0.5})
    np.testing.assert_array_equal(task.epochs.inputs.available[NOON, COLUMN], [1.0, 0.0])


def test_a_missing_signal_is_held_then_stale_and_scored_by_the_truth() -> None:
    event = {"kind": "signal_missing", "signal": "carbon", "site": SITE, "start": "12:00"}
    task = make_task(event | {"hours": 6})
    truth, calm = task.epochs.inputs.carbon_g_per_kwh, PEACE.epochs.inputs.carbon_g_per_kwh
    np.testing.assert_array_equal(truth, calm)
    # A constant series is what the forecaster is shown: two hours in it says the last value.
    held = truth[NOON - 1, COLUMN]
    assert task.forecast.carbon_g_per_kwh[NOON + 24, COLUMN] != pytest.approx(
        PEACE.forecast.carbon_g_per_kwh[NOON + 24, COLUMN], rel=1e-3
    )
    seen = task.epochs.last_seen["carbon_g_per_kwh"][:, COLUMN]
    np.testing.assert_array_equal(seen[NOON : NOON + 24], NOON - 1)
    assert held == truth[seen[NOON + 20], COLUMN]
    assert seen[NOON + 24] == NOON + 24
    # Two hours are eight epochs: the ninth after the last value is the first stale one.
    state = task.world.idle_state(1)
    assert task.observation(NOON + 8, state).stale == ()
    assert task.observation(NOON + 9, state).stale == (SITE,)
    assert task.observation(NOON + 25, state).stale == ()
    assert PEACE.observation(NOON + 9, state).stale == ()


def test_a_surge_multiplies_demand_and_is_not_known_ahead() -> None:
    event = {
        "kind": "demand_surge",
        "origin": "east",
        "factor": 1.5,
        "start": THAT_NOON,
        "hours": 1,
    }
    task = make_task(event)
    ratio = (
        task.epochs.inputs.arrival_rate_per_s[NOON] / PEACE.epochs.inputs.arrival_rate_per_s[NOON]
    )
    np.testing.assert_allclose(ratio[0], 1.0)
    np.testing.assert_allclose(ratio[1], 1.5)
    np.testing.assert_array_equal(
        task.forecast.arrival_rate_per_s[NOON], PEACE.forecast.arrival_rate_per_s[NOON]
    )


def test_a_shock_multiplies_the_price_and_is_not_known_ahead() -> None:
    event = {"kind": "price_shock", "site": SITE, "factor": 4.0, "start": THAT_NOON, "hours": 1}
    task = make_task(event)
    price, usual = (t.epochs.inputs.price_usd_per_mwh for t in (task, PEACE))
    np.testing.assert_allclose(price[NOON : NOON + 4, COLUMN], 4.0 * usual[NOON : NOON + 4, COLUMN])
    others = np.delete(np.arange(len(task.world.sites)), COLUMN)
    np.testing.assert_array_equal(price[:, others], usual[:, others])
    np.testing.assert_array_equal(price[NOON + 4], usual[NOON + 4])
    expected, without = (t.forecast.price_usd_per_mwh[:, COLUMN] for t in (task, PEACE))
    np.testing.assert_array_equal(expected[: NOON + 1], without[: NOON + 1])
    assert (expected[NOON + 1 :] > without[NOON + 1 :]).any()


def test_last_seen_by_hand() -> None:
    missing = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=bool)
    np.testing.assert_array_equal(last_seen(missing), [[0, 0], [0, 1], [0, 1], [3, 1]])
    with pytest.raises(UserError, match="first epoch"):
        last_seen(~missing)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"kind": "site_outage", "site": "dirty-neat"}, "'dirty-neat' is unknown.*'dirty-near'"),
        ({"kind": "pool_loss", "node_type": "b200"}, "node type 'b200'"),
        ({"kind": "demand_surge", "origin": "north"}, "origin 'north'"),
        ({"kind": "site_outage", "site": SITE, "start": "2025-01-01T00:00"}, "outside"),
    ],
)
def test_a_fault_that_cannot_be_is_named(event: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_task({"start": "12:00", "hours": 1} | event)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"kind": "pool_loss"}, "needs node_type"),
        ({"kind": "signal_missing"}, "needs signal"),
        ({"kind": "site_outage"}, "needs site"),
        ({"kind": "demand_surge", "start": "noon"}, "neither"),
        ({"kind": "demand_surge", "start": "2023-06-13T12:00+02:00"}, "UTC"),
    ],
)
def test_a_fault_that_is_not_whole_is_refused(event: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Fault.model_validate({"start": "12:00", "hours": 1} | event)


def test_the_shipped_faults_are_of_the_shipped_fleet() -> None:
    faults = FaultsConfig(**read_section("faults", "stress"))
    fleet = read_section("fleet", "core12")
    sites = {site["name"] for site in fleet["sites"]}
    assert {fault.site for fault in faults.events} - {None} <= sites
    assert {fault.kind for fault in faults.events} == {
        "site_outage", "pool_loss", "signal_missing", "demand_surge", "price_shock",
    }  # fmt: skip
