"""Build the embedded tables from a mirror: `python -m marlin.data.embed --mirror DIR_OR_URL`.

Only derived figures are written: means, spreads, quantiles, autoregressions, correlations.
"""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from marlin.data import climatology, derived, latent, signals
from marlin.data.derived import Derived
from marlin.data.fetch import fetch
from marlin.data.registry import scenario_sources
from marlin.data.tables import measured_zones

EMBEDDED = Path(__file__).parent / "embedded"
DIGITS = {
    "direct_g_per_kwh": 1,
    "lifecycle_g_per_kwh": 1,
    "price_usd_per_mwh": 2,
    "drybulb_c": 2,
    "relative_humidity": 2,
}
SMALL_DIGITS: dict[str, int | dict[str, int]] = {
    "sites": 4,
    "ewif": 4,
    "ewif_shape": 4,
    "token_moments": 4,
    "token_quantiles": {"quantile": 2, "prompt_tokens": 1, "output_tokens": 1},
    "token_cdf": {"quantile": 2, "prompt_tokens": 1, "output_tokens": 1},
    "weekly_rates": 3,
}
SHAPES = 40
Measured = dict[str, pd.DataFrame]


def build(cache: Path) -> dict[str, pd.DataFrame]:
    """Return every embedded table by file name, from the fetched files under `cache`."""
    measured = read_measured(cache)
    residuals = residual_tables(measured)
    tables, shapes = cell_tables(measured, residuals)
    tables["shapes.csv"] = shapes
    tables["bounds.csv"] = bounds_table(measured)
    tables |= latent.fit(measured, residuals, tables)
    return tables | rounded(derived.measured(cache, measured_zones()))


def read_measured(cache: Path) -> Measured:
    """Return each column stem's hourly record over all hours and zones (NaN where unknown)."""
    hours, zones = signals.all_hours(), measured_zones()
    record = {name: pd.DataFrame(index=hours, columns=zones, dtype=float) for name in DIGITS}
    for zone in zones:
        weather = signals.read_weather(cache, zone)
        series = {
            "direct_g_per_kwh": signals.read_carbon(cache, zone, "direct"),
            "lifecycle_g_per_kwh": signals.read_carbon(cache, zone, "lifecycle"),
            "price_usd_per_mwh": signals.read_price(cache, zone),
            "drybulb_c": weather["drybulb_c"],
            "relative_humidity": weather["relative_humidity"],
        }
        for name, values in series.items():
            policy = "carbon_g_per_kwh" if name.endswith("g_per_kwh") else name
            record[name][zone], _ = signals.fill(values.reindex(hours), zone, policy)
    return record


def years_of(measured: Measured, name: str) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Yield (zone, year, rows of the year, values) where a zone's year of a column is complete."""
    hours = signals.all_hours()
    for zone in measured_zones():
        for year in signals.YEARS:
            rows = np.flatnonzero(hours.year == year)
            values = measured[name][zone].to_numpy()[rows]
            if not np.isnan(values).any():
                yield zone, year, rows, values


def residual_tables(measured: Measured) -> Measured:
    """Return residuals with mean 0 and variance 1 in each month x hour cell of each year."""
    hours = signals.all_hours()
    residuals = {name: frame * np.nan for name, frame in measured.items()}
    for name, frame in residuals.items():
        for zone, _, rows, values in years_of(measured, name):
            cells = climatology.cell_of(hours[rows])
            frame.loc[hours[rows], zone] = climatology.standardise(values, cells)[0]
    return residuals


def cell_tables(
    measured: Measured, residuals: Measured
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the month x hour tables (mean, spread, shape) and the shapes they point to."""
    hours = signals.all_hours()
    parts: dict[str, dict[tuple[str, int], dict[str, np.ndarray]]] = {}
    shapes = []
    for name, digits in DIGITS.items():
        edges = np.quantile(_all_skewness(residuals, name), np.linspace(0, 1, SHAPES + 1)[1:-1])
        curves: list[list[np.ndarray]] = [[] for _ in range(SHAPES)]
        for zone, year, rows, values in years_of(measured, name):
            cells = climatology.cell_of(hours[rows])
            residual, mean, spread = climatology.standardise(values, cells)
            shape = np.searchsorted(edges, cell_skewness(residual, cells))
            ordered = ordered_residuals(residual, cells)
            for k in range(SHAPES):
                curves[k].append(ordered[(shape == k) & (spread > 0)])
            columns = parts.setdefault(_file_of(name), {}).setdefault((zone, year), {})
            columns[f"{name}_mean"] = mean.round(digits)
            columns[f"{name}_sd"] = spread.round(digits + 1)
            columns[f"{name}_shape"] = shape
        used = [k for k in range(SHAPES) if sum(map(len, curves[k]))]
        for k in used:
            shapes.append([name, k, *np.concatenate(curves[k]).mean(axis=0).round(3)])
    points = [f"p{k}" for k in range(climatology.SHAPE_POINTS)]
    tables = {
        file: pd.concat([_cell_frame(*key, columns) for key, columns in by_year.items()])
        for file, by_year in parts.items()
    }
    return tables, pd.DataFrame(shapes, columns=["column", "shape", *points])


def cell_skewness(residual: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return the third moment of the residuals in each cell."""
    counts = np.bincount(cells, minlength=climatology.CELLS)
    return np.bincount(cells, residual**3, minlength=climatology.CELLS) / counts


def ordered_residuals(residual: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return each cell's residuals from lowest to highest, read at SHAPE_POINTS positions."""
    rank, count = climatology.ranks_in_cells(residual, cells)
    target = np.linspace(0, 1, climatology.SHAPE_POINTS)
    result = np.empty((climatology.CELLS, climatology.SHAPE_POINTS))
    for cell in range(climatology.CELLS):
        inside = cells == cell
        order = np.argsort(rank[inside])
        position = rank[inside][order] / (count[inside][0] - 1)
        result[cell] = np.interp(target, position, residual[inside][order])
    return result


def bounds_table(measured: Measured) -> pd.DataFrame:
    """Return the lowest and highest value by column, zone and year."""
    rows = [
        [name, zone, year, values.min().round(digits), values.max().round(digits)]
        for name, digits in DIGITS.items()
        for zone, year, _, values in years_of(measured, name)
    ]
    return pd.DataFrame(rows, columns=["column", "zone", "year", "lowest", "highest"])


def rounded(tables: Derived) -> dict[str, pd.DataFrame]:
    """Return the small tables by file name, with as many digits as the package carries."""
    return {
        f"{field.name}.csv": getattr(tables, field.name).round(SMALL_DIGITS.get(field.name, {}))
        for field in fields(Derived)
    }


def write(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write each table under `folder`; the same tables give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        buffer = io.StringIO()
        frame.to_csv(buffer, index=False, lineterminator="\n")
        content = buffer.getvalue().encode()
        if name.endswith(".gz"):
            content = gzip.compress(content, 9, mtime=0)
        part = folder / f".{name}.part"
        part.write_bytes(content)
        part.replace(folder / name)


def _all_skewness(residuals: Measured, name: str) -> np.ndarray:
    """Return the skewness of every cell of every zone and year of a column that has spread."""
    hours = signals.all_hours()
    parts = [
        cell_skewness(values, climatology.cell_of(hours[rows]))
        for _, _, rows, values in years_of(residuals, name)
    ]
    skewness = np.concatenate(parts)
    return skewness[skewness != 0]


def _cell_frame(zone: str, year: int, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    keys = {"month": np.repeat(np.arange(1, 13), 24), "hour": np.tile(np.arange(24), 12)}
    return pd.DataFrame({"zone": zone, "year": year, **keys, **columns})


def _file_of(name: str) -> str:
    variable = "carbon_g_per_kwh" if name.endswith("g_per_kwh") else name
    return climatology.STATISTICS[variable].removeprefix("embedded/")


def main() -> None:
    """Fetch what is needed from the mirror and rewrite the embedded tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", required=True, help="folder or http base URL")
    parser.add_argument("--output", type=Path, default=EMBEDDED)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        cache = Path(folder)
        fetch(scenario_sources(), "mirror", arguments.mirror, cache)
        write(build(cache), arguments.output)


if __name__ == "__main__":
    main()
