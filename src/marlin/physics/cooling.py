"""Facility energy (PUE) and on-site water (WUE) from weather, per kWh of IT energy.

Two technologies. *Adiabatic* sites cool with outside air: free up to the setpoint, then with
evaporation, then with an air-cooled chiller for what is missing. *Tower* sites reject all heat
through cooling towers, directly while these are cold enough and through water-cooled chillers for
what is missing; they evaporate in every hour. An hour may be partly in each mode: shares are
piecewise linear in temperature, so results are continuous and almost everywhere differentiable.

Energy balance: all energy that enters the building leaves it as heat, PUE kWh per kWh of IT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from marlin.physics import water
from marlin.physics.arrays import Array, lesser, limit, namespace

if TYPE_CHECKING:
    from marlin.config import PhysicsConfig

KELVIN = 273.15
AIR_RISE_K = 12.0
"""Temperature rise of air through the servers; 10-15 K is usual."""
EVAPORATOR_BELOW_SETPOINT_K = 10.0
"""Refrigerant evaporates this far below the supply air: coil and chilled-water approaches."""
WATER_BELOW_SETPOINT_K = 7.0
"""Chilled water is this much colder than the supply air it makes."""
TOWER_APPROACH_K = 4.0
TOWER_RANGE_K = 5.6
EXCHANGER_APPROACH_K = 2.0
"""Tower water to condenser, and tower water to chilled water when the chiller rests."""
DRY_CONDENSER_APPROACH_K = 12.0
COP_MIN, COP_MAX = 3.0, 9.0
HOURLY_COP = (
    1.275, 1.38, 1.53, 1.65, 1.71, 1.8, 1.815, 1.83, 1.815, 1.8, 1.725, 1.665,
    1.545, 1.44, 1.365, 1.224, 1.245, 1.23, 1.23, 1.215, 1.215, 1.2, 1.2, 1.2,
)  # fmt: skip
"""COP at 20 degC by hour of the one clock of all sites: a constant of the code of MARLIN (2026)."""
HOURLY_COP_SCALE = 1 + 0.16 * (29 - 20)
"""What that code multiplies it with for a supply temperature of 29 degC."""


@dataclass(frozen=True)
class Facility:
    """What one kWh of IT energy takes at a site; arrays of one shape.

    `pue`: facility energy [kWh/kWh], >= 1. `wue_l_per_kwh`: on-site make-up water [L/kWh].
    """

    pue: Array
    wue_l_per_kwh: Array


def chiller_cop(
    evaporator_c: Array | float, condenser_c: Array | float, effectiveness: float
) -> Array:
    """Coefficient of performance of a chiller: a share of Carnot's, kept within 3..9.

    Source: Carnot cycle with second-law effectiveness; range of commercial chillers.
    """
    lift_k = limit(condenser_c - evaporator_c, minimum=1.0)
    return limit(effectiveness * (evaporator_c + KELVIN) / lift_k, COP_MIN, COP_MAX)


def evaporative_supply_c(
    drybulb_c: Array | float, wetbulb_c: Array | float, effectiveness: float
) -> Array:
    """Temperature of outside air behind wetted media [degC]: `T - eps (T - T_wb)`.

    Source: definition of saturation effectiveness (ASHRAE Handbook, evaporative air cooling).
    """
    return drybulb_c - effectiveness * (drybulb_c - wetbulb_c)


def adiabatic_shares(
    drybulb_c: Array, wetbulb_c: Array, config: PhysicsConfig
) -> tuple[Array, Array]:
    """Shares of the heat (evaporated, left to the chiller), each 0..1, of an air-cooled site.

    The air stream is sized to carry the heat with a rise of `AIR_RISE_K`. Outside air above the
    setpoint is evaporatively cooled no further than to the setpoint; what is then missing, as a
    part of the rise, is left to the chiller. Source: sensible heat balance of the air stream.
    """
    excess_k = drybulb_c - config.setpoint_c
    reach_k = config.economiser_effectiveness * (drybulb_c - wetbulb_c)
    evaporated = limit(lesser(excess_k, reach_k) / AIR_RISE_K, 0.0, 1.0)
    supply_c = evaporative_supply_c(drybulb_c, wetbulb_c, config.economiser_effectiveness)
    trim = limit((supply_c - config.setpoint_c) / AIR_RISE_K, 0.0, 1.0)
    return evaporated, trim


def tower_trim(wetbulb_c: Array, config: PhysicsConfig) -> Array:
    """Share of the heat, 0..1, for which a tower site needs its chillers.

    0 while tower water cools the chilled-water loop by itself, 1 when it cannot even take its
    return temperature down; linear over the range of the loop. Source: heat balance of the loop.
    """
    free_water_c = wetbulb_c + TOWER_APPROACH_K + EXCHANGER_APPROACH_K
    missing_k = free_water_c - (config.setpoint_c - WATER_BELOW_SETPOINT_K)
    return limit(missing_k / TOWER_RANGE_K, 0.0, 1.0)


def adiabatic_facility(drybulb_c: Array, wetbulb_c: Array, config: PhysicsConfig) -> Facility:
    """PUE and WUE of a site cooled by outside air, evaporation and an air-cooled chiller."""
    evaporated, trim = adiabatic_shares(drybulb_c, wetbulb_c, config)
    cop = chiller_cop(
        config.setpoint_c - EVAPORATOR_BELOW_SETPOINT_K,
        drybulb_c + DRY_CONDENSER_APPROACH_K,
        config.chiller_effectiveness,
    )
    heat = 1 + config.distribution_loss + config.fan_power
    # Pumps run for the share of the heat that is not carried off for free.
    pumping = config.pump_power * limit(evaporated + trim, maximum=1.0)
    evaporated_l = evaporated * heat * water.evaporation_l_per_kwh(wetbulb_c)
    return Facility(
        pue=heat + pumping + trim * heat / cop,
        wue_l_per_kwh=water.makeup_l(evaporated_l, config.cycles_of_concentration),
    )


def tower_facility(drybulb_c: Array, wetbulb_c: Array, config: PhysicsConfig) -> Facility:
    """PUE and WUE of a site with cooling towers and water-cooled chillers."""
    trim = tower_trim(wetbulb_c, config)
    cop = chiller_cop(
        config.setpoint_c - EVAPORATOR_BELOW_SETPOINT_K,
        wetbulb_c + TOWER_APPROACH_K + TOWER_RANGE_K + EXCHANGER_APPROACH_K,
        config.chiller_effectiveness,
    )
    heat = 1 + config.distribution_loss + config.fan_power
    pue = heat + config.pump_power + trim * heat / cop
    water_c = wetbulb_c + TOWER_APPROACH_K + TOWER_RANGE_K / 2
    evaporated_l = (
        pue * water.tower_latent_share(drybulb_c, wetbulb_c) * water.evaporation_l_per_kwh(water_c)
    )
    return Facility(pue, water.makeup_l(evaporated_l, config.cycles_of_concentration))


def weather_facility(
    drybulb_c: Array, wetbulb_c: Array, tower: Array, config: PhysicsConfig
) -> Facility:
    """PUE and WUE for weather [..., site] and cooling technology `tower` [site] (1 or 0).

    Temperatures in degC, wet bulb not above dry bulb; results have the shape of the weather.
    """
    xp = namespace(drybulb_c, wetbulb_c)
    wet = tower_facility(drybulb_c, wetbulb_c, config)
    dry = adiabatic_facility(drybulb_c, wetbulb_c, config)
    is_tower = xp.asarray(tower) != 0
    return Facility(
        pue=xp.where(is_tower, wet.pue, dry.pue),
        wue_l_per_kwh=xp.where(is_tower, wet.wue_l_per_kwh, dry.wue_l_per_kwh),
    )


def facility(
    drybulb_c: Array,
    wetbulb_c: Array,
    tower: Array,
    config: PhysicsConfig,
    utc_hour: Array | int = 0,
) -> Facility:
    """PUE and WUE by the models that `config.cooling` and `config.onsite_water` name.

    Weather [..., site] in degC, `tower` [site], `utc_hour` 0..23 (broadcasts with the weather;
    only "hourly_cop" reads it). Results have the shape of the weather. With another PUE than
    "weather" the energy balance of water stays that of the weather. "all_latent" needs a COP, and
    the schema refuses it without one.
    """
    xp = namespace(drybulb_c, wetbulb_c)
    physical = weather_facility(drybulb_c, wetbulb_c, tower, config)
    pue, wue, heat = physical.pue, physical.wue_l_per_kwh, physical.pue
    if config.cooling == "regression":
        pue = regression_pue(drybulb_c)
    elif config.cooling != "weather":
        by_hour = config.cooling == "hourly_cop"
        cop = hourly_cop(utc_hour) if by_hour else legacy_crac_cop(config.setpoint_c)
        overhead = config.distribution_loss + config.fan_power + config.pump_power
        pue = cop_pue(cop, config.cooling_factor, overhead) + 0 * drybulb_c
        heat = 1 + 1 / cop + 0 * drybulb_c
    cycles = config.cycles_of_concentration
    if config.onsite_water == "all_latent":
        wue = water.makeup_l(heat / water.LATENT_KWH_PER_L_AT_40_C, cycles)
    elif config.onsite_water != "balance":
        wue = water.legacy_wetbulb_wue_l_per_kwh(wetbulb_c, cycles)
        if config.onsite_water == "cubic_capped":
            wue = lesser(wue, water.ceiling_l_per_kwh(pue, wetbulb_c, cycles))
    return Facility(pue=xp.asarray(pue), wue_l_per_kwh=xp.asarray(wue))


def cop_pue(cop: Array | float, cooling_factor: float, overhead: float) -> Array:
    """PUE `1 + overhead + factor / COP` of a site whose cooling is one coefficient of performance.

    `overhead`: power conditioning and the like [kWh/kWh]. `cooling_factor` 3 counts pumps, fans
    and towers beside the compressor (SHIELD, Qi et al. 2023, overhead 0.13); 1 the compressor.
    """
    return 1 + overhead + cooling_factor / cop


def hourly_cop(utc_hour: Array | int) -> Array:
    """COP by hour of the day 0..23 (whole numbers, any shape): 2.93 to 4.47, equal at all sites.

    It is best in the night and knows neither place nor weather; for comparison only.
    Source: constants of the code of MARLIN (2026).
    """
    xp = namespace(utc_hour)
    table = xp.asarray([HOURLY_COP_SCALE * cop for cop in HOURLY_COP], dtype=xp.float64)
    return table[xp.asarray(utc_hour)]


def regression_pue(drybulb_c: Array) -> Array:
    """PUE of one free-cooled site by outdoor temperature [degC]; for comparison only.

    The parabola bottoms at -28.6 degC; colder air counts as -20 degC so that it stays above 1.
    Source: partial PUE of Xu, Feng and Li, "Temperature aware workload management" (2013).
    """
    temperature_c = limit(drybulb_c, minimum=-20.0)
    return 7.1705e-5 * temperature_c**2 + 0.0041 * temperature_c + 1.0743


def legacy_crac_cop(supply_c: Array | float) -> Array:
    """COP of one water-chilled room of 2005, by supply air [degC]; for comparison only.

    It knows nothing of the weather, and its PUE of 1.25-1.6 is far from today's large sites.
    Source: Moore et al., "Making Scheduling 'Cool'" (USENIX ATC 2005).
    """
    return 0.0068 * supply_c**2 + 0.0008 * supply_c + 0.458
