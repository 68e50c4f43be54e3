"""The setting of MARLIN (2026): its sites, hardware table and switches, on the same fluid model."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from marlin import compose
from marlin.config import RunConfig, Tariff
from marlin.data import derived, network, own_grid, prepare
from marlin.data.signals import HourlySignals
from marlin.errors import UserError
from marlin.fleet.contract import Outcome, Plan, row
from marlin.fleet.simulator import step
from marlin.fleet.world import TRAIN, Epochs, World, build_epochs, build_world
from marlin.serving import calibrate, paper_table
from marlin.serving.profiles import from_frame

SETTING = ("physics=paper", "serving=paper", "fleet=paper12", "scenario=fortnight")
QUEBEC, SYDNEY = "quebec", "sydney"


def paper_run(*overrides: str) -> RunConfig:
    return compose.compose([*SETTING, "method=round_robin", *overrides])


@cache
def paper_world(*overrides: str) -> tuple[World, Epochs]:
    """The world and one day of it under the same weather everywhere."""
    run = paper_run(*overrides)
    zones = tuple(site.zone for site in run.fleet.sites)
    time = pd.date_range("2024-06-01", periods=96, freq="15min")
    hours = pd.date_range("2024-06-01", periods=24, freq="h")
    constant = {
        "carbon_g_per_kwh": 1.0, "price_usd_per_mwh": 1.0, "drybulb_c": 20.0,
        "relative_humidity": 50.0,
    }  # fmt: skip
    values = {name: np.full((24, len(zones)), value) for name, value in constant.items()}
    split = np.full(96, TRAIN, dtype=np.int8)
    small = derived.embedded(zones)
    dataset = xr.Dataset(coords=prepare.coordinates(run, time))
    dataset["split"] = ("time", split)
    hourly = HourlySignals(hours, zones, values, ())
    prepare.add_signals(dataset, run, hourly, small, time)
    prepare.add_workload(dataset, run, small, [prepare.Block(time, split)], None)
    prepare.add_fleet(dataset, run, small)
    table, points = calibrate.calibrate(run.serving, [])
    assert points.empty
    world = build_world(dataset, run, from_frame(table))
    return world, build_epochs(dataset, run, world)


def all_to(world: World, site: str, epochs: Epochs, epoch: int, load: float = 1.0) -> Outcome:
    """Every request to one site, which has all its nodes on and the others none."""
    column = world.sites.index(site)
    routing = np.zeros((1, *world.class_shape, len(world.sites)))
    routing[..., column] = 1
    power = np.zeros((1, *world.constants.nodes.shape))
    power[:, column] = 1
    inputs = row(epochs.inputs, np.array([epoch]))
    inputs = type(inputs)(**vars(inputs) | {"arrival_rate_per_s": load * inputs.arrival_rate_per_s})
    return step(world, world.idle_state(1), Plan(routing, power), inputs)[1]


def test_quebec_is_best_on_carbon_and_price_and_worst_on_water() -> None:
    world, epochs = paper_world()
    truth = epochs.inputs
    per_kwh = {
        "carbon": truth.pue * truth.carbon_g_per_kwh,
        "price": truth.pue * truth.price_usd_per_mwh,
        "water": truth.wue_l_per_kwh + truth.pue * truth.ewif_l_per_kwh,
    }
    mean = {name: values.mean(axis=0) for name, values in per_kwh.items()}
    sites = np.array(world.sites)
    assert sites[mean["carbon"].argmin()] == QUEBEC
    assert sites[mean["price"].argmin()] == QUEBEC
    assert sites[mean["water"].argmax()] == QUEBEC
    # Sydney off-peak is the cheapest hour anywhere.
    cheapest = np.unravel_index(per_kwh["price"].argmin(), per_kwh["price"].shape)[1]
    assert sites[cheapest] == SYDNEY


def test_one_clock_for_all_tariffs_and_constants_at_every_hour() -> None:
    world, epochs = paper_world()
    hour = (epochs.time - epochs.time.astype("datetime64[D]")) // np.timedelta64(1, "h")
    virginia = epochs.inputs.price_usd_per_mwh[:, world.sites.index("virginia")]
    np.testing.assert_allclose(virginia[hour == 3], 98.6, rtol=1e-6)
    np.testing.assert_allclose(virginia[hour == 17], 258.8, rtol=1e-6)
    np.testing.assert_allclose(virginia[hour == 12], 113.8, rtol=1e-6)
    quebec = epochs.inputs.carbon_g_per_kwh[:, world.sites.index(QUEBEC)]
    # 21 g/kWh and what supplies and treats the water, a thousandth.
    assert 21 < quebec.min() == quebec.max() < 21.03


def test_energy_is_that_of_nodes_busy_at_tdp_and_ready_at_15_percent() -> None:
    world, epochs = paper_world()
    outcome = all_to(world, QUEBEC, epochs, -1, load=0.05)
    column = world.sites.index(QUEBEC)
    busy = outcome.site_utilisation[0, column]
    assert 0.1 < busy < 0.95
    nodes, constants = world.constants.nodes[column], world.constants
    tdp_w = (nodes * constants.gpus * constants.gpu_tdp_w).sum()
    elsewhere = np.delete(world.constants.nodes, column, axis=0)
    off_w = (elsewhere * constants.off_w).sum()
    it_kwh = outcome.energy_kwh[0] / epochs.inputs.pue[-1, column]
    # Work is counted at the mean prompt, busy time over its quantiles, whose tail is rounded up.
    expected = (tdp_w * (0.15 + 0.85 * busy) + off_w) * world.epoch_s / 3.6e6
    assert it_kwh == pytest.approx(expected, rel=0.02)


def test_a_node_serves_one_token_in_the_time_of_the_table() -> None:
    world, _ = paper_world()
    constants = world.constants
    g, m = world.node_types.index("h100x8"), world.models.index("llama-2-70b")
    tokens = constants.prompt_tokens + constants.output_tokens
    # The prompt is integrated over its quantiles, whose tail is rounded up.
    np.testing.assert_allclose(constants.node_rate_per_s[g, m], 1 / (0.0589e-3 * tokens), rtol=0.04)


def test_counting_all_tokens_adds_the_time_of_the_output() -> None:
    world, epochs = paper_world()
    whole, _ = paper_world("serving.first_token=all_tokens")
    load = 1e-4
    first, last = (float(all_to(w, QUEBEC, epochs, -1, load).ttft_s[0]) for w in (world, whole))
    share = np.array([0.7, 0.3])[None, :]
    nodes = world.constants.nodes[world.sites.index(QUEBEC)][:, None, None]
    speed = nodes * world.constants.node_rate_per_s
    decode_s = world.constants.decode_d0_s[:, :, None] * world.constants.output_tokens
    by_model = (speed * decode_s).sum(axis=0) / speed.sum(axis=0)
    assert last - first == pytest.approx(float((share @ by_model)[0, 0]), rel=1e-3)


def test_a_ring_takes_the_shorter_way_round_by_hand() -> None:
    table = np.array([[0, 1, 9, 4], [1, 0, 2, 9], [9, 2, 0, 3], [4, 9, 3, 0.0]])
    ring = network.around_ring(table)
    np.testing.assert_array_equal(ring, [[0, 1, 3, 4], [1, 0, 2, 5], [3, 2, 0, 3], [4, 5, 3, 0]])
    assert (ring >= 0).all()


def test_direct_and_ring_differ_on_the_paper_s_table() -> None:
    own = paper_run().fleet.round_trips
    assert own is not None
    names = list(own.rtt_ms)
    direct, ring = (
        network.own_rtt_s(names, names, 0.0, own.rtt_ms, path) for path in ("direct", "ring")
    )
    row, column = names.index("virginia"), names.index("frankfurt")
    assert direct[row, column] == pytest.approx(0.0928)
    # Hop by hop from Virginia by California, Calgary and Ireland to Frankfurt.
    assert ring[row, column] > 3 * direct[row, column]
    with pytest.raises(UserError, match="'West US' is not in fleet"):
        network.own_rtt_s(["West US"], names, 0.0, own.rtt_ms, "direct")


def test_tariffs_are_checked() -> None:
    with pytest.raises(ValueError, match="in order"):
        Tariff(timezone="UTC", base_usd_per_mwh=1, hours={"18-16": 2})
    with pytest.raises(ValueError, match="none"):
        Tariff(timezone="UTC", base_usd_per_mwh=1, hours={"noon": 2})
    prices = Tariff(timezone="UTC", base_usd_per_mwh=1, hours={"22-23": 2, "0": 3}).usd_per_mwh()
    assert prices == [3.0] + [1.0] * 21 + [2.0] * 2


def test_the_table_has_two_models() -> None:
    with pytest.raises(UserError, match="llama-2-7b, llama-2-70b"):
        paper_table.profiles(["llama-3.1-8b"])
    small, large = paper_table.profiles(["llama-2-7b", "llama-2-70b"])[:2]
    assert (small.gpu, small.tp, small.source) == ("A100", 2, "paper table")
    assert large.prefill_s(1000) == pytest.approx(0.8216)
    assert large.load_s == pytest.approx(2.16, abs=0.01)


def test_marginal_carbon_is_national_and_stops_where_there_is_none() -> None:
    got = own_grid.marginal_g_per_kwh(["US-CAL-CISO", "US-MIDA-PJM", "GB"])
    np.testing.assert_array_equal(got, [416, 416, 380])
    with pytest.raises(
        UserError, match=r"no marginal factor of zone 'SE'; there is one for AU-NSW"
    ):
        own_grid.marginal_g_per_kwh(["SE"])
    run = compose.compose(["signals.carbon_family=marginal", "method=round_robin", *SETTING[3:]])
    hours = pd.date_range("2023-06-01", periods=2, freq="h")
    hourly, _ = prepare.read_data(run, hours, None)
    california = hourly.zones.index("US-CAL-CISO")
    np.testing.assert_array_equal(hourly.values["carbon_g_per_kwh"][:, california], 416)
