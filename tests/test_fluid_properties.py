"""Laws of the fluid model for fleets of any size and any plan on the simplex."""

from __future__ import annotations

from dataclasses import fields, replace

import fleets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marlin.errors import UserError
from marlin.fleet.contract import Fields, Outcome, Plan, convert
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import dispatch, site_capacity, step
from marlin.fleet.stack import stack_rows, stack_worlds
from marlin.fleet.terms import AXES

SIZES = st.tuples(*(st.integers(1, 4) for _ in range(5)))
LOADS = st.sampled_from([0.0, 1e-6, 0.3, 0.9, 5.0])
OUTAGES = st.sampled_from([0.0, 0.3, 1.0])


def tensors(rows: Fields) -> Fields:
    return convert(rows, lambda a: torch.as_tensor(np.array(a), dtype=torch.float64))


@given(
    seed=st.integers(0, 2**31), sizes=st.lists(SIZES, min_size=2, max_size=3), load=LOADS,
    outage=OUTAGES,
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_row_of_a_batch_of_different_fleets_is_its_single_run(seed, sizes, load, outage) -> None:
    rng = np.random.default_rng(seed)
    worlds = [fleets.random_world(rng, *size) for size in sizes]
    inputs = [fleets.random_inputs(rng, w, 1, load, outage) for w in worlds]
    plans = [fleets.random_plan(rng, w, 1, 0.5, 0.2) for w in worlds]
    states = [fleets.random_state(rng, w, 1) for w in worlds]
    batch = stack_worlds(worlds)
    together = stack_rows(batch, states), stack_rows(batch, plans), stack_rows(batch, inputs)
    after, mine = step(batch, *together)
    doubles = tensors(together[0]), tensors(together[1]), tensors(together[2])
    _, tensor = step(batch.to_torch(torch.float64), *doubles)
    demand = together[2].arrival_rate_per_s
    sized = sized_plan(batch, together[1].routing, demand, 0.7)
    for b, world in enumerate(worlds):
        alone, single = step(world, states[b], plans[b], inputs[b])
        d, g, m, s, _ = sizes[b]
        for field in fields(Outcome):
            want = getattr(single, field.name)[0]
            for got in (getattr(mine, field.name), getattr(tensor, field.name).numpy()):
                got = got[b] if want.ndim == 0 else got[b, :d]
                np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9, err_msg=field.name)
            padding = getattr(mine, field.name)[b]
            assert want.ndim == 0 or (padding[d:] == 0).all(), field.name
        np.testing.assert_allclose(after.backlog[b, :d, :m, :s], alone.backlog[0], atol=1e-9)
        assert after.backlog.sum(axis=(1, 2, 3))[b] == pytest.approx(alone.backlog.sum())
        np.testing.assert_allclose(after.loaded[b, :d, :g, :m], alone.loaded[0], atol=1e-9)
        assert after.loaded[b].sum() == pytest.approx(alone.loaded.sum())
        own = sized_plan(world, plans[b].routing, inputs[b].arrival_rate_per_s, 0.7)
        np.testing.assert_allclose(sized.power[b, :d, :g], own.power[0], rtol=1e-8, atol=1e-9)


def test_shares_sent_to_sites_that_only_fill_up_go_to_the_worlds_own() -> None:
    rng = np.random.default_rng(0)
    worlds = [fleets.random_world(rng, sites, 2, 1, 1, 2) for sites in (2, 4)]
    batch = stack_worlds(worlds)
    inputs = stack_rows(batch, [fleets.random_inputs(rng, w, 1, 0.1) for w in worlds])
    routing = np.full((2, 2, 1, 1, 4), 0.25)
    routing[:, 1] = [0.0, 0.0, 0.5, 0.5]
    full = site_capacity(batch.constants, batch.constants.nodes)
    flows = dispatch(batch, routing, inputs.arrival_rate_per_s, full, np.zeros_like(full))
    np.testing.assert_allclose(flows.sum(axis=-1), inputs.arrival_rate_per_s)
    assert (flows[0, ..., 2:] == 0).all()


def test_worlds_of_one_batch_share_their_clock() -> None:
    world = fleets.random_world(np.random.default_rng(0), 1, 1, 1, 1, 1)
    with pytest.raises(UserError, match="must share epoch_s but have"):
        stack_worlds([world, replace(world, epoch_s=60.0)])


@given(
    seed=st.integers(0, 2**31), size=SIZES, load=LOADS, outage=OUTAGES,
    concentration=st.sampled_from([0.01, 1.0, 100.0]), off=st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_requests_and_energy_are_conserved_and_slopes_are_finite(
    seed, size, load, outage, concentration, off
) -> None:
    rng = np.random.default_rng(seed)
    world = fleets.random_world(rng, *size)
    inputs = fleets.random_inputs(rng, world, 2, load, outage)
    plan = fleets.random_plan(rng, world, 2, concentration, off)
    state = fleets.random_state(rng, world, 2)
    plan_t = convert(tensors(plan), lambda a: a.requires_grad_())
    after, outcome = step(
        world.to_torch(torch.float64), tensors(state), plan_t, tensors(inputs)
    )  # fmt: skip
    slopes = torch.autograd.grad(
        sum(value.sum() for value in outcome.objectives()), (plan_t.routing, plan_t.power)
    )
    assert all(torch.isfinite(slope).all() for slope in slopes)
    outcome = convert(outcome, lambda a: a.detach().numpy())
    for field in fields(Outcome):
        assert np.isfinite(getattr(outcome, field.name)).all(), field.name
    kept = outcome.served + outcome.waiting + outcome.dropped
    came = state.backlog.sum(axis=(1, 2, 3)) + outcome.arrived
    np.testing.assert_allclose(kept, came, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(outcome.waiting, after.backlog.detach().numpy().sum(axis=(1, 2, 3)))
    loaded, nodes_on = after.loaded.detach().numpy(), after.nodes_on.detach().numpy()
    assert (loaded >= 0).all()
    assert (loaded.sum(axis=-1) <= nodes_on + 1e-9).all()
    busy = outcome.site_utilisation > 1e-9
    np.testing.assert_allclose(loaded.sum(axis=-1)[busy], nodes_on[busy], rtol=1e-9)
    # Energy: the sum of the sites, and between everything at rest and everything at its limit.
    hours = world.epoch_s / 3.6e6
    np.testing.assert_allclose(outcome.site_energy_kwh.sum(axis=1), outcome.energy_kwh)
    it_kwh = outcome.site_energy_kwh / inputs.pue
    constants = world.constants
    on = constants.nodes * plan.power * inputs.available
    rest = constants.nodes * inputs.available - on
    idle_w = constants.gpus * constants.gpu_context_w + constants.base_idle_w
    most_w = constants.gpus * constants.gpu_tdp_w
    most_w = most_w + np.maximum(constants.base_full_w, constants.base_idle_w)
    resting = (rest * constants.off_w).sum(axis=-1)
    assert (it_kwh >= ((on * idle_w).sum(axis=-1) + resting) * hours - 1e-6).all()
    assert (it_kwh <= ((on * most_w).sum(axis=-1) + resting) * hours + 1e-6).all()


@given(seed=st.integers(0, 2**31), load=st.sampled_from([0.3, 0.9, 1.5]))
@settings(max_examples=25, deadline=None)
def test_requests_that_have_a_replica_to_themselves_wait_in_one_queue_of_the_site(
    seed, load
) -> None:
    """Calling half of the nodes another type changes nothing where only slots are waited for."""
    rng = np.random.default_rng(seed)
    one = fleets.random_world(rng, 2, 1, 2, 2, 2)
    one = replace(one, constants=replace(one.constants, slots=0.0 * one.constants.slots + 1.0))
    axes = {name: AXES[name].find("G") for name in AXES if "G" in AXES[name]}
    halves = {
        name: np.repeat(getattr(one.constants, name), 2, axis=axis) for name, axis in axes.items()
    }
    halves["nodes"] = halves["nodes"] / 2
    two = replace(one, node_types=("a", "b"), constants=replace(one.constants, **halves))
    outcomes = []
    for world in (one, two):
        same = np.random.default_rng(seed)
        inputs = fleets.random_inputs(same, world, 1, load)
        routing = same.dirichlet(np.ones(2), (1, *world.class_shape))
        plan = Plan(routing, np.full((1, 2, len(world.node_types)), 0.8))
        outcomes.append(step(world, world.idle_state(1), plan, inputs)[1])
    for field in fields(Outcome):
        got, want = (getattr(outcome, field.name) for outcome in outcomes)
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9, err_msg=field.name)


@pytest.mark.parametrize("seed", range(3))
def test_slopes_are_those_of_finite_differences_inside_the_simplex(seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = fleets.random_world(rng, 3, 2, 2, 2, 2).to_torch(torch.float64)
    source = fleets.random_world(np.random.default_rng(seed), 3, 2, 2, 2, 2)
    inputs = tensors(fleets.random_inputs(rng, source, 1, (0.3, 0.7, 1.5)[seed]))
    plan = tensors(fleets.random_plan(rng, source, 1, 20.0))
    state = tensors(fleets.random_state(rng, source, 1))
    state = replace(state, backlog=state.backlog * 0.01)
    logits = torch.log(plan.routing).requires_grad_()
    power = plan.power.requires_grad_()

    def values(logits: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
        made = Plan(torch.softmax(logits, -1), power)
        return torch.stack(step(world, state, made, inputs)[1].objectives()).log()

    assert torch.autograd.gradcheck(values, (logits, power), eps=1e-6, atol=1e-5, rtol=1e-3)
