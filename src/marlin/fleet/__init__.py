"""Fleet: scenario, the fluid simulator of one epoch, forecasts."""
