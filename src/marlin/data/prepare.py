"""Prepare a scenario: one labelled dataset with everything that later stages read."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from marlin.config import Period, RunConfig
from marlin.data import (
    climatology,
    derived,
    network,
    own_grid,
    own_workload,
    signals,
    water,
    workload,
)
from marlin.data.derived import Derived
from marlin.data.fetch import PACKAGE, origin_of
from marlin.data.psychrometrics import wetbulb_c
from marlin.data.registry import Source, scenario_sources, source
from marlin.data.tables import cautions, table_bytes
from marlin.errors import UserError

HISTORY_DAYS = 7
HISTORY, TRAIN, VALIDATION, TEST = -1, 0, 1, 2
HOURLY = ("electricitymaps-hourly", "prices-hourly-local", "open-meteo-era5")
EMBEDDED = "embedded"
FORMAT = "marlin-scenario-2"
UNITS = {
    "split": ("1", "-1 history, 0 train, 1 validation, 2 test"),
    "carbon_g_per_kwh": ("g kWh-1", "average carbon intensity of grid energy"),
    "price_usd_per_mwh": ("USD MWh-1", "wholesale electricity price"),
    "drybulb_c": ("degC", "outdoor dry-bulb temperature"),
    "wetbulb_c": ("degC", "outdoor wet-bulb temperature"),
    "ewif_l_per_kwh": ("L kWh-1", "water consumed off site per grid energy"),
    "aware_m3_per_m3": ("m3 m-3", "water scarcity factor AWARE 2.0 of the month"),
    "rtt_s": ("s", "round-trip time with last mile"),
    "arrival_rate_per_s": ("s-1", "requests at the scale of the measured services"),
    "prompt_tokens_mean": ("1", "mean prompt length"),
    "output_tokens_mean": ("1", "mean output length"),
    "prompt_tokens_cv2": ("1", "squared coefficient of variation of the prompt length"),
    "output_tokens_cv2": ("1", "squared coefficient of variation of the output length"),
    "arrival_cv2": ("1", "squared coefficient of variation of times between arrivals"),
    "rank_correlation": ("1", "rank correlation of prompt and output length"),
    "prompt_tokens_quantile": ("1", "quantiles of the prompt length"),
    "output_tokens_quantile": ("1", "quantiles of the output length"),
    "nodes": ("1", "nodes installed"),
    "latitude": ("degrees_north", "latitude of the weather point"),
    "longitude": ("degrees_east", "longitude of the weather point"),
    "elevation_m": ("m", "elevation of the weather point"),
    "tower": ("1", "1 cooling tower, 0 adiabatic"),
}


@dataclass(frozen=True)
class Block:
    """Consecutive epochs: `time` (UTC starts) and `split` [T] of one period and its history."""

    time: pd.DatetimeIndex
    split: np.ndarray


def prepare(run: RunConfig, cache: Path | None = None) -> xr.Dataset:
    """Return the scenario of a run: signals, workload, network and fleet over its periods.

    `run.signals.source` "embedded" draws the hourly signals from the tables of the package and
    takes all else from them; "measured" computes everything from the fetched files under `cache`.
    Both give the same structure. Prints a caution for each zone whose data need one. Raises
    UserError for periods out of order or beyond the data, unknown zones, regions or time zones,
    missing files and missing values.
    """
    minutes = run.scenario.epoch_minutes
    if 60 % minutes:
        raise UserError(f"scenario.epoch_minutes is {minutes}: use a divisor of 60, for example 15")
    blocks = list(time_blocks(run))
    own = own_workload.load(run)
    if own is not None:
        run = own_workload.adapted(run, own)
    time = pd.DatetimeIndex(np.concatenate([block.time.to_numpy() for block in blocks]))
    hours = time.floor("h").unique()
    hourly, small = read_data(run, hours, cache)
    dataset = xr.Dataset(coords=coordinates(run, time))
    dataset["split"] = ("time", np.concatenate([b.split for b in blocks]).astype(np.int8))
    add_signals(dataset, run, hourly, small, time)
    add_workload(dataset, run, small, blocks, own)
    add_fleet(dataset, run, small)
    for name, (unit, long_name) in UNITS.items():
        dataset[name].attrs = {"units": unit, "long_name": long_name}
        if dataset[name].dtype == np.float64:
            dataset[name] = dataset[name].astype(np.float32)
    dataset.attrs = attributes(run, hourly, cache)
    if own is not None:
        said = own_workload.describe(run.workload, own)
        dataset.attrs["own_workload"] = said
        print(f"marlin: caution: {said}", file=sys.stderr)
    for zone, text in cautions(hourly.zones).items():
        print(f"marlin: caution: zone {zone}: {text}", file=sys.stderr)
    return dataset


def time_blocks(run: RunConfig) -> Iterator[Block]:
    """Yield train and test epochs, each with up to HISTORY_DAYS days of history before it.

    History that the block before already holds is not repeated, and none is invented before the
    first year of data: time stays unique and in order.
    """
    step = timedelta(minutes=run.scenario.epoch_minutes)
    train, test = bounds(run.scenario.train, "train"), bounds(run.scenario.test, "test")
    if test[0] < train[1]:
        raise UserError(
            f"scenario: test starts on {run.scenario.test.first}, before train ends on "
            f"{run.scenario.train.last}: choose test days after the train days"
        )
    validation = train[1] - timedelta(days=run.scenario.validation_days)
    if validation <= train[0]:
        raise UserError("scenario.validation_days leaves no day to train on: lengthen train")
    free_from = signals.FIRST_HOUR
    for (first, stop), label in ((train, TRAIN), (test, TEST)):
        start = max(first - timedelta(days=HISTORY_DAYS), free_from)
        time = pd.date_range(start, stop - step, freq=step)
        split = np.where(time < first, HISTORY, label)
        if label == TRAIN:
            split[time >= validation] = VALIDATION
        yield Block(time, split)
        free_from = stop


def bounds(period: Period, name: str) -> tuple[datetime, datetime]:
    """Return [start, stop) of a period of whole UTC days; UserError if it is not in the data."""
    first = datetime.fromisoformat(period.first)
    stop = datetime.fromisoformat(period.last) + timedelta(days=1)
    if first < signals.FIRST_HOUR or stop - timedelta(hours=1) > signals.LAST_HOUR:
        raise UserError(
            f"scenario.{name}: {period.first} to {period.last} is not within the years that have "
            f"data, {' and '.join(map(str, signals.YEARS))}: choose days of those"
        )
    return first, stop


def read_data(
    run: RunConfig, hours: pd.DatetimeIndex, cache: Path | None
) -> tuple[signals.HourlySignals, Derived]:
    """Return hourly signals and small tables of the run's zones from the source it names."""
    zones = [site.zone for site in run.fleet.sites]
    family = run.signals.carbon_family
    if family == own_grid.MARGINAL:
        average = run.signals.model_copy(update={"carbon_family": "direct"})
        hourly, small = read_data(run.model_copy(update={"signals": average}), hours, cache)
        hourly.values["carbon_g_per_kwh"][:] = own_grid.marginal_g_per_kwh(zones)
        return hourly, small
    if run.signals.source == EMBEDDED:
        return climatology.read(zones, hours, family), derived.embedded(zones)
    if cache is None:
        raise UserError(
            "signals=measured needs a cache of fetched files: run `marlin fetch` with "
            "MARLIN_MIRROR set or a network, or use signals=embedded"
        )
    return signals.read(cache, zones, hours, family), derived.measured(cache, sorted(set(zones)))


def coordinates(run: RunConfig, time: pd.DatetimeIndex) -> dict[str, Any]:
    """Return the coordinates of the dataset; time counts seconds since 1970 (UTC)."""
    return {
        "time": (
            "time",
            time.to_numpy().astype("datetime64[ns]"),
            {"long_name": "start of the epoch, UTC"},
        ),
        "site": [site.name for site in run.fleet.sites],
        "node_type": list(run.fleet.node_types),
        "model": [model.name for model in run.serving.models],
        "origin": list(run.workload.origins),
        "service": list(run.workload.services),
        "quantile": workload.QUANTILES,
    }


def add_signals(
    dataset: xr.Dataset,
    run: RunConfig,
    hourly: signals.HourlySignals,
    small: Derived,
    time: pd.DatetimeIndex,
) -> None:
    """Add [time, site] signals: hourly means hold for their hour, weather is interpolated."""
    dims = ("time", "site")
    zones = hourly.zones
    hour_of = hourly.time.get_indexer(time.floor("h"))
    for name in ("carbon_g_per_kwh", "price_usd_per_mwh"):
        dataset[name] = (dims, hourly.values[name][hour_of])
    elevations = small.sites.set_index("zone")["elevation_m"]
    wet = np.stack(
        [
            wetbulb_c(
                hourly.values["drybulb_c"][:, j],
                hourly.values["relative_humidity"][:, j],
                float(elevations[zone]),
            )
            for j, zone in enumerate(zones)
        ],
        axis=1,
    )
    dataset["drybulb_c"] = (dims, between_hours(hourly.values["drybulb_c"], hourly.time, time))
    dataset["wetbulb_c"] = (dims, between_hours(wet, hourly.time, time))
    hydropower = float(run.signals.hydropower_l_per_kwh)
    shape = small.ewif_shape if run.signals.us_mix == "shape_2022" else None
    ewif = water.ewif_l_per_kwh(zones, time, hydropower, small.ewif, shape)
    dataset["ewif_l_per_kwh"] = (dims, ewif)
    dataset["aware_m3_per_m3"] = (dims, water.aware_m3_per_m3(zones, time, small.aware))
    own_grid.replace_signals(dataset, run.fleet.sites, time)


def between_hours(
    values: np.ndarray, hours: pd.DatetimeIndex, time: pd.DatetimeIndex
) -> np.ndarray:
    """Interpolate [H, Z] values at `hours` linearly to `time` [T, Z].

    After the last hour before a break in the record the value holds.
    """
    seconds = hours.to_numpy().astype("datetime64[s]").astype(float)
    index = hours.get_indexer(time.floor("h"))
    after = np.minimum(index + 1, len(hours) - 1)
    after = np.where(seconds[after] - seconds[index] == 3600, after, index)
    part = (time.minute / 60.0).to_numpy()[:, None]
    return (1 - part) * values[index] + part * values[after]


def add_workload(
    dataset: xr.Dataset,
    run: RunConfig,
    small: Derived,
    blocks: list[Block],
    own: own_workload.OwnWorkload | None,
) -> None:
    """Add arrival rates and token statistics, of the Azure data or of the user's own trace."""
    minutes, models, week = run.scenario.epoch_minutes, len(run.serving.models), small.weekly_rates
    services, names = run.workload.services, [model.name for model in run.serving.models]
    if own is None:
        rates = [
            workload.arrival_rate_per_s(block.time, minutes, models, run.workload, week, stream)
            for stream, block in enumerate(blocks)
        ]
        statistics = workload.lengths(
            services, run.workload.token_year, small.token_moments, small.token_quantiles
        )
    else:
        rates = [
            own_workload.arrival_rate_per_s(
                own, block.time, minutes, names, run.workload, week, stream
            )
            for stream, block in enumerate(blocks)
        ]
        for block, part in zip(blocks, rates, strict=True):
            own_workload.check_days(str(run.workload.path), block.time, part)
        statistics = own_workload.lengths(own)
    dims = ("time", "origin", "model", "service")
    dataset["arrival_rate_per_s"] = (dims, np.concatenate(rates))
    for name, values in statistics.moments.items():
        dataset[name] = ("service", values)
    dataset["prompt_tokens_quantile"] = (("service", "quantile"), statistics.prompt_quantile)
    dataset["output_tokens_quantile"] = (("service", "quantile"), statistics.output_quantile)


def add_fleet(dataset: xr.Dataset, run: RunConfig, small: Derived) -> None:
    """Add nodes, places, cooling and round-trip times."""
    sites = run.fleet.sites
    for site in sites:
        unknown = set(site.nodes) - set(run.fleet.node_types)
        if unknown:
            raise UserError(
                f"fleet: site {site.name} has nodes of unknown type {sorted(unknown)[0]!r}; "
                f"known: {', '.join(run.fleet.node_types)}"
            )
    nodes = [[site.nodes.get(name, 0) for name in run.fleet.node_types] for site in sites]
    dataset["nodes"] = (("site", "node_type"), np.array(nodes, dtype=np.int32))
    places = small.sites.set_index("zone").loc[[site.zone for site in sites]]
    for name in ("latitude", "longitude", "elevation_m"):
        dataset[name] = ("site", places[name].to_numpy(float))
    dataset["tower"] = ("site", np.array([s.cooling == "tower" for s in sites], dtype=np.int8))
    origins = [origin.network for origin in run.workload.origins.values()]
    regions = [site.network for site in sites]
    last_mile = run.workload.last_mile_rtt_s
    own = run.fleet.round_trips
    if own is None:
        rtt = network.rtt_s(origins, regions, last_mile, small.rtt)
    else:
        rtt = network.own_rtt_s(origins, regions, last_mile, own.rtt_ms, own.path)
    dataset["rtt_s"] = (("origin", "site"), rtt)


def attributes(run: RunConfig, hourly: signals.HourlySignals, cache: Path | None) -> dict[str, str]:
    """Return the dataset's attributes: name, source, sources, filled gaps and configuration.

    `source` is that of the hourly signals; `sources` has the origin of each.
    """
    if run.signals.source == EMBEDDED or cache is None:
        origins = dict.fromkeys(scenario_sources(), EMBEDDED)
    else:
        origins = {name: origin_of(cache, name) for name in scenario_sources()}
    used = sorted({origins[name] for name in HOURLY})
    sections = {
        "scenario": run.scenario.model_dump(),
        "fleet": run.fleet.model_dump(),
        "workload": run.workload.model_dump(),
        "signals": run.signals.model_dump(),
        "models": [model.name for model in run.serving.models],
    }
    return {
        "format": FORMAT,
        "name": run.scenario.name,
        "source": " and ".join(used),
        "sources": _json([describe(source(name), origins[name]) for name in origins]),
        "cautions": _json(cautions(hourly.zones)),
        "filled": _json([asdict(entry) for entry in hourly.filled]),
        "config": _json(sections),
    }


def describe(item: Source, origin: str) -> dict[str, str]:
    """Return what a paper must say of a source, and one checksum over the files it came from.

    They are the registered files, or the tables of the package that stand for them.
    """
    if origin in (EMBEDDED, PACKAGE):
        sums = [hashlib.sha256(table_bytes(name)).hexdigest() for name in item.tables]
    else:
        sums = [file.sha256 for file in item.files]
    digest = hashlib.sha256("".join(sorted(sums)).encode()).hexdigest()
    return {
        "id": item.id,
        "title": item.title,
        "version": item.version,
        "licence": item.licence,
        "attribution": item.attribution,
        "citation": item.citation,
        "origin": origin,
        "sha256": digest,
    }


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a scenario as netCDF-3 (64-bit offsets), atomically; equal datasets, equal bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    encoding: dict[Any, dict[str, Any]] = {name: {"_FillValue": None} for name in dataset.variables}
    encoding["time"] |= {"units": "seconds since 1970-01-01", "dtype": "float64"}
    try:
        dataset.to_netcdf(part, format="NETCDF3_64BIT", engine="scipy", encoding=encoding)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> xr.Dataset:
    """Load a scenario written by `write`; UserError for a missing, truncated or foreign file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no scenario at {path}: run the prepare stage first")
    try:
        dataset = xr.load_dataset(path, engine="scipy")
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path} is not a readable scenario ({type(error).__name__}): it may be cut short; "
            "delete it and run the prepare stage again"
        ) from error
    missing = [name for name in UNITS if name not in dataset]
    if dataset.attrs.get("format") != FORMAT or missing:
        lacks = f" (it lacks {missing[0]})" if missing else ""
        raise UserError(
            f"{path} is not a scenario of this version{lacks}: delete it and run the prepare stage "
            "again"
        )
    return dataset


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)
