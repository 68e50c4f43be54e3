"""What a unit of work takes of a node at the very least: node time and energy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np
from scipy.optimize import linprog

from marlin.fleet.contract import Inputs, Plan
from marlin.fleet.simulator import JOULES_PER_KWH, step
from marlin.fleet.world import World

MARGIN = 1e-3  # of power: what may lie between the points of the grid below
UTILISATIONS = np.linspace(0.02, 1.0, 50)
MIX_STEPS = 10


@dataclass(frozen=True)
class Work:
    """Node time and power of K classes of work on G node types, from below.

    A node that does nothing but class k does at most `per_node_s` [G, K] units a second, and then
    draws at least `work_w` [G, K] above `rest_w` [G], the least that a node ever draws. No node
    draws more than `most_w` [G].
    """

    per_node_s: np.ndarray
    work_w: np.ndarray
    rest_w: np.ndarray
    most_w: np.ndarray


def fluid_work(world: World) -> Work:
    """Work of the fluid model: a class is a request of a model and service, K = M S.

    The power of a node is that of `step` on one node. Over utilisation it is least per unit at
    full load, and over mixes of services a linear form below it is found by a linear program.
    """
    _, models, services = world.class_shape
    types = len(world.node_types)
    rest_w = least_draw_w(world)
    mixes = _mixes(services)
    work_w, full_w = np.empty((types, models, services)), np.empty((types, models))
    for g in range(types):
        for m in range(models):
            power_w = _node_power_w(world, g, m, mixes)  # [mix, utilisation]
            least_w = ((power_w - rest_w[g]) / UTILISATIONS).min(axis=1)
            found = linprog(-np.ones(services), mixes, least_w, bounds=(None, None))
            if not found.success:
                raise RuntimeError(f"power of work was not bounded: {found.message}")
            work_w[g, m], full_w[g, m] = found.x, power_w.max()
    most_w = np.maximum(world.constants.off_w, full_w.max(axis=1) * (1.0 + MARGIN))
    rate = world.constants.node_rate_per_s.reshape(types, -1)
    work_w = work_w.reshape(types, -1)
    least_w = work_w - MARGIN * np.abs(work_w)
    return Work(rate, least_w, rest_w, np.minimum(most_w, most_draw_w(world)))


def _mixes(services: int) -> np.ndarray:
    """Shares of services on a lattice of the simplex, [N, S]."""
    chosen = combinations_with_replacement(range(services), MIX_STEPS)
    counts = [np.bincount(c, minlength=services) for c in chosen]
    return np.array(counts) / MIX_STEPS


def _node_power_w(world: World, node_type: int, model: int, mixes: np.ndarray) -> np.ndarray:
    """IT power of one node that serves mixes [N, S] of one model at `UTILISATIONS`, [N, U]."""
    constants = world.constants
    services, types = len(world.services), len(world.node_types)
    one = replace(
        world,
        sites=world.sites[:1],
        origins=world.origins[:1],
        constants=replace(
            constants,
            nodes=np.ones((1, types)),
            rtt_s=np.zeros((1, 1)),
            site_pull=np.ones((1, 1)),
            usual_share=np.eye(len(world.models))[[model]],
        ),
    )
    load = mixes[:, None, :] * UTILISATIONS[:, None]  # [N, U, S]
    arrivals = np.zeros((load.shape[0] * load.shape[1], 1, len(world.models), services))
    arrivals[:, 0, model] = load.reshape(-1, services) * constants.node_rate_per_s[node_type, model]
    batch = len(arrivals)
    free = np.zeros((batch, 1))
    available = np.zeros((batch, 1, types))
    available[..., node_type] = 1.0
    inputs = Inputs(arrivals, free, free, free + 1.0, free, free, free, available)
    plan = Plan(np.ones((*arrivals.shape, 1)), np.ones((batch, 1, types)))
    _, outcome = step(one, one.idle_state(batch), plan, inputs)
    power_w = outcome.energy_kwh * JOULES_PER_KWH / world.epoch_s
    return power_w.reshape(load.shape[:2])


def least_draw_w(world: World) -> np.ndarray:
    """The least that a node draws, off or on without work, [G]."""
    constants = world.constants
    idle_w = constants.gpus * constants.gpu_context_w + np.minimum(
        constants.base_idle_w, constants.base_full_w
    )
    return np.minimum(constants.off_w, idle_w)


def most_draw_w(world: World) -> np.ndarray:
    """The most that a node can draw, [G]: every GPU at its limit."""
    constants = world.constants
    gpu_w = np.maximum(constants.gpu_tdp_w, constants.gpu_context_w)
    base_w = np.maximum(constants.base_idle_w, constants.base_full_w)
    return np.maximum(constants.gpus * gpu_w + base_w, constants.off_w)
