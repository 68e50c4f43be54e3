"""The list that learners of discrete actions choose from: greedy orders, more or less ready."""

from __future__ import annotations

import numpy as np

PRESET_ORDERS = (  # by each alone, by all alike, by carbon and water, by all but distance
    (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1),
    (1, 1, 1, 1), (0, 1, 1, 0), (0, 1, 1, 1),
)  # fmt: skip
PRESET_READINESS = (  # how full sites, how busy nodes, how many stay on: most ready first
    (0.9, -0.7, 0.5), (0.9, 0.0, 0.0), (0.9, 0.6, -0.6), (0.9, 1.0, -1.0),
)  # fmt: skip
START_LEAN = 1.5


def presets() -> np.ndarray:
    """Actions [P, 7] for learners that choose from a list: every order with every readiness."""
    pairs = [(order, ready) for order in PRESET_ORDERS for ready in PRESET_READINESS]
    return np.array([np.r_[2.0 * np.array(order) - 1.0, ready] for order, ready in pairs])


def start_logits(weights: np.ndarray) -> np.ndarray:
    """What speaks for each preset before anything is learned, [B, P]: how near its order is.

    Minus the distance of what the order weighs from the scheme `weights` [B, 4].
    """
    orders = np.array(PRESET_ORDERS)
    orders = orders / orders.sum(axis=1, keepdims=True)
    away = np.abs(orders - weights[:, None]).sum(axis=2)  # [B, orders]
    return -START_LEAN * np.repeat(away, len(PRESET_READINESS), axis=1)
