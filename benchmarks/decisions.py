"""Decision time of every scheduler on a day of 12 sites, one core, untrained policies.

    python benchmarks/decisions.py

The limit is 10 ms for a decision at 12 sites; the ratio is the median over it.
"""

from __future__ import annotations

import numpy as np

from marlin import compose, inputs
from marlin.evaluate import run_day
from marlin.task import load_task, make_scheduler

LIMIT_S = 0.010
METHODS = ("round_robin", "nearest", "carbon_greedy", "weighted_greedy", "nsga2", "marlin")


def main() -> None:
    print(f"{'method':>16} {'median ms':>10} {'P95 ms':>8}   median / limit")
    for method in METHODS:
        run = compose.compose(["scenario=fortnight", f"method={method}"])
        ready = inputs.ready(run)
        task = load_task(run, ready.scenario, ready.profiles)
        day = run_day(task, make_scheduler(run), task.test_days()[0], seed=0, variant="")
        median, tail = np.quantile(day.decision_s, (0.5, 0.95))
        print(f"{method:>16} {1e3 * median:10.2f} {1e3 * tail:8.2f}   {median / LIMIT_S:.2f}x")


if __name__ == "__main__":
    main()
