"""What MARLIN's agents see, and what their numbers mean.

A state has four numbers a site; an action a routing share of every site for every model, and a
power slider for every site. Axes: B worlds, N agents, M models, O origins, S services, D sites,
G node types, A = (M + 1) D numbers of an action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.contract import Inputs, Plan, State
from marlin.fleet.power_down import sized_plan
from marlin.fleet.terms import TINY
from marlin.fleet.world import World
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh
from marlin.schedulers.loads import load_per_request_per_s

if TYPE_CHECKING:
    from marlin.schedulers.marlin import Marlin

FEATURES = 4  # a site: carbon, price, water, load
LOGIT_REACH = 2.0  # a site is preferred to another by at most e^(2 x 2)
OFF_SHARE = 0.05  # a site with less of the routing is switched off
OFF_EVEN = 0.6  # ... or with less than this part of an even share: the same at twelve sites
OFF_BAND = 0.5  # half as much keeps a site on that is on, half as much again switches one on
TOP_PER_SHARE, TOP_LEAST = 1.4, 0.7  # power of the site that is preferred most
TARGET_LOW, TARGET_HIGH = 0.3, 0.85  # utilisation that a slider of one and of zero is sized for
RULE_SPAN = 2.0  # how much a rule of thumb prefers a site that is one deviation better
RULE_SLIDER = np.array([0.8, 0.2, 0.2, 0.2])


def state_size(world: World) -> int:
    """Numbers in a state, F."""
    return FEATURES * len(world.sites)


def action_size(world: World) -> int:
    """Numbers in an action, A."""
    return (len(world.models) + 1) * len(world.sites)


def observe(world: World, forecast: Inputs) -> np.ndarray:
    """State [B, F]: of all sites carbon intensity, then price, water intensity and load.

    In kg/kWh, 5 x USD/kWh x PUE, L/kWh over ten (of the grid, and evaporated and blown down on
    site), and twice the share of the requests that come from near the site.
    """
    seen = [
        forecast.carbon_g_per_kwh / 1000.0,
        5.0 * forecast.price_usd_per_mwh / 1000.0 * forecast.pue,
        (forecast.ewif_l_per_kwh + forecast.wue_l_per_kwh) / 10.0,
        2.0 * near_share(world, forecast.arrival_rate_per_s),
    ]
    return np.concatenate(seen, axis=1)


def near_share(world: World, demand: np.ndarray) -> np.ndarray:
    """Share [B, D] of the requests [B, O, M, S] whose origin is nearest to the site."""
    arrivals = demand.sum(axis=(2, 3))
    return arrivals @ homes(world) / np.clip(arrivals.sum(axis=1, keepdims=True), TINY, None)


def homes(world: World) -> np.ndarray:
    """One where a site is the nearest to an origin, [O, D]."""
    return np.eye(len(world.sites))[world.constants.rtt_s.argmin(axis=1)]


def squashed(latent: Tensor, sites: int) -> Tensor:
    """Actions [..., A] from what a policy says, latent in (-1, 1): softmax shares, then sliders."""
    routing, power = latent[..., :-sites], latent[..., -sites:]
    logits = LOGIT_REACH * routing.unflatten(-1, (-1, sites))
    return torch.cat([logits.softmax(-1).flatten(-2), 0.5 * (1.0 + power)], dim=-1)


def projected(action: Tensor, sites: int) -> Tensor:
    """The numbers nearest to an action that are one: shares that sum to one, sliders in 0..1."""
    routing = action[..., :-sites].unflatten(-1, (-1, sites)).clamp_min(0.0) + TINY
    routing = routing / routing.sum(-1, keepdim=True)
    return torch.cat([routing.flatten(-2), action[..., -sites:].clamp(0.0, 1.0)], dim=-1)


def decode(
    options: Marlin, world: World, action: np.ndarray, forecast: Inputs, state: State
) -> Plan:
    """Plans for the forecast from actions [B, A] in a state, under the method's options.

    As published, a request stays at the site nearest to its origin while that has room. Room is
    what the routing shares give the site, or, where they do not act, what its node types on can
    take.
    """
    sites = len(world.sites)
    share, slider = action[:, :-sites].reshape(len(action), -1, sites), action[:, -sites:]
    runs = state.nodes_on.sum(axis=2) > 0.0
    share, slider = coherent(share, slider, runs if options.steady else None)
    demand, power = forecast.arrival_rate_per_s, node_types_on(world, slider)
    if not options.source_routing:
        routing = np.broadcast_to(share[:, None, :, None], (*demand.shape, sites))
    elif options.weights_act:
        routing = near_first(world, share, demand)
    else:
        room = slider if options.shared_power else power.mean(axis=2)
        routing = overflowing(world, room, demand)
    if options.shared_power:
        target = TARGET_HIGH - (TARGET_HIGH - TARGET_LOW) * slider
        return sized_plan(world, routing, demand, target, forecast.available)
    return Plan(np.ascontiguousarray(routing), power)


def coherent(
    share: np.ndarray, slider: np.ndarray, runs: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Shares [B, M, D] and sliders [B, D] that fit each other.

    A site with next to no routing is off; where it is known which sites run [B, D], a site changes
    only when it is clearly on the other side of the line. The site preferred most has power for its
    share, and is never nearly off: some site must be able to serve.
    """
    preferred = share.mean(axis=1)
    line = min(OFF_SHARE, OFF_EVEN / share.shape[2])
    if runs is not None:
        line = line * np.where(runs, 1.0 - OFF_BAND, 1.0 + OFF_BAND)
    on = preferred >= line
    rows, top = np.arange(len(share)), preferred.argmax(axis=1)
    least = np.clip(TOP_PER_SHARE * preferred[rows, top], TOP_LEAST, 1.0)
    slider = slider * on
    slider[rows, top] = np.maximum(slider[rows, top], least)
    on[rows, top] = True
    share = share * on[:, None]
    return share / share.sum(axis=2, keepdims=True), slider


def node_types_on(world: World, slider: np.ndarray) -> np.ndarray:
    """Power [B, D, G]: a slider switches on the first so many node types, whole, in their order."""
    types = len(world.node_types)
    count = np.floor((types + 0.99) * slider).clip(0, types)
    return (np.arange(types) < count[..., None]).astype(float)


def near_first(world: World, share: np.ndarray, demand: np.ndarray) -> np.ndarray:
    """Routing [B, O, M, S, D] that keeps requests near, while sites get their shares [B, M, D].

    Pairs of origin and site are served in the order of their round-trip time; each takes what the
    origin still sends and the site still has room for. Demand [B, O, M, S] in requests per second.
    """
    sent = demand.sum(axis=3)  # [B, O, M]
    left = sent / np.clip(sent.sum(axis=1, keepdims=True), TINY, None)
    room = share.copy()
    routed = np.zeros((*left.shape, share.shape[2]))
    order = np.argsort(world.constants.rtt_s, axis=None, kind="stable")
    for o, d in zip(*np.unravel_index(order, world.constants.rtt_s.shape), strict=True):
        taken = np.minimum(left[:, o], room[:, :, d])
        routed[:, o, :, d] = taken
        left[:, o] -= taken
        room[:, :, d] -= taken
    # Rounding leaves crumbs, and an origin without demand is sent nowhere: both follow the shares.
    routed += (left + TINY)[..., None] * share[:, None]
    routed /= routed.sum(axis=3, keepdims=True)
    return np.repeat(routed[:, :, :, None], demand.shape[3], axis=3)


def overflowing(world: World, room: np.ndarray, demand: np.ndarray) -> np.ndarray:
    """Routing [B, O, M, S, D]: all at the nearest site as far as it has room [B, D], the rest by
    the room that is left elsewhere. Room is a share of a site with everything on.
    """
    home = homes(world)
    slots = load_per_request_per_s(world)
    load = np.einsum("boms,dms,od->bd", demand, slots, home)
    room = world.utilisation_ceiling * room
    kept = np.minimum(room / np.clip(load, TINY, None), 1.0)
    free = np.clip(room - load, 0.0, None)
    free = np.where(free.sum(axis=1, keepdims=True) > TINY, free, room)
    spread = free / free.sum(axis=1, keepdims=True)
    stays = kept @ home.T  # [B, O]
    by_origin = stays[..., None] * home + (1.0 - stays)[..., None] * spread[:, None]
    shape = (*demand.shape, len(world.sites))
    return np.broadcast_to(by_origin[:, :, None, None], shape)


def heuristic(world: World, forecast: Inputs) -> np.ndarray:
    """What each agent would propose by rule of thumb, actions [B, N, A].

    The TTFT agent gives every site the requests that come from near it, and ample power; the
    others prefer sites that are best by their own factor, and fill them.
    """
    near = near_share(world, forecast.arrival_rate_per_s)
    factors = np.stack(
        [carbon_g_per_kwh(forecast), water_l_per_kwh(forecast), price_usd_per_mwh(forecast)], axis=1
    )
    spread = np.clip(factors.std(axis=-1, keepdims=True), TINY, None)
    taste = np.exp(-RULE_SPAN * (factors - factors.mean(axis=-1, keepdims=True)) / spread)
    taste /= taste.sum(axis=-1, keepdims=True)
    share = np.concatenate([near[:, None], taste], axis=1)
    slider = np.broadcast_to(RULE_SLIDER[:, None], share.shape)
    return np.concatenate([*[share] * len(world.models), slider], axis=-1)
