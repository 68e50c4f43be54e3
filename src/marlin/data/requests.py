"""A stream of single requests that follows the rates of a scenario's epochs.

Each service is one stream of arrivals with the measured variability of its gaps; chance splits it
over origins and models. A class with share p of its service so has gaps with squared coefficient
of variation 1 + p (cv2 - 1), which is what the fluid model takes it to have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marlin.data import workload
from marlin.data.derived import Derived
from marlin.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

SAMPLE = 1 << 16
SAMPLE_SEED = 20231116
SMALLEST_DRAW = 64
LATEST_RISE = 50.0


@dataclass(frozen=True)
class ServiceSample:
    """What the requests of one service are drawn from.

    `tokens` [N, 2] holds prompt and output lengths of N requests (int32); `gaps` [G] times between
    arrivals in units of their mean.
    """

    tokens: np.ndarray
    gaps: np.ndarray


@dataclass(frozen=True)
class RequestBatch:
    """N requests in order of arrival; every array is [N].

    `arrival_s` counts from the start of the first epoch (float64); tokens are int32; `origin`,
    `model` and `service` are positions along the axes of the rates (int16).
    """

    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    origin: np.ndarray
    model: np.ndarray
    service: np.ndarray


def requests(
    rate_per_s: np.ndarray,
    epoch_s: float,
    samples: Sequence[ServiceSample],
    seed: int,
    first_epoch: int = 0,
) -> Iterator[RequestBatch]:
    """Yield the requests of each epoch for rates [T, O, M, S] and one sample a service.

    The arrivals of an epoch depend on the rates, `seed` and its number alone (the first has
    `first_epoch`): a later start or another chunking gives the same requests. Within an epoch they
    are a stationary renewal process, so that their expected number is rate x `epoch_s` exactly.
    Raises UserError for a rate that is negative or not finite.
    """
    rates = np.asarray(rate_per_s, float)
    if rates.ndim != 4 or rates.shape[3] != len(samples):
        raise ValueError(f"rates of shape {rates.shape} for {len(samples)} services")
    bad = ~np.isfinite(rates) | (rates < 0)
    if bad.any():
        t, o, m, s = np.argwhere(bad)[0]
        raise UserError(
            f"arrival_rate_per_s of epoch {t}, origin {o}, model {m}, service {s} is "
            f"{rates[t, o, m, s]}: give rates that are finite and not negative"
        )
    for t, rate in enumerate(rates):
        parts = [
            _service_requests(rate[:, :, s], epoch_s, sample, s, [seed, first_epoch + t, s])
            for s, sample in enumerate(samples)
        ]
        arrival, *others = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(arrival, kind="stable")
        yield RequestBatch(arrival[order] + t * epoch_s, *(column[order] for column in others))


def renewals(generator: np.random.Generator, gaps: np.ndarray, horizon: float) -> np.ndarray:
    """Return the points [N] in 0..horizon of a stationary renewal process with these gaps.

    The first is the rest of a gap that was chosen in proportion to its length.
    Source: Cox, Renewal Theory, chapter 5.
    """
    total = np.cumsum(gaps)
    inside = np.searchsorted(total, generator.random() * total[-1], side="right")
    last = generator.random() * gaps[min(inside, len(gaps) - 1)]
    parts = [np.array([last])]
    while last < horizon:
        count = int(1.05 * (horizon - last)) + SMALLEST_DRAW
        step = gaps[generator.integers(len(gaps), size=count)]
        points = np.cumsum(step, out=step)
        points += last
        last = points[-1]
        parts.append(points)
    points = np.concatenate(parts)
    return points[: np.searchsorted(points, horizon)]


def measured_samples(
    cache: Path, services: Sequence[str], token_year: int, small: Derived
) -> list[ServiceSample]:
    """Return the measured gaps and joint (prompt, output) rows of each service.

    With `token_year` 2024 the rows are drawn by the weights of `workload.reweighted`.
    """
    generator = np.random.default_rng(SAMPLE_SEED)
    samples = []
    for service in services:
        rows = workload.read_rows(cache, service)
        tokens = workload.tokens_of(rows)
        if token_year == workload.REWEIGHTED_YEAR:
            weight = workload.reweighted(tokens, workload.of_service(small.token_cdf, service))
            tokens = tokens[generator.choice(len(tokens), SAMPLE, p=weight)]
        gaps = workload.gaps_s(rows)
        samples.append(ServiceSample(tokens, gaps / gaps.mean()))
    return samples


def modelled_samples(
    services: Sequence[str], token_year: int, small: Derived
) -> list[ServiceSample]:
    """Return samples with the quantiles, rank correlation and gap variability of the tables."""
    known = workload.lengths(services, token_year, small.token_moments, small.token_quantiles)
    return [
        ServiceSample(token_pairs(known, s), gap_sample(float(known.moments["arrival_cv2"][s])))
        for s in range(len(services))
    ]


def scenario_lengths(scenario: xr.Dataset) -> workload.ServiceLengths:
    """Return the token statistics that a scenario carries for its services."""
    return workload.ServiceLengths(
        {name: scenario[name].to_numpy().astype(float) for name in workload.MOMENTS},
        scenario["prompt_tokens_quantile"].to_numpy().astype(float),
        scenario["output_tokens_quantile"].to_numpy().astype(float),
    )


def gap_sample(cv2: float, size: int = SAMPLE) -> np.ndarray:
    """Return `size` gaps of mean 1 with squared coefficient of variation `cv2`, shortest first.

    Two exponentials with balanced means from 1 on (bursts), a gamma law below.
    Source: Tijms, A First Course in Stochastic Models, appendix B.
    """
    from scipy.special import gammaincinv

    if cv2 < 1:
        gaps = gammaincinv(1 / cv2, (np.arange(size) + 0.5) / size)
        return gaps / gaps.mean()
    short = 0.5 * (1 + np.sqrt((cv2 - 1) / (cv2 + 1)))
    counts = size - round(size * (1 - short)), round(size * (1 - short))
    parts = [
        -np.log1p(-(np.arange(count) + 0.5) / count) / share
        for count, share in zip(counts, (short, 1 - short), strict=True)
        if count
    ]
    gaps = np.sort(np.concatenate(parts))
    return gaps / gaps.mean()


def token_pairs(known: workload.ServiceLengths, service: int) -> np.ndarray:
    """Return lengths [SAMPLE, 2] with a service's quantiles and means, joined by a copula."""
    generator = np.random.default_rng(SAMPLE_SEED)
    linear = 2 * np.sin(np.pi * known.moments["rank_correlation"][service] / 6)
    normal = generator.standard_normal((2, SAMPLE))
    normal[1] = linear * normal[0] + np.sqrt(1 - linear**2) * normal[1]
    level = (normal.argsort(axis=1).argsort(axis=1) + 0.5) / SAMPLE
    laws = (
        (known.prompt_quantile, "prompt_tokens_mean"),
        (known.output_quantile, "output_tokens_mean"),
    )
    columns = [
        lengths_at(level[k], quantiles[service], float(known.moments[mean][service]))
        for k, (quantiles, mean) in enumerate(laws)
    ]
    return np.maximum(np.stack(columns, axis=1).round(), 1).astype(np.int32)


def lengths_at(level: np.ndarray, quantiles: np.ndarray, mean: float) -> np.ndarray:
    """Return lengths at levels [N] within 0..1 of the law with these quantiles [101] and mean.

    Straight lines, but for the last hundredth: a power that rises late enough to meet `mean`.
    """
    last, width = quantiles[-1] - quantiles[-2], workload.QUANTILES[1]
    below = (0.5 * (quantiles[1:-1] + quantiles[:-2])).sum() * width
    excess = (mean - below) / width - quantiles[-2]
    power = max(last / excess - 1, 0.0) if excess > 0 else LATEST_RISE
    tail = np.clip((level - workload.QUANTILES[-2]) / width, 0, 1)
    return np.where(
        tail > 0,
        quantiles[-2] + last * tail**power,
        np.interp(level, workload.QUANTILES, quantiles),
    )


def _service_requests(
    rate_per_s: np.ndarray, epoch_s: float, sample: ServiceSample, service: int, key: list[int]
) -> tuple[np.ndarray, ...]:
    """Return the fields of a RequestBatch for one service in one epoch, rates [O, M]."""
    generator = np.random.default_rng(key)
    total = rate_per_s.sum()
    arrival = np.empty(0)
    if total > 0:
        arrival = renewals(generator, sample.gaps, total * epoch_s) / total
    count = len(arrival)
    share = np.cumsum(rate_per_s.ravel())
    last = np.flatnonzero(rate_per_s.ravel())[-1] if total > 0 else 0
    drawn = np.searchsorted(share, generator.random(count) * share[-1], side="right")
    origin, model = np.divmod(np.minimum(drawn, last).astype(np.int16), rate_per_s.shape[1])
    tokens = sample.tokens[generator.integers(len(sample.tokens), size=count)]
    names = np.full(count, service, np.int16)
    return arrival, tokens[:, 0], tokens[:, 1], origin, model, names
