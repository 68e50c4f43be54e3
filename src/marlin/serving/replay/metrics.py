"""Latency of finished requests: streamed counts in, quantiles and service levels out.

Quantiles come from histograms whose bins are 1/256 of a power of two wide, so they are within
0.4 % of the exact order statistic however many requests there are; means and counts are exact.

Definitions: TTFT at the client is network round trip, queueing and prefill; a dropped request
counts with the patience it lost. TPOT is the mean time of a request's tokens after the first (of
requests with two tokens or more). E2E ends with the last token.

Service levels
--------------
mlperf, mlperf_interactive: MLPerf Inference, Llama-2-70B: TTFT 2 s and TPOT 0.2 s; 0.45 s and
    0.04 s. It asks for 99 % of requests; the share that meets both is reported.
dynamollm: TTFT 0.25, 0.4 or 2 s for prompts below 256, below 1,024 and longer; TPOT 0.1 s
    (Stojkovic et al., HPCA 2025; the two outer limits and the classes are recalled, not re-read).
splitwise: slowdown against an unloaded A100 replica, without the network: TTFT 2, 3, 6, TPOT and
    E2E 1.25, 1.5, 5 at P50, P90, P99, all nine at once (Patel et al., ISCA 2024, Table VI).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from marlin.serving.replay.cluster import Records
from marlin.serving.replay.kernel import DROPPED, REJECTED

METRICS = ("ttft_s", "tpot_s", "e2e_s")
SLOWDOWNS = ("ttft_slowdown", "tpot_slowdown", "e2e_slowdown")
QUANTILES = (0.5, 0.9, 0.95, 0.99)
LEVELS = ("mlperf", "mlperf_interactive", "dynamollm")
SPLITWISE_QUANTILES = (0.5, 0.9, 0.99)
SPLITWISE_LIMITS = {
    "ttft_slowdown": (2.0, 3.0, 6.0),
    "tpot_slowdown": (1.25, 1.5, 5.0),
    "e2e_slowdown": (1.25, 1.5, 5.0),
}
COUNTS = (
    "served", "dropped", "rejected", "preemptions", "prompt_tokens", "output_tokens",
    "answered", "paced", *LEVELS,
)  # fmt: skip
SUMS = ("ttft_s", "tpot_s", "e2e_s", "queue_and_prefill_s")

EACH_ITSELF = np.ones(1)  # weight of a request that stands for no other

_PART_BITS = 8  # bins of a power of two: 2 ** 8
_LOW_EXPONENT, _HIGH_EXPONENT = -17, 20  # 8 microseconds to 12 days
_OFFSET = (127 + _LOW_EXPONENT) << _PART_BITS
BINS = (_HIGH_EXPONENT - _LOW_EXPONENT) << _PART_BITS


@njit(cache=True)
def _bin(value, buffer, bits):
    """Histogram bin of a positive number, from the bits of its single-precision form."""
    buffer[0] = value
    return min(max((bits[0] >> (23 - _PART_BITS)) - _OFFSET, 0), BINS - 1)


@njit(cache=True)
def tally(requests, weight, group, model, rtt_s, reference, patience_s, counts, sums, histogram):
    """Add finished requests to counts [N, COUNTS], sums [N, SUMS] and histograms [N, 6, BINS].

    Request n stands for `weight[n]` requests; a single weight is that of all. `group`, `model` and
    `rtt_s` are looked up by [lane, tag] of a request; `reference` [M] holds
    `kernel.ENGINE` records of the unloaded replica that slowdowns refer to.
    """
    buffer = np.empty(1, np.float32)
    bits = buffer.view(np.int32)
    for n in range(len(requests)):
        request = requests[n]
        stands_for = weight[min(n, len(weight) - 1)]
        g = group[request.lane, request.tag]
        count, total, bins = counts[g], sums[g], histogram[g]
        if request.status == REJECTED:
            count[2] += stands_for
            continue
        network = rtt_s[request.lane, request.tag]
        if request.status == DROPPED:
            count[1] += stands_for
            count[6] += stands_for
            total[0] += stands_for * patience_s
            bins[0, _bin(patience_s, buffer, bits)] += stands_for
            continue
        prompt, output = request.prompt, request.output
        count[0] += stands_for
        count[3] += stands_for * request.preempted
        count[4] += stands_for * prompt
        count[5] += stands_for * output
        count[6] += stands_for
        inside = request.first - request.arrival
        ttft = inside + network
        e2e = request.finish - request.arrival
        tpot = 0.0
        engine = reference[model[request.lane, request.tag]]
        alone = engine.p0 + engine.p1 * prompt + engine.p2 * prompt * float(prompt)
        step = engine.d0 + engine.d1 + engine.d2 * (prompt + 0.5 * output)
        total[0] += stands_for * ttft
        total[2] += stands_for * (e2e + network)
        total[3] += stands_for * inside
        bins[0, _bin(ttft, buffer, bits)] += stands_for
        bins[2, _bin(e2e + network, buffer, bits)] += stands_for
        bins[3, _bin(inside / alone, buffer, bits)] += stands_for
        bins[5, _bin(e2e / (alone + (output - 1) * step), buffer, bits)] += stands_for
        if output > 1:
            tpot = (request.finish - request.first) / (output - 1)
            count[7] += stands_for
            total[1] += stands_for * tpot
            bins[1, _bin(tpot, buffer, bits)] += stands_for
            bins[4, _bin(tpot / step, buffer, bits)] += stands_for
        if ttft <= 2.0 and tpot <= 0.2:
            count[8] += stands_for
            if ttft <= 0.45 and tpot <= 0.04:
                count[9] += stands_for
        limit = 0.25 if prompt < 256 else (0.4 if prompt < 1024 else 2.0)
        if ttft <= limit and tpot <= 0.1:
            count[10] += stands_for


def edges() -> NDArray[np.float64]:
    """Borders of the histogram's bins, [BINS + 1]."""
    bits = (np.arange(BINS + 1, dtype=np.int32) + _OFFSET) << (23 - _PART_BITS)
    return bits.view(np.float32).astype(float)


def quantile(histogram: NDArray[np.float64], probability: float) -> float:
    """Order statistic of a histogram [BINS] that is not empty, linear within its bin."""
    cumulative = np.cumsum(histogram)
    rank = probability * (cumulative[-1] - 1) + 0.5
    at = int(np.searchsorted(cumulative, rank))
    border = edges()
    before = cumulative[at] - histogram[at]
    part = (rank - before) / histogram[at]
    return float(border[at] + part * (border[at + 1] - border[at]))


class Tally:
    """Running totals of N groups of requests."""

    def __init__(self, groups: int) -> None:
        self.counts = np.zeros((groups, len(COUNTS)))
        self.sums = np.zeros((groups, len(SUMS)))
        self.histogram = np.zeros((groups, len(METRICS) + len(SLOWDOWNS), BINS))

    def add(
        self,
        requests: Records,
        group: NDArray[np.int64],
        model: NDArray[np.int64],
        rtt_s: NDArray[np.float64],
        reference: Records,
        patience_s: float,
        weight: NDArray[np.float64] = EACH_ITSELF,
    ) -> None:
        """Count finished requests; see `tally`."""
        tally(
            requests, weight, group, model, rtt_s, reference, patience_s,
            self.counts, self.sums, self.histogram,
        )  # fmt: skip

    def join(self, other: Tally) -> None:
        """Add what another tally of the same groups counted."""
        self.counts += other.counts
        self.sums += other.sums
        self.histogram += other.histogram

    def mean_ttft_s(self) -> float:
        """Mean TTFT of all that was answered or dropped; zero when nothing was."""
        answered = self.counts[:, COUNTS.index("answered")].sum()
        return float(self.sums[:, SUMS.index("ttft_s")].sum() / max(answered, 1e-12))

    def summary(self, groups: slice | NDArray[np.int64], duration_s: float) -> dict[str, float]:
        """Latency, service levels and goodput of some groups together, over `duration_s`.

        What there is no request for is left out. A request that was dropped or rejected misses
        every service level.
        """
        count = dict(zip(COUNTS, self.counts[groups].sum(axis=0).tolist(), strict=True))
        total = dict(zip(SUMS, self.sums[groups].sum(axis=0).tolist(), strict=True))
        bins = dict(zip(METRICS + SLOWDOWNS, self.histogram[groups].sum(axis=0), strict=True))
        result: dict[str, float] = {name: count[name] for name in COUNTS[:6]}
        of = {"ttft_s": count["answered"], "tpot_s": count["paced"], "e2e_s": count["served"]}
        for name in METRICS:
            if not of[name]:
                continue
            stem = name.removesuffix("_s")
            result[f"{stem}_mean_s"] = total[name] / of[name]
            for q in QUANTILES:
                result[f"{stem}_p{round(100 * q)}_s"] = quantile(bins[name], q)
        finished = count["served"] + count["dropped"] + count["rejected"]
        if not finished:
            return result
        for level in LEVELS:
            result[f"{level}_attainment"] = count[level] / finished
            result[f"{level}_goodput_per_s"] = count[level] / duration_s
        met = count["served"] >= 0.99 * finished
        for name in SLOWDOWNS:
            if not bins[name].any():
                continue
            for q, limit in zip(SPLITWISE_QUANTILES, SPLITWISE_LIMITS[name], strict=True):
                value = result[f"{name}_p{round(100 * q)}"] = quantile(bins[name], q)
                met &= value <= limit
        result["splitwise_attained"] = float(met)
        return result
