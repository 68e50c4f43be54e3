"""Negotiation rules: how four proposals become the action that is carried out.

A rule takes proposals [N, A] and `values`, which maps actions [P, A] to every agent's reward for
them on the forecast [N, P], and returns an action [A]. Any such function will do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

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


def nash(proposals: np.ndarray, values: Values) -> np.ndarray:
    """The proposal, or the mean of all, with the largest product of gains over the worst case.

    An agent's worst case is the least it gets from any of them, on the forecast.
    """
    options = np.concatenate([proposals, proposals.mean(axis=0, keepdims=True)])
    gains = values(options)
    gains = gains - gains.min(axis=1, keepdims=True)
    return options[int(np.argmax(gains.prod(axis=0)))]


RULES: dict[str, Rule] = {"mean": mean, "vote": vote, "nash": nash}
