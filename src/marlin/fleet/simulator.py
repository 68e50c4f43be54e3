"""The fluid model: one epoch, all sites, a batch of worlds.

`step` is written once against the Python array API: NumPy by default, torch when gradients or a
GPU are wanted. Requests are conserved exactly: arrived + waiting before = served + waiting after
+ dropped.

Axes: B worlds, O origins, M models, S services, D sites, G node types. What callers pass and get
has B first; inside, D and B come last (see `marlin.fleet.terms`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from marlin.fleet.contract import Inputs, Outcome, Plan, State
from marlin.fleet.terms import (
    LOADS,
    TINY,
    Terms,
    between_sites,
    contiguous,
    weighted_sums,
    worlds_last,
)
from marlin.fleet.world import Constants, World
from marlin.physics.carbon import operational_kg
from marlin.physics.power import gpu_power_w, node_power_w
from marlin.physics.price import energy_cost_usd
from marlin.physics.water import offsite_water_l, onsite_water_l, scarcity_water_l
from marlin.serving.queueing import (
    decoding_probability,
    sakasegawa_wait_s,
    thinned_cv2,
    tpot_s,
)

Array = Any

SPILL_ROUNDS = 4
QUEUE_CEILING = 0.995  # queueing formulas hold below this; beyond it the backlog takes over
JOULES_PER_KWH = 3.6e6


def step(world: World, state: State, plan: Plan, inputs: Inputs) -> tuple[State, Outcome]:
    """Run one epoch of `plan` and return what it leaves behind and what it cost."""
    terms = world.terms
    xp = array_namespace(inputs.arrival_rate_per_s)
    arrivals = worlds_last(inputs.arrival_rate_per_s)  # [O, M, S, B]
    available = _types_first(inputs.available)  # [G, D, B]
    waiting = _sites_last(state.backlog) / world.epoch_s  # [M, S, D, B]
    on, before = _types_first(plan.power) * terms.nodes * available, _types_first(state.nodes_on)
    capacity = capacity_per_s(world, _counted_on(world, on, before))
    slots = 1.0 / capacity.clip(min=TINY)

    flows = own_shares(world, plan.routing) * arrivals[..., None, :]  # [O, M, S, D, B]
    sent = xp.sum(flows, axis=(1, 2))  # [O, D, B]
    routed = xp.sum(flows, axis=0)  # [M, S, D, B]
    spill = _spill(world, routed, capacity, slots, waiting)
    network = _network_s(terms, spill, sent)
    routed = _spilled(terms, spill, routed)
    asked = xp.sum((routed + waiting) * slots, axis=1)  # [M, D, B]
    nodes = _nodes(world, on, before, _loaded_first(state.loaded), asked)
    slots = 1.0 / capacity_per_s(world, nodes.ready).clip(min=TINY)

    load = routed * slots
    waiting_load = waiting * slots
    utilisation = xp.sum(load + waiting_load, axis=(0, 1))  # [D, B], above one in overload
    served, backlog, dropped = _settle(world, routed, waiting, utilisation)
    replicas = _replicas(terms, load + waiting_load, utilisation)
    rate = xp.sum(routed, axis=(0, 1))  # [D, B]
    inside = (
        rate * _backlog_wait_s(world, nodes, waiting_load, utilisation)
        + _cold_wait(world, nodes, replicas, routed)
        + _serving_latency(terms, replicas, nodes.ready, routed, load)
    )
    ttft_s, site_ttft_s = _client_ttft_s(world, rate, network + inside, dropped)

    power_w = _it_power_w(terms, replicas, nodes, available)
    it_kwh = power_w * world.epoch_s / JOULES_PER_KWH
    energy_kwh = it_kwh * worlds_last(inputs.pue)
    carbon_kg = operational_kg(energy_kwh, worlds_last(inputs.carbon_g_per_kwh))
    water_l = onsite_water_l(it_kwh, worlds_last(inputs.wue_l_per_kwh)) + offsite_water_l(
        energy_kwh, worlds_last(inputs.ewif_l_per_kwh)
    )
    cost_usd = energy_cost_usd(energy_kwh, worlds_last(inputs.price_usd_per_mwh))
    scarcity_l = scarcity_water_l(water_l, worlds_last(inputs.aware_m3_per_m3))
    on = xp.sum(nodes.on, axis=0)
    working = xp.sum(utilisation.clip(max=1.0) * on, axis=0)
    outcome = Outcome(
        ttft_s=ttft_s,
        carbon_kg=xp.sum(carbon_kg, axis=0),
        water_l=xp.sum(water_l, axis=0),
        cost_usd=xp.sum(cost_usd, axis=0),
        energy_kwh=xp.sum(energy_kwh, axis=0),
        scarcity_water_l=xp.sum(scarcity_l, axis=0),
        arrived=xp.sum(arrivals, axis=(0, 1, 2)) * world.epoch_s,
        served=xp.sum(served, axis=(0, 1, 2)),
        dropped=xp.sum(dropped, axis=(0, 1, 2)),
        waiting=xp.sum(backlog, axis=(0, 1, 2)),
        utilisation=working / terms.fleet_nodes,
        site_requests_per_s=_worlds_first(rate),
        site_ttft_s=_worlds_first(site_ttft_s),
        site_utilisation=_worlds_first(utilisation),
        site_energy_kwh=_worlds_first(energy_kwh),
        site_carbon_kg=_worlds_first(carbon_kg),
        site_water_l=_worlds_first(water_l),
        site_cost_usd=_worlds_first(cost_usd),
        site_nodes_on=_worlds_first(on),
    )
    left = State(
        backlog=xp.permute_dims(backlog, (3, 2, 0, 1)),
        nodes_on=xp.permute_dims(nodes.on, (2, 1, 0)),
        loaded=xp.permute_dims(nodes.loaded, (3, 2, 1, 0)),
    )
    return left, outcome


def _worlds_first(value: Array) -> Array:
    """[..., B] as [B, ...]."""
    return array_namespace(value).moveaxis(value, -1, 0)


def _sites_last(by_class: Array) -> Array:
    """[B, D, M, S] as [M, S, D, B]."""
    return contiguous(array_namespace(by_class).permute_dims(by_class, (2, 3, 1, 0)))


def _types_first(pools: Array) -> Array:
    """[B, D, G] as [G, D, B]."""
    return contiguous(array_namespace(pools).permute_dims(pools, (2, 1, 0)))


def _loaded_first(loaded: Array) -> Array:
    """[B, D, G, M] as [M, G, D, B]."""
    return contiguous(array_namespace(loaded).permute_dims(loaded, (3, 2, 1, 0)))


def own_shares(world: World, routing: Array) -> Array:
    """Routing with worlds last; a share sent to a site that only fills up a batch goes to the
    world's own sites, as the rest of its class does, or evenly if there is no rest.
    """
    shares = worlds_last(routing)
    if world.own_sites is None:
        return shares
    xp = array_namespace(shares)
    own = worlds_last(world.own_sites)
    shares = shares * own
    total = xp.sum(shares, axis=-2, keepdims=True)
    return xp.where(total > 0.0, shares / total.clip(min=TINY), own / xp.sum(own, axis=0))


@dataclass(frozen=True)
class _Nodes:
    """Nodes of every pool, [G, D, B], and by the model that they hold, [M, G, D, B]."""

    on: Array
    ready: Array  # serving, averaged over the epoch
    loaded: Array  # by model; nodes without one are what is left of those that are on
    kept: Array  # by model: those that held it before
    late_s: Array  # by model: until those serve that did not


def _counted_on(world: World, on: Array, before: Array) -> Array:
    """Nodes that the dispatcher counts on, averaged over the epoch, [G, D, B]: it takes those just
    switched on to boot and load the slowest model.
    """
    late = (world.terms.cold_s / world.epoch_s).clip(max=1.0)
    return on - (on - before).clip(min=0.0) * late


def _nodes(world: World, on: Array, before: Array, held: Array, asked: Array) -> _Nodes:
    """Nodes are shared out to models as the epoch's load asks; as few as possible change model.

    Who changes model loses its load time, who is switched on boots first. A site without load keeps
    what its nodes hold. Shapes: on and before [G, D, B], held [M, G, D, B], asked [M, D, B].
    """
    xp, terms = array_namespace(on), world.terms
    total = xp.sum(asked, axis=0)  # [D, B]
    wanted = (asked / total.clip(min=TINY))[:, None] * on
    stays = (on / before.clip(min=TINY)).clip(max=1.0)
    loaded = xp.where(total > TINY, wanted, held * stays)
    kept = xp.minimum(held, loaded)
    new = loaded - kept
    booted = (on - before).clip(min=0.0) / xp.sum(new, axis=0).clip(min=TINY)
    late_s = terms.load_s + booted.clip(max=1.0) * terms.node_type["boot_s"]
    late_s = late_s.clip(max=world.epoch_s)
    return _Nodes(on, on - xp.sum(new * late_s, axis=0) / world.epoch_s, loaded, kept, late_s)


def capacity_per_s(world: World, nodes: Array) -> Array:
    """Requests per second of each class that would alone fill a site's nodes.

    Shapes: nodes [G, D, B] -> [M, S, D, B].
    """
    capacity = weighted_sums(world.terms.capacity, nodes)
    _, models, services = world.class_shape
    shape = (models, services, *capacity.shape[1:])
    return array_namespace(capacity).reshape(capacity, shape)


def site_capacity(constants: Constants, nodes: Array) -> Array:
    """Requests per second of each class that would alone fill a site's nodes.

    Shapes: nodes [B, D, G] -> [B, D, M, S].
    """
    xp, rate = array_namespace(nodes), constants.node_rate_per_s
    rate = rate[:, None] if rate.ndim == 4 else rate
    return xp.sum(nodes[:, :, :, None, None] * rate, axis=2)


def dispatch(
    world: World, routing: Array, arrival_rate_per_s: Array, capacity: Array, waiting: Array
) -> Array:
    """Routed flows after spill-over: no site is filled past the ceiling while others have room.

    What finds no room stays where the plan put it. Shapes: routing and result [B, O, M, S, D],
    arrivals [B, O, M, S], capacity and waiting [B, D, M, S].
    """
    arrivals = worlds_last(arrival_rate_per_s)
    capacity, waiting = _sites_last(capacity), _sites_last(waiting)
    shares, _ = dispatched_shares(world, own_shares(world, routing), arrivals, capacity, waiting)
    return _worlds_first(shares * arrivals[..., None, :])


def dispatched_shares(
    world: World, shares: Array, arrivals: Array, capacity: Array, waiting: Array
) -> tuple[Array, Array]:
    """Shares after spill-over and what they send to each site, worlds last.

    Shapes: shares [O, M, S, D, B], arrivals [O, M, S, B]; requests per second routed, capacity
    and waiting [M, S, D, B].
    """
    routed = array_namespace(shares).sum(shares * arrivals[..., None, :], axis=0)
    slots = 1.0 / capacity.clip(min=TINY)
    spill = _spill(world, routed, capacity, slots, waiting)
    return _spilled(world.terms, spill, shares), _spilled(world.terms, spill, routed)


@dataclass(frozen=True)
class _Spill:
    """Where the flow of site d goes: `kept[d]` of it stays, and site e gets the share
    ``given[d] pull[d, e] taken[e]`` in each round.
    """

    kept: Array  # [D, B]
    rounds: list[tuple[Array, Array]]  # given and taken, [D, B] each


def _spill(
    world: World, routed: Array, capacity: Array, slots: Array, waiting: Array
) -> _Spill | None:
    """How sites past the ceiling share out what is too much for them; none if there are none.

    Sites with room take it in a few rounds, near ones first; what neither fits nor moves stays.
    Shapes: routed, capacity, slots (utilisation per request per second), waiting [M, S, D, B].
    """
    xp, pull, pull_to = array_namespace(routed), world.terms.pull, world.terms.pull_to
    used = xp.sum(routed * slots, axis=(0, 1))  # [D, B]
    room = (world.utilisation_ceiling - xp.sum(waiting * slots, axis=(0, 1))).clip(min=0.0)
    if not bool(xp.any(used > room)):
        return None
    stay = (room / used.clip(min=TINY)).clip(max=1.0)
    free = (room - used * stay).clip(min=0.0)
    overflow = routed * (1.0 - stay)
    size = capacity[0, 0].clip(min=TINY)
    left, rounds = 1.0, []
    for _ in range(SPILL_ROUNDS):
        wanted = free * size
        offer = left / between_sites(pull, wanted).clip(min=TINY)
        # Utilisation of a site if all that is on offer to it came.
        asked = wanted * xp.sum(between_sites(pull_to, overflow * offer) * slots, axis=(0, 1))
        fits = (free / asked.clip(min=TINY)).clip(max=1.0)
        taken = wanted * fits
        left = left - offer * between_sites(pull, taken)
        free = (free - asked * fits).clip(min=0.0)
        rounds.append((offer * (1.0 - stay), taken))
    return _Spill(stay + (1.0 - stay) * left, rounds)


def _spilled(terms: Terms, spill: _Spill | None, flows: Array) -> Array:
    """Flows [..., D, B] of the sites that they were sent to, at the sites that serve them."""
    if spill is None:
        return flows
    served = flows * spill.kept
    for given, taken in spill.rounds:
        served = served + between_sites(terms.pull_to, flows * given) * taken
    return served


def _network_s(terms: Terms, spill: _Spill | None, sent: Array) -> Array:
    """Seconds of round trips of all requests that arrive in one, at the sites that serve them.

    Shapes: sent [O, D, B] -> [D, B].
    """
    xp = array_namespace(sent)
    direct = xp.sum(sent * terms.rtt_s, axis=0)
    if spill is None:
        return direct
    onward = weighted_sums(terms.rtt_to_s, sent) * terms.pull_pairs  # [E, D, B]
    total = direct * spill.kept
    for given, taken in spill.rounds:
        total = total + taken * xp.sum(onward * given, axis=1)
    return total


def _settle(
    world: World, routed: Array, waiting: Array, utilisation: Array
) -> tuple[Array, Array, Array]:
    """Served, waiting and dropped requests of the epoch, each [M, S, D, B].

    A site serves all it is offered up to its capacity; what is left waits, and the part that
    could not be cleared within the patience is dropped.
    """
    offered = (routed + waiting) * world.epoch_s
    excess = (utilisation - 1.0).clip(min=0.0)
    served = offered / (1.0 + excess)
    left = offered - served
    keep = (world.patience_s / (excess * world.epoch_s).clip(min=TINY)).clip(max=1.0)
    backlog = left * keep
    return served, backlog, left - backlog


@dataclass(frozen=True)
class _Replicas:
    """The mean replica of each pool and model; [M, G, D, B] unless said."""

    busy: Array  # [D, B] utilisation, below one
    node_share: Array  # [M, 1, D, B] of a site's nodes that serve the model
    mix: Array  # [M, S, D, B] share of each service in the load of a model
    per_request: Array  # one over the requests per second of a full replica
    prefill_load: Array
    tokens: Array  # output tokens per second
    decode_load: Array
    tpot_s: Array
    decoding: Array  # chance that any sequence is in decode
    batch: Array  # mean sequences in decode
    prefill_tb: Array  # per GPU and second, as the next three
    prefill_tflop: Array
    decode_tb: Array  # without the weights
    decode_tflop: Array
    prefill_cv2: Array  # means over requests from here on
    output_cv2: Array
    slots: Array
    output_tokens: Array
    prefill_s: Array


def _replicas(terms: Terms, load: Array, utilisation: Array) -> _Replicas:
    """Per-replica loads: every node on a site is equally busy, shared by models as they load it.

    Shapes: load [M, S, D, B], utilisation [D, B].
    """
    xp = array_namespace(load)
    busy = utilisation.clip(max=QUEUE_CEILING)
    by_model = xp.sum(load, axis=1, keepdims=True)  # [M, 1, D, B]
    mix = load / by_model.clip(min=TINY)
    per_request = 1.0 / weighted_sums(terms.requests, mix).clip(min=TINY)  # [M, G, D, B]
    loads = weighted_sums(terms.loads, mix)
    shape = (len(loads), len(LOADS), -1, *loads.shape[2:])
    loads = xp.reshape(loads, shape)
    full = {name: loads[:, i] for i, name in enumerate(LOADS)}
    prefill_load, decode_load = full["prefill_load"] * busy, full["decode_load"] * busy
    tokens = full["tokens"] * busy
    tpot = tpot_s(terms.decode_d0_s, prefill_load, decode_load)
    batch = tokens * tpot
    return _Replicas(
        busy=busy,
        node_share=by_model / utilisation.clip(min=TINY),
        mix=mix,
        per_request=per_request,
        prefill_load=prefill_load,
        tokens=tokens,
        decode_load=decode_load,
        tpot_s=tpot,
        decoding=decoding_probability(batch),
        batch=batch,
        prefill_tb=full["prefill_tb"] * busy,
        prefill_tflop=full["prefill_tflop"] * busy,
        decode_tb=full["decode_tb"] * busy,
        decode_tflop=full["decode_tflop"] * busy,
        prefill_cv2=full["prefill_cv2"] * per_request,
        output_cv2=full["output_cv2"] * per_request,
        slots=full["slots"] * per_request,
        output_tokens=full["tokens"] * per_request,
        prefill_s=full["prefill_load"] * per_request,
    )


def _serving_latency(
    terms: Terms, replicas: _Replicas, ready: Array, routed: Array, load: Array
) -> Array:
    """Seconds from arrival at a site to the first token when warm, all requests together [D, B].

    Queue for a prefill and for a slot, half a decode iteration, the prefill itself; averaged over
    pools by the requests they take. Shapes: ready [G, D, B], routed and its load [M, S, D, B].
    """
    xp = array_namespace(routed)
    servers = (ready * replicas.node_share * terms.replicas_per_node).clip(min=1.0)
    total = xp.sum(routed, axis=(0, 2), keepdims=True).clip(min=TINY)
    cv2 = thinned_cv2(terms.arrival_cv2, routed / total)
    arrival_cv2 = weighted_sums(terms.requests, replicas.mix * cv2) * replicas.per_request
    wait = sakasegawa_wait_s(
        replicas.prefill_s, replicas.prefill_load, servers, arrival_cv2, replicas.prefill_cv2
    )
    wait = wait + sakasegawa_wait_s(
        replicas.output_tokens * replicas.tpot_s,
        replicas.busy,
        servers * replicas.slots.clip(min=1.0),
        arrival_cv2,
        replicas.output_cv2,
    )
    iteration = replicas.tpot_s * (1.0 - replicas.prefill_load)
    wait = wait + 0.5 * iteration * replicas.decoding
    taken = weighted_sums(terms.latency, load)
    taken = xp.reshape(taken, (len(taken), 3, -1, *taken.shape[2:]))  # [M, 3, G, D, B]
    of_node = taken[:, 0] * wait + taken[:, 1] + taken[:, 2] * replicas.tpot_s
    return xp.sum(of_node * ready, axis=(0, 1))


def _backlog_wait_s(world: World, nodes: _Nodes, waiting_load: Array, utilisation: Array) -> Array:
    """Mean wait behind the backlog, [D, B]: half of what stood before plus half of what is left.

    What is left because nodes come late is none of it, see `_cold_wait`. It ends at the patience:
    who waits longer is dropped.
    """
    xp = array_namespace(utilisation)
    serving = xp.sum(nodes.ready, axis=0) / xp.sum(nodes.on, axis=0).clip(min=TINY)
    before = serving * xp.sum(waiting_load, axis=(0, 1))
    left = (serving * utilisation - 1.0).clip(min=0.0)
    return (0.5 * world.epoch_s * (before + left)).clip(max=world.patience_s)


def _cold_wait(world: World, nodes: _Nodes, replicas: _Replicas, routed: Array) -> Array:
    """Seconds of waiting for nodes that boot or load, of all requests that arrive in one, [D, B].

    While a model waits for nodes, those that held it before take what comes: first their slots fill
    up, then a queue builds. It stays there: they empty it at their own rate while new requests go
    to new nodes, or all empty it together at the rate that load leaves, where that is less. Without
    a whole replica before, requests queue at the new nodes. Who would wait beyond the patience,
    waits so long. The wait is the area under the queue to the end of the epoch, per request.
    """
    xp, terms = array_namespace(routed), world.terms
    new = nodes.loaded - nodes.kept
    late_s = xp.sum(new * nodes.late_s, axis=1) / xp.sum(new, axis=1).clip(min=TINY)  # [M, D, B]
    load = _saturated_load(terms, routed, nodes.loaded)
    warm_load = _saturated_load(terms, routed, nodes.kept)
    free = (replicas.slots - replicas.batch).clip(min=0.0) * replicas.per_request
    free_s = xp.sum(nodes.kept * free, axis=1) / xp.sum(nodes.kept, axis=1).clip(min=TINY)
    fill_s = xp.minimum(free_s / warm_load.clip(min=1.0), late_s)
    warm = xp.sum(nodes.kept * terms.replicas_per_node, axis=1).clip(max=1.0)
    serving = 1.0 - warm * (1.0 - load / warm_load)  # share of the nodes that the queue is at
    # What builds up and drains, in seconds of arrivals.
    built = (1.0 - 1.0 / warm_load).clip(min=0.0) * (late_s - fill_s)
    queue = xp.minimum(built, serving / load * world.patience_s)
    drained = xp.minimum(serving, (1.0 - load).clip(min=0.0)) / load
    until_s = xp.minimum(queue / drained.clip(min=TINY), world.epoch_s - late_s)
    area = queue * (0.5 * (late_s - fill_s) + until_s) - 0.5 * drained * until_s * until_s
    area = area + (built - queue) * world.patience_s
    return xp.sum(xp.sum(routed, axis=1) * area, axis=0) / world.epoch_s


def _saturated_load(terms: Terms, routed: Array, loaded: Array) -> Array:
    """Load of the nodes that hold a model when prompts queue, [M, D, B]."""
    capacity = weighted_sums(terms.saturated, loaded)
    return array_namespace(routed).sum(routed / capacity.clip(min=TINY), axis=1).clip(min=TINY)


def _client_ttft_s(world: World, rate: Array, total: Array, dropped: Array) -> tuple[Array, Array]:
    """Mean TTFT at the client, over all arrivals [B] and by site [D, B].

    A dropped request counts with the patience, so that dropping never looks fast. Shapes: rate
    and total (seconds of all requests that arrive in one) [D, B], dropped [M, S, D, B].
    """
    xp = array_namespace(rate)
    lost = xp.minimum(xp.sum(dropped, axis=(0, 1)) / world.epoch_s, rate)
    requests = rate.clip(min=TINY)
    total = total * (rate - lost) / requests + lost * world.patience_s
    return xp.sum(total, axis=0) / xp.sum(rate, axis=0).clip(min=TINY), total / requests


def _it_power_w(terms: Terms, replicas: _Replicas, nodes: _Nodes, available: Array) -> Array:
    """IT power of each site, [D, B]: nodes that serve at their load, those that boot with idle
    GPUs, the rest in the off state.

    A GPU's limit binds in prefill and in decode separately, each for its share of the time.
    Bandwidth counts the weights once per decode iteration and per prefill and the KV cache once
    per token; compute counts two FLOP per parameter and token.
    """
    xp, node = array_namespace(available), terms.node_type
    crowd = replicas.batch / replicas.decoding.clip(min=TINY)  # sequences while any decodes
    slope = replicas.decode_load / replicas.tokens.clip(min=TINY)
    iteration_s = terms.decode_d0_s + slope * crowd
    decode_share = replicas.decoding * (1.0 - replicas.prefill_load)
    weights_tb = decode_share / iteration_s * terms.iteration_tb
    gpu_w = (
        _phase_w(terms, replicas.prefill_load, replicas.prefill_tb, replicas.prefill_tflop)
        + _phase_w(terms, decode_share, weights_tb + replicas.decode_tb, replicas.decode_tflop)
        + (1.0 - replicas.prefill_load - decode_share) * node["gpu_context_w"]
    )
    serving = xp.sum(gpu_w * replicas.node_share, axis=0)  # [G, D, B]
    idle = 1.0 - xp.sum(replicas.node_share, axis=0)  # one at zero load, else zero
    base = {name: node[name] for name in ("gpus", "base_idle_w", "base_full_w")}
    serving_w = node_power_w(serving + idle * node["gpu_context_w"], replicas.busy, **base)
    booting_w = node_power_w(node["gpu_context_w"], 0.0, **base)
    off = terms.nodes * available - nodes.on
    return xp.sum(
        nodes.ready * serving_w + (nodes.on - nodes.ready) * booting_w + off * node["off_w"],
        axis=0,
    )


def _phase_w(terms: Terms, share: Array, tb_per_s: Array, tflop_per_s: Array) -> Array:
    """GPU power of a phase that takes a share of the time, times that share, [M, G, D, B]."""
    time = share.clip(min=TINY)
    power_w = gpu_power_w(
        tb_per_s / time,
        tflop_per_s / time,
        context_w=terms.node_type["gpu_context_w"],
        w_per_tb_per_s=terms.w_per_tb_per_s,
        w_per_tflop_per_s=terms.w_per_tflop_per_s,
        tdp_w=terms.node_type["gpu_tdp_w"],
    )
    return share * power_w
