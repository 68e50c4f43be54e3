"""What a kWh of IT energy costs at each site: the factors that rank sites by one objective."""

from __future__ import annotations

import numpy as np

from marlin.fleet.contract import Inputs


def carbon_g_per_kwh(forecast: Inputs) -> np.ndarray:
    """Grams of CO2e per kWh of IT energy, [B, D]."""
    return forecast.pue * forecast.carbon_g_per_kwh


def water_l_per_kwh(forecast: Inputs) -> np.ndarray:
    """Litres per kWh of IT energy, on and off site, [B, D]."""
    return forecast.wue_l_per_kwh + forecast.pue * forecast.ewif_l_per_kwh


def price_usd_per_mwh(forecast: Inputs) -> np.ndarray:
    """USD per MWh of IT energy, [B, D]."""
    return forecast.pue * forecast.price_usd_per_mwh
