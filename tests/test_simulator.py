"""The fluid model: conservation, bounds, hand-worked numbers, NumPy against torch."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import synthetic
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marlin.fleet.contract import Fields, Inputs, Outcome, Plan, State, convert, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import dispatch, site_capacity, step
from marlin.fleet.world import World, build_epochs, build_world, fleet_utilisation
from marlin.serving.queueing import sakasegawa_wait_s, tpot_s

RUN = synthetic.run_config()
SCENARIO = synthetic.scenario()
WORLD = build_world(SCENARIO, RUN, synthetic.profiles())
EPOCHS = build_epochs(SCENARIO, RUN, WORLD)
SITES = len(synthetic.SITES)
PATIENT = replace(WORLD, patience_s=1e6)
# Fewer slots than the batch of a test, so that none is free, and so many replicas that none waits.
CROWDED = replace(
    PATIENT,
    constants=replace(
        WORLD.constants,
        slots=np.full((2, 2, 2), 4.0),
        replicas_per_node=1e3 * WORLD.constants.replicas_per_node,
    ),
)


def inputs_at(*epochs: int) -> Inputs:
    return row(EPOCHS.inputs, np.array(epochs))


def even_routing(batch: int = 1) -> np.ndarray:
    return np.full((batch, *WORLD.class_shape, SITES), 1.0 / SITES)


def everything_on(batch: int = 1) -> np.ndarray:
    return np.ones((batch, SITES, len(WORLD.node_types)))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan on the simplex, corners and switched-off sites included."""
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    sharpness = draw(st.sampled_from([0.0, 1.0, 5.0, 200.0]))
    logits = sharpness * rng.standard_normal((1, *WORLD.class_shape, SITES))
    routing = np.exp(logits - logits.max(axis=-1, keepdims=True))
    routing /= routing.sum(axis=-1, keepdims=True)
    power = rng.random((1, SITES, len(WORLD.node_types)))
    power = np.where(rng.random(power.shape) < draw(st.sampled_from([0.0, 0.4, 1.0])), 0.0, power)
    return Plan(routing, power)


@given(plan=plans(), load=st.sampled_from([0.0, 1e-6, 1.0, 10.0]), outage=st.booleans())
@settings(max_examples=150, deadline=None)
def test_requests_are_conserved_and_nothing_is_lost_to_nan(
    plan: Plan, load: float, outage: bool
) -> None:
    inputs = inputs_at(40)
    inputs = replace(inputs, arrival_rate_per_s=inputs.arrival_rate_per_s * load)
    if outage:
        inputs = replace(inputs, available=inputs.available * np.array([1.0, 0.0, 0.5])[:, None])
    state = WORLD.idle_state(1)
    for _ in range(3):
        before = state.backlog.sum()
        state, outcome = step(WORLD, state, plan, inputs)
        for field in fields(outcome):
            assert np.isfinite(getattr(outcome, field.name)).all(), field.name
        kept = outcome.served + outcome.waiting + outcome.dropped
        np.testing.assert_allclose(before + outcome.arrived, kept, rtol=1e-9, atol=1e-9)
        assert (state.backlog >= 0).all()
        assert outcome.energy_kwh > 0
        assert outcome.water_l > 0
        np.testing.assert_allclose(outcome.site_energy_kwh.sum(), outcome.energy_kwh)


@given(plan=plans(), load=st.floats(0.01, 3.0))
@settings(max_examples=80, deadline=None)
def test_dispatch_keeps_flows_and_fills_no_site_past_the_ceiling_while_others_have_room(
    plan: Plan, load: float
) -> None:
    arrivals = load * inputs_at(40).arrival_rate_per_s
    capacity = site_capacity(WORLD.constants, WORLD.constants.nodes[None] * everything_on())
    flows = dispatch(WORLD, plan.routing, arrivals, capacity, np.zeros_like(capacity))
    np.testing.assert_allclose(flows.sum(axis=-1), arrivals, rtol=1e-9)
    assert (flows >= 0).all()
    used = (np.moveaxis(flows.sum(axis=1), -1, 1) / capacity).sum(axis=(2, 3))[0]
    planned = arrivals[..., None] * plan.routing
    asked = (np.moveaxis(planned.sum(axis=1), -1, 1) / capacity).sum(axis=(2, 3))[0]
    if (asked <= WORLD.utilisation_ceiling).all():
        np.testing.assert_allclose(flows, planned)
    # Fewer rounds than sites may leave a little with its site, never more than was asked.
    assert (used <= np.maximum(asked, WORLD.utilisation_ceiling) + 1e-9).all()


@given(low=st.floats(0.05, 0.9), step_up=st.floats(0.02, 0.8))
@settings(max_examples=50, deadline=None)
def test_more_load_is_never_faster_and_never_takes_less_energy(low: float, step_up: float) -> None:
    base = inputs_at(40)
    plan = Plan(even_routing(), everything_on())
    outcomes = [
        step(
            WORLD,
            WORLD.idle_state(1),
            plan,
            replace(base, arrival_rate_per_s=base.arrival_rate_per_s * load),
        )[1]
        for load in (low, low + step_up)
    ]
    assert outcomes[1].ttft_s >= outcomes[0].ttft_s - 1e-12
    assert outcomes[1].energy_kwh >= outcomes[0].energy_kwh - 1e-9


def test_zero_load_costs_idle_energy_alone() -> None:
    nothing = replace(inputs_at(40), arrival_rate_per_s=np.zeros((1, *WORLD.class_shape)))
    nothing = replace(nothing, pue=np.ones((1, SITES)))
    _, outcome = step(WORLD, WORLD.idle_state(1), Plan(even_routing(), everything_on()), nothing)
    # 6 A100 nodes at 900 + 8 x 80 W and 4 H100 nodes at 1200 + 8 x 122 W, a quarter of an hour.
    per_site_kwh = (6 * (900 + 8 * 80) + 4 * (1200 + 8 * 122)) * 0.25 / 1000
    np.testing.assert_allclose(outcome.site_energy_kwh[0], per_site_kwh)
    dark = Plan(even_routing(), np.zeros((1, SITES, 2)))
    _, outcome = step(WORLD, WORLD.idle_state(1), dark, nothing)
    np.testing.assert_allclose(outcome.site_energy_kwh[0], 10 * 25 * 0.25 / 1000)


def test_water_carbon_and_cost_follow_from_energy() -> None:
    inputs = inputs_at(40)
    _, o = step(WORLD, WORLD.idle_state(1), Plan(even_routing(), everything_on()), inputs)
    it_kwh = o.site_energy_kwh / inputs.pue
    water = it_kwh * inputs.wue_l_per_kwh + o.site_energy_kwh * inputs.ewif_l_per_kwh
    np.testing.assert_allclose(o.site_water_l, water)
    np.testing.assert_allclose(
        o.carbon_kg, (o.site_energy_kwh * inputs.carbon_g_per_kwh).sum() / 1e3
    )
    np.testing.assert_allclose(
        o.cost_usd, (o.site_energy_kwh * inputs.price_usd_per_mwh).sum() / 1e3
    )


def test_ttft_of_an_idle_fleet_is_network_plus_prefill() -> None:
    inputs = inputs_at(40)
    inputs = replace(inputs, arrival_rate_per_s=inputs.arrival_rate_per_s * 1e-6)
    routing = np.zeros((1, *WORLD.class_shape, SITES))
    routing[..., 1] = 1.0
    _, outcome = step(WORLD, WORLD.idle_state(1), Plan(routing, everything_on()), inputs)
    rate = inputs.arrival_rate_per_s[0]
    constants = WORLD.constants
    speed = constants.nodes[1][:, None, None] * constants.node_rate_per_s
    prefill = (constants.prefill_s * speed / speed.sum(axis=0)).sum(axis=0)
    network = (rate.sum(axis=(1, 2)) * constants.rtt_s[:, 1]).sum()
    expected = (network + (rate * prefill).sum()) / rate.sum()
    np.testing.assert_allclose(outcome.ttft_s, expected, rtol=1e-4)


def test_overload_waits_then_drops_and_counts_the_dropped_with_the_patience() -> None:
    inputs = inputs_at(40)
    inputs = replace(inputs, arrival_rate_per_s=inputs.arrival_rate_per_s * 4)
    plan = Plan(even_routing(), everything_on())
    state, first = step(WORLD, WORLD.idle_state(1), plan, inputs)
    assert first.dropped > 0
    # What is left can be cleared within the patience: that is what dropping is for.
    clear = (state.backlog / site_capacity(WORLD.constants, state.nodes_on)).sum(axis=(2, 3))
    np.testing.assert_allclose(clear, RUN.serving.patience_s, rtol=1e-9)
    assert first.ttft_s > (first.dropped / first.arrived) * RUN.serving.patience_s


def test_nodes_switched_on_serve_late_and_make_their_requests_wait() -> None:
    inputs = inputs_at(40)
    plan = Plan(even_routing(), everything_on())
    warm = WORLD.idle_state(1)
    cold = State(warm.backlog, 0.0 * warm.nodes_on, 0.0 * warm.loaded)
    _, fast = step(WORLD, warm, plan, inputs)
    _, slow = step(WORLD, cold, plan, inputs)
    # 10 nodes a site boot in 180 s; then the small model is there after 10 s, the large after 80.
    cold_s = np.array([180.0 + 10.0, 180.0 + 80.0])
    # What comes meanwhile waits, and is served beside what comes later: T^2 / 2 (1 - load).
    rate = inputs.arrival_rate_per_s[0].sum(axis=0) / SITES
    load = (rate / np.einsum("gm,gms->ms", warm.loaded[0, 0], saturated_rate())).sum(axis=1)
    wait_s = (rate.sum(axis=1) * cold_s**2 / (1 - load)).sum() / rate.sum() / (2 * 900)
    assert slow.ttft_s == pytest.approx(fast.ttft_s + wait_s, rel=5e-3)
    ready = 1.0 - WORLD.constants.usual_share[0] @ cold_s / 900
    np.testing.assert_allclose(slow.site_utilisation, fast.site_utilisation / ready)


@pytest.mark.parametrize(
    ("load", "warm", "wait"),
    [
        # Queue built over 1 s, time to empty it, area over load: 0.1, 0.1 / 0.4, 0.1 x 1.25 / 2.
        (0.6, 0.5, 0.1 * 1.25 / 2 / 0.6),
        # New nodes have room for all that comes, so the queue empties at the rate of the old.
        (0.6, 0.2, 0.4 * 3.0 / 2 / 0.6),
        (0.5, 0.6, 0.0),
    ],
)
def test_requests_wait_where_they_were_sent_while_nodes_boot(load, warm, wait) -> None:
    capacity = np.einsum("g,gs->s", WORLD.constants.nodes[0], saturated_rate()[:, 1])
    rate = np.zeros((1, *WORLD.class_shape))
    rate[:, 0, 1] = SITES * load * capacity / 2
    inputs = replace(inputs_at(40), arrival_rate_per_s=rate)
    plan = Plan(even_routing(), everything_on())
    on = WORLD.idle_state(1).nodes_on
    states = [
        State(np.zeros((1, SITES, 2, 2)), part * on, part * on[..., None] * np.array([0.0, 1.0]))
        for part in (1.0, warm)
    ]
    fast, slow = (step(CROWDED, state, plan, inputs)[1] for state in states)
    wait_s = wait * (180 + 80) ** 2 / 900
    assert slow.ttft_s - fast.ttft_s == pytest.approx(wait_s, rel=0.02, abs=0.1)
    # With slots to fill first, the queue begins later.
    roomy = step(PATIENT, states[1], plan, inputs)[1]
    assert wait == 0.0 or roomy.ttft_s < 0.95 * slow.ttft_s


def test_no_one_waits_longer_than_the_patience_for_nodes_that_boot() -> None:
    plan, inputs = Plan(even_routing(), everything_on()), inputs_at(40)
    start = WORLD.idle_state(1)
    # A few replicas at each site: all that comes in the time of the boot goes to them.
    few = State(start.backlog, 0.1 * start.nodes_on, 0.1 * start.loaded)
    _, outcome = step(WORLD, few, plan, inputs)
    assert outcome.ttft_s < RUN.serving.patience_s * (180 + 80) / 900 + 1.0
    assert outcome.ttft_s < step(PATIENT, few, plan, inputs)[1].ttft_s


def saturated_rate() -> np.ndarray:
    return WORLD.constants.saturated_rate_per_s


def by_model(small: int, large: int) -> np.ndarray:
    """Routing of all requests for a model to one site."""
    routing = np.zeros((1, *WORLD.class_shape, SITES))
    routing[:, :, 0, :, small] = routing[:, :, 1, :, large] = 1.0
    return routing


def test_a_plan_that_moves_a_model_between_sites_pays_for_loading_it() -> None:
    inputs = inputs_at(40)
    inputs = replace(inputs, arrival_rate_per_s=0.3 * inputs.arrival_rate_per_s)
    here, there = (Plan(by_model(*sites), everything_on()) for sites in ((0, 1), (1, 0)))
    first, _ = step(WORLD, WORLD.idle_state(1), here, inputs)
    nodes = WORLD.constants.nodes[0]
    np.testing.assert_allclose(first.loaded[0, 0, :, 0], nodes)
    np.testing.assert_allclose(first.loaded[0, 1, :, 1], nodes)
    stayed, same = step(WORLD, first, here, inputs)
    moved, swapped = step(WORLD, first, there, inputs)
    settled = step(WORLD, moved, there, inputs)[1]
    np.testing.assert_array_equal(stayed.loaded, first.loaded)
    # Every node of the two sites changes model: 10 s are lost for the small one, 80 for the large.
    busy = settled.site_utilisation[0]
    np.testing.assert_allclose(swapped.site_utilisation[0, 0], busy[0] / (1 - 80 / 900))
    np.testing.assert_allclose(swapped.site_utilisation[0, 1], busy[1] / (1 - 10 / 900))
    wait_s = (swapped.site_ttft_s - settled.site_ttft_s)[0, :2]
    gain = saturated_rate() / WORLD.constants.node_rate_per_s
    assert (wait_s > np.array([80.0, 10.0]) ** 2 / (2 * 900) / (1 - busy[:2] / gain.max())).all()
    assert (wait_s < np.array([80.0, 10.0]) ** 2 / (2 * 900) / (1 - busy[:2]) + 0.01).all()
    assert (swapped.energy_kwh, same.dropped) == (pytest.approx(settled.energy_kwh, rel=0.02), 0.0)


def test_a_plan_that_keeps_its_shares_pays_nothing_for_models() -> None:
    inputs, plan = inputs_at(40), Plan(even_routing(), everything_on())
    state, first = step(WORLD, WORLD.idle_state(1), plan, inputs)
    more = replace(inputs, arrival_rate_per_s=1.2 * inputs.arrival_rate_per_s)
    instant = replace(WORLD.constants, load_s=0.0 * WORLD.constants.load_s)
    for world in (WORLD, replace(WORLD, constants=instant)):
        _, outcome = step(world, state, plan, more)
        np.testing.assert_allclose(outcome.site_utilisation, 1.2 * first.site_utilisation)
    np.testing.assert_allclose(state.loaded.sum(axis=-1), state.nodes_on)


def test_a_site_without_load_keeps_its_models_and_what_boots_there_holds_none() -> None:
    start = WORLD.idle_state(1)
    nothing = replace(inputs_at(40), arrival_rate_per_s=np.zeros((1, *WORLD.class_shape)))
    half = Plan(even_routing(), 0.5 * everything_on())
    state, _ = step(WORLD, start, half, nothing)
    np.testing.assert_allclose(state.loaded, 0.5 * start.loaded)
    state, _ = step(WORLD, state, Plan(even_routing(), everything_on()), nothing)
    np.testing.assert_allclose(state.loaded, 0.5 * start.loaded)
    np.testing.assert_allclose(state.nodes_on, start.nodes_on)


def test_peak_utilisation_is_what_was_asked_for() -> None:
    train = EPOCHS.inputs.arrival_rate_per_s[EPOCHS.split == 0]
    assert fleet_utilisation(WORLD, train).max() == pytest.approx(0.6)
    plan = Plan(even_routing(), everything_on())
    peak = int(fleet_utilisation(WORLD, train).argmax())
    _, outcome = step(WORLD, WORLD.idle_state(1), plan, inputs_at(peak))
    np.testing.assert_allclose(outcome.site_utilisation, 0.6)


@given(target=st.floats(0.2, 0.85), plan=plans())
@settings(max_examples=60, deadline=None)
def test_right_sizing_meets_its_target_and_leaves_unused_sites_off(
    target: float, plan: Plan
) -> None:
    inputs = inputs_at(40)
    arrivals = 0.3 * inputs.arrival_rate_per_s
    sized = sized_plan(WORLD, plan.routing, arrivals, target)
    assert ((sized.power >= 0) & (sized.power <= 1)).all()
    np.testing.assert_allclose(sized.routing.sum(axis=-1), 1.0)
    state, _ = step(WORLD, WORLD.idle_state(1), sized, replace(inputs, arrival_rate_per_s=arrivals))
    _, outcome = step(WORLD, state, sized, replace(inputs, arrival_rate_per_s=arrivals))
    partly = (sized.power.min(axis=-1) < 1 - 1e-9) & (sized.power.sum(axis=-1) > 1e-9)
    np.testing.assert_allclose(outcome.site_utilisation[partly], target, rtol=5e-3)
    assert outcome.dropped == 0
    nowhere_else = np.zeros_like(plan.routing)
    nowhere_else[..., 0] = 1.0
    assert (sized_plan(WORLD, nowhere_else, 0.1 * arrivals, target).power[0, 1:] == 0).all()


def test_efficient_nodes_are_switched_on_first() -> None:
    order = WORLD.terms.switched.argmax(axis=1)
    arrivals = 0.2 * inputs_at(40).arrival_rate_per_s
    levels = sized_plan(WORLD, even_routing(), arrivals, 0.8).power
    assert levels[0, 0, order[0]] > 0
    assert levels[0, 0, order[1]] == 0


def as_torch(batch: Fields, dtype: torch.dtype) -> Fields:
    return convert(batch, lambda a: torch.as_tensor(np.array(a), dtype=dtype))


def test_numpy_and_torch_agree_and_rows_of_a_batch_are_single_runs() -> None:
    inputs = inputs_at(40, 300, 700)
    rng = np.random.default_rng(0)
    routing = rng.dirichlet(np.ones(SITES), (3, *WORLD.class_shape))
    plan = Plan(routing, rng.random((3, SITES, 2)))
    world = WORLD.to_torch(torch.float64)
    state, mine = step(WORLD, WORLD.idle_state(3), plan, inputs)
    _, theirs = step(
        world,
        as_torch(WORLD.idle_state(3), torch.float64),
        as_torch(plan, torch.float64),
        as_torch(inputs, torch.float64),
    )
    for field in fields(Outcome):
        a, b = getattr(mine, field.name), getattr(theirs, field.name).numpy()
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=field.name)
    for b in range(3):
        alone = slice(b, b + 1)
        single_state, single = step(
            WORLD, WORLD.idle_state(1), row(plan, alone), row(inputs, alone)
        )
        np.testing.assert_allclose(single_state.backlog, state.backlog[alone], rtol=1e-12)
        np.testing.assert_allclose(single_state.loaded, state.loaded[alone], rtol=1e-12)
        for field in fields(Outcome):
            got, want = getattr(single, field.name)[0], getattr(mine, field.name)[b]
            np.testing.assert_allclose(got, want, rtol=1e-12, err_msg=field.name)


@pytest.mark.parametrize("metric", ["ttft_s", "carbon_kg", "water_l", "cost_usd"])
def test_gradients_match_finite_differences(metric: str) -> None:
    world = WORLD.to_torch(torch.float64)
    inputs = as_torch(inputs_at(40), torch.float64)
    state = as_torch(WORLD.idle_state(1), torch.float64)
    logits = torch.randn(
        (1, *WORLD.class_shape, SITES), generator=torch.Generator().manual_seed(1)
    ).double().mul(0.3).requires_grad_()  # fmt: skip
    power = torch.full((1, SITES, 2), 0.9, dtype=torch.float64, requires_grad=True)

    def value(logits: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
        outcome = step(world, state, Plan(torch.softmax(logits, -1), power), inputs)[1]
        return getattr(outcome, metric)

    assert torch.autograd.gradcheck(value, (logits, power), eps=1e-6, atol=1e-5, rtol=1e-4)


def test_tpot_solves_its_own_fixed_point() -> None:
    rate, prefill, output, d0, slope = 2.0, 0.06, 200.0, 0.015, 5e-5
    tpot = float(tpot_s(np.array(d0), np.array(rate * prefill), np.array(rate * output * slope)))
    batch = rate * output * tpot
    assert (d0 + slope * batch) / (1 - rate * prefill) == pytest.approx(tpot)


def test_sakasegawa_is_exact_for_mm1_and_close_for_mmc() -> None:
    one = np.array(1.0)
    wait = sakasegawa_wait_s(np.array(2.0), np.array(0.8), one, one, one)
    assert float(wait) == pytest.approx(2.0 * 0.8 / 0.2)
    # Erlang C for 4 servers at 0.8 is 0.5964, so the wait is 0.5964 / (4 x 0.2) = 0.7455.
    wait = sakasegawa_wait_s(one, np.array(0.8), np.array(4.0), one, one)
    assert float(wait) == pytest.approx(0.7455, rel=0.04)


def test_world_names_a_layout_that_does_not_fit() -> None:
    from marlin.errors import UserError

    run = synthetic.run_config()
    serving = run.serving.model_copy(
        update={"models": [run.serving.models[0].model_copy(update={"tp": {"H100": 1}})]}
    )
    with pytest.raises(UserError, match="small has no tensor parallelism for A100"):
        build_world(SCENARIO, run.model_copy(update={"serving": serving}), synthetic.profiles())


def test_world_is_what_the_scenario_says() -> None:
    assert isinstance(WORLD, World)
    assert WORLD.sites == synthetic.SITES
    assert WORLD.constants.replicas_per_node.tolist() == [[8.0, 2.0], [8.0, 2.0]]


def test_the_usual_share_is_what_an_even_split_of_training_demand_needs() -> None:
    # Small and large take 10 + 5 and 4 + 1.5 requests of conversation and code; the synthetic
    # demand keeps these proportions, so that the even split at any time changes no node's model.
    start = WORLD.idle_state(1)
    after, _ = step(WORLD, start, Plan(even_routing(), everything_on()), inputs_at(40))
    np.testing.assert_allclose(after.loaded, start.loaded)
    np.testing.assert_allclose(WORLD.constants.usual_share.sum(axis=-1), 1.0)
