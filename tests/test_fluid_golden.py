"""Outcomes of the fluid model as recorded: where its numbers change, the change is meant.

Recorded anew when prefill and decode got power limits of their own, when nodes began to hold
models (with loads that take no time, all but TTFT were as before), and when the queue of a cold
start began to stay where it was sent and bursts to thin out over models.
"""

from __future__ import annotations

import json
from pathlib import Path

import fleets
import numpy as np
import pytest

from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import step

GOLDEN = Path(__file__).parent / "golden_fluid.json"
CASES = {
    # name: sizes (D, G, M, S, O), load, concentration of the plan, pools off, sites down
    "paper size, light": ((12, 2, 2, 2, 12), 0.2, 5.0, 0.0, 0.0),
    "spilling": ((12, 2, 2, 2, 12), 0.6, 0.3, 0.2, 0.1),
    "overload": ((5, 3, 3, 2, 4), 2.5, 0.5, 0.3, 0.2),
    "one of each": ((1, 1, 1, 1, 1), 0.5, 1.0, 0.0, 0.0),
}
FIELDS = (
    "ttft_s", "carbon_kg", "water_l", "cost_usd", "energy_kwh", "scarcity_water_l", "served",
    "dropped", "waiting", "utilisation", "site_ttft_s", "site_energy_kwh",
)  # fmt: skip


def outcomes(name: str) -> dict[str, list]:
    """Two epochs from a random state, the second on a plan of the power-down layer."""
    size, load, concentration, off, outage = CASES[name]
    rng = np.random.default_rng(len(name))
    world = fleets.random_world(rng, *size)
    state = fleets.random_state(rng, world, 3)
    plan = fleets.random_plan(rng, world, 3, concentration, off)
    first = fleets.random_inputs(rng, world, 3, load, outage)
    second = fleets.random_inputs(rng, world, 3, load)
    state, one = step(world, state, plan, first)
    sized = sized_plan(world, plan.routing, second.arrival_rate_per_s, 0.7)
    _, two = step(world, state, sized, second)
    return {field: [getattr(o, field).tolist() for o in (one, two)] for field in FIELDS}


@pytest.mark.parametrize("name", CASES)
def test_the_recorded_numbers_stand(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    for field, values in outcomes(name).items():
        np.testing.assert_allclose(values, golden[field], rtol=1e-9, atol=1e-9, err_msg=field)
