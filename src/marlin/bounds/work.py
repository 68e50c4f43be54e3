"""What work takes of a node at the very least: its time, its power, and time to a first token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np
from scipy.optimize import linprog

from marlin.fleet.contract import Inputs, Plan
from marlin.fleet.simulator import JOULES_PER_KWH, step
from marlin.fleet.world import World

MARGIN = 1e-3  # relative: what may lie between the points of the grid below
UTILISATIONS = np.concatenate([[1e-6, 0.005], np.linspace(0.02, 1.0, 50)])
TANGENTS = (0.0, 0.15, 0.5, 0.7, 0.85)  # utilisations
MIX_STEPS = 10
MANY_NODES = 1e6  # of a site where no request queues


@dataclass(frozen=True)
class Work:
    """Node time and power of K classes of work on G node types, from below.

    A node that does nothing but class k does at most `per_node_s` [G, K] units a second, and then
    draws at least `work_w` [G, K] above `rest_w` [G], the least that a node ever draws. Of this it
    draws `kept_w` [G] also without work, while it is kept ready. No node draws more than `most_w`
    [G].
    """

    per_node_s: np.ndarray
    work_w: np.ndarray
    kept_w: np.ndarray
    rest_w: np.ndarray
    most_w: np.ndarray


@dataclass(frozen=True)
class Latency:
    """Seconds to a first token at a site, all requests of a model together, from below.

    n nodes kept for model m, of which z_k do class k, take of the requests that arrive in a second
    at least ``sum_k slope[q, g, k] z_k - relief[q, g, m] n`` seconds, for every tangent q.
    """

    slope: np.ndarray  # [Q, G, K]
    relief: np.ndarray  # [Q, G, M]


def fluid_work(world: World) -> Work:
    """Work of the fluid model: a class is a request of a model and service, K = M S.

    The power of a node is that of `step`. It lies above the chord from idle to full load, and above
    a form that is linear in the mix of services.
    """
    grid = _Grid.of(world)
    rest_w, constants = least_draw_w(world), world.constants
    idle_w = constants.gpus * constants.gpu_context_w + constants.base_idle_w
    kept_w = idle_w - rest_w
    rise_w = (grid.power_w - idle_w[:, None, None, None]) / UTILISATIONS
    rise_w = _linear_below(grid.mixes, rise_w.min(axis=-1))  # [G, M, S]
    rise_w = rise_w - MARGIN * np.abs(rise_w)
    full_w = grid.power_w.max(axis=(1, 2, 3)) * (1.0 + MARGIN)
    types = len(world.node_types)
    return Work(
        per_node_s=constants.node_rate_per_s.reshape(types, -1),
        work_w=(rise_w + kept_w[:, None, None]).reshape(types, -1),
        kept_w=kept_w,
        rest_w=rest_w,
        most_w=np.minimum(np.maximum(constants.off_w, full_w), most_draw_w(world)),
    )


def fluid_latency(world: World) -> Latency:
    """Latency of the fluid model, from `step` on so many nodes that nothing waits in a queue.

    At utilisation u a node's requests take ``V(u) = rate(u) ttft(u)`` seconds a second. Tangents at
    `TANGENTS` lie below it for a mean mix of services; for other mixes they are made linear.
    """
    grid = _Grid.of(world)
    rate = np.einsum("ns,gms->gmn", grid.mixes, world.constants.node_rate_per_s)
    taken = rate[..., None] * UTILISATIONS * grid.ttft_s  # [G, M, N, U]
    middle = taken[:, :, len(grid.mixes) // 2]
    steep = np.gradient(middle, UTILISATIONS, axis=-1)
    slopes, reliefs = [], []
    for tangent in TANGENTS:
        at = int(np.argmin(np.abs(UTILISATIONS - tangent)))
        relief = (steep[..., at] * UTILISATIONS[at] - middle[..., at]).clip(min=0.0) * (at > 0)
        least = ((taken + relief[..., None, None]) / UTILISATIONS).min(axis=-1)
        slopes.append(_linear_below(grid.mixes, least * (1.0 - MARGIN)))
        reliefs.append(relief)
    slope = np.stack(slopes)
    return Latency(slope.reshape(*slope.shape[:2], -1), np.stack(reliefs))


def _linear_below(mixes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients [G, M, S] of linear forms in a mix that are nowhere above values [G, M, N]."""
    services = mixes.shape[1]
    found = np.empty((*values.shape[:2], services))
    for at in np.ndindex(values.shape[:2]):
        solution = linprog(-np.ones(services), mixes, values[at], bounds=(None, None))
        if not solution.success:
            raise RuntimeError(f"work was not bounded from below: {solution.message}")
        found[at] = solution.x
    return found


@dataclass(frozen=True)
class _Grid:
    """What a node draws, and how soon requests begin, by type, model, mix and utilisation."""

    mixes: np.ndarray  # [N, S]
    power_w: np.ndarray  # [G, M, N, U]
    ttft_s: np.ndarray  # [G, M, N, U]

    @staticmethod
    def of(world: World) -> _Grid:
        """One step of a site of many nodes, for each type, model, mix and utilisation."""
        _, models, services = world.class_shape
        mixes, types = _mixes(services), len(world.node_types)
        shape = types, models, len(mixes), len(UTILISATIONS)
        kinds, model, mix, level = (index.ravel() for index in np.indices(shape))
        batch = np.arange(len(kinds))
        load = mixes[mix] * UTILISATIONS[level, None] * MANY_NODES  # [B, S]
        arrivals = np.zeros((len(batch), 1, models, services))
        arrivals[batch, 0, model] = load * world.constants.node_rate_per_s[kinds, model]
        available = np.zeros((len(batch), 1, types))
        available[batch, 0, kinds] = 1.0
        site, free = _one_site(world), np.zeros((len(batch), 1))
        inputs = Inputs(arrivals, free, free, free + 1.0, free, free, free, available)
        plan = Plan(np.ones((*arrivals.shape, 1)), np.ones_like(available))
        state = site.idle_state(len(batch))
        settled = np.eye(models)[model][:, None, None]  # every node holds the one model
        state = replace(state, loaded=state.nodes_on[..., None] * settled)
        _, outcome = step(site, state, plan, inputs)
        power_w = outcome.energy_kwh * JOULES_PER_KWH / world.epoch_s / MANY_NODES
        return _Grid(mixes, power_w.reshape(shape), outcome.ttft_s.reshape(shape))


def _one_site(world: World) -> World:
    """A site of many nodes of every type, next to its only users."""
    constants = replace(
        world.constants,
        nodes=np.full((1, len(world.node_types)), MANY_NODES),
        rtt_s=np.zeros((1, 1)),
        site_pull=np.ones((1, 1)),
        usual_share=np.ones((1, len(world.models))) / len(world.models),
    )
    return replace(
        world, sites=world.sites[:1], origins=world.origins[:1], constants=constants, own_sites=None
    )


def _mixes(services: int) -> np.ndarray:
    """Shares of services on a lattice of the simplex, [N, S]."""
    chosen = combinations_with_replacement(range(services), MIX_STEPS)
    counts = [np.bincount(c, minlength=services) for c in chosen]
    return np.array(counts) / MIX_STEPS


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
