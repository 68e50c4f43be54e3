"""What is reported beside the objectives, by hand and against its own limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import synthetic
from test_faults import PEACE, START

from marlin.evaluate import reported, run_day
from marlin.fleet.accounting import beside
from marlin.physics import network
from marlin.schedulers.round_robin import RoundRobin


def outcome(site_energy_kwh: list[float], carbon_kg: float, served: float) -> Any:
    return SimpleNamespace(
        site_energy_kwh=np.array([site_energy_kwh]),
        energy_kwh=np.array([sum(site_energy_kwh)]),
        carbon_kg=np.array([carbon_kg]),
        served=np.array([served]),
    )


def test_a_text_request_moves_ten_kilobytes_at_a_cost_below_its_millionth() -> None:
    moved = network.request_bytes(1155.0, 211.0)
    assert moved == pytest.approx(4.5 * 1366 + 4000)
    assert network.transfer_energy_kwh(moved, 0.06) < 1e-6
    assert network.transfer_energy_kwh(2e9, 0.01) == pytest.approx(0.02)


def test_two_epochs_by_hand() -> None:
    run = synthetic.run_config()
    outcomes = [outcome([100.0, 20.0, 0.0], 30.0, 1000.0), outcome([50.0, 40.0, 0.0], 24.0, 800.0)]
    nodes_on = np.zeros((2, 3, 2))
    nodes_on[:, 0, 0] = [2.0, 1.0]
    requests = np.array([1500.0, 300.0])
    got = beside(PEACE.world, run.physics, outcomes, nodes_on, requests)
    # Three node-quarters of eight GPUs are six GPU-hours at 20 g.
    assert got["embodied_kg"] == pytest.approx(0.12)
    moved = 1500 * (4.5 * 1366 + 4000) + 300 * (4.5 * 2076 + 4000)
    assert got["network_kwh"] == pytest.approx(moved / 1e9 * 0.01)
    # 54 kg over 210 kWh; the network's share comes at the same intensity.
    operational_g = 54_000 * (1 + got["network_kwh"] / 210)
    assert got["sci_g_per_request"] == pytest.approx((operational_g + 120) / 1800)
    # Peaks of 100 and 40 kWh in a quarter hour: 560 kW at 12 USD for half an hour of 730.
    assert got["demand_charge_usd"] == pytest.approx(560 * 12 * 0.5 / 730)


def test_a_day_reports_more_carbon_than_operation_alone() -> None:
    day = run_day(PEACE, RoundRobin(), START, 0, "")
    got = reported(PEACE, day)
    carbon_g = 1000 * sum(float(o.carbon_kg[0]) for o in day.outcomes)
    served = sum(float(o.served[0]) for o in day.outcomes)
    assert carbon_g / served < got["sci_g_per_request"] < 1.5 * carbon_g / served
    assert got["stale_share"] == 0
    assert day.nodes_on.shape == (96, 3, 2)
