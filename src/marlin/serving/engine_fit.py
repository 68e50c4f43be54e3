"""The five numbers of a setup, found on the fitted half of the measured configurations.

Prints the table that `setups` holds:

    python -m marlin.serving.engine_fit
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from marlin.serving import setups, silicon
from marlin.serving.tables import Overhead

EVALUATIONS = 250
# Kernel and prefill factors (logarithms), host ms a step, 10 us a sequence, 10 ms a request.
START = np.array([0.0, 0.0, 0.5, 0.5, 1.0])
SIMPLEX = np.vstack([START, START + np.diag([0.15, 0.15, 0.5, 0.8, 1.0])])


def with_numbers(setup: setups.Setup, x: NDArray[np.float64]) -> setups.Setup:
    """`setup` with the five numbers of the search vector `x` [5]."""
    overhead = Overhead(
        float(np.exp(x[0])), float(np.exp(x[1])), abs(float(x[2])) * 1e-3, abs(float(x[3])) * 1e-5
    )
    client = replace(setup.client, request_s=abs(float(x[4])) * 1e-2)
    return replace(setup, overhead=overhead, client=client)


def loss(points: pd.DataFrame, setup: setups.Setup) -> float:
    """Mean absolute log error of TPOT plus 0.4 of TTFT's, both capped against outliers."""
    seen = silicon.predict(points, setup)
    seen = seen[seen.excluded == ""]
    total = 0.0
    for name, weight, cap in (("tpot", 1.0, 0.7), ("ttft", 0.4, 1.0)):
        error = np.abs(np.log(seen[f"predicted_{name}_s"] / seen[f"measured_{name}_s"]))
        total += weight * float(np.minimum(error, cap).mean())
    return total


def fit(points: pd.DataFrame, setup: setups.Setup) -> setups.Setup:
    """The setup with its numbers fitted to `points`, of which none may be held out."""

    def objective(x: NDArray[np.float64]) -> float:
        return loss(points, with_numbers(setup, x)) + 0.01 * float(x[0] ** 2 + x[1] ** 2)

    options = {"maxfev": EVALUATIONS, "initial_simplex": SIMPLEX}
    found = minimize(objective, START, method="Nelder-Mead", options=options)
    return with_numbers(setup, found.x)


def main() -> None:
    """Fit every setup and print it."""
    points = silicon.measured()
    for key, setup in setups.SETUPS.items():
        own = points[silicon.setup_keys(points) == "/".join(key)]
        fitted = fit(own[own.split == "fitted"], setup)
        over = fitted.overhead
        print(
            f"{' '.join(key):40} Overhead({over.kernel:.3f}, {over.prefill:.3f}, "
            f"{over.step_s:.2e}, {over.sequence_s:.2e}) request_s={fitted.client.request_s:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
