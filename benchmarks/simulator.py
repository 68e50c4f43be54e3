"""Fluid model: simulated epochs a second on one core, by batch and by number of sites.

    OMP_NUM_THREADS=1 python benchmarks/simulator.py

12 sites x 2 node types x 2 models x 12 origins x 2 services; random plans, so that most worlds
spill. Gradients are those of all four objectives in routing and power. The ratio is that of the
fastest to 414 steps a second: the quickest of the data-centre environments sustain-cluster and
SustainDC (23 to 414), measured on a machine of this class.
"""

from __future__ import annotations

import time
from dataclasses import fields, replace

import numpy as np
import torch

from marlin.envs import batched_core
from marlin.fleet.contract import Inputs, Plan, convert, row
from marlin.fleet.simulator import step
from marlin.fleet.world import SPILL_REACH_S, site_detour_s

PEER_STEPS_PER_S = 414.0
AIM_STEPS_PER_S = 100_000.0  # at a batch of 256
BATCHES = (1, 64, 256, 1024)
SITES = (4, 12, 64, 256)


def steps_per_s(world, state, plan, epoch, gradients: bool = False) -> float:
    """Simulated epochs per CPU second: the median of five runs of about a fifth of a second."""
    batch = plan.routing.shape[0]
    rates = []
    for _ in range(5):
        count, began = 0, time.process_time()
        while time.process_time() - began < 0.2:
            if gradients:
                free = convert(plan, lambda a: a.detach().requires_grad_())
                outcome = step(world, state, free, epoch)[1]
                sum(v.sum() for v in outcome.objectives()).backward()
            else:
                step(world, state, plan, epoch)
            count += batch
        rates.append(count / (time.process_time() - began))
    return float(np.median(rates))


def case(world, epoch, rng):
    """World, state, random plan and inputs of a batch."""
    batch, sites = epoch.pue.shape
    routing = rng.dirichlet(np.ones(sites), (batch, *world.class_shape))
    plan = Plan(routing, rng.uniform(0.5, 1.0, (batch, sites, len(world.node_types))))
    return world, world.idle_state(batch), plan, epoch


def tensors(case, dtype):
    world, *rows = case
    tensor = [convert(r, lambda a: torch.as_tensor(np.array(a), dtype=dtype)) for r in rows]
    return world.to_torch(dtype), *tensor


def of_size(world, epoch: Inputs, sites: int, rng):
    """The same fleet with `sites` sites: the given ones over and over, RTTs and demand to suit."""
    pick = np.arange(sites) % len(world.sites)
    rtt_s = world.constants.rtt_s[:, pick] * rng.uniform(0.8, 1.2, (len(world.origins), sites))
    constants = replace(
        world.constants,
        nodes=world.constants.nodes[pick],
        rtt_s=rtt_s,
        usual_share=world.constants.usual_share[pick],
        site_pull=np.exp(-site_detour_s(rtt_s) / SPILL_REACH_S),
    )
    demand = epoch.arrival_rate_per_s * sites / len(world.sites)
    signals = {f.name: getattr(epoch, f.name)[:, pick] for f in fields(Inputs)[1:]}
    names = tuple(str(i) for i in range(sites))
    return replace(world, sites=names, constants=constants), Inputs(demand, **signals)


def main() -> None:
    torch.set_num_threads(1)
    core, rng = batched_core("fortnight"), np.random.default_rng(0)
    names = ("NumPy f64", "torch f64", "torch f32", "slopes f64", "slopes f32")
    head = " ".join(f"{name:>11}" for name in names)
    print(f"{'batch':>6} {head}   best / peer, / aim")
    for batch in BATCHES:
        chosen = case(core.world, row(core.truth, rng.integers(700, 1300, batch)), rng)
        rates = [steps_per_s(*chosen)]
        for gradients in (False, True):
            for dtype in (torch.float64, torch.float32):
                rates.append(steps_per_s(*tensors(chosen, dtype), gradients=gradients))
        best = max(rates)
        figures = " ".join(f"{rate:11,.0f}" for rate in rates)
        print(
            f"{batch:6d} {figures}   {best / PEER_STEPS_PER_S:,.0f}x, {best / AIM_STEPS_PER_S:.2f}x"
        )
    print(f"\n{'sites':>6} {'NumPy f64':>11} {'torch f32':>11}   at a batch of 64")
    for sites in SITES:
        world, epoch = of_size(
            core.world, row(core.truth, rng.integers(700, 1300, 64)), sites, rng
        )  # fmt: skip
        chosen = case(world, epoch, rng)
        rates = steps_per_s(*chosen), steps_per_s(*tensors(chosen, torch.float32))
        print(f"{sites:6d} " + " ".join(f"{rate:11,.0f}" for rate in rates))


if __name__ == "__main__":
    main()
