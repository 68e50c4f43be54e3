"""On-site water from an energy balance, off-site water of the grid, scarcity.

A litre is a kilogram. Water is *make-up*, that is withdrawal: evaporation and blowdown.
All functions are pointwise and broadcast.
"""

from __future__ import annotations

from collections.abc import Mapping

from marlin.physics.arrays import Array, limit

LATENT_KWH_PER_L_AT_40_C = 0.66
"""Heat that a litre takes when it evaporates at 40 degC, as SHIELD (Qi et al. 2023) has it."""


def latent_heat_mj_per_kg(temperature_c: Array | float) -> Array:
    """Heat of vaporisation of water [MJ/kg], linear in its temperature, 0-50 degC.

    Source: Allen et al., FAO Irrigation and Drainage Paper 56 (1998), eq. 3-1 (rounded).
    """
    return 2.501 - 0.00236 * temperature_c


def evaporation_l_per_kwh(temperature_c: Array | float) -> Array:
    """Water that takes one kWh of heat away if all of it leaves as latent heat [L/kWh heat].

    1.474 at 25 degC. The value at the boiling point (2.26 MJ/kg) would overstate it by 8 %.
    """
    return 3.6 / latent_heat_mj_per_kg(temperature_c)


def blowdown_l(evaporated_l: Array | float, cycles_of_concentration: float) -> Array:
    """Water drained so that salts stay at `cycles_of_concentration` times the make-up's [L].

    Drift (below 0.005 % of circulation) counts as part of it. Source: salt mass balance.
    """
    return evaporated_l / (cycles_of_concentration - 1)


def makeup_l(evaporated_l: Array | float, cycles_of_concentration: float) -> Array:
    """Water withdrawn for `evaporated_l` evaporated [L]: evaporation and blowdown."""
    return evaporated_l + blowdown_l(evaporated_l, cycles_of_concentration)


def tower_latent_share(drybulb_c: Array | float, wetbulb_c: Array | float) -> Array:
    """Share of a cooling tower's heat that leaves by evaporation, 0..1; the rest warms the air.

    Dry air takes more as vapour, cold air more as warmth. Source: linear fit of this project
    (RMSE 0.04) to a psychrometric balance (leaving air saturated, approach 4 K, range 5.6 K) over
    the hours of 2023 in 12 cities. It is clipped at 1, which only very hot dry air would pass.
    """
    share = 0.521 + 0.0081 * wetbulb_c + 0.0440 * (drybulb_c - wetbulb_c)
    return limit(share, 0.0, 1.0)


def ceiling_l_per_kwh(
    heat_kwh_per_kwh: Array | float, temperature_c: Array | float, cycles_of_concentration: float
) -> Array:
    """Thermodynamic ceiling of water per kWh of IT energy: all heat rejected is latent [L/kWh].

    `heat_kwh_per_kwh` is heat rejected per kWh of IT energy, not above PUE.
    """
    evaporated = heat_kwh_per_kwh * evaporation_l_per_kwh(temperature_c)
    return makeup_l(evaporated, cycles_of_concentration)


def legacy_wetbulb_wue_l_per_kwh(
    wetbulb_c: Array | float, cycles_of_concentration: float = 6.0
) -> Array:
    """Water per kWh of IT by the widely copied wet-bulb cubic [L/kWh]; for comparison only.

    The cubic takes degrees *Fahrenheit*; the conversion is made here. Above about 4.5 degC wet bulb
    it passes what an energy balance allows (2.21 L/kWh at 6 cycles), threefold at 28 degC.
    Source: Li, Yang, Islam and Ren, "Making AI Less Thirsty" (2023).
    """
    wetbulb_f = 1.8 * wetbulb_c + 32
    wue = 6e-5 * wetbulb_f**3 - 0.01 * wetbulb_f**2 + 0.61 * wetbulb_f - 10.4
    wue = wue * (cycles_of_concentration / (cycles_of_concentration - 1))
    return limit(wue, 0.05)


def grid_ewif_l_per_kwh(
    shares: Mapping[str, Array | float],
    l_per_kwh: Mapping[str, float],
    hydropower_l_per_kwh: float,
) -> Array | float:
    """Off-site water per kWh of grid energy from the generation mix [L/kWh].

    `shares` gives each fuel's share of generation (0..1; arrays of one shape), `l_per_kwh` the
    water that each consumes but for "hydro". `hydropower_l_per_kwh` is 0 (reservoirs are not
    charged) or 17 (Macknick's median of reservoir evaporation): the choice reorders sites, so it
    is explicit. Raises KeyError for a fuel without a factor.
    Source: mix-weighted factors of Macknick et al., Environmental Research Letters 7 (2012) 045802.
    """
    factors = {**l_per_kwh, "hydro": hydropower_l_per_kwh}
    return sum(factors[fuel] * share for fuel, share in shares.items())


def onsite_water_l(it_energy_kwh: Array | float, wue_l_per_kwh: Array | float) -> Array:
    """Water withdrawn at the site [L] for `it_energy_kwh` of IT energy."""
    return it_energy_kwh * wue_l_per_kwh


def offsite_water_l(facility_energy_kwh: Array | float, ewif_l_per_kwh: Array | float) -> Array:
    """Water consumed where the electricity is made [L]; facility energy is IT energy x PUE."""
    return facility_energy_kwh * ewif_l_per_kwh


def scarcity_water_l(water_l: Array | float, aware_m3_per_m3: Array | float) -> Array:
    """Water weighted by what is left for others, in litres of world-equivalent [L-eq].

    Source: AWARE characterisation factors (Boulay et al. 2018), 0.1 to 100, world average 1.
    """
    return water_l * aware_m3_per_m3


def water_service_energy_kwh(
    makeup_l: Array | float,
    blowdown_l: Array | float,
    supply_kwh_per_m3: float,
    treatment_kwh_per_m3: float,
) -> Array:
    """Energy that the water utility spends to supply make-up and treat blowdown [kWh].

    0.3-0.6 kWh/m3 for potable water (3-4 from sea water), 0.3-0.7 for treatment: about 0.1 % of
    the site's own energy. Source: form of SHIELD (Qi et al. 2023).
    """
    return (makeup_l * supply_kwh_per_m3 + blowdown_l * treatment_kwh_per_m3) / 1000
