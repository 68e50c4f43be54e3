"""How four proposals become one plan: critics' vote, refinement, veto and capital.

Axes: B worlds, N agents (voters and proposers alike), A numbers of an action, S schemes that a
group of worlds runs side by side. A critic maps actions [B, P, A] to every agent's value of them,
[B, N, P]; higher is better.
Source: MARLIN (2026), as reconstructed from public descriptions; see docs/schedulers/marlin.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Critics = Callable[[Tensor], Tensor]
Projection = Callable[[Tensor], Tensor]

TINY = 1e-8


@dataclass(frozen=True)
class Rules:
    """Constants of the negotiation, and which of its parts are in use."""

    phase2: bool = True  # otherwise the proposal of the agent with most power is carried out
    score_exponent: float = 2.0
    refinement_steps: int = 5
    refinement_rate: float = 0.05
    veto: bool = True
    veto_capital: float = 150.0
    veto_weight: float = 0.05
    veto_loss: float = 0.25
    veto_pull: float = 0.5
    veto_scale: float = 500.0
    capital: bool = True  # otherwise it stays as it starts
    capital_start: float = 50.0
    capital_shared: float = 200.0
    capital_floor: float = 10.0
    capital_memory: float = 0.9
    capital_gain: float = 25.0


@dataclass(frozen=True)
class Bargain:
    """A negotiation, step by step; without phase 2 the first three are of what was not asked."""

    scores: Tensor  # [B, N, P] every voter's score of every proposal, 0 to 1
    shares: Tensor  # [B, P] weight of every proposal in the consensus
    consensus: Tensor  # [B, A]
    refined: Tensor  # [B, A]
    pulls: Tensor  # [B, N] how far each veto pulled
    plan: Tensor  # [B, A]


def within_actions(action: Tensor) -> Tensor:
    """Back to where actions live, if they live in [-1, 1]."""
    return action.clamp(-1.0, 1.0)


def starting_capital(weights: Tensor, rules: Rules) -> Tensor:
    """Capital of every agent before the first epoch, [N], from the weights of all schemes [S, N].

    An equal part, and a part of what is shared by the summed weights: 100 each where the schemes
    are the four of one objective and the balanced one.
    """
    summed = weights.sum(0)
    return rules.capital_start + rules.capital_shared * summed / summed.sum()


@torch.no_grad()
def scored(proposals: Tensor, critics: Critics, rules: Rules) -> Tensor:
    """Scores [B, N, P]: values of the proposals, scaled to 0..1 within the voter, then squared."""
    values = critics(proposals)
    low = values.amin(-1, keepdim=True)
    spread = (values.amax(-1, keepdim=True) - low).clamp_min(TINY)
    return ((values - low) / spread) ** rules.score_exponent


def shared(scores: Tensor, power: Tensor) -> Tensor:
    """Weight of every proposal [B, P] from scores [B, N, P] and voting power [B, N]."""
    total = (power[..., None] * scores).sum(1)
    return total / total.sum(-1, keepdim=True).clamp_min(TINY)


def vote(proposals: Tensor, critics: Critics, power: Tensor, rules: Rules | None = None) -> Tensor:
    """Score-weighted mean [B, A] of the proposals [B, N, A] under voting power [B, N]."""
    shares = shared(scored(proposals, critics, rules or Rules()), power)
    return (shares[..., None] * proposals).sum(1)


def dominant(proposals: Tensor, power: Tensor) -> Tensor:
    """The proposal [B, A] of the agent with most power, the first of equals."""
    rows = torch.arange(len(proposals))
    return proposals[rows, power.argmax(-1)]


def refine(
    plan: Tensor, critics: Critics, power: Tensor, rules: Rules,
    project: Projection = within_actions,
) -> Tensor:  # fmt: skip
    """Gradient ascent of the plan [B, A] on the power-weighted sum of the critics' values.

    Every step is brought back to where actions live.
    """
    share = power / power.sum(-1, keepdim=True).clamp_min(TINY)
    for _ in range(rules.refinement_steps):
        plan = plan.detach().requires_grad_()
        welfare = (share * critics(plan[:, None])[..., 0]).sum()
        (slope,) = torch.autograd.grad(welfare, plan)
        plan = project(plan.detach() + rules.refinement_rate * slope)
    return plan


def loss_share(own: Tensor, value: Tensor) -> Tensor:
    """What an agent loses when it gets `value` instead of its `own`, relative to the latter."""
    return (own - value) / own.abs().clamp_min(TINY)


@torch.no_grad()
def veto(
    plan: Tensor, proposals: Tensor, critics: Critics, capital: Tensor, weights: Tensor,
    rules: Rules,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The plan [B, A] after agents that it would hurt have pulled it, and the pulls [B, N].

    An agent with capital and weight enough may act when its own critic puts the plan more than
    `veto_loss` below its own proposal. Agents act in turn, so a later one judges what the earlier
    ones have made of the plan.
    """
    own = critics(proposals).diagonal(dim1=1, dim2=2)  # [B, N]
    entitled = (capital >= rules.veto_capital) & (weights >= rules.veto_weight)
    pulls = torch.zeros_like(own)
    for agent in torch.nonzero(entitled.any(0)).flatten().tolist():
        loss = loss_share(own[:, agent], critics(plan[:, None])[:, agent, 0])
        acts = entitled[:, agent] & (loss > rules.veto_loss)
        pull = (loss * capital[:, agent] / rules.veto_scale).clamp(0.0, rules.veto_pull)
        pulls[:, agent] = torch.where(acts, pull, torch.zeros_like(pull))
        plan = torch.lerp(plan, proposals[:, agent], pulls[:, agent, None])
    return plan, pulls


def negotiate(
    proposals: Tensor, critics: Critics, capital: Tensor, weights: Tensor, rules: Rules,
    project: Projection = within_actions,
) -> Bargain:  # fmt: skip
    """One plan from proposals [B, N, A], capital [B, N] and scheme weights [B, N]."""
    power = weights * capital
    scores = scored(proposals, critics, rules)
    shares = shared(scores, power)
    consensus = (shares[..., None] * proposals).sum(1)
    if not rules.phase2:
        plan = dominant(proposals, power)
        return Bargain(scores, shares, consensus, plan, torch.zeros_like(power), plan)
    refined = refine(consensus, critics, power, rules, project)
    plan, pulls = refined, torch.zeros_like(power)
    if rules.veto:
        plan, pulls = veto(refined, proposals, critics, capital, weights, rules)
    return Bargain(scores, shares, consensus, refined, pulls, plan)


def updated_capital(capital: Tensor, metrics: Tensor, envy: Tensor, rules: Rules) -> Tensor:
    """Capital [B, N] after an epoch that every scheme went through.

    `metrics` [B, S, N] are the agents' own metrics under the plans of the schemes, lower is
    better: an agent whose metric is low on average, compared with the best and the worst scheme,
    has done well. `envy` [B, N] is the share of value that an agent lost, by its own critic, to
    the plans that were carried out (`loss_share`); it adds half a bonus, and is cut at one,
    because values near zero make it as large as one likes.
    """
    if not rules.capital:
        return capital
    low, high = metrics.amin(1), metrics.amax(1)
    performance = 1.0 - (metrics.mean(1) - low) / (high - low).clamp_min(TINY)
    earned = rules.capital_gain * (performance + 0.5 * envy.clamp(0.0, 1.0))
    return (rules.capital_memory * capital + earned).clamp_min(rules.capital_floor)
