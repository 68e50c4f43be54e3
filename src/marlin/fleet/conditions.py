"""What a kWh of IT energy takes at each site and epoch: signals through the physics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marlin.config import PhysicsConfig
from marlin.physics.carbon import with_water_service
from marlin.physics.cooling import facility
from marlin.physics.price import tariff_usd_per_mwh
from marlin.physics.water import water_service_energy_kwh

if TYPE_CHECKING:
    import xarray as xr

NANOSECONDS_PER_HOUR = 3_600_000_000_000


def site_conditions(scenario: xr.Dataset, physics: PhysicsConfig) -> dict[str, np.ndarray]:
    """Fields of `Inputs` that belong to sites, by name, each [T, D] (without availability).

    PUE and WUE by the chosen models; the price under the chosen contract; carbon with that of the
    water service, where its energy is counted.
    """
    drybulb_c, wetbulb_c, tower, carbon, wholesale, ewif, aware = (
        scenario[name].to_numpy().astype(float)
        for name in (
            "drybulb_c", "wetbulb_c", "tower", "carbon_g_per_kwh", "price_usd_per_mwh",
            "ewif_l_per_kwh", "aware_m3_per_m3",
        )
    )  # fmt: skip
    stamps = scenario["time"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    utc_hour = stamps // NANOSECONDS_PER_HOUR % 24
    cooled = facility(drybulb_c, wetbulb_c, tower, physics, utc_hour[:, None])
    makeup_l = cooled.wue_l_per_kwh
    service_kwh = water_service_energy_kwh(
        makeup_l,
        makeup_l / physics.cycles_of_concentration,
        physics.water_supply_kwh_per_m3,
        physics.wastewater_kwh_per_m3,
    )
    return {
        "carbon_g_per_kwh": with_water_service(carbon, service_kwh, cooled.pue),
        "price_usd_per_mwh": tariff_usd_per_mwh(
            wholesale, physics.price_adder_usd_per_mwh, physics.price_pass_through
        ),
        "pue": cooled.pue,
        "wue_l_per_kwh": cooled.wue_l_per_kwh,
        "ewif_l_per_kwh": ewif,
        "aware_m3_per_m3": aware,
    }
