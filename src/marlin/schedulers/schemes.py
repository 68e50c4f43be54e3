"""Schemes: what the four objectives weigh, for every method that can take weights.

A method that has schemes yields one policy a scheme: the balanced one, which bears the method's own
name, and one for each objective alone.
"""

from __future__ import annotations

import numpy as np

SCHEMES = {
    "": (0.25, 0.25, 0.25, 0.25),
    "ttft": (1.0, 0.0, 0.0, 0.0),
    "carbon": (0.0, 1.0, 0.0, 0.0),
    "water": (0.0, 0.0, 1.0, 0.0),
    "cost": (0.0, 0.0, 0.0, 1.0),
}
"""Weights in the order of `marlin.fleet.contract.OBJECTIVES`, by variant; balanced first."""


def scheme(variant: str) -> np.ndarray:
    """Weights [4] of a variant; they sum to one."""
    return np.array(SCHEMES[variant])
