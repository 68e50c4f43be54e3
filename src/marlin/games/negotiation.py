"""How four proposals become one plan: critics' vote, refinement, veto and capital.

Axes: B worlds, N agents (voters and proposers alike), A numbers of an action. A critic maps
actions [B, P, A] to every agent's value of them, [B, N, P]; higher is better.
Source: MARLIN (2026), as reconstructed from public descriptions; see docs/schedulers/marlin.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Critics = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rules:
    """Constants of the negotiation."""

    refinement_steps: int = 5
    refinement_rate: float = 0.05
    veto_capital: float = 150.0
    veto_weight: float = 0.05
    veto_loss: float = 0.25
    veto_pull: float = 0.5
    capital_start: float = 50.0
    capital_shared: float = 200.0
    capital_floor: float = 10.0
    capital_memory: float = 0.9
    capital_gain: float = 25.0


def starting_capital(weights: Tensor, rules: Rules) -> Tensor:
    """Capital before the first epoch, [B, N]: an equal part, and a part by scheme weight."""
    return rules.capital_start + rules.capital_shared * weights / weights.sum(-1, keepdim=True)


def vote(proposals: Tensor, critics: Critics, power: Tensor) -> Tensor:
    """Score-weighted mean of the proposals, [B, A].

    Each voter's values of the proposals [B, N, A] are scaled to 0..1 within the voter, squared,
    and weighted by its voting power [B, N].
    """
    values = critics(proposals)
    low = values.amin(-1, keepdim=True)
    spread = (values.amax(-1, keepdim=True) - low).clamp_min(1e-8)
    scores = (power[..., None] * ((values - low) / spread) ** 2).sum(1)  # [B, P]
    share = scores / scores.sum(-1, keepdim=True).clamp_min(1e-8)
    return (share[..., None] * proposals).sum(1)


def refine(plan: Tensor, critics: Critics, power: Tensor, rules: Rules) -> Tensor:
    """Gradient ascent of the plan [B, A] on the power-weighted sum of the critics' values."""
    share = power / power.sum(-1, keepdim=True).clamp_min(1e-8)
    for _ in range(rules.refinement_steps):
        plan = plan.detach().requires_grad_()
        welfare = (share * critics(plan[:, None])[..., 0]).sum()
        (slope,) = torch.autograd.grad(welfare, plan)
        plan = (plan.detach() + rules.refinement_rate * slope).clamp(-1.0, 1.0)
    return plan


def veto(
    plan: Tensor, proposals: Tensor, critics: Critics, capital: Tensor, weights: Tensor,
    rules: Rules,
) -> Tensor:  # fmt: skip
    """Pull the plan [B, A] towards the proposals of agents that it would hurt too much.

    An agent with capital and weight enough may act when its own critic puts the plan more than
    `veto_loss` below its own proposal, relative to the latter.
    """
    own = critics(proposals).diagonal(dim1=1, dim2=2)  # [B, N]
    entitled = (capital >= rules.veto_capital) & (weights >= rules.veto_weight)
    for agent in torch.nonzero(entitled.any(0)).flatten().tolist():
        value = critics(plan[:, None])[:, agent, 0]
        loss = (own[:, agent] - value) / own[:, agent].abs().clamp_min(1e-8)
        acts = entitled[:, agent] & (loss > rules.veto_loss)
        pull = (loss * capital[:, agent] / 500.0).clamp(0.0, rules.veto_pull)
        pull = torch.where(acts, pull, torch.zeros_like(pull))[:, None]
        plan = (1.0 - pull) * plan + pull * proposals[:, agent]
    return plan


def negotiate(
    proposals: Tensor, critics: Critics, capital: Tensor, weights: Tensor, rules: Rules
) -> Tensor:
    """One plan [B, A] from proposals [B, N, A], capital [B, N] and scheme weights [B, N]."""
    power = weights * capital
    plan = vote(proposals, critics, power)
    plan = refine(plan, critics, power, rules)
    return veto(plan, proposals, critics, capital, weights, rules)


def updated_capital(
    capital: Tensor, executed: Tensor, offered: Tensor, rules: Rules, envy: Tensor | None = None
) -> Tensor:
    """Capital after an epoch, [B, N].

    `executed` [B, N] is each agent's own metric under the executed plan, `offered` [B, N, P] under
    each proposal (lower is better): an agent served as well as by the best proposal earns the
    full gain. `envy` [B, N], the relative value lost against its own proposal, adds half a bonus.
    """
    low, high = offered.amin(-1), offered.amax(-1)
    performance = 1.0 - (executed - low) / (high - low).clamp_min(1e-8)
    performance = performance.clamp(0.0, 1.0)
    bonus = torch.zeros_like(capital) if envy is None else envy.clamp(0.0, 1.0)
    earned = rules.capital_gain * (performance + 0.5 * bonus)
    return (rules.capital_memory * capital + earned).clamp_min(rules.capital_floor)
