"""marlin_nash: prices clear, fleets of any size are read alike, slopes are right, it learns."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_learners import budget
from test_schedulers import TASK

from marlin.agreement import agents_of
from marlin.fleet.contract import OBJECTIVES, convert, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import step
from marlin.fleet.world import TRAIN, VALIDATION
from marlin.schedulers.marlin_nash import MarlinNash, bargaining, training
from marlin.schedulers.marlin_nash import practice as practice_module
from marlin.schedulers.marlin_nash.bargaining import (
    Agreement,
    agree,
    candidates,
    gains,
    play,
    play_even,
    supporting_weights,
)
from marlin.schedulers.marlin_nash.deciding import _needed, chosen, clear, decide
from marlin.schedulers.marlin_nash.fleets import (
    FEWEST_SITES,
    LOAD,
    MOST_SITES,
    Fleet,
    as_tensors,
    home_fleet,
    random_fleet,
)
from marlin.schedulers.marlin_nash.online import _Accounts, _Reserve
from marlin.schedulers.marlin_nash.pools import Pools, make_pools, tensor
from marlin.schedulers.marlin_nash.practice import (
    Practice,
    even_split,
    heard_weights,
    later_forecasts,
    totals,
)
from marlin.schedulers.marlin_nash.tokens import make_tokens
from marlin.schedulers.marlin_nash.training import make_policy, pack, unpack, unrolled
from marlin.schedulers.marlin_nash.whole import by_site, running, whole_nodes
from marlin.schedulers.schemes import SCHEMES

OPTIONS = MarlinNash(width=16, record_days=2, bargaining_days=1, fleets=1, worlds=4)
WORLD = TASK.world
DAY = TASK.test_days()[0]
EPOCHS = np.array([DAY + 3, DAY + 40])
MIX = np.full((len(WORLD.models), len(WORLD.services)), 1.0)
MIX /= MIX.sum()
POOLS = make_pools(WORLD, MIX)
BALANCED = heard_weights(torch.tensor([SCHEMES[""]] * 2), OPTIONS.least_weight)


def small_task(training_epochs: int = 256, checkpoints: int = 1):
    run = TASK.run.model_copy(
        update={"budget": type(TASK.run.budget)(**budget(training_epochs, checkpoints=checkpoints))}
    )
    return replace(TASK, run=run)


def tokens_of(pools: Pools, weights: torch.Tensor = BALANCED):
    forecast, later = as_tensors(TASK.forecasts(EPOCHS)), as_tensors(TASK.forecasts(EPOCHS + 1))
    return make_tokens(pools, pools.world.idle_state(2), forecast, later, weights)


def plan_of(pools: Pools, forecast, later, state, weights: torch.Tensor = BALANCED):
    policy = make_policy(OPTIONS, 0)
    with torch.no_grad():
        tokens = make_tokens(pools, state, forecast, later, weights)
        return decide(pools, tokens, policy(tokens, pools.has_nodes), OPTIONS.market).plan


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 0.9))
def test_prices_leave_no_pool_asked_for_much_more_than_it_has_room_for(seed, load):
    rng = np.random.default_rng(seed)
    classes = (2, WORLD.class_shape[0], len(WORLD.models), len(POOLS.nodes))
    worth = tensor(rng.normal(0.0, 1.5, classes))
    shares = rng.dirichlet(np.ones(classes[1] * classes[2])).reshape(1, *classes[1:3], 1)
    work = tensor(load * shares / POOLS.size.numpy()) * torch.ones(classes)
    room = torch.ones(2, classes[-1])
    start = torch.zeros_like(room)
    prices = clear(worth, work, room, POOLS, start, 20, 1.6)
    asked = (chosen(worth, prices) * work).sum((1, 2))
    without = (chosen(worth, start) * work).sum((1, 2))
    beyond = ((asked - room).clamp_min(0.0) * POOLS.size).sum(1)
    assert (beyond <= 0.03 * load + 1e-3).all()
    assert (beyond <= ((without - room).clamp_min(0.0) * POOLS.size).sum(1) + 1e-6).all()
    torch.testing.assert_close(chosen(worth, prices).sum(-1), torch.ones(classes[:3]))


def test_slopes_through_the_prices_are_those_of_finite_differences():
    pools = Pools(
        **{
            f.name: value.double()
            if torch.is_tensor(value) and value.is_floating_point()
            else value
            for f in fields(Pools)
            for value in [getattr(POOLS, f.name)]
        }
    )
    generator = torch.Generator().manual_seed(0)
    shape = (1, WORLD.class_shape[0], len(WORLD.models), len(pools.nodes))
    worth = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    work = 3.0 * torch.rand(shape, generator=generator, dtype=torch.float64)
    room = torch.full((1, shape[-1]), 0.7, dtype=torch.float64, requires_grad=True)

    def shares(worth, room):
        return chosen(worth, clear(worth, work, room, pools, torch.zeros_like(room), 6, 1.6))[0, 0]

    assert torch.autograd.gradcheck(shares, (worth, room), atol=1e-6)


def test_a_pool_with_a_higher_price_is_asked_for_less():
    worth = torch.zeros(1, 1, 1, len(POOLS.nodes))
    prices = torch.zeros(1, len(POOLS.nodes))
    dearer = prices.clone()
    dearer[0, 0] = 1.0
    before, after = chosen(worth, prices)[..., 0], chosen(worth, dearer)[..., 0]
    assert after.item() == pytest.approx(
        before.item() * np.exp(-1.0) / (1 - before.item() * (1 - np.exp(-1.0)))
    )


def test_plans_are_shares_and_levels_and_leave_out_what_does_not_run():
    truth = TASK.forecasts(EPOCHS)
    available = truth.available.copy()
    available[:, 0] = 0.0
    forecast = as_tensors(replace(truth, available=available))
    plan = plan_of(POOLS, forecast, forecast, POOLS.world.idle_state(2))
    torch.testing.assert_close(plan.routing.sum(-1), torch.ones_like(plan.routing[..., 0]))
    assert (plan.power >= 0.0).all()
    assert (plan.power <= 1.0).all()
    assert (plan.power[:, 0] == 0.0).all()
    assert plan.routing[..., 0].max() < 0.02


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 1.0), st.booleans())
def test_nodes_are_whole_and_requests_go_where_they_run(seed, scale, partly):
    rng = np.random.default_rng(seed)
    tokens = tokens_of(POOLS)
    off = rng.random(tokens.on.shape) < (0.2 if partly else 0.0)
    off[:, 0] = False
    available = tensor(~off) * POOLS.has_nodes
    on = tensor(rng.random(tokens.on.shape) * (rng.random(tokens.on.shape) < 0.7)) * available
    tokens = replace(tokens, available=available, on=on)
    asked = tensor(scale * rng.random(tokens.on.shape) ** 4) * available
    shares = torch.softmax(4.0 * tensor(rng.normal(size=tokens.work.shape)), dim=-1)
    runs = torch.as_tensor(rng.random((2, POOLS.shape[0])) < 0.5)
    power, sent = whole_nodes(POOLS, tokens, asked, shares, runs, 2.0)
    count = power * POOLS.nodes
    torch.testing.assert_close(count, count.round(), atol=1e-4, rtol=0.0)
    assert (count <= available * POOLS.nodes + 1e-4).all()
    here, can = by_site(POOLS, count), by_site(POOLS, available * POOLS.nodes)
    assert (here.sum(1) > 0.0).all()
    least = torch.minimum(can, torch.tensor(2.0))
    several = here.sum(1) > 1.0  # one node runs where none is worth it
    assert ((here == 0.0) | (here >= least - 1e-4))[several].all()
    assert (here[runs & (can > 0.0)] > 0.0).all()
    never = ~runs & (by_site(POOLS, on) == 0.0)
    assert (here[several][never[several]] == 0.0).all()
    torch.testing.assert_close(sent.sum(-1), torch.ones(sent.shape[:-1]))
    assert (by_site(POOLS, sent.sum((1, 2)))[here == 0.0] == 0.0).all()


@pytest.mark.parametrize(
    ("asked", "before", "runs", "nodes"),
    [
        # The first starts and is raised to 3, the second does not run; the third rounds up.
        ([2.4, 0.8, 5.2], [0.0, 0.0, 4.0], [1, 0, 1], [3.0, 0.0, 6.0]),
        # What is on is kept while a third of the least nodes is asked for.
        ([1.2, 0.9, 5.2], [2.0, 2.0, 4.0], [0, 0, 1], [3.0, 0.0, 6.0]),
        # Needed for its room: the least nodes start, however little is asked for.
        ([0.2, 0.0, 6.0], [0.0, 0.0, 6.0], [1, 0, 1], [3.0, 0.0, 6.0]),
        # No demand: one node.
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0, 0, 0], [1.0, 0.0, 0.0]),
    ],
)
def test_small_sites_close_by_hand(asked, before, runs, nodes):
    tokens = tokens_of(POOLS)
    first = [0, 2, 4]  # the pool of 6 nodes at each site
    count, had = torch.zeros_like(tokens.on), torch.zeros_like(tokens.on)
    count[:, first], had[:, first] = torch.tensor(asked), torch.tensor(before)
    tokens = replace(tokens, on=had / POOLS.nodes, available=POOLS.has_nodes.expand_as(had))
    shares = torch.zeros_like(tokens.work)
    shares[..., first] = 1 / 3
    runs = torch.tensor([runs, runs], dtype=torch.bool)
    on, sent = whole_nodes(POOLS, tokens, count / POOLS.nodes, shares, runs, 3.0)
    torch.testing.assert_close((on * POOLS.nodes)[0, first], torch.tensor(nodes))
    some = torch.tensor(nodes) > 0.0
    torch.testing.assert_close(sent[0, 0, 0, first], some / some.sum(), atol=1e-6, rtol=0.0)


def test_sites_run_that_are_asked_for_enough_or_needed_for_their_room():
    tokens = tokens_of(POOLS)
    tokens = replace(tokens, on=torch.zeros_like(tokens.on), later_work=0.1 * tokens.later_work)
    wanted = torch.tensor([[0.9, 0.5, 0.1, 0.0, 0.02, 0.0]] * 2)
    room = POOLS.has_nodes.expand_as(wanted)
    np.testing.assert_array_equal(running(POOLS, tokens, wanted, room, 3.0)[0], [1, 0, 0])
    demand = (tokens.later_work * POOLS.size).sum((1, 2, 3)) / POOLS.has_nodes.sum()
    tight = room * (0.9 * demand / POOLS.size[:2].sum())[:, None]
    np.testing.assert_array_equal(running(POOLS, tokens, wanted, tight, 3.0)[0], [1, 1, 0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 3.0))
def test_what_waits_takes_nodes_of_its_site_and_those_that_are_on_first(seed, epochs):
    """A backlog of `epochs` epochs of a site's capacity, at the second site."""
    rng = np.random.default_rng(seed)
    state, forecast = POOLS.world.idle_state(2), as_tensors(TASK.forecasts(EPOCHS))
    sites, types = POOLS.shape
    on = tensor(rng.random((2, sites, types))) * POOLS.nodes.reshape(sites, types)
    backlog = torch.zeros_like(state.backlog)
    load = POOLS.site_load[1]
    classes = load.numel()
    backlog[:, 1] = epochs * POOLS.world.epoch_s / classes / load.clamp_min(1e-9)
    state = replace(state, nodes_on=on, backlog=backlog)
    tokens = make_tokens(POOLS, state, forecast, forecast, BALANCED)
    work = by_site(POOLS, tokens.waiting * POOLS.size) / POOLS.site_size
    room = by_site(POOLS, tokens.available * POOLS.size) / POOLS.site_size
    torch.testing.assert_close(work[:, 1], room[:, 1].clamp(max=epochs), atol=1e-5, rtol=1e-4)
    assert (work[:, [0, 2]] == 0.0).all()
    off_is_used = (tokens.waiting > tokens.on + 1e-5).any(1)
    warm = by_site(POOLS, tokens.on * POOLS.size)[:, 1] / POOLS.site_size[1]
    assert (off_is_used <= (epochs > warm - 1e-5)).all()


def test_nodes_that_are_off_count_as_far_as_those_that_are_on_are_too_few():
    tokens, busy = tokens_of(POOLS), torch.full((2, len(POOLS.nodes)), 0.9)
    demand = float((tokens.work * POOLS.size).sum((1, 2, 3))[0] / POOLS.has_nodes.sum())
    even = POOLS.has_nodes.expand_as(tokens.on)
    enough = replace(tokens, on=even, available=even)
    assert (_needed(POOLS, enough, busy) == 0.0).all()
    half = replace(tokens, on=0.5 * demand * even, available=even)
    found = (_needed(POOLS, half, busy)[0] * POOLS.size).sum()
    assert float(found) == pytest.approx(0.5 * demand, rel=1e-3)
    none = replace(tokens, on=0.0 * even, available=even, waiting=even)
    off = (1.0 - POOLS.late) * 0.9 * even
    torch.testing.assert_close(_needed(POOLS, none, busy), off)


def test_a_backlog_is_cleared_by_what_was_off():
    """Half a fleet on and an epoch of its work waiting: the next epoch leaves little of it."""
    state, forecast = POOLS.world.idle_state(2), as_tensors(TASK.forecasts(EPOCHS))
    usual = plan_of(POOLS, forecast, forecast, state)
    on = 0.5 * POOLS.nodes.reshape(POOLS.shape).expand_as(state.nodes_on)
    waiting = 0.3 * POOLS.world.epoch_s / len(WORLD.models) / len(WORLD.services)
    backlog = waiting / POOLS.site_load.clamp_min(1e-9)
    late = replace(state, nodes_on=on, backlog=backlog.expand_as(state.backlog))
    plan = plan_of(POOLS, forecast, forecast, late)
    left = [step(POOLS.world, late, chosen, forecast)[1].waiting.sum() for chosen in (plan, usual)]
    assert left[0] < 0.02 * backlog.sum() * 2
    assert left[0] < left[1]


def test_a_reserve_is_for_errors_beyond_the_usual_by_hand():
    reserve = _Reserve(caution=2.0, usual=0.01)
    assert reserve.factor == 1.0
    observation = TASK.observation(DAY, WORLD.idle_state(1))
    _, outcome = step(WORLD, WORLD.idle_state(1), _even(observation), observation.forecast)
    for part, error in ((1.0, 0.0), (0.8, 0.25)):
        reserve.expect(observation)
        reserve._expected *= part
        square = reserve._square
        reserve.enter(outcome)
        assert reserve._square == pytest.approx(0.9 * square + 0.1 * error**2, abs=1e-9)
    rms = np.sqrt(0.81 * 0.01**2 + 0.1 * 0.25**2)
    assert reserve.factor == pytest.approx(1.0 + 2.0 * (rms - 0.01), rel=1e-4)


def _even(observation):
    forecast = observation.forecast
    demand = forecast.arrival_rate_per_s
    routing = np.full((*demand.shape, len(WORLD.sites)), 1.0 / len(WORLD.sites))
    return sized_plan(WORLD, routing, demand, 0.75)


def test_the_order_of_sites_does_not_matter():
    order = np.random.default_rng(0).permutation(len(WORLD.sites))
    constants = WORLD.constants
    moved = replace(
        WORLD,
        constants=replace(
            constants,
            nodes=constants.nodes[order],
            rtt_s=constants.rtt_s[:, order],
            site_pull=constants.site_pull[order][:, order],
            usual_share=constants.usual_share[order],
        ),
    )
    inputs = TASK.forecasts(EPOCHS)
    by_site = {
        f.name: getattr(inputs, f.name)[:, order]
        for f in fields(inputs)
        if f.name != "arrival_rate_per_s"
    }
    here, there = as_tensors(inputs), as_tensors(replace(inputs, **by_site))
    pools = make_pools(moved, MIX)
    plan = plan_of(POOLS, here, here, POOLS.world.idle_state(2))
    other = plan_of(pools, there, there, pools.world.idle_state(2))
    torch.testing.assert_close(plan.routing[..., order], other.routing, atol=2e-4, rtol=2e-3)
    torch.testing.assert_close(plan.power[:, order], other.power, atol=2e-4, rtol=2e-3)


def test_a_batch_of_worlds_gives_the_plans_of_each():
    forecast, state = as_tensors(TASK.forecasts(EPOCHS)), POOLS.world.idle_state(2)
    both = plan_of(POOLS, forecast, forecast, state)
    for index in (0, 1):
        alone = slice(index, index + 1)
        one = plan_of(
            POOLS, row(forecast, alone), row(forecast, alone), row(state, alone), BALANCED[alone]
        )
        torch.testing.assert_close(one.routing, both.routing[alone], atol=1e-5, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_random_fleets_are_of_the_stated_sizes_and_loads(seed):
    demand = TASK.epochs.inputs.arrival_rate_per_s[TASK.epochs.split == TRAIN]
    busiest = demand[demand.sum(axis=(1, 2, 3)).argmax()]
    fleet = random_fleet(WORLD, busiest, np.random.default_rng(seed))
    sites, _ = fleet.pools.shape
    assert FEWEST_SITES <= sites <= MOST_SITES
    assert (fleet.pools.nodes.reshape(sites, -1).sum(1) > 0).all()
    asked = torch.einsum(
        "oms,pms->p", tensor(busiest) * fleet.demand[:, None, None], fleet.pools.load
    )
    room = torch.where(fleet.pools.has_nodes > 0, 1.0 / asked.clamp_min(1e-9), 0.0)
    assert LOAD[0] * 0.7 <= (1.0 / room.sum()).item() <= LOAD[1] * 1.3  # of mixes that differ
    assert torch.isfinite(fleet.pools.energy).all()


def test_an_outage_is_true_first_and_forecast_one_epoch_later():
    task = small_task()
    practice = Practice(OPTIONS, task, np.random.default_rng(0))
    fleet = replace(practice.home.fleet, outage=(1, 10, 4))
    offset = torch.tensor([9, 10, 13, 14, 15])
    known = fleet.inputs(practice.record, practice.days, torch.zeros(5, dtype=torch.long), offset)
    assert (known.truth.available[:, 1].amax(1) == torch.tensor([1.0, 0, 0, 1, 1])).all()
    assert (known.forecast.available[:, 1].amax(1) == torch.tensor([1.0, 1, 0, 0, 1])).all()
    assert (known.truth.available[:, 0] == 1.0).all()


def test_the_home_fleet_has_the_inputs_of_the_record():
    task = small_task()
    practice = Practice(OPTIONS, task, np.random.default_rng(0))
    day, offset = torch.tensor([0, 1]), torch.tensor([5, 17])
    known = practice.home.fleet.inputs(practice.record, practice.days, day, offset)
    rows = torch.tensor([5, task.world.epochs_per_day + 17])
    for f in fields(known.truth):
        wanted = getattr(practice.record.truth, f.name)[rows]
        torch.testing.assert_close(getattr(known.truth, f.name), wanted)


def test_later_forecasts_are_those_that_a_scheduler_may_ask_for():
    later = later_forecasts(TASK, EPOCHS)
    for place, epoch in enumerate(EPOCHS):
        seen = TASK.observation(int(epoch), WORLD.idle_state(1)).outlook(2)
        np.testing.assert_array_equal(later.arrival_rate_per_s[place], seen.arrival_rate_per_s[1])


def test_without_lookahead_nothing_is_known_of_the_epoch_after():
    practice = Practice(replace(OPTIONS, lookahead=False), small_task(), np.random.default_rng(0))
    for f in fields(practice.record.forecast):
        later = getattr(practice.record.later, f.name)
        torch.testing.assert_close(later, getattr(practice.record.forecast, f.name))


def test_without_messages_pools_do_not_hear_the_agents():
    tokens = tokens_of(POOLS)
    other = replace(tokens, agents=tokens.agents + 1.0)
    for messages in (True, False):
        policy = make_policy(replace(OPTIONS, messages=messages), 0)
        with torch.no_grad():
            same = torch.equal(
                policy(tokens, POOLS.has_nodes).taste, policy(other, POOLS.has_nodes).taste
            )
        assert same == (not messages)


def test_the_slope_of_a_horizon_is_that_of_finite_differences():
    task = small_task()
    options = replace(OPTIONS, horizon=2)
    practice = Practice(options, task, np.random.default_rng(0))
    policy = make_policy(options, 0)
    bias = policy.pool_answer.bias
    loss, *_ = unrolled(options, policy, practice, practice.home)
    (slope,) = torch.autograd.grad(loss, bias)
    shift = 0.02 * slope / slope.norm()
    with torch.no_grad():
        bias += shift
        higher, *_ = unrolled(options, policy, practice, practice.home)
        bias -= 2.0 * shift
        lower, *_ = unrolled(options, policy, practice, practice.home)
    measured = (higher - lower).item() / (2.0 * shift.norm().item())
    assert measured == pytest.approx(slope.norm().item(), rel=0.2)


def test_an_objective_counts_by_what_has_been_paid_of_it():
    options = replace(OPTIONS, horizon=2, drop_penalty=0.0)
    practice = Practice(options, small_task(), np.random.default_rng(0))
    policy, walk = make_policy(options, 0), practice.home
    walk.paid = torch.ones_like(walk.paid)
    with torch.no_grad():
        whole, _, ratios = unrolled(options, policy, practice, walk)
        assert whole.item() == pytest.approx((walk.weights * ratios).sum(1).mean().item(), rel=1e-5)
        walk.paid[:, 3] = 0.25
        loss, *_ = unrolled(options, policy, practice, walk)
        summed, *_ = unrolled(replace(options, logarithmic=False), policy, practice, walk)
    cost = (walk.weights * ratios)[:, 3].mean().item()
    assert loss.item() == pytest.approx(whole.item() + 3.0 * cost, rel=1e-5)
    assert summed.item() == pytest.approx(whole.item())


def test_costs_are_held_against_the_even_split_of_the_same_day():
    task = small_task()
    practice = Practice(OPTIONS, task, np.random.default_rng(0))
    walk = practice.home
    world, each = task.world, task.world.epochs_per_day // practice_module.EVEN_EPOCHS
    day = int(walk.day[0])
    offset = each * torch.arange(practice_module.EVEN_EPOCHS)
    known = walk.fleet.inputs(practice.record, practice.days, torch.full_like(offset, day), offset)
    plan = even_split(walk.fleet, known.forecast)
    _, outcome = step(
        walk.fleet.pools.world, walk.fleet.pools.world.idle_state(len(offset)), plan, known.truth
    )
    wanted = totals(outcome).mean(dim=0)
    torch.testing.assert_close(walk.even[day], wanted)
    assert world.epochs_per_day == each * practice_module.EVEN_EPOCHS
    # A day of negative prices counts as a fifth of the others.
    walk.even[walk.day] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    walk.even[day, 3] = -1.0
    usual = walk.even[:, 3].abs().nanmean()
    torch.testing.assert_close(
        walk.reference[0], torch.stack([*torch.tensor([1.0, 2.0, 3.0]), 0.2 * usual])
    )


def test_what_is_paid_is_a_running_mean_that_starts_anew_with_a_day():
    practice = Practice(OPTIONS, small_task(), np.random.default_rng(0))
    walk = practice.home
    walk.offset = torch.zeros_like(walk.offset)
    walk.offset[0] = practice.task.world.epochs_per_day - OPTIONS.horizon
    ratios = torch.tensor([1.0, 0.2, 100.0, -100.0]).expand(len(walk.paid), 4)
    practice.advance(walk, walk.state, ratios)
    torch.testing.assert_close(walk.paid[0], torch.full((4,), 0.6))
    # Three parts of 0.6 and one of what was paid, between a twentieth and two.
    torch.testing.assert_close(walk.paid[1], torch.tensor([0.7, 0.5, 2.0, 0.05]))
    assert not walk.even[walk.day].isnan().any()


def test_training_lowers_what_it_minimises_and_is_the_same_twice():
    task, options = small_task(4096), replace(OPTIONS, fleets=0, worlds=16)
    first, again = replace(options), replace(options)
    rows = first.train(task)
    again.train(task)
    for name, values in first.weights().items():
        np.testing.assert_array_equal(values, again.weights()[name])
    own = {
        name: OBJECTIVES[place] for place, name in enumerate(("ttft", "carbon", "water", "cost"))
    }
    before = {r["variant"]: r for r in rows if r["training_epochs"] == 0}
    after = {r["variant"]: r for r in rows if r["training_epochs"] > 0}
    ratios = [after[name][objective] / before[name][objective] for name, objective in own.items()]
    assert np.exp(np.mean(np.log(ratios))) < 1.0


@pytest.mark.parametrize("training_epochs", [300, 900, 1600])
def test_the_learning_curve_has_each_point_once(training_epochs):
    options = replace(OPTIONS, fleets=0)
    _, rows = training.train(options, small_task(training_epochs, checkpoints=5))
    keys = [(row["training_epochs"], row["variant"]) for row in rows]
    assert len(set(keys)) == len(keys)
    spent = sorted({epochs for epochs, _ in keys})
    assert spent[0] == 0
    assert spent[-1] <= training_epochs


def test_no_more_is_simulated_than_the_budget_allows(monkeypatch):
    options = replace(OPTIONS, fleets=0, worlds=32)
    task, counted = small_task(19_500), []

    def counting(world, state, plan, inputs):
        counted.append(len(inputs.pue))
        return step(world, state, plan, inputs)

    for module in (bargaining, practice_module, training):
        monkeypatch.setattr(module, "step", counting)
    validation = 2 * len(SCHEMES) * len(task.days(VALIDATION)) * task.world.epochs_per_day
    options.train(task)
    assert 0.9 * 19_500 <= sum(counted) - validation <= 19_500


def test_what_was_learned_survives_saving(tmp_path):
    scheduler = replace(OPTIONS)
    scheduler.train(small_task(64))
    scheduler.save(tmp_path / "policy.npz")
    loaded = replace(OPTIONS)
    loaded.load(tmp_path / "policy.npz")
    plans = []
    for each in (scheduler, loaded):
        each.reset(WORLD, 0, "")
        plans.append(each.plan(TASK.observation(DAY, WORLD.idle_state(1))))
    np.testing.assert_array_equal(plans[0].routing, plans[1].routing)
    np.testing.assert_array_equal(plans[0].power, plans[1].power)


def test_the_report_of_an_agreement_is_what_playing_it_again_gives():
    options, task = replace(OPTIONS, fleets=0), small_task(25_000)
    agreed = Agreement(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.9, 0.5, 0.6, 0.7]), np.ones(4))
    options._learned = pack(make_policy(options, 0), agreed, 0.01)
    rows = list(agents_of(task, options))
    assert [row["objective"] for row in rows] == list(OBJECTIVES)
    weights = np.array([row["weight"] for row in rows])
    np.testing.assert_array_equal(weights, agreed.weights)
    np.testing.assert_array_equal([row["cost_ratio"] for row in rows], agreed.costs)
    # Of the claims by the third agent, the best, played by itself.
    practice = Practice(options, task, np.random.default_rng(0))
    policy = make_policy(options, 0)
    unpack(policy, options.weights())
    claimed = np.tile(weights, (5, 1))
    claimed[1:, 2] *= bargaining.CLAIMS
    claimed /= claimed.sum(axis=1, keepdims=True)
    heard = heard_weights(torch.as_tensor(claimed).float(), options.least_weight)
    first = torch.zeros(5, dtype=torch.long)
    water = play(
        policy, options.market, practice.home.fleet, practice.record, first, heard,
        task.world.epochs_per_day,
    )[0][:, 2].numpy()  # fmt: skip
    saved = max(0.0, 1.0 - water[1:].min() / water[0])
    assert rows[2]["claim_gain"] == pytest.approx(saved, abs=1e-5)
    assert saved > 0.0
    assert list(agents_of(small_task(64), options)) == []


def test_supporting_weights_by_hand():
    costs, powers = np.array([0.5, 0.5, 0.25, 0.25]), np.full(4, 0.25)
    # Nothing is served otherwise: the powers, whatever is paid.
    np.testing.assert_allclose(supporting_weights(costs, np.full(4, np.inf), powers), powers)
    # The even split otherwise: 1 / (1 - c) = 2, 2, 4/3, 4/3 of 20/3.
    weights = supporting_weights(costs, np.ones(4), powers)
    np.testing.assert_allclose(weights, np.array([6, 6, 4, 4]) / 20)


def test_accounts_are_kept_where_weights_depend_on_what_is_gained():
    kept = []
    for otherwise in ("nothing", "even_split"):
        options = replace(OPTIONS, otherwise=otherwise)
        agreed = Agreement(np.full(4, 0.25), np.full(4, 0.5), np.ones(4))
        options._learned = pack(make_policy(options, 0), agreed, 0.01)
        for variant in ("", "carbon"):
            options.reset(WORLD, 0, variant)
            options.plan(TASK.observation(DAY, WORLD.idle_state(1)))
            kept.append(options._online.accounts is not None)
    assert kept == [False, False, True, False]


def test_gains_by_hand():
    costs = np.array([0.5, 2.0, 0.25, 1.0])
    np.testing.assert_allclose(gains(costs, np.ones(4)), [1.0, -0.5, 3.0, 0.0])
    np.testing.assert_allclose(gains(costs, np.full(4, np.inf)), [2.0, 0.5, 4.0, 1.0])


def test_candidates_span_the_front():
    weights = candidates()
    assert len(weights) == 35  # ways to share four parts among four
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert len({tuple(w) for w in weights}) == 35
    assert (weights.max(axis=0) == 1.0).all()


@pytest.mark.parametrize("otherwise", ["nothing", "even_split", "lottery"])
def test_agents_agree_on_the_best_product_that_was_played(otherwise):
    task, options = small_task(), replace(OPTIONS, otherwise=otherwise)
    practice = Practice(options, task, np.random.default_rng(0))
    policy, days = make_policy(options, 0), torch.tensor([0])
    fleet, record = practice.home.fleet, practice.record
    agreement = agree(policy, options.market, fleet, record, days, 8, options.terms)
    assert agreement.weights.sum() == pytest.approx(1.0)
    weights = heard_weights(tensor(candidates()), options.least_weight)
    costs, _ = play(policy, options.market, fleet, record, days.repeat(35), weights, 8)
    ratios = (costs / play_even(fleet, record, days, 8)).double().numpy()

    def product(paid):
        return gains(paid, agreement.otherwise).clip(0.0).prod(axis=-1)

    assert product(agreement.costs) >= product(ratios).max() - 1e-6


def test_accounts_by_hand():
    accounts = _Accounts(Agreement(np.full(4, 0.25), np.full(4, 0.5), np.ones(4)), memory=4.0)
    np.testing.assert_allclose(accounts.weights(np.full(4, 0.25)), 0.25)
    observation = TASK.observation(DAY, WORLD.idle_state(1))
    accounts.expect(observation)
    assert observation.budget.used == 1
    expected = accounts._expected
    assert expected is not None
    forecast = as_tensors(observation.forecast)
    plan = plan_of(POOLS, forecast, forecast, POOLS.world.idle_state(1), BALANCED[:1])
    plan = convert(plan, lambda values: values.numpy().astype(float))
    _, outcome = step(WORLD, WORLD.idle_state(1), plan, observation.forecast)
    accounts.enter(outcome)
    paid = np.array([float(value[0]) for value in outcome.objectives()]) / np.abs(expected)
    # Three parts of what was known, one of the epoch.
    wanted = (0.75 * 0.5 + 0.25 * paid) / (0.75 + 0.25 * np.sign(expected))
    np.testing.assert_allclose(accounts.paid / accounts.even, wanted)
    # Of what no weights could have spared, twice the even split's cost counts.
    before = accounts.paid.copy()
    accounts.enter(replace(outcome, ttft_s=1e4 * outcome.ttft_s))
    assert accounts.paid[0] == pytest.approx(0.75 * before[0] + 0.25 * 2.0)


def test_a_policy_runs_on_a_fleet_that_it_was_not_made_for():
    rng = np.random.default_rng(3)
    demand = TASK.epochs.inputs.arrival_rate_per_s
    fleet: Fleet = random_fleet(WORLD, demand.max(axis=0), rng)
    named = pack(make_policy(OPTIONS, 1), Agreement(*[np.full(4, 0.25)] * 3), 0.01)
    policy = make_policy(OPTIONS, 0)
    unpack(policy, named)
    task = small_task()
    practice = Practice(OPTIONS, task, rng)
    known = fleet.inputs(practice.record, practice.days, torch.tensor([0]), torch.tensor([4]))
    state = fleet.pools.world.idle_state(1)
    with torch.no_grad():
        tokens = make_tokens(fleet.pools, state, known.forecast, known.later, BALANCED[:1])
        plan = decide(
            fleet.pools, tokens, policy(tokens, fleet.pools.has_nodes), OPTIONS.market
        ).plan
    _, outcome = step(fleet.pools.world, state, plan, known.truth)
    assert all(torch.isfinite(value).all() for value in outcome.objectives())
    assert isinstance(home_fleet(WORLD, MIX), Fleet)
