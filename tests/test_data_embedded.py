"""Embedded climatologies: what is drawn from them has the statistics of the measured years."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marlin.config import RunConfig
from marlin.data import autoregression, climatology, derived, embed, signals
from marlin.data.signals import HourlySignals
from marlin.data.tables import measured_zones, table
from marlin.errors import UserError

SMOOTH = ("carbon_g_per_kwh", "drybulb_c", "relative_humidity")


@pytest.fixture(scope="module")
def drawn(tiny_run: RunConfig) -> HourlySignals:
    zones = [site.zone for site in tiny_run.fleet.sites]
    return climatology.read(zones, signals.all_hours(), "direct")


@pytest.fixture(scope="module")
def measured(tiny_run: RunConfig, measured_cache: Path) -> HourlySignals:
    zones = [site.zone for site in tiny_run.fleet.sites]
    return signals.read(measured_cache, zones, signals.all_hours(), "direct")


def years(record: HourlySignals, name: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(zone-year, values, residuals in month x hour cells) of a variable."""
    result = []
    for year in signals.YEARS:
        rows = record.time.year == year
        cells = climatology.cell_of(record.time[rows])
        for j, zone in enumerate(record.zones):
            values = record.values[name][rows, j]
            result.append((f"{zone} {year}", values, climatology.standardise(values, cells)[0]))
    return result


def lag(values: np.ndarray, k: int) -> float:
    x = values - values.mean()
    return float((x[:-k] * x[k:]).sum() / (x * x).sum())


def compare(a: HourlySignals, b: HourlySignals, name: str):
    yield from zip(years(a, name), years(b, name), strict=True)


@pytest.mark.mirror
@pytest.mark.parametrize("name", signals.VARIABLES)
def test_means_and_spread(drawn: HourlySignals, measured: HourlySignals, name: str) -> None:
    for (zone, d, _), (_, m, _) in compare(drawn, measured, name):
        assert d.mean() == pytest.approx(m.mean(), rel=0.005), zone
        assert d.std() == pytest.approx(m.std(), rel=0.10), zone


@pytest.mark.mirror
@pytest.mark.parametrize("name", signals.VARIABLES)
def test_month_and_hour_means(drawn: HourlySignals, measured: HourlySignals, name: str) -> None:
    time = signals.all_hours()
    for unit in (time.hour, time.month):
        d = pd.DataFrame(drawn.values[name], time).groupby(unit).mean().to_numpy()
        m = pd.DataFrame(measured.values[name], time).groupby(unit).mean().to_numpy()
        scale = np.abs(m).mean(axis=0)
        assert (np.abs(d - m) / scale).max() < 0.02


@pytest.mark.mirror
@pytest.mark.parametrize("name", SMOOTH)
def test_autocorrelation(drawn: HourlySignals, measured: HourlySignals, name: str) -> None:
    for (zone, d, _), (_, m, _) in compare(drawn, measured, name):
        assert lag(d, 1) == pytest.approx(lag(m, 1), abs=0.05), zone
        assert lag(d, 24) == pytest.approx(lag(m, 24), abs=0.05), zone


@pytest.mark.mirror
def test_price_autocorrelation(drawn: HourlySignals, measured: HourlySignals) -> None:
    """Victoria in 2024 hangs on a few spikes; Brazil 2023 sits on its floor."""
    limit = {"AU-VIC 2024": 0.11, "BR-SP 2023": 0.06}
    for (zone, d, _), (_, m, _) in compare(drawn, measured, "price_usd_per_mwh"):
        for k in (1, 24):
            assert lag(d, k) == pytest.approx(lag(m, k), abs=limit.get(zone, 0.05)), (zone, k)


@pytest.mark.mirror
@pytest.mark.parametrize("name", ["carbon_g_per_kwh", "price_usd_per_mwh"])
def test_weekend(drawn: HourlySignals, measured: HourlySignals, name: str) -> None:
    weekend = drawn.time.day_of_week >= 5
    ratio = [
        record.values[name][weekend].mean(axis=0) / record.values[name][~weekend].mean(axis=0)
        for record in (drawn, measured)
    ]
    assert np.abs(ratio[0] - ratio[1]).max() < (0.03 if name.startswith("carbon") else 0.08)


@pytest.mark.mirror
@pytest.mark.parametrize("name", ["carbon_g_per_kwh", "price_usd_per_mwh", "drybulb_c"])
def test_correlation_across_zones(drawn: HourlySignals, measured: HourlySignals, name: str) -> None:
    difference = np.corrcoef(drawn.values[name].T) - np.corrcoef(measured.values[name].T)
    assert np.abs(difference).max() < (0.16 if name.startswith("price") else 0.03)


def test_draw_does_not_depend_on_zones_or_period(drawn: HourlySignals) -> None:
    hours = signals.all_hours()[5000:5100]
    part = climatology.read(["GB", "SG"], hours, "direct")
    columns = [drawn.zones.index("GB"), drawn.zones.index("SG")]
    for name in signals.VARIABLES:
        assert (part.values[name] == drawn.values[name][5000:5100][:, columns]).all()


def test_families_share_their_weather_and_price(drawn: HourlySignals) -> None:
    zones = list(drawn.zones)
    lifecycle = climatology.read(zones, drawn.time, "lifecycle")
    assert (lifecycle.values["drybulb_c"] == drawn.values["drybulb_c"]).all()
    direct = drawn.values["carbon_g_per_kwh"]
    assert (lifecycle.values["carbon_g_per_kwh"].mean(axis=0) > direct.mean(axis=0)).all()
    for j in range(len(zones)):
        pair = np.corrcoef(lifecycle.values["carbon_g_per_kwh"][:, j], direct[:, j])
        assert pair[0, 1] > 0.95


def test_chile_has_no_price_in_2024() -> None:
    hours = signals.all_hours()
    with pytest.raises(UserError, match="zone CL-SIC"):
        climatology.read(["GB", "CL-SIC"], hours, "direct")
    climatology.read(["CL-SIC"], hours[:8760], "direct")


def test_rank_shapes_by_hand() -> None:
    cells = np.zeros(3, dtype=int)
    curves = np.tile(np.linspace(-1, 1, climatology.SHAPE_POINTS) ** 3, (climatology.CELLS, 1))
    residual = climatology.shape_residuals(np.array([5.0, -2.0, 0.1]), cells, curves)
    assert residual == pytest.approx(np.array([1.0, -1.0, 0.0]) * np.sqrt(1.5))


def test_partial_autocorrelations_of_known_processes() -> None:
    rho = np.stack([0.8 ** np.arange(5), np.eye(5)[0]])
    partials = autoregression.partial(rho)
    assert partials == pytest.approx(np.array([[0.8, 0, 0, 0], [0, 0, 0, 0]]))
    phi, shock_sd = autoregression.coefficients(partials)
    assert phi == pytest.approx(partials)
    assert shock_sd == pytest.approx([0.6, 1.0])
    back = autoregression.of_spectrum(autoregression.spectrum(rho), 4)
    assert back == pytest.approx(rho, abs=1e-9)
    ar2 = np.array([[0.4, -0.3]])
    assert autoregression.coefficients(ar2)[0] == pytest.approx(np.array([[0.52, -0.3]]))


def test_other_years_are_refused() -> None:
    hours = pd.date_range("2025-01-01", periods=3, freq="h")
    with pytest.raises(UserError, match="2023 to 2024"):
        climatology.read(["GB"], hours, "direct")


@pytest.mark.mirror
def test_tables_are_those_of_the_mirror(measured_cache: Path, tmp_path: Path) -> None:
    """What is cheap to rebuild is rebuilt; only a last digit may be rounded the other way."""
    measured = embed.read_measured(measured_cache)
    tables, shapes = embed.cell_tables(measured, embed.residual_tables(measured))
    tables["shapes.csv"] = shapes
    tables["bounds.csv"] = embed.bounds_table(measured)
    tables |= embed.rounded(derived.measured(measured_cache, measured_zones()))
    embed.write(tables, tmp_path)
    assert len(tables) == 14
    for name in tables:
        made, kept = (pd.read_csv(folder / name) for folder in (tmp_path, embed.EMBEDDED))
        pd.testing.assert_frame_equal(made, kept, rtol=1e-9, atol=0.0011, obj=name)


@pytest.mark.mirror
def test_small_tables_differ_from_the_package_by_rounding_only(measured_cache: Path) -> None:
    exact = derived.measured(measured_cache, measured_zones())
    kept = derived.embedded(measured_zones())
    half_of_last_digit = {
        "sites": 0.5e-4,
        "ewif": 0.5e-4,
        "ewif_shape": 0.5e-4,
        "aware": 0,
        "rtt": 0,
        "token_moments": 0.5e-4,
        "token_quantiles": 0.05,
        "token_cdf": 0.05,
        "weekly_rates": 0.5e-3,
    }
    differ = []
    for field in fields(derived.Derived):
        a, b = getattr(exact, field.name), getattr(kept, field.name)
        assert list(a.columns) == list(b.columns)
        tolerance = half_of_last_digit.pop(field.name) + 1e-9
        for column in a.columns:
            if not pd.api.types.is_numeric_dtype(a[column]):
                assert (a[column].to_numpy() == b[column].to_numpy()).all()
                continue
            gap = np.abs(a[column].to_numpy(float) - b[column].to_numpy(float)).max()
            assert gap <= tolerance, (field.name, column)
            differ += [field.name] * bool(gap > 1e-7)
    assert half_of_last_digit == {}
    assert set(differ) == {
        "sites",
        "ewif",
        "ewif_shape",
        "token_moments",
        "token_quantiles",
        "token_cdf",
        "weekly_rates",
    }


def test_missing_value_in_a_small_table_names_it() -> None:
    frame = pd.DataFrame({"zone": ["GB", "KR"], "jan": [1.0, np.nan]})
    assert derived.complete(frame.iloc[:1], "aware20") is not None
    with pytest.raises(UserError, match="aware20: jan has no value for zone KR"):
        derived.complete(frame, "aware20")


def test_zone_without_embedded_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (climatology, derived):
        monkeypatch.setattr(module, "embedded_zones", lambda: ["GB", "KR"])
    for read in (
        lambda: climatology.read(["SG"], signals.all_hours(), "direct"),
        lambda: derived.embedded(["SG"]),
    ):
        with pytest.raises(UserError, match=r"no embedded data of grid zone 'SG'.*: GB, KR"):
            read()


def test_embedded_tables_stay_small() -> None:
    assert sum(p.stat().st_size for p in embed.EMBEDDED.iterdir()) < 600_000
    assert (embed.EMBEDDED / "LICENCES.md").is_file()


def test_round_trips_are_near_those_of_the_spring_before() -> None:
    # Azure P50, April 2024: East US to Germany West Central 90 ms, to Southeast Asia 227 ms. The
    # packaged matrix is of mid-2025.
    rows = table("embedded/rtt.csv").set_index(["from_region", "to_region"])["rtt_ms"]
    assert rows["East US", "Germany West Central"] == pytest.approx(90, rel=0.05)
    assert rows["East US", "Southeast Asia"] == pytest.approx(227, rel=0.05)
