"""Cost of electricity. Pointwise; broadcasts."""

from __future__ import annotations

from marlin.physics.arrays import Array


def energy_cost_usd(energy_kwh: Array | float, usd_per_mwh: Array | float) -> Array:
    """Cost of energy bought at the hourly wholesale price [USD].

    Prices may be negative, and then so is the cost. Following spot prices is an upper bound of
    what an operator with long-term contracts can save.
    """
    return energy_kwh * usd_per_mwh / 1000


def tariff_usd_per_mwh(
    wholesale_usd_per_mwh: Array | float,
    adder_usd_per_mwh: Array | float,
    pass_through: Array | float = 1.0,
) -> Array:
    """Price under a retail contract [USD/MWh]: wholesale passed through, with grid fees on top.

    `pass_through` (0..1) is the share of wholesale movement that reaches the customer; fees and
    levies are some 20-60 USD/MWh. Source: structure of industrial tariffs.
    """
    return pass_through * wholesale_usd_per_mwh + adder_usd_per_mwh


def demand_charge_usd(
    peak_kw: Array | float, usd_per_kw_month: Array | float, months: Array | float = 1.0
) -> Array:
    """Charge for the highest power of each month [USD]; 5-25 USD/kW-month in the United States."""
    return peak_kw * usd_per_kw_month * months
