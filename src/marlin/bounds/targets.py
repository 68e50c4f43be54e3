"""What is bounded: each objective, and weighted sums of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from marlin.schedulers.schemes import SCHEMES

ALONE = ("ttft", "carbon", "water", "cost")
SCORED = ("balanced", *ALONE)
"""Targets in which schedulers are scored; bounds of pairs only limit fronts."""


def _targets() -> dict[str, np.ndarray]:
    weights = {name or "balanced": np.array(scheme) for name, scheme in SCHEMES.items()}
    pairs = combinations(ALONE, 2)
    return weights | {"+".join(p): (weights[p[0]] + weights[p[1]]) / 2 for p in pairs}


TARGETS = _targets()
"""Weights [4] in the order of `OBJECTIVES`, by name: the schemes, then every pair of objectives.

All but the balanced one are the points of Das and Dennis (1998) with two divisions.
"""


def target_value(name: str, objectives: np.ndarray, reference: np.ndarray) -> float:
    """What a target makes of objectives [4]: itself for one alone, else a weighted sum.

    The sum is of objectives over the size of `reference` [4], so that the reference is near one.
    """
    if name in ALONE:
        return float(objectives[ALONE.index(name)])
    return float(TARGETS[name] @ (objectives / np.abs(reference)))
