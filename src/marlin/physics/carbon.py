"""Operational and embodied carbon; the Software Carbon Intensity score. Pointwise; broadcasts."""

from __future__ import annotations

from marlin.physics.arrays import Array

HOURS_PER_YEAR = 8760.0

HGX_H100_EMBODIED_KG = 1312.0
"""Cradle-to-gate, a baseboard with eight H100. Source: NVIDIA product carbon footprint summary."""


def operational_kg(energy_kwh: Array | float, carbon_g_per_kwh: Array | float) -> Array:
    """Carbon of electricity drawn from the grid [kg CO2e]; energy of the facility, not of IT.

    The family of the intensity (direct, life-cycle, marginal) is the scenario's choice; they
    differ by 15-30 % or more and must not be mixed between sites.
    Source: location-based method, GHG Protocol Scope 2.
    """
    return energy_kwh * carbon_g_per_kwh / 1000


def with_water_service(
    carbon_g_per_kwh: Array | float, service_kwh_per_it_kwh: Array | float, pue: Array | float
) -> Array:
    """Intensity per kWh of facility energy that also carries the site's water service [g/kWh].

    The utility spends `service_kwh_per_it_kwh` on supply and treatment from the same grid; it is
    neither metered nor paid as electricity at the site. Source: form of SHIELD (Qi et al. 2023).
    """
    return carbon_g_per_kwh * (1 + service_kwh_per_it_kwh / pue)


def embodied_g_per_gpu_hour(
    embodied_kg: Array | float,
    gpus: Array | float,
    life_years: Array | float,
    utilisation: Array | float = 1.0,
) -> Array:
    """Carbon of manufacture spread over the GPU-hours in which hardware is allocated [g/GPU-h].

    `embodied_kg` is that of a node of `gpus` GPUs, `utilisation` (0..1] the share of its life in
    which it is allocated. Source: time-share of ISO/IEC 21031:2024.
    """
    return 1000 * embodied_kg / (gpus * life_years * HOURS_PER_YEAR * utilisation)


def embodied_kg(gpu_hours: Array | float, g_per_gpu_hour: Array | float) -> Array:
    """Embodied carbon charged to `gpu_hours` of allocated GPUs [kg CO2e].

    9.5 (4 t per 8-GPU node, 6 years) to 37.5 g/GPU-h (EcoLogits 0.11 figures, 3 years). It is
    sunk for routing over existing hardware, and matters for how much hardware there is.
    """
    return gpu_hours * g_per_gpu_hour / 1000


def sci_g(
    energy_kwh: Array | float,
    carbon_g_per_kwh: Array | float,
    embodied_g: Array | float,
    functional_units: Array | float,
) -> Array:
    """Software Carbon Intensity [g CO2e per functional unit, such as a request]: `(E I + M) / R`.

    Source: ISO/IEC 21031:2024; I is location-based, no offsets or market instruments.
    """
    return (energy_kwh * carbon_g_per_kwh + embodied_g) / functional_units
