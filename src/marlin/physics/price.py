"""Cost of electricity. Pointwise; broadcasts."""

from __future__ import annotations

from collections.abc import Sequence

from marlin.physics.arrays import Array, namespace


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


def time_of_use_usd_per_mwh(hour: Array | int, usd_per_mwh: Sequence[float]) -> Array:
    """Price of a tariff that repeats every day [USD/MWh], shape of `hour`.

    `hour` is the whole hour 0..23 on the tariff's clock, `usd_per_mwh` has its 24 prices.
    Source: structure of time-of-use tariffs. Raises ValueError unless there are 24.
    """
    if len(usd_per_mwh) != 24:
        raise ValueError(f"a tariff of the day has 24 prices, not {len(usd_per_mwh)}")
    xp = namespace(hour)
    return xp.asarray(list(usd_per_mwh), dtype=xp.float64)[xp.asarray(hour)]


def demand_charge_usd(
    peak_kw: Array | float, usd_per_kw_month: Array | float, months: Array | float = 1.0
) -> Array:
    """Charge for the highest power of each month [USD]; 5-25 USD/kW-month in the United States."""
    return peak_kw * usd_per_kw_month * months
