"""Requests: token lengths and burstiness of the measured services, and who sends them when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from marlin.config import WorkloadConfig
from marlin.data.fetch import cached
from marlin.errors import UserError

TRACE_NAME = {"conversation": "conv", "code": "code"}
SLOT_MINUTES = 15
SLOTS_PER_WEEK = 7 * 24 * 60 // SLOT_MINUTES
MINUTES_PER_WEEK = 7 * 24 * 60
MEASURED_MONDAY = pd.Timestamp("2024-05-13")
NOISE_SEED = 20240510
QUANTILES = np.linspace(0.0, 1.0, 101)
TOKEN_YEARS = (2023, 2024)
REWEIGHTED_YEAR = 2024
SHORTEST_READ = 33.0
RAKING_LEVELS = np.arange(5, 100, 5)
RAKING_ROUNDS = 50
MOMENTS = (
    "prompt_tokens_mean",
    "output_tokens_mean",
    "prompt_tokens_cv2",
    "output_tokens_cv2",
    "arrival_cv2",
    "rank_correlation",
)


@dataclass(frozen=True)
class ServiceLengths:
    """Token lengths of S services: moments [S] by name and quantiles [S, 101] at 0..1."""

    moments: dict[str, np.ndarray]
    prompt_quantile: np.ndarray
    output_quantile: np.ndarray


def read_rows(cache: Path, service: str) -> pd.DataFrame:
    """Return every request of a service in the fetched trace, in order of arrival.

    Columns TIMESTAMP, ContextTokens (prompt), GeneratedTokens (output). Source: Azure LLM inference
    trace 2023, one hour.
    """
    names = [f"AzureLLMInferenceTrace_{TRACE_NAME[service]}.csv"]
    (path,) = cached(cache, "azure-llm-2023", names)
    return pd.read_csv(path)


def read_token_statistics(
    cache: Path, token_cdf: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return moments (a row) and quantiles (101 rows) by token year and service.

    The rows of 2023 as they are, and weighted to the lengths of 2024 (`reweighted`).
    """
    parts = []
    for year in TOKEN_YEARS:
        for service in TRACE_NAME:
            rows = read_rows(cache, service)
            weight = np.full(len(rows), 1 / len(rows))
            if year == REWEIGHTED_YEAR:
                weight = reweighted(tokens_of(rows), of_service(token_cdf, service))
            parts.append(token_statistics(year, service, rows, weight))
    moments, quantiles = zip(*parts, strict=True)
    return pd.DataFrame(moments), pd.concat(quantiles, ignore_index=True)


def token_statistics(
    year: int, service: str, rows: pd.DataFrame, weight: np.ndarray
) -> tuple[dict[str, object], pd.DataFrame]:
    """Return moments and quantiles of one service's requests, with weights [N] that sum to 1.

    `rows` as in `read_rows`; the weights count for lengths, not for arrivals.
    """
    tokens, gaps = tokens_of(rows).astype(float), gaps_s(rows)
    mean = weight @ tokens
    cv2 = weight @ (tokens - mean) ** 2 / mean**2
    moments = {
        "token_year": year,
        "service": service,
        "requests": len(rows),
        "requests_per_s": len(rows) / gaps.sum(),
        "prompt_tokens_mean": mean[0],
        "output_tokens_mean": mean[1],
        "prompt_tokens_cv2": cv2[0],
        "output_tokens_cv2": cv2[1],
        "rank_correlation": rank_correlation(tokens, weight),
        "arrival_cv2": gaps.var() / gaps.mean() ** 2,
    }
    quantiles = {
        "token_year": year,
        "service": service,
        "quantile": QUANTILES,
        "prompt_tokens": weighted_quantile(tokens[:, 0], weight),
        "output_tokens": weighted_quantile(tokens[:, 1], weight),
    }
    return moments, pd.DataFrame(quantiles)


def tokens_of(rows: pd.DataFrame) -> np.ndarray:
    """Return prompt and output lengths [N, 2] of the rows of a trace."""
    return rows[["ContextTokens", "GeneratedTokens"]].to_numpy(np.int32)


def gaps_s(rows: pd.DataFrame) -> np.ndarray:
    """Return the times between arrivals [N - 1] of the rows of a trace."""
    stamps = pd.to_datetime(rows["TIMESTAMP"]).to_numpy()
    return np.diff(stamps) / np.timedelta64(1, "s")


def weighted_quantile(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the QUANTILES of `values` whose weights sum to 1; with equal weights, numpy's own."""
    order = np.argsort(values, kind="stable")
    inside = weight[order]
    below = np.cumsum(inside) - inside
    return np.interp(QUANTILES, below / below[-1], values[order])


def rank_correlation(tokens: np.ndarray, weight: np.ndarray) -> float:
    """Return Spearman's correlation of the columns of `tokens` [N, 2] under weights [N]."""
    ranks = np.empty(tokens.shape)
    for k, column in enumerate(tokens.T):
        levels, place = np.unique(column, return_inverse=True)
        mass = np.bincount(place, weight, minlength=len(levels))
        ranks[:, k] = (np.cumsum(mass) - mass / 2)[place]
    centred = ranks - weight @ ranks
    covariance = (weight[:, None] * centred).T @ centred
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def read_token_cdf(cache: Path) -> pd.DataFrame:
    """Return the 2024 quantiles of prompt and output lengths by service, 101 rows each.

    Read off published plots: one pixel is 18 prompt or 11 output tokens. What is shorter than
    SHORTEST_READ is an order of magnitude only.
    """
    (path,) = cached(cache, "azure-llm-2024-week", ["azure2024_token_cdf.csv"])
    digitized = pd.read_csv(path)
    parts = []
    for service, name in TRACE_NAME.items():
        columns: dict[str, object] = {"service": service, "quantile": QUANTILES}
        for column, field in (
            ("prompt_tokens", "ContextTokens"),
            ("output_tokens", "GeneratedTokens"),
        ):
            curve = digitized[(digitized["service"] == name) & (digitized["field"] == field)]
            level = np.maximum.accumulate(curve["cdf_percent"].to_numpy(float)) / 100
            columns[column] = np.interp(QUANTILES, level, curve["tokens_mid"].to_numpy(float))
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def reweighted(tokens: np.ndarray, token_cdf: pd.DataFrame) -> np.ndarray:
    """Return weights [N] that give joint lengths [N, 2] the marginal laws of `token_cdf`.

    Iterative proportional fitting over bins of equal probability in either length, none of which
    ends below SHORTEST_READ: within a bin the rows keep their proportions.
    Source: Deming and Stephan, Annals of Mathematical Statistics 11 (1940) 427.
    """
    weight = np.full(len(tokens), 1 / len(tokens))
    bins, goals = [], []
    for k, column in enumerate(("prompt_tokens", "output_tokens")):
        place, goal = _bins(tokens[:, k], token_cdf[column].to_numpy(float))
        bins.append(place)
        goals.append(goal)
    for _ in range(RAKING_ROUNDS):
        for place, goal in zip(bins, goals, strict=True):
            mass = np.bincount(place, weight, minlength=len(goal))
            weight = weight * (goal / mass)[place]
    return weight / weight.sum()


def _bins(values: np.ndarray, quantiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (bin of each value, wanted share of each bin); bins without a value join the next."""
    edges = quantiles[RAKING_LEVELS]
    level = QUANTILES[RAKING_LEVELS]
    kept = np.flatnonzero((edges >= SHORTEST_READ) & (np.diff(edges, append=np.inf) > 0))
    edges, level = edges[kept], level[kept]
    place = np.searchsorted(edges, values, side="right")
    filled = np.unique(place)
    share = np.diff(np.concatenate([[0.0], level, [1.0]]))
    nearest = np.minimum(np.searchsorted(filled, np.arange(len(share))), len(filled) - 1)
    goal = np.bincount(nearest, share, minlength=len(filled))
    return np.searchsorted(filled, place), goal


def of_year(frame: pd.DataFrame, token_year: int) -> pd.DataFrame:
    """Return the rows of a token table that are of `token_year`."""
    return frame[frame["token_year"] == token_year]


def of_service(frame: pd.DataFrame, service: str) -> pd.DataFrame:
    """Return the rows of a token table that are of `service`."""
    return frame[frame["service"] == service]


def read_weekly_rates(cache: Path) -> pd.DataFrame:
    """Return the weekly rates of the fetched week (`weekly_rates`).

    Source: Azure LLM inference trace 2024 (one week in May, read off the published plots).
    """
    names = ["azure2024_request_rate_7min.csv", "azure2024_hourly.csv"]
    rates, hourly = (pd.read_csv(path) for path in cached(cache, "azure-llm-2024-week", names))
    return weekly_rates(rates, hourly)


def weekly_rates(rates: pd.DataFrame, hourly: pd.DataFrame) -> pd.DataFrame:
    """Return requests per second of each service by quarter hour from Monday 0 h UTC.

    Seven-minute `rates` are interpolated to minutes, averaged over 15, and scaled so that the
    week holds the exact number of requests of the trace, which is the sum of `hourly`.
    """
    result: dict[str, np.ndarray] = {"minute_of_week": np.arange(SLOTS_PER_WEEK) * SLOT_MINUTES}
    for service, name in TRACE_NAME.items():
        part = rates[rates["service"] == name]
        utc = pd.DatetimeIndex(pd.to_datetime(part["utc"], utc=True)).tz_localize(None)
        minute = local_minute_of_week(utc, "UTC")
        order = np.argsort(minute)
        fine = np.arange(MINUTES_PER_WEEK) + 0.5
        values = part["req_per_min"].to_numpy(float)[order]
        per_minute = np.interp(fine, minute[order], values, period=MINUTES_PER_WEEK)
        slots = per_minute.reshape(SLOTS_PER_WEEK, SLOT_MINUTES).mean(axis=1)
        requests = hourly.loc[hourly["service"] == name, "requests"].sum()
        result[f"{service}_per_s"] = slots * requests / (MINUTES_PER_WEEK * 60) / slots.mean()
    return pd.DataFrame(result)


def lengths(
    services: Sequence[str], token_year: int, moments: pd.DataFrame, quantiles: pd.DataFrame
) -> ServiceLengths:
    """Return token statistics of the services from the tables of `read_token_statistics`."""
    moments = of_year(moments, token_year).set_index("service").loc[list(services)]
    by_service = [of_service(of_year(quantiles, token_year), name) for name in services]
    return ServiceLengths(
        {name: moments[name].to_numpy(float) for name in MOMENTS},
        np.stack([q["prompt_tokens"].to_numpy(float) for q in by_service]),
        np.stack([q["output_tokens"].to_numpy(float) for q in by_service]),
    )


def arrival_rate_per_s(
    time: pd.DatetimeIndex,
    epoch_minutes: int,
    models: int,
    config: WorkloadConfig,
    week: pd.DataFrame,
    stream: int,
) -> np.ndarray:
    """Return requests per second [T, O, M, S] in each epoch starting at `time` (UTC, in order).

    `week` holds the measured rates (`weekly_rates`). That UTC week is taken to follow the local
    clock of `reference_timezone`; every origin repeats it on its own local clock, weighted by
    population, so that the weekly mean over all origins is that of the measured services. Large
    and small model split each origin's demand. Multiplicative AR(1) noise of mean 1 is drawn per
    origin and service from a fixed seed and `stream` (the number of the period).
    """
    share = model_shares(models, config.large_share)
    rates = np.stack([week[f"{name}_per_s"].to_numpy(float) for name in config.services])
    local_week = shift_to_local(rates, config.reference_timezone)
    population = np.array([o.population_m for o in config.origins.values()])
    weights = population / population.sum()
    middle = time + pd.Timedelta(minutes=epoch_minutes / 2)
    demand = np.empty((len(time), len(weights), len(rates)))
    for index, origin in enumerate(config.origins.values()):
        minute = local_minute_of_week(middle, origin.timezone)
        for s, slots in enumerate(local_week):
            demand[:, index, s] = weights[index] * at_minute(slots, minute)
    demand *= noise(demand.shape, config.noise_sd, config.noise_correlation, stream)
    return demand[:, :, None, :] * share[None, None, :, None]


def model_shares(models: int, large_share: float) -> np.ndarray:
    """Return the share of requests [M] by model; the last model of the list is the large one."""
    if models == 1:
        return np.ones(1)
    if models == 2:
        return np.array([1 - large_share, large_share])
    raise UserError(
        f"serving.models lists {models} models but workload.large_share splits requests between "
        "two (small, large): list one or two models"
    )


def shift_to_local(rates: np.ndarray, timezone: str) -> np.ndarray:
    """Turn weeks [S, 672] on the UTC clock into weeks on the local clock of the measured May."""
    start = pd.DatetimeIndex([MEASURED_MONDAY])
    return np.roll(rates, int(local_minute_of_week(start, timezone)[0]) // SLOT_MINUTES, axis=1)


def local_minute_of_week(time: pd.DatetimeIndex, timezone: str) -> np.ndarray:
    """Return minutes since the local Monday 0 h of UTC stamps, following summer time."""
    try:
        local = time.tz_localize("UTC").tz_convert(ZoneInfo(timezone))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"workload: unknown time zone {timezone!r}: use an IANA name such as Europe/London"
        ) from error
    return (local.day_of_week * 1440 + local.hour * 60 + local.minute + local.second / 60).to_numpy(
        float
    )


def at_minute(week: np.ndarray, minute: np.ndarray) -> np.ndarray:
    """Interpolate a week of slot means [672] linearly at minutes of the week, cyclically."""
    centres = (np.arange(SLOTS_PER_WEEK) + 0.5) * SLOT_MINUTES
    return np.interp(minute, centres, week, period=MINUTES_PER_WEEK)


def noise(shape: tuple[int, ...], sd: float, correlation: float, stream: int) -> np.ndarray:
    """Return multiplicative noise of mean 1 and relative sd `sd`, AR(1) along the first axis.

    Log-normal: exp(s z - s^2 / 2) with s^2 = log(1 + sd^2) and z a standard AR(1) process.
    """
    from scipy.signal import lfilter

    generator = np.random.default_rng([NOISE_SEED, stream])
    shocks = generator.standard_normal(shape)
    shocks[1:] *= np.sqrt(1 - correlation**2)
    z = lfilter([1.0], [1.0, -correlation], shocks, axis=0)
    log_sd = np.sqrt(np.log1p(sd**2))
    return np.exp(log_sd * z - log_sd**2 / 2)
