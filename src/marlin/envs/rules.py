"""Negotiation rules: how four proposals become the action that is carried out.

A rule takes proposals [N, A] and `values`, which maps actions [P, A] to every agent's reward for
them on the forecast [N, P], and returns an action [A]. Any such function will do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from marlin.games import bargaining

Values = Callable[[np.ndarray], np.ndarray]
Rule = Callable[[np.ndarray, Values], np.ndarray]


def mean(proposals: np.ndarray, values: Values) -> np.ndarray:
    """Every proposal counts alike."""
    return proposals.mean(axis=0)


def vote(proposals: np.ndarray, values: Values) -> np.ndarray:
    """Score-weighted mean, as MARLIN votes, with trials on the forecast instead of critics."""
    import torch

    from marlin.games import negotiation

    def critics(actions: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(values(actions[0].numpy()))[None]

    table = torch.as_tensor(proposals, dtype=torch.float64)[None]
    power = torch.ones((1, len(proposals)), dtype=torch.float64)
    return negotiation.vote(table, critics, power)[0].numpy()


def nash(proposals: np.ndarray, values: Values, even_split: np.ndarray) -> np.ndarray:
    """Nash bargaining over the proposals on the forecast; without agreement `even_split` [A].

    What is bargained is a mixture of outcomes. It is carried out as the same mixture of actions,
    whose outcome is another one, so that this has to do better than each proposal by itself:
    whichever has the largest product of gains over the even split is taken, and the even split if
    each leaves some agent worse off.
    """
    rewards = values(np.stack([even_split, *proposals]))
    floor, gains = rewards[:, :1], rewards[:, 1:] - rewards[:, :1]
    agreed = bargaining.nash(gains.T, np.ones(len(gains)))
    blend = agreed.mixture @ proposals
    gains = np.concatenate([0.0 * floor, gains, values(blend[None]) - floor], axis=1)
    best = int(np.argmax(gains.clip(min=0.0).prod(axis=0)))
    return np.stack([even_split, *proposals, blend])[best]


RULES = ("mean", "vote", "nash")


def rule(name: str, even_split: np.ndarray) -> Rule:
    """The rule of one of the names in `RULES`; `even_split` [A] is what no agreement leads to."""
    return {"mean": mean, "vote": vote, "nash": partial(nash, even_split=even_split)}[name]
