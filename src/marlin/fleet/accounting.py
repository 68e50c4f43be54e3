"""What is reported beside the four objectives: pure functions of what an episode cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marlin.config import PhysicsConfig
from marlin.fleet.contract import Outcome
from marlin.fleet.world import World
from marlin.physics.carbon import embodied_kg, sci_g
from marlin.physics.network import request_bytes, transfer_energy_kwh
from marlin.physics.price import demand_charge_usd

HOURS_PER_MONTH = 8760 / 12
G_PER_KG = 1000


def beside(
    world: World,
    physics: PhysicsConfig,
    outcomes: Sequence[Outcome],
    nodes_on: np.ndarray,
    requests: np.ndarray,
) -> dict[str, float]:
    """Embodied carbon, network energy, SCI and demand charge of an episode of one world.

    `outcomes` of T epochs (batch of one), `nodes_on` [T, D, G], `requests` [S] by service over the
    episode. Embodied carbon goes with the hours of GPUs that are on, whatever they do. The network
    draws at the mean intensity of the sites. The demand charge is the episode's part of a month in
    which its highest power at each site is that of the month. SCI is per request served.
    """
    hours = world.epoch_s / 3600
    gpu_hours = float((nodes_on * world.constants.gpus).sum()) * hours
    embodied = embodied_kg(gpu_hours, physics.embodied_g_per_gpu_hour)
    moved = request_bytes(world.constants.prompt_tokens, world.constants.output_tokens)
    network_kwh = transfer_energy_kwh(float((requests * moved).sum()), physics.network_kwh_per_gb)
    carbon_kg, energy_kwh, served = (
        float(sum(getattr(outcome, name)[0] for outcome in outcomes))
        for name in ("carbon_kg", "energy_kwh", "served")
    )
    intensity = G_PER_KG * carbon_kg / energy_kwh
    site_kwh = np.stack([outcome.site_energy_kwh[0] for outcome in outcomes])
    peak_kw = float(site_kwh.max(axis=0).sum()) / hours
    months = len(outcomes) * hours / HOURS_PER_MONTH
    return {
        "embodied_kg": embodied,
        "network_kwh": network_kwh,
        "sci_g_per_request": sci_g(
            energy_kwh + network_kwh, intensity, G_PER_KG * embodied, served
        ),
        "demand_charge_usd": demand_charge_usd(
            peak_kw, physics.demand_charge_usd_per_kw_month, months
        ),
    }
