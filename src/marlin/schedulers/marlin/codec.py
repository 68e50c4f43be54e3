"""What MARLIN's agents see and what their numbers mean."""

from __future__ import annotations

import torch
from torch import Tensor

from marlin.fleet.contract import Inputs, Plan, State
from marlin.fleet.power_down import sized_plan
from marlin.fleet.world import World

LOGIT_REACH = 4.0  # a site's preference spans e^(2 x 4) between -1 and 1
NEAREST_PER_S = 60.0  # strongest weight of a second of RTT in the routing logits
TARGET_LOW, TARGET_HIGH = 0.3, 0.85
GLOBAL_FEATURES = 1
SITE_FEATURES = 7


def action_size(world: World) -> int:
    """Numbers in an action: a preference per model and site, a load target per site, locality."""
    return (len(world.models) + 1) * len(world.sites) + 1


def state_size(world: World) -> int:
    """Numbers in an agent's state."""
    return SITE_FEATURES * len(world.sites) + GLOBAL_FEATURES


def observe(world: World, state: State, forecast: Inputs) -> Tensor:
    """State of every agent, [B, state_size]: per site carbon, price, water, PUE, demand nearby,
    backlog and nodes on; and the demand of the whole fleet. Each number is of the order of one.
    """
    constants = world.constants
    demand = forecast.arrival_rate_per_s.sum(dim=(2, 3))  # [B, O]
    closest = torch.softmax(-constants.rtt_s / 0.02, dim=-1)  # [O, D]
    total = demand.sum(-1, keepdim=True).clamp_min(1e-9)
    capacity = torch.einsum("dg,gms->dms", constants.nodes, constants.node_rate_per_s)
    fleet = (forecast.arrival_rate_per_s.sum(1) / capacity.sum(0)).sum(dim=(1, 2))
    sites = [
        (forecast.carbon_g_per_kwh - 300.0) / 200.0,
        ((forecast.price_usd_per_mwh - 50.0) / 50.0).clamp(-3.0, 3.0),
        forecast.wue_l_per_kwh + forecast.pue * forecast.ewif_l_per_kwh - 1.5,
        (forecast.pue - 1.2) * 5.0,
        5.0 * demand @ closest / total - 0.4,
        (state.backlog / (capacity * world.epoch_s)).sum(dim=(2, 3)).clamp(0.0, 2.0),
        state.nodes_on.sum(-1) / constants.nodes.sum(-1) - 0.5,
    ]
    return torch.cat([*sites, 2.0 * fleet[:, None] - 1.0], dim=-1)


def decode(world: World, action: Tensor, forecast: Inputs) -> Plan:
    """Plan from actions [B, A] in [-1, 1].

    Routing is a softmax over sites of a preference per model less a distance term; power follows
    from the load target of each site through the shared power-down layer.
    """
    sites, models = len(world.sites), len(world.models)
    taste = LOGIT_REACH * action[:, : models * sites].reshape(-1, 1, models, 1, sites)
    locality = NEAREST_PER_S * 0.5 * (1.0 + action[:, -1]).reshape(-1, 1, 1, 1, 1)
    logits = taste - locality * world.constants.rtt_s[:, None, None, :]
    routing = torch.softmax(logits, dim=-1)
    routing = routing.expand(-1, -1, -1, len(world.services), -1)
    level = 0.5 * (1.0 + action[:, models * sites : -1])
    target = TARGET_LOW + (TARGET_HIGH - TARGET_LOW) * level
    return sized_plan(world, routing, forecast.arrival_rate_per_s, target)


def heuristic(world: World, forecast: Inputs) -> Tensor:
    """What each agent would propose by rule of thumb, [B, 4, A].

    The TTFT agent keeps requests near and sites half empty; the others prefer sites that are
    best by their own factor and fill them.
    """
    pue = forecast.pue
    factors = torch.stack(
        [
            torch.zeros_like(pue),
            pue * forecast.carbon_g_per_kwh,
            forecast.wue_l_per_kwh + pue * forecast.ewif_l_per_kwh,
            pue * forecast.price_usd_per_mwh,
        ],
        dim=1,
    )  # [B, 4, D]
    spread = factors.std(-1, keepdim=True).clamp_min(1e-6)
    taste = -((factors - factors.mean(-1, keepdim=True)) / spread).clamp(-2.0, 2.0) / 2.0
    shape = (len(pue), 4, 1)
    near = torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=pue.dtype, device=pue.device)
    full = torch.tensor([-0.2, 0.6, 0.6, 0.6], dtype=pue.dtype, device=pue.device)
    target = full[None, :, None].expand(len(pue), 4, len(world.sites))
    return torch.cat(
        [taste.repeat(1, 1, len(world.models)), target, near[None, :, None].expand(shape)], dim=-1
    )
