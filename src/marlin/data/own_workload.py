"""A user's trace as the workload of a scenario: rates by clock, lengths, burstiness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from marlin.config import RunConfig, WorkloadConfig
from marlin.data import own_trace, workload
from marlin.data.own_trace import MICRO, ONE_NAME, SLOT_S, Trace
from marlin.data.tables import nearest
from marlin.errors import UserError
from marlin.files import sha256

FEWEST_REQUESTS = 30  # of a service: fewer do not give quantiles
FEWEST_IN_HOUR = 20  # requests of an hour that counts in the variability of arrivals
SLOTS_PER_DAY = workload.SLOTS_PER_WEEK // 7
CLOCKS = {
    "week": "its mean week is repeated",
    "day": "it is shorter than a week: its mean day is repeated, every weekday alike",
    "shape": "it is shorter than a day: its mean rate follows the weekly shape of Azure 2024",
}


@dataclass(frozen=True)
class OwnWorkload:
    """A trace, how it fills the horizon (a key of CLOCKS), and what was left out."""

    trace: Trace
    clock: str
    skipped: int


def load(run: RunConfig) -> OwnWorkload | None:
    """The trace of `workload.path`, checked against the run; nothing without a path.

    Raises:
        UserError: the file is not the one that the settings were resolved with, rows are bad and
            `workload.skip_bad_rows` is false, a service has too few requests, or an origin or a
            model is not one of the settings.
    """
    config = run.workload
    if config.path is None:
        return None
    path = Path(config.path)
    if path.is_file() and sha256(path) != config.sha256:
        raise UserError(
            f"{path} is not the file that these settings were made with: restore it, or train again"
        )
    trace = own_trace.read(path)
    skipped = trace.rows - trace.good
    if skipped and not config.skip_bad_rows:
        first = trace.bad[0]
        raise UserError(
            f"{path} has {skipped} bad rows of {trace.rows}, the first at line {first.line}: "
            f"{first.reason}; `marlin validate {path}` lists them, mend them or set "
            "workload.skip_bad_rows=true"
        )
    _check_names(path, "origin", trace.names("origin"), list(config.origins), "workload.origins")
    models = [model.name for model in run.serving.models]
    _check_names(path, "model", trace.names("model"), models, "serving.models")
    for service, stamps in trace.stamps_us.items():
        if len(stamps) < FEWEST_REQUESTS:
            raise UserError(
                f"{path}: service {service} has {len(stamps)} requests: at least "
                f"{FEWEST_REQUESTS} are needed for lengths and burstiness"
            )
    if trace.span_s <= 0:
        raise UserError(f"{path}: all rows have the same timestamp, so there is no rate")
    return OwnWorkload(trace, clock(trace), skipped)


def adapted(run: RunConfig, own: OwnWorkload) -> RunConfig:
    """The run with the services of the trace and, of the origins, those that it names."""
    origins = run.workload.origins
    if "origin" in own.trace.columns:
        origins = {name: origins[name] for name in own.trace.names("origin")}
    services = own.trace.names("service")
    section = run.workload.model_copy(update={"services": services, "origins": origins})
    return run.model_copy(update={"workload": section})


def describe(config: WorkloadConfig, own: OwnWorkload) -> str:
    """What was done with the trace, in a sentence."""
    days = own.trace.span_s / 86_400
    left = f", {own.skipped} bad rows left out" if own.skipped else ""
    notes = "".join(f", {note}" for note in own.trace.notes)
    return (
        f"workload of {Path(str(config.path)).name}: {own.trace.good} requests in {days:.2f} days"
        f"{left}{notes}; {CLOCKS[own.clock]}"
    )


def clock(trace: Trace) -> str:
    """How a trace fills a horizon: by `week`, `day` or `shape` (see CLOCKS).

    A clock is used if each quarter hour of it was seen for at least half of its length.
    """
    slots, seconds = exposure_s(trace)
    week = np.bincount(slots % workload.SLOTS_PER_WEEK, seconds, workload.SLOTS_PER_WEEK)
    if week.min() >= SLOT_S / 2:
        return "week"
    day = week.reshape(7, SLOTS_PER_DAY).sum(axis=0)
    return "day" if day.min() >= SLOT_S / 2 else "shape"


def exposure_s(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """Quarter hours since 1970 that a trace spans, and the seconds of each that it covers."""
    size = SLOT_S * MICRO
    # One mean gap more than the span: a request at 0 h and one at 24 h less a gap make a day.
    gap = (trace.last_us - trace.first_us) / max(trace.good - 1, 1)
    stop = trace.last_us + gap
    slots = np.arange(trace.first_us // size, trace.last_us // size + 1)
    begun = np.maximum(slots * size, trace.first_us)
    return slots, (np.minimum((slots + 1) * size, stop) - begun) / MICRO


def arrival_rate_per_s(
    own: OwnWorkload,
    time: pd.DatetimeIndex,
    epoch_minutes: int,
    models: Sequence[str],
    config: WorkloadConfig,
    week: pd.DataFrame,
    stream: int,
) -> np.ndarray:
    """Requests per second [T, O, M, S] in each epoch starting at `time` (UTC, in order).

    With a column `origin` each origin's part follows its own local clock. Without, the whole
    follows UTC and is split at each moment by population x the measured week (`week`,
    conversation) at the local hour. Noise is that of `workload.arrival_rate_per_s`.
    """
    trace = own.trace
    middle = time + pd.Timedelta(minutes=epoch_minutes / 2)
    human = workload.shift_to_local(
        week["conversation_per_s"].to_numpy(float)[None], config.reference_timezone
    )[0]
    human = human / human.mean()
    origins = list(config.origins.values())
    local = [workload.local_minute_of_week(middle, origin.timezone) for origin in origins]
    activity = np.stack([workload.at_minute(human, minute) for minute in local], axis=1)  # [T, O]
    shape = (len(time), len(origins), len(models), len(config.services))
    demand = np.zeros(shape)
    shares = _model_shares(trace, models, config)
    people = np.array([origin.population_m for origin in origins])
    weight = people / people.sum() * activity
    by_origin = "origin" in trace.columns
    for s, service in enumerate(config.services):
        for name, part in shares.items():
            if by_origin:
                for o, (origin, place) in enumerate(config.origins.items()):
                    keys = {"origin": origin, "model": name, "service": service}
                    weekly = _weekly(own, keys, place.timezone, human)
                    rate = workload.at_minute(weekly, local[o])
                    demand[:, o, :, s] += rate[:, None] * part
                continue
            keys = {"model": name, "service": service}
            if own.clock == "shape":
                rate = _weekly(own, keys, "UTC", np.ones(workload.SLOTS_PER_WEEK))
                total = workload.at_minute(rate, workload.local_minute_of_week(middle, "UTC"))
                split = weight
            else:
                weekly = _weekly(own, keys, "UTC", human)
                total = workload.at_minute(weekly, workload.local_minute_of_week(middle, "UTC"))
                split = weight / weight.sum(axis=1, keepdims=True)
            demand[:, :, :, s] += (total[:, None] * split)[:, :, None] * part
    noise = workload.noise(
        (len(time), len(origins), len(config.services)),
        config.noise_sd,
        config.noise_correlation,
        stream,
    )
    return demand * noise[:, :, None, :]


def check_days(path: str, time: pd.DatetimeIndex, rates: np.ndarray) -> None:
    """Raise UserError for a UTC day without any request: it could not be scored."""
    by_day = pd.Series(rates.sum(axis=(1, 2, 3)), time).groupby(time.floor("D")).sum()
    idle = by_day[by_day <= 0]
    if len(idle):
        raise UserError(
            f"{path} has no request on any {idle.index[0]:%A} (UTC), and a day without requests "
            "cannot be scored: give a trace with requests on every day of the week"
        )


def lengths(own: OwnWorkload) -> workload.ServiceLengths:
    """Token statistics of the trace's services; arrivals as `arrival_cv2`."""
    trace, services = own.trace, own.trace.names("service")
    moments: dict[str, list[float]] = {name: [] for name in workload.MOMENTS}
    quantiles: dict[str, list[np.ndarray]] = {"prompt": [], "output": []}
    for service in services:
        for kind, table in (("prompt", trace.prompt), ("output", trace.output)):
            rows = table.filter(table["service"] == service)
            tokens, number = rows["tokens"].to_numpy(), rows["requests"].to_numpy()
            mean = float(np.average(tokens, weights=number))
            variance = float(np.average((tokens - mean) ** 2, weights=number))
            moments[f"{kind}_tokens_mean"].append(mean)
            moments[f"{kind}_tokens_cv2"].append(variance / mean**2)
            quantiles[kind].append(own_trace.quantile(table, service, workload.QUANTILES))
        moments["arrival_cv2"].append(arrival_cv2(trace.stamps_us[service]))
        moments["rank_correlation"].append(rank_correlation(trace, service))
    return workload.ServiceLengths(
        {name: np.array(values) for name, values in moments.items()},
        np.stack(quantiles["prompt"]),
        np.stack(quantiles["output"]),
    )


def rank_correlation(trace: Trace, service: str) -> float:
    """Spearman's correlation of prompt and output lengths; zero where one of them never varies."""
    rows = trace.joint.filter(trace.joint["service"] == service)
    bins = rows.select("prompt", "output").to_numpy()
    if (bins == bins[0]).all(axis=0).any():
        return 0.0
    weight = rows["requests"].to_numpy().astype(float)
    return workload.rank_correlation(bins, weight / weight.sum())


def arrival_cv2(stamps_us: np.ndarray) -> float:
    """Squared coefficient of variation of gaps [N - 1] between sorted arrivals.

    It is taken within clock hours and averaged by requests, so that the daily cycle does not
    count as burstiness; over all gaps where no hour has FEWEST_IN_HOUR requests.
    """
    gaps = np.diff(stamps_us).astype(float)
    hours = stamps_us[1:] // (3600 * MICRO)
    same = hours == stamps_us[:-1] // (3600 * MICRO)
    _, index = np.unique(hours, return_inverse=True)
    number = np.bincount(index, same)
    full = number >= FEWEST_IN_HOUR
    if full.any():
        total = np.bincount(index, gaps * same)
        squares = np.bincount(index, gaps**2 * same)
        full &= total > 0
        if full.any():
            mean = total[full] / number[full]
            cv2 = np.maximum(squares[full] / number[full] / mean**2 - 1, 0)
            return float(np.average(cv2, weights=number[full]))
    return float(gaps.var() / gaps.mean() ** 2) if gaps.mean() > 0 else 1.0


def _check_names(path: Path, column: str, found: list[str], known: list[str], setting: str) -> None:
    for name in found:
        if name not in known and name != ONE_NAME:
            raise UserError(
                f"{path}: {column} {name!r} is not in {setting}{nearest(name, known)}; known: "
                f"{', '.join(known)}"
            )


def _model_shares(
    trace: Trace, models: Sequence[str], config: WorkloadConfig
) -> dict[str, np.ndarray]:
    """Which part of the requests of each name in the trace goes to each model [M]."""
    if "model" not in trace.columns:
        return {ONE_NAME: workload.model_shares(len(models), config.large_share)}
    return {name: np.eye(len(models))[list(models).index(name)] for name in trace.names("model")}


def _weekly(own: OwnWorkload, keys: dict[str, str], timezone: str, human: np.ndarray) -> np.ndarray:
    """Requests per second by quarter hour of the local week [672]."""
    slots, seconds = exposure_s(own.trace)
    rows = own.trace.counts
    for column, name in keys.items():
        rows = rows.filter(rows[column] == name)
    number = np.zeros(len(slots))
    np.add.at(number, rows["slot"].to_numpy() - slots[0], rows["requests"].to_numpy())
    if own.clock == "shape":
        return human * number.sum() / seconds.sum()
    utc = pd.DatetimeIndex((slots * SLOT_S).astype("datetime64[s]"))
    place = (workload.local_minute_of_week(utc, timezone) // workload.SLOT_MINUTES).astype(int)
    size = workload.SLOTS_PER_WEEK if own.clock == "week" else SLOTS_PER_DAY
    seen = np.bincount(place % size, seconds, size)
    total = np.bincount(place % size, number, size)
    # A change to summer time within a single week leaves an hour of the local clock unseen.
    known = np.flatnonzero(seen > 0)
    rate = np.interp(np.arange(size), known, total[known] / seen[known], period=size)
    return np.tile(rate, workload.SLOTS_PER_WEEK // size)
