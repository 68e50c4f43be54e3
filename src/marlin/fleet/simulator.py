"""The fluid model: one epoch, all sites, a batch of worlds.

`step` is written once against the Python array API: NumPy by default, torch when gradients or a
GPU are wanted. Requests are conserved exactly: arrived + waiting before = served + waiting after
+ dropped. Axes: B worlds, O origins, M models, S services, D sites, G node types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from marlin.fleet.contract import Inputs, Outcome, Plan, State
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

TINY = 1e-12
SPILL_ROUNDS = 4
QUEUE_CEILING = 0.995  # queueing formulas hold below this; beyond it the backlog takes over
JOULES_PER_KWH = 3.6e6


def step(world: World, state: State, plan: Plan, inputs: Inputs) -> tuple[State, Outcome]:
    """Run one epoch of `plan` and return what it leaves behind and what it cost."""
    constants = world.constants
    xp = array_namespace(inputs.arrival_rate_per_s)
    nodes_on = plan.power * constants.nodes * inputs.available
    ready = ready_nodes(world, state, nodes_on)
    capacity = site_capacity(constants, ready)  # [B, D, M, S]
    waiting = state.backlog / world.epoch_s
    flows = dispatch(world, plan.routing, inputs.arrival_rate_per_s, capacity, waiting)
    routed = xp.sum(flows, axis=1)  # [B, M, S, D]
    routed = xp.moveaxis(routed, -1, 1)  # [B, D, M, S]
    load = (routed + waiting) / xp.clip(capacity, TINY, None)
    utilisation = xp.sum(load, axis=(2, 3))  # [B, D], above one in overload

    served, backlog, dropped = _settle(world, routed, waiting, utilisation)
    replicas = _replicas(constants, load, utilisation)
    waits = _backlog_wait_s(world, state, load, routed, utilisation)
    waits = waits + _cold_wait_s(world, state, nodes_on, routed)
    latency = _serving_latency_s(constants, replicas, ready, routed) + waits[..., None, None]
    ttft_s, site_ttft_s = _client_ttft_s(world, flows, latency, routed, dropped)
    power_w = _it_power_w(constants, replicas, nodes_on, inputs.available)

    it_kwh = power_w * world.epoch_s / JOULES_PER_KWH
    energy_kwh = it_kwh * inputs.pue
    carbon_kg = operational_kg(energy_kwh, inputs.carbon_g_per_kwh)
    water_l = onsite_water_l(it_kwh, inputs.wue_l_per_kwh) + offsite_water_l(
        energy_kwh, inputs.ewif_l_per_kwh
    )
    cost_usd = energy_cost_usd(energy_kwh, inputs.price_usd_per_mwh)
    on = xp.sum(nodes_on, axis=-1)
    fleet_nodes = xp.sum(constants.nodes)
    outcome = Outcome(
        ttft_s=ttft_s,
        carbon_kg=xp.sum(carbon_kg, axis=-1),
        water_l=xp.sum(water_l, axis=-1),
        cost_usd=xp.sum(cost_usd, axis=-1),
        energy_kwh=xp.sum(energy_kwh, axis=-1),
        scarcity_water_l=xp.sum(scarcity_water_l(water_l, inputs.aware_m3_per_m3), axis=-1),
        arrived=xp.sum(inputs.arrival_rate_per_s, axis=(1, 2, 3)) * world.epoch_s,
        served=xp.sum(served, axis=(1, 2, 3)),
        dropped=xp.sum(dropped, axis=(1, 2, 3)),
        waiting=xp.sum(backlog, axis=(1, 2, 3)),
        utilisation=xp.sum(xp.clip(utilisation, None, 1.0) * on, axis=-1) / fleet_nodes,
        site_requests_per_s=xp.sum(routed, axis=(2, 3)),
        site_ttft_s=site_ttft_s,
        site_utilisation=utilisation,
        site_energy_kwh=energy_kwh,
        site_carbon_kg=carbon_kg,
        site_water_l=water_l,
        site_cost_usd=cost_usd,
        site_nodes_on=on,
    )
    return State(backlog=backlog, nodes_on=nodes_on), outcome


def ready_nodes(world: World, state: State, nodes_on: Array) -> Array:
    """Nodes that serve, averaged over the epoch: those just switched on boot and load first.

    Shapes: [B, D, G].
    """
    xp = array_namespace(nodes_on)
    warm = xp.minimum(nodes_on, state.nodes_on)
    lost = xp.clip(world.constants.cold_s / world.epoch_s, None, 1.0)
    return warm + (nodes_on - warm) * (1.0 - lost)


def site_capacity(constants: Constants, nodes: Array) -> Array:
    """Requests per second of each class that would alone fill a site's nodes.

    Shapes: nodes [B, D, G] -> [B, D, M, S].
    """
    xp = array_namespace(nodes)
    return xp.sum(nodes[:, :, :, None, None] * constants.node_rate_per_s, axis=2)


def dispatch(
    world: World, routing: Array, arrival_rate_per_s: Array, capacity: Array, waiting: Array
) -> Array:
    """Routed flows after spill-over: no site is filled past the ceiling while others have room.

    What finds no room stays where the plan put it. Shapes: routing and result [B, O, M, S, D],
    arrivals [B, O, M, S], capacity and waiting [B, D, M, S].
    """
    xp = array_namespace(routing)
    flows = arrival_rate_per_s[..., None] * routing
    routed = xp.moveaxis(xp.sum(flows, axis=1), -1, 1)  # [B, D, M, S]
    slots = 1.0 / xp.clip(capacity, TINY, None)
    used = xp.sum(routed * slots, axis=(2, 3))
    room = world.utilisation_ceiling - xp.sum(waiting * slots, axis=(2, 3))
    room = xp.clip(room, 0.0, None)
    if not bool(xp.any(used > room)):
        return flows
    stay = xp.clip(room / xp.clip(used, TINY, None), None, 1.0)
    free = xp.clip(room - used * stay, 0.0, None)
    moved = _spill(world.constants, routed * (1.0 - stay)[..., None, None], slots, free)
    # What neither fits nor moves stays: shares of a row of `where` sum to one.
    where = moved * (1.0 - stay)[..., None]
    home = 1.0 - xp.sum(where, axis=-1)
    spilled = xp.reshape(flows, (flows.shape[0], -1, flows.shape[-1])) @ where
    return flows * home[:, None, None, None, :] + xp.reshape(spilled, flows.shape)


def _spill(constants: Constants, overflow: Array, slots: Array, free: Array) -> Array:
    """Where the overflow of each site goes, [B, D, D]: shares of a row that sum to one at most.

    Sites with room take it in a few rounds, near ones first. Shapes: overflow [B, D, M, S]
    requests per second, slots [B, D, M, S] utilisation per request per second, free [B, D].
    """
    xp = array_namespace(overflow)
    sites = free.shape[-1]
    by_class = xp.matrix_transpose(xp.reshape(slots, (slots.shape[0], sites, -1)))
    # [B, from, to]: utilisation of a site if all of another's overflow went there
    load = xp.reshape(overflow, (overflow.shape[0], sites, -1)) @ by_class
    near = constants.site_pull
    shares = xp.zeros_like(load)
    for _ in range(SPILL_ROUNDS):
        pull = near * (free / xp.clip(slots[:, :, 0, 0], TINY, None))[:, None, :]
        left = 1.0 - xp.sum(shares, axis=-1, keepdims=True)
        offer = left * pull / xp.clip(xp.sum(pull, axis=-1, keepdims=True), TINY, None)
        asked = xp.sum(offer * load, axis=1)
        fits = xp.clip(free / xp.clip(asked, TINY, None), None, 1.0)
        taken = offer * fits[:, None, :]
        shares = shares + taken
        free = xp.clip(free - xp.sum(taken * load, axis=1), 0.0, None)
    return shares


def _settle(
    world: World, routed: Array, waiting: Array, utilisation: Array
) -> tuple[Array, Array, Array]:
    """Served, waiting and dropped requests of the epoch, each [B, D, M, S].

    A site serves all it is offered up to its capacity; what is left waits, and the part that
    could not be cleared within the patience is dropped.
    """
    xp = array_namespace(routed)
    offered = (routed + waiting) * world.epoch_s
    excess = xp.clip(utilisation - 1.0, 0.0, None)[..., None, None]
    served = offered / (1.0 + excess)
    left = offered - served
    clearing_s = excess * world.epoch_s
    keep = xp.clip(world.patience_s / xp.clip(clearing_s, TINY, None), None, 1.0)
    backlog = left * keep
    return served, backlog, left - backlog


@dataclass(frozen=True)
class _Replicas:
    """The mean replica of each pool and model; [B, D, G, M] unless said."""

    busy: Array  # [B, D] utilisation, below one
    node_share: Array  # [B, D, M] of a site's nodes that serve the model
    rate: Array  # [B, D, G, M, S] requests per second
    requests: Array  # requests per second, all services
    prefill_load: Array
    tokens: Array  # output tokens per second
    decode_load: Array
    tpot_s: Array
    batch: Array  # mean sequences in decode


def _replicas(constants: Constants, load: Array, utilisation: Array) -> _Replicas:
    """Per-replica loads: every node on a site is equally busy, shared by models as they load it."""
    xp = array_namespace(load)
    busy = xp.clip(utilisation, None, QUEUE_CEILING)
    by_model = xp.sum(load, axis=-1)  # [B, D, M]
    mix = load / xp.clip(by_model, TINY, None)[..., None]  # [B, D, M, S]
    rate = busy[:, :, None, None, None] * mix[:, :, None] / constants.work_s
    prefill_load = xp.sum(rate * constants.prefill_s, axis=-1)
    decode_load = xp.sum(rate * constants.output_tokens * constants.decode_slope_s, axis=-1)
    tokens = xp.sum(rate * constants.output_tokens, axis=-1)
    tpot = tpot_s(constants.decode_d0_s, prefill_load, decode_load)
    return _Replicas(
        busy=busy,
        node_share=by_model / xp.clip(utilisation, TINY, None)[..., None],
        rate=rate,
        requests=xp.sum(rate, axis=-1),
        prefill_load=prefill_load,
        tokens=tokens,
        decode_load=decode_load,
        tpot_s=tpot,
        batch=tokens * tpot,
    )


def _serving_latency_s(
    constants: Constants, replicas: _Replicas, ready: Array, routed: Array
) -> Array:
    """Mean time from arrival at the site to the first token when warm, [B, D, M, S].

    Queue for a prefill and for a slot, half a decode iteration, the prefill itself; averaged over
    pools by the requests they take.
    """
    xp = array_namespace(routed)
    weight = replicas.rate / xp.clip(replicas.requests, TINY, None)[..., None]
    count = ready[..., None] * replicas.node_share[:, :, None] * constants.replicas_per_node
    servers = xp.clip(count, 1.0, None)
    total = xp.clip(xp.sum(routed, axis=1, keepdims=True), TINY, None)
    cv2 = thinned_cv2(constants.arrival_cv2, routed / total)[:, :, None]  # [B, D, 1, M, S]
    arrival_cv2 = xp.sum(weight * cv2, axis=-1)
    prefill_queue = sakasegawa_wait_s(
        xp.sum(weight * constants.prefill_s, axis=-1),
        replicas.prefill_load,
        servers,
        arrival_cv2,
        xp.sum(weight * constants.prefill_cv2, axis=-1),
    )
    slot_queue = sakasegawa_wait_s(
        xp.sum(weight * constants.output_tokens, axis=-1) * replicas.tpot_s,
        replicas.busy[:, :, None, None],
        servers * xp.clip(xp.sum(weight * constants.slots, axis=-1), 1.0, None),
        arrival_cv2,
        xp.sum(weight * constants.output_cv2, axis=-1),
    )
    iteration = replicas.tpot_s * (1.0 - replicas.prefill_load)
    half_step = 0.5 * iteration * decoding_probability(replicas.batch)
    latency = (prefill_queue + slot_queue + half_step)[..., None] + constants.prefill_s
    latency = latency + constants.awaited_tokens * replicas.tpot_s[..., None]
    speed = ready[:, :, :, None, None] * constants.node_rate_per_s
    by_pool = speed / xp.clip(xp.sum(speed, axis=2, keepdims=True), TINY, None)
    return xp.sum(latency * by_pool, axis=2)


def _backlog_wait_s(
    world: World, state: State, load: Array, routed: Array, utilisation: Array
) -> Array:
    """Mean wait behind the backlog, [B, D]: half of what stood before plus half of what is left.

    It ends at the patience: who waits longer is dropped.
    """
    xp = array_namespace(load)
    waiting = state.backlog / world.epoch_s
    part = waiting / xp.clip(routed + waiting, TINY, None)
    before = xp.sum(load * part, axis=(2, 3))
    after = xp.clip(utilisation - 1.0, 0.0, None)
    return xp.clip(0.5 * world.epoch_s * (before + after), None, world.patience_s)


def _cold_wait_s(world: World, state: State, nodes_on: Array, routed: Array) -> Array:
    """Mean wait for nodes that are still booting, [B, D].

    Load that the nodes already warm cannot take arrives evenly over the epoch; what comes in the
    first `cold_s` seconds waits for the rest of them.
    """
    constants = world.constants
    xp = array_namespace(nodes_on)
    warm = xp.minimum(nodes_on, state.nodes_on)
    new = nodes_on - warm
    demand = xp.sum(routed / xp.clip(site_capacity(constants, warm), TINY, None), axis=(2, 3))
    uncovered = xp.clip(1.0 - 1.0 / xp.clip(demand, TINY, None), 0.0, None)
    started = xp.sum(new, axis=-1)
    cold_s = xp.sum(new * constants.cold_s, axis=-1) / xp.clip(started, TINY, None)
    cold_s = xp.clip(cold_s, None, world.epoch_s)
    return uncovered * cold_s * cold_s / (2.0 * world.epoch_s)


def _client_ttft_s(
    world: World, flows: Array, latency_s: Array, routed: Array, dropped: Array
) -> tuple[Array, Array]:
    """Mean TTFT at the client, over all arrivals [B] and by site [B, D].

    A dropped request counts with the patience, so that dropping never looks fast.
    """
    xp = array_namespace(flows)
    network = xp.sum(xp.sum(flows, axis=(2, 3)) * world.constants.rtt_s, axis=1)  # [B, D]
    inside = xp.sum(routed * latency_s, axis=(2, 3))
    rate = xp.sum(routed, axis=(2, 3))
    lost = xp.sum(dropped, axis=(2, 3)) / world.epoch_s
    lost = xp.minimum(lost, rate)
    kept = (rate - lost) / xp.clip(rate, TINY, None)
    total = (network + inside) * kept + lost * world.patience_s
    site = total / xp.clip(rate, TINY, None)
    return xp.sum(total, axis=-1) / xp.clip(xp.sum(rate, axis=-1), TINY, None), site


def _it_power_w(
    constants: Constants, replicas: _Replicas, nodes_on: Array, available: Array
) -> Array:
    """IT power of each site, [B, D]: nodes that are on at their load, the rest in the off state.

    Bandwidth counts the weights once per decode iteration and per prefill and the KV cache once
    per token; compute counts two FLOP per parameter and token.
    """
    xp = array_namespace(nodes_on)
    rate = replicas.rate
    decoding = decoding_probability(replicas.batch)
    crowd = replicas.batch / xp.clip(decoding, TINY, None)  # sequences while any decodes
    slope = replicas.decode_load / xp.clip(replicas.tokens, TINY, None)
    iterations = decoding * (1.0 - replicas.prefill_load) / (constants.decode_d0_s + slope * crowd)
    weights = constants.weights_bytes * (iterations + replicas.requests)
    kv = xp.sum(rate * constants.kv_bytes_read, axis=-1)
    tokens = xp.sum(rate * (constants.prompt_tokens + constants.output_tokens), axis=-1)
    gpu_w = gpu_power_w(
        (weights + kv) / constants.gpus_per_replica / 1e12,
        constants.flop_per_token * tokens / constants.gpus_per_replica / 1e12,
        context_w=constants.gpu_context_w[:, None],
        w_per_tb_per_s=constants.gpu_w_per_tb_per_s,
        w_per_tflop_per_s=constants.gpu_w_per_tflop_per_s,
        tdp_w=constants.gpu_tdp_w[:, None],
    )
    serving = xp.sum(gpu_w * replicas.node_share[:, :, None], axis=-1)  # [B, D, G]
    idle = 1.0 - xp.sum(replicas.node_share, axis=-1)  # one at zero load, else zero
    node_w = node_power_w(
        serving + idle[..., None] * constants.gpu_context_w,
        replicas.busy[..., None],
        gpus=constants.gpus,
        base_idle_w=constants.base_idle_w,
        base_full_w=constants.base_full_w,
    )
    off = constants.nodes * available - nodes_on
    return xp.sum(nodes_on * node_w + off * constants.off_w, axis=-1)
