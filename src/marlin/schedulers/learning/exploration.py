"""Epsilon-greedy with perseverance: what is tried is tried for a while.

Switching sites starts nodes cold. Actions that are tried for one epoch alone would all look as bad
as the switch, whatever staying with them is worth.
Source: Dabney, Ostrovski and Barreto (2021), Temporally-Extended Epsilon-Greedy Exploration; here
with a geometric duration.
"""

from __future__ import annotations

import numpy as np

GREEDY = -1


class Perseverance:
    """What each of B worlds is trying, out of `choices`; every spell ends by chance."""

    def __init__(self, worlds: int, choices: int, spell: float, rng: np.random.Generator) -> None:
        self.choices, self.spell, self.rng = choices, spell, rng
        self.held = np.full(worlds, GREEDY)

    def choose(self, best: np.ndarray, epsilon: float) -> np.ndarray:
        """Choices [B]: `best` [B], or what is being tried.

        A spell lasts `spell` epochs in the mean; a new one is a trial with chance `epsilon`.
        """
        worlds = len(best)
        ends = self.rng.random(worlds) < 1.0 / self.spell
        trial = self.rng.random(worlds) < epsilon
        drawn = np.where(trial, self.rng.integers(0, self.choices, worlds), GREEDY)
        self.held = np.where(ends, drawn, self.held)
        return np.where(self.held == GREEDY, best, self.held)


def falling(used: float, explored: float, least: float) -> float:
    """Epsilon when a share `used` of the budget is spent: from one to `least` by `explored`."""
    return max(1.0 - used / explored, least)
