"""Decision time of every method, at 12 and at 64 sites, on one core, with untrained policies.

    python benchmarks/decisions.py [METHOD...]

The larger fleet is the smaller one several times over, each copy with other signals and round
trips. The limits are 50 ms for a median decision at 12 sites and a second at 64.
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from marlin import compose, inputs
from marlin.fleet.contract import Inputs
from marlin.fleet.simulator import step
from marlin.fleet.world import SPILL_REACH_S, site_detour_s
from marlin.task import Task, load_task, make_scheduler

CONF = Path(__file__).parents[1] / "conf" / "method"
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
        began = perf_counter()
        plan = scheduler.plan(observation)
        times.append(perf_counter() - began)
        state, outcome = step(task.world, state, plan, task.truth(np.array([epoch])))
        scheduler.observe(outcome)
    return np.array(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", nargs="*", help="all of conf/method if none is named")
    methods = parser.parse_args().method or sorted(path.stem for path in CONF.glob("*.yaml"))
    base = compose.compose(["scenario=fortnight", "method=round_robin"])
    ready = inputs.ready(base)
    task = load_task(base, ready.scenario, ready.profiles)
    print(f"{'method':>22} {'sites':>6} {'median ms':>10} {'max ms':>9}   median / limit")
    for sites, limit_s in LIMITS_S.items():
        wide = widened(task, sites)
        for method in methods:
            run = base.model_copy(update={"method": compose.compose([f"method={method}"]).method})
            times = decision_times(replace(wide, run=run))
            median, longest = 1e3 * np.median(times), 1e3 * times.max()
            ratio = median / 1e3 / limit_s
            print(
                f"{method:>22} {sites:6d} {median:10.2f} {longest:9.2f}   {ratio:.3f}x", flush=True
            )


if __name__ == "__main__":
    main()
