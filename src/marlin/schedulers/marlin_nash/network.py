"""One set-equivariant network for any fleet: pools and agents are tokens that attend to each other.

Messages between agents are attention: an agent reads the pools and the other agents, the pools read
the agents. The order of sites and of node types does not matter, nor how many there are. Sources:
Vaswani et al. (2017), Attention Is All You Need; Lee et al. (2019), Set Transformer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from marlin.schedulers.marlin_nash.tokens import AGENT_FEATURES, POOL_FEATURES, Tokens

POOL_REACH, BID_REACH = 2.0, 1.5  # outputs are bounded smoothly
SMALL_START = 0.1  # of a layer's usual weights: at first the policy is the rule that it corrects


@dataclass(frozen=True)
class Answer:
    """What the network says, around zero. B worlds, P pools, J agents."""

    taste: Tensor  # [B, P] liking of a pool beyond its price
    taste_for_heavy: Tensor  # [B, P] the same, more for requests of large models
    room: Tensor  # [B, P] how far the pool is to be filled
    busy: Tensor  # [B, P] how busy its nodes are to be
    keep: Tensor  # [B, P] how many of its nodes stay on whatever is asked
    warm: Tensor  # [B, P] how far its warm nodes are filled
    bid: Tensor  # [B, J] how strongly each agent's objective counts
    rush: Tensor  # [B] how much is sent to nodes that still boot


class Policy(nn.Module):
    """Two rounds of attention over all tokens, then one linear answer of each."""

    def __init__(self, width: int, messages: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.messages = messages
        self.read_pool = nn.Linear(POOL_FEATURES, width)
        self.read_agent = nn.Linear(AGENT_FEATURES, width)
        self.rounds = nn.ModuleList([Round(width) for _ in range(2)])
        self.pool_answer = nn.Linear(width, 6)
        self.agent_answer = nn.Linear(width, 2)
        _start(self, generator)

    def forward(self, tokens: Tokens, has_nodes: Tensor) -> Answer:
        """The answer for B worlds of a fleet whose pools have nodes [P] or not."""
        pools = tokens.pools.shape[1]
        hidden = torch.cat([self.read_pool(tokens.pools), self.read_agent(tokens.agents)], dim=1)
        hidden = torch.relu(hidden)
        agents = hidden.shape[1] - pools
        heard = torch.cat([has_nodes, torch.full((agents,), float(self.messages))])
        for each in self.rounds:
            hidden = each(hidden, heard)
        pool = POOL_REACH * torch.tanh(self.pool_answer(hidden[:, :pools]) / POOL_REACH)
        agent = BID_REACH * torch.tanh(self.agent_answer(hidden[:, pools:]) / BID_REACH)
        return Answer(*pool.unbind(-1), bid=agent[..., 0], rush=agent[..., 1].mean(dim=1))


class Round(nn.Module):
    """Every token hears a weighted mean of all tokens that are heard, and the plain mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.own, self.mean = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden: Tensor, heard: Tensor) -> Tensor:
        """Tokens [B, N, W] after one exchange; `heard` [N] is zero for those left out."""
        score = self.query(hidden) @ self.key(hidden).transpose(1, 2)
        score = score / math.sqrt(hidden.shape[-1]) + heard.clamp_min(1e-9).log()
        attended = torch.softmax(score, dim=-1) @ self.value(hidden)
        mean = (hidden * (heard / heard.sum())[:, None]).sum(1, keepdim=True)
        return hidden + torch.relu(self.own(hidden) + self.mean(mean) + attended)


def _start(policy: Policy, generator: torch.Generator) -> None:
    """Uniform by fan-in, as torch's default, but from `generator`; answers start small."""
    for layer in policy.modules():
        if isinstance(layer, nn.Linear):
            bound = 1.0 / math.sqrt(layer.in_features)
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
    for layer in (policy.pool_answer, policy.agent_answer):
        with torch.no_grad():
            layer.weight.mul_(SMALL_START)
            layer.bias.zero_()
