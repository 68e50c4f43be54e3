"""The page that compares embedded draws with the measured years."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from marlin.analysis.plots.style import (
    BLACK,
    BLUE,
    GREY,
    METADATA,
    PAGE_IN,
    VERMILION,
    panel_label,
    style,
)
from marlin.files import write_bytes

NAMES = {
    "carbon_g_per_kwh": "carbon",
    "price_usd_per_mwh": "price",
    "drybulb_c": "temperature",
    "relative_humidity": "humidity",
    "wetbulb_c": "wet bulb",
}
LAGS_H = 7 * 24
SAMPLE = slice("2024-01-08", "2024-01-21")
EXAMPLE_CARBON, EXAMPLE_PRICE = "carbon_g_per_kwh:GB", "price_usd_per_mwh:DE-LU"


def draw(
    measured: pd.DataFrame,
    drawn: pd.DataFrame,
    errors: pd.DataFrame,
    pairs: pd.DataFrame,
    path: Path,
) -> None:
    """Write the figure as PNG; equal data are equal bytes."""
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots(3, 3, figsize=(PAGE_IN, 6.6), layout="constrained")
        _days(axes[0, 0], measured, drawn)
        _week(axes[0, 1], measured, drawn)
        _autocorrelation(axes[0, 2], measured, drawn)
        core = errors[errors["core"] == 1]
        means = core[["month_mean_error", "hour_mean_error"]].max(axis=1)
        _strip(axes[1, 0], core, 100 * means, 2, "monthly and hourly means off by (%)", "d")
        _strip(axes[1, 1], core, 100 * core["sd_error"], 10, "standard deviation off by (%)", "e")
        _strip(axes[1, 2], core, core["lag1_error"], 0.05, "lag-1 autocorrelation off by", "f")
        _strip(axes[2, 0], core, core["lag24_error"], 0.05, "lag-24 autocorrelation off by", "g")
        for axis, name, letter in (
            (axes[2, 1], "carbon_g_per_kwh", "h"),
            (axes[2, 2], "price_usd_per_mwh", "i"),
        ):
            _pairs(axis, pairs[pairs["variable"] == name], f"{letter}  {NAMES[name]}, zone pairs")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata=METADATA["png"])
        plt.close(figure)
    write_bytes(path, stream.getvalue())


def _days(axis: Axes, measured: pd.DataFrame, drawn: pd.DataFrame) -> None:
    for frame, colour, label in ((measured, BLACK, "measured"), (drawn, VERMILION, "drawn")):
        values = frame.loc[SAMPLE, EXAMPLE_CARBON].to_numpy()
        axis.plot(np.arange(len(values)) / 24, values, color=colour, label=label, linewidth=0.9)
    axis.set(xlabel="days from 8 January 2024", ylabel="carbon, GB (g/kWh)", ylim=(0, 400))
    axis.legend(ncols=2, loc="upper right")
    panel_label(axis, "a  two weeks")


def _week(axis: Axes, measured: pd.DataFrame, drawn: pd.DataFrame) -> None:
    time = pd.DatetimeIndex(measured.index)
    for frame, colour, line in ((measured, BLACK, "-"), (drawn, VERMILION, "--")):
        profile = frame[EXAMPLE_PRICE].groupby(time.day_of_week * 24 + time.hour).mean()
        axis.plot(profile.index / 24, profile, color=colour, linestyle=line)
    axis.set_xticks(np.arange(7) + 0.5, ["M", "T", "W", "T", "F", "S", "S"])
    axis.set(ylabel="mean price, DE-LU (USD/MWh)")
    panel_label(axis, "b  hour of the week")


def _autocorrelation(axis: Axes, measured: pd.DataFrame, drawn: pd.DataFrame) -> None:
    for name, line in ((EXAMPLE_CARBON, "-"), (EXAMPLE_PRICE, ":")):
        for frame, colour in ((measured, BLACK), (drawn, VERMILION)):
            x = frame.loc["2024", name].to_numpy()
            x = x - x.mean()
            rho = np.correlate(x, x[: len(x) - LAGS_H], "valid")[:LAGS_H] / (x @ x)
            variable, zone = name.split(":")
            label = f"{NAMES[variable]}, {zone}" if frame is measured else None
            axis.plot(np.arange(LAGS_H), rho, color=colour, linestyle=line, label=label)
    axis.set(xlabel="lag (h)", ylabel="autocorrelation, 2024", ylim=(-0.3, 1.05))
    axis.set_xticks(np.arange(0, LAGS_H + 1, 24))
    axis.legend(loc="upper right")
    panel_label(axis, "c  memory")


def _strip(
    axis: Axes, errors: pd.DataFrame, values: pd.Series, target: float, label: str, letter: str
) -> None:
    """One mark a zone and year, by variable; the band is the target."""
    axis.axvspan(-target, target, color="#E5E5E5", zorder=0)
    for row, name in enumerate(NAMES):
        part = values[errors["variable"] == name].to_numpy()
        height = len(NAMES) - 1 - row + np.linspace(-0.3, 0.3, len(part))
        axis.plot(part, height, "o", color=BLUE, markersize=2, markeredgewidth=0)
    reach = 1.3 * max(target, float(values.abs().max()))
    axis.set(xlim=(-reach, reach), xlabel=label)
    axis.set_yticks(np.arange(len(NAMES))[::-1], list(NAMES.values()))
    axis.grid(visible=False, axis="y")
    panel_label(axis, f"{letter}  12 zones, 2 years")


def _pairs(axis: Axes, pairs: pd.DataFrame, title: str) -> None:
    axis.plot([-0.6, 1], [-0.6, 1], color=GREY, linewidth=0.6)
    axis.plot(pairs["measured"], pairs["drawn"], "o", color=BLUE, markersize=2, markeredgewidth=0)
    axis.set(xlabel="correlation, measured", ylabel="correlation, drawn")
    panel_label(axis, title)
