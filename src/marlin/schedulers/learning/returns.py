"""What an action was worth: targets and advantages. A day's end cuts a trace, it ends nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def td_target(reward: Array, next_value: Array, discount: float) -> Array:
    """Reward plus the discounted value of the state that the epoch led to.

    The state after the last epoch of a day has a value as any other: the fleet runs on.
    """
    return reward + discount * next_value


def advantages(
    reward: np.ndarray, value: np.ndarray, next_value: np.ndarray, moved: np.ndarray,
    discount: float, trace: float,
) -> np.ndarray:  # fmt: skip
    """Generalised advantages [T, ...] of a rollout; all arrays are [T, ...].

    `next_value` is that of the state that each epoch led to, `moved` whether the row after it is
    of another day: the sum of later errors stops there, the bootstrap does not.
    Source: Schulman et al. (2016), High-Dimensional Continuous Control Using Generalized Advantage
    Estimation; `trace` is its lambda.
    """
    error = td_target(reward, next_value, discount) - value
    total = np.zeros_like(error)
    later = np.zeros_like(error[0])
    for t in reversed(range(len(error))):
        later = error[t] + discount * trace * np.where(moved[t], 0.0, later)
        total[t] = later
    return total
