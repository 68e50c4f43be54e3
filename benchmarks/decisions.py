"""Decision time of every method, at 12 and at 64 sites, on one core, with untrained policies.

    python benchmarks/decisions.py [METHOD...] [--write]

The larger fleet is the smaller one several times over, each copy with other signals and round
trips. Times are of the processor, so that what else runs on the machine does not enter. The limits
are 50 ms for a median decision at 12 sites and a second at 64. With --write the methods' rows in
the package's table, which the paper prints, are replaced.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import fields, replace
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd

from marlin import compose, inputs
from marlin.files import write_text
from marlin.fleet.contract import Inputs
from marlin.fleet.simulator import step
from marlin.fleet.world import SPILL_REACH_S, site_detour_s
from marlin.task import Task, load_task, make_scheduler

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf" / "method"
TABLE = ROOT / "src" / "marlin" / "analysis" / "decisions.csv"
LIMITS_S = {12: 0.05, 64: 1.0}
EPOCHS = 24
PER_SITE = 0.2  # relative spread of the copies' signals and round trips


def widened(task: Task, sites: int) -> Task:
    """The task with its sites copied until there are `sites`, and demand in proportion."""
    have = len(task.world.sites)
    source = np.arange(sites) % have
    factor = np.exp(PER_SITE * np.random.default_rng(0).standard_normal(sites))
    factor[:have] = 1.0
    constants = task.world.constants
    rtt_s = constants.rtt_s[:, source] * factor
    world = replace(
        task.world,
        sites=tuple(f"{task.world.sites[s]}-{i // have}" for i, s in enumerate(source)),
        constants=replace(
            constants,
            nodes=constants.nodes[source],
            rtt_s=rtt_s,
            usual_share=constants.usual_share[source],
            site_pull=np.exp(-site_detour_s(rtt_s) / SPILL_REACH_S),
        ),
    )

    def wide(signals: Inputs) -> Inputs:
        values = {f.name: getattr(signals, f.name) for f in fields(signals)}
        demand = values.pop("arrival_rate_per_s") * sites / have
        available = values.pop("available")[:, source]
        copied = {name: value[:, source] * factor for name, value in values.items()}
        return Inputs(arrival_rate_per_s=demand, available=available, **copied)

    epochs = replace(task.epochs, inputs=wide(task.epochs.inputs))
    return Task(task.run, world, epochs, wide(task.forecast))


def decision_times(task: Task) -> np.ndarray:
    """Seconds of each decision in the first epochs of the test day."""
    scheduler = make_scheduler(task.run)
    scheduler.reset(task.world, 0)
    state, times = task.world.idle_state(1), []
    start = task.test_days()[0]
    for epoch in range(start, start + EPOCHS):
        observation = task.observation(epoch, state)
        if epoch == start:
            observation.outlook(2)  # walks the record once, whoever asks first
        began = process_time()
        plan = scheduler.plan(observation)
        times.append(process_time() - began)
        state, outcome = step(task.world, state, plan, task.truth(np.array([epoch])))
        scheduler.observe(outcome)
    return np.array(times)


def processor() -> str:
    """Name of the processor as the kernel gives it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def merged(rows: list[dict[str, object]]) -> pd.DataFrame:
    """The package's table with these rows in place of those of the same methods."""
    new = pd.DataFrame(rows)
    kept = pd.read_csv(TABLE) if TABLE.is_file() else new.iloc[:0]
    kept = kept[~kept["method"].isin(new["method"])]
    return pd.concat([kept, new]).sort_values(["sites", "method"], ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", nargs="*", help="all of conf/method if none is named")
    parser.add_argument("--write", action="store_true", help="replace rows of the package's table")
    given = parser.parse_args()
    methods = given.method or sorted(path.stem for path in CONF.glob("*.yaml"))
    base = compose.compose(["scenario=fortnight", "method=round_robin"])
    ready = inputs.ready(base)
    task = load_task(base, ready.scenario, ready.profiles)
    rows: list[dict[str, object]] = []
    print(f"{'method':>22} {'sites':>6} {'median ms':>10} {'p95 ms':>9}   median / limit")
    for sites, limit_s in LIMITS_S.items():
        wide = widened(task, sites)
        for method in methods:
            run = base.model_copy(update={"method": compose.compose([f"method={method}"]).method})
            times = decision_times(replace(wide, run=run))
            median_s, p95_s = (float(f"{np.quantile(times, q):.3g}") for q in (0.5, 0.95))
            rows.append(
                {
                    "method": method, "sites": sites, "median_s": median_s, "p95_s": p95_s,
                    "measured_on": processor(),
                }
            )  # fmt: skip
            print(
                f"{method:>22} {sites:6d} {1e3 * median_s:10.2f} {1e3 * p95_s:9.2f}"
                f"   {median_s / limit_s:.3f}x",
                flush=True,
            )
    if given.write:
        write_text(TABLE, merged(rows).to_csv(index=False))


if __name__ == "__main__":
    main()
