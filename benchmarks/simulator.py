"""Fluid model: simulated epochs a second on one core, by batch, with NumPy and torch.

    python benchmarks/simulator.py

12 sites x 2 node types x 2 models x 12 origins. The ratio is to 23-414 steps a second, measured
on the data-centre environments sustain-cluster and SustainDC on a machine of this class.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from marlin import inputs
from marlin.compose import compose
from marlin.fleet.contract import Plan, convert
from marlin.fleet.simulator import step
from marlin.task import load_task

PEER_STEPS_PER_S = 414.0


def steps_per_s(world, state, plan, epoch, gradients: bool = False) -> float:
    """Simulated epochs per CPU second: the median of five runs of about a fifth of a second."""
    batch = plan.routing.shape[0]
    rates = []
    for _ in range(5):
        count, began = 0, time.process_time()
        while time.process_time() - began < 0.2:
            if gradients:
                routing = plan.routing.detach().requires_grad_()
                outcome = step(world, state, replace(plan, routing=routing), epoch)[1]
                sum(v.sum() for v in outcome.objectives()).backward()
            else:
                step(world, state, plan, epoch)
            count += batch
        rates.append(count / (time.process_time() - began))
    return float(np.median(rates))


def main() -> None:
    torch.set_num_threads(1)
    run = compose(["scenario=fortnight"])
    ready = inputs.ready(run)
    task = load_task(run, ready.scenario, ready.profiles)
    world = task.world
    rng = np.random.default_rng(0)
    print(f"{'batch':>6} {'NumPy':>10} {'torch':>10} {'gradients':>10}   best / peer")
    for batch in (1, 64, 256, 1024):
        epoch = task.truth(rng.integers(700, 1300, batch))
        sites = len(world.sites)
        routing = rng.dirichlet(np.ones(sites), (batch, *world.class_shape))
        plan = Plan(routing, rng.uniform(0.5, 1.0, (batch, sites, len(world.node_types))))
        state = world.idle_state(batch)
        numpy_rate = steps_per_s(world, state, plan, epoch)

        def tensor(values):
            return torch.as_tensor(np.array(values), dtype=torch.float32)

        tensors = convert(state, tensor), convert(plan, tensor), convert(epoch, tensor)
        torch_rate = steps_per_s(world.to_torch(), *tensors)
        slope_rate = steps_per_s(world.to_torch(), *tensors, gradients=True)
        best = max(numpy_rate, torch_rate)
        print(
            f"{batch:6d} {numpy_rate:10,.0f} {torch_rate:10,.0f} {slope_rate:10,.0f}"
            f"   {best / PEER_STEPS_PER_S:,.0f}x"
        )


if __name__ == "__main__":
    main()
