"""Random fleets of any size, with inputs, plans and states to match; no data, no files."""

from __future__ import annotations

import numpy as np

from marlin.fleet.contract import Inputs, Plan, State
from marlin.fleet.world import SPILL_REACH_S, Constants, World, site_detour_s


def names(kind: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind}{i}" for i in range(count))


def random_world(
    rng: np.random.Generator, sites: int, node_types: int, models: int, services: int, origins: int
) -> World:
    """A fleet whose constants are drawn within the ranges of real ones."""
    types, pairs = (node_types,), (node_types, models)
    classes = (node_types, models, services)
    rtt_s = rng.uniform(0.005, 0.3, (origins, sites))
    output_tokens = rng.uniform(20, 400, services)
    prefill_s = rng.uniform(0.02, 0.5, classes)
    slope = rng.uniform(2e-5, 2e-4, classes)
    d0 = rng.uniform(0.005, 0.03, pairs)
    slots = rng.uniform(50, 256, classes)
    work_s = prefill_s + output_tokens * (slope + d0[:, :, None] / slots)
    replicas = rng.integers(1, 9, pairs).astype(float)
    constants = Constants(
        nodes=rng.integers(1, 40, (sites, node_types)).astype(float),
        rtt_s=rtt_s,
        site_pull=np.exp(-site_detour_s(rtt_s) / SPILL_REACH_S),
        usual_share=np.full((sites, models), 1.0 / models),
        node_rate_per_s=replicas[:, :, None] / work_s,
        saturated_rate_per_s=replicas[:, :, None] / (work_s - 0.1 * prefill_s),
        replicas_per_node=replicas,
        gpus_per_replica=rng.integers(1, 9, pairs).astype(float),
        work_s=work_s,
        prefill_s=prefill_s,
        prefill_cv2=rng.uniform(0.1, 2.0, classes),
        decode_d0_s=d0,
        decode_slope_s=slope,
        slots=slots,
        kv_bytes_read=rng.uniform(1e9, 1e12, (models, services)),
        prompt_tokens=rng.uniform(100, 3000, services),
        output_tokens=output_tokens,
        awaited_tokens=np.zeros(services),
        arrival_cv2=rng.uniform(0.5, 20.0, services),
        output_cv2=rng.uniform(0.3, 5.0, services),
        weights_bytes=rng.uniform(1e10, 2e11, models),
        flop_per_token=rng.uniform(1e10, 2e11, models),
        boot_s=rng.uniform(60, 300, types),
        load_s=rng.uniform(5, 100, pairs),
        gpus=np.full(types, 8.0),
        gpu_context_w=rng.uniform(60, 150, types),
        gpu_w_per_tb_per_s=np.repeat(rng.uniform(100, 150, types)[:, None], models, axis=1),
        gpu_w_per_tflop_per_s=np.repeat(rng.uniform(0.8, 1.8, types)[:, None], models, axis=1),
        gpu_tdp_w=rng.uniform(350, 1000, types),
        base_idle_w=rng.uniform(800, 1500, types),
        base_full_w=rng.uniform(1500, 3000, types),
        off_w=rng.uniform(0, 50, types),
    )
    return World(
        sites=names("site", sites),
        node_types=names("type", node_types),
        models=names("model", models),
        services=names("service", services),
        origins=names("origin", origins),
        constants=constants,
        epoch_s=900.0,
        utilisation_ceiling=0.85,
        patience_s=300.0,
    )


def random_inputs(
    rng: np.random.Generator, world: World, batch: int, load: float = 0.5, outage: float = 0.0
) -> Inputs:
    """Signals in usual ranges; demand fills about `load` of the fleet, sites fail by `outage`."""
    constants = world.constants
    sites = (batch, len(world.sites))
    arrivals = rng.dirichlet(np.ones(np.prod(world.class_shape)), batch)
    arrivals = arrivals.reshape(batch, *world.class_shape)
    capacity = np.einsum("dg,gms->ms", constants.nodes, constants.node_rate_per_s)
    fills = (arrivals.sum(axis=1) / capacity).sum(axis=(1, 2))
    return Inputs(
        arrival_rate_per_s=arrivals * (load / fills)[:, None, None, None],
        carbon_g_per_kwh=rng.uniform(20, 700, sites),
        price_usd_per_mwh=rng.uniform(-20, 200, sites),
        pue=rng.uniform(1.05, 1.6, sites),
        wue_l_per_kwh=rng.uniform(0.0, 3.0, sites),
        ewif_l_per_kwh=rng.uniform(0.0, 5.0, sites),
        aware_m3_per_m3=rng.uniform(0.1, 50, sites),
        available=np.repeat(
            np.where(rng.random(sites) < outage, 0.0, 1.0)[..., None], len(world.node_types), axis=2
        ),
    )


def random_plan(
    rng: np.random.Generator, world: World, batch: int, concentration: float = 1.0, off: float = 0.0
) -> Plan:
    """Shares from a Dirichlet distribution; a pool is off by the chance `off`."""
    routing = rng.dirichlet(np.full(len(world.sites), concentration), (batch, *world.class_shape))
    power = rng.uniform(0.2, 1.0, (batch, len(world.sites), len(world.node_types)))
    return Plan(routing, np.where(rng.random(power.shape) < off, 0.0, power))


def random_state(rng: np.random.Generator, world: World, batch: int) -> State:
    """Some backlog, some nodes on, some of these with a model."""
    start = world.idle_state(batch)
    nodes_on = start.nodes_on * rng.uniform(0, 1, start.nodes_on.shape)
    parts = rng.dirichlet(np.ones(len(world.models) + 1), nodes_on.shape)
    return State(
        backlog=rng.uniform(0, 100, start.backlog.shape),
        nodes_on=nodes_on,
        loaded=nodes_on[..., None] * parts[..., 1:],
    )
