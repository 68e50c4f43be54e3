"""Bargaining: milliseconds a problem on one core, by solution, library and batch.

    OMP_NUM_THREADS=1 python benchmarks/bargaining.py

Four agents; gains are normal with mean 0.5, so that nearly all rows agree. SLSQP, with gradients
and from an even mixture, solves the same single problems where that start is a gain for all; cvxpy
(Clarabel, one parametrised problem) too if it is installed. Objectives are compared with ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize

from marlin.games import bargaining

AGENTS, CANDIDATES, BATCHES = 4, (16, 64), (1, 32, 512)
POWERS = np.full(AGENTS, 1.0 / AGENTS)
SINGLES = 50
SOLUTIONS = (
    bargaining.nash, bargaining.kalai_smorodinsky, bargaining.egalitarian, bargaining.utilitarian,
)  # fmt: skip


def gains_of(batch: int, candidates: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 1.0, (batch, candidates, AGENTS))


def ms(call: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of a call."""
    call()
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return 1e3 * float(np.median(spent))


def slsqp(gains: np.ndarray) -> np.ndarray:
    """Mixture [K] of a general solver."""

    def loss(mixture: np.ndarray) -> tuple[float, np.ndarray]:
        share = np.maximum(mixture @ gains, 1e-6)
        return -float(POWERS @ np.log(share)), -gains @ (POWERS / share)

    return minimize(
        loss, np.full(len(gains), 1.0 / len(gains)), jac=True, method="SLSQP",
        bounds=[(0.0, 1.0)] * len(gains), options={"ftol": 1e-10, "maxiter": 300},
        constraints={"type": "eq", "fun": lambda m: m.sum() - 1.0, "jac": np.ones_like},
    ).x  # fmt: skip


def cvxpy_solver(candidates: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """The same by cvxpy; None where it is not installed."""
    try:
        import cvxpy
    except ImportError:
        return None
    mixture = cvxpy.Variable(candidates, nonneg=True)
    table = cvxpy.Parameter((candidates, AGENTS))
    welfare = cvxpy.sum(cvxpy.multiply(POWERS, cvxpy.log(mixture @ table)))
    problem = cvxpy.Problem(cvxpy.Maximize(welfare), [cvxpy.sum(mixture) == 1])

    def solve(gains: np.ndarray) -> np.ndarray:
        table.value = gains
        problem.solve(solver=cvxpy.CLARABEL)
        return np.asarray(mixture.value)

    return solve


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'K':>3} {'solution':>18} {'library':>9} " + "".join(f"{f'B={b}':>9}" for b in BATCHES))
    for candidates in CANDIDATES:
        for solution in SOLUTIONS:
            for library in ("NumPy", "torch"):
                cells = []
                for batch in BATCHES:
                    gains, powers = gains_of(batch, candidates), POWERS
                    if library == "torch":
                        gains, powers = torch.as_tensor(gains), torch.as_tensor(powers)
                    call = ms(
                        lambda s=solution, g=gains, p=powers: s(g, p), 50 if batch < 99 else 9
                    )
                    cells.append(f"{call / batch:9.3f}")
                print(f"{candidates:3d} {solution.__name__:>18} {library:>9} " + "".join(cells))
        compare(candidates)


def compare(candidates: int) -> None:
    """Print the time of other solvers for single problems, and the difference in objective."""
    rows = gains_of(SINGLES, candidates, seed=1)
    rows = rows[(rows.mean(axis=1) > 0.0).all(axis=1)]
    ours = np.array([np.log(bargaining.nash(row, POWERS).gains) @ POWERS for row in rows])
    others = {"SLSQP": slsqp, "cvxpy": cvxpy_solver(candidates)}
    for name, solve in others.items():
        if solve is None:
            continue
        time_ms = np.median([ms(lambda f=solve, row=row: f(row), 3) for row in rows])
        theirs = np.array([np.log((m := solve(row)) @ row / m.sum()) @ POWERS for row in rows])
        most = abs(ours - theirs).max()
        print(f"{candidates:3d} {'nash':>18} {name:>9} {time_ms:9.3f}   differs by {most:.0e}")


if __name__ == "__main__":
    main()
