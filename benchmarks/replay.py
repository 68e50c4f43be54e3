"""Replay: requests a second on one core, with dispatch, energy and metrics on.

    python benchmarks/replay.py TRACE

Llama-3.1-70B on 4 x H100, 96 replicas over 12 sites, lengths of TRACE (the conversation file of
the Azure LLM inference trace 2023), Poisson arrivals; utilisation 0.3, 0.6, 0.9, then 10^4 to 10^7
requests at 0.6. The ratios are to simulators measured on the same lengths on a machine of this
class: Vidur 380, splitwise-sim 410 and BLIS 470 requests a second.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pandas as pd

from marlin.serving import fit
from marlin.serving.profiles import ServingProfile
from marlin.serving.replay.cluster import Cluster, Dispatch, engine
from marlin.serving.replay.metrics import Tally

SITES, REPLICAS, MAX_BATCH, PIECE = 12, 8, 256, 1 << 16
PEERS = {"Vidur": 380, "splitwise-sim": 410, "BLIS": 470}


def work_s(profile: ServingProfile, prompt: np.ndarray, output: np.ndarray) -> float:
    """Share of a replica's time that one request a second takes."""
    context = (output * (prompt + output / 2)).sum() / output.sum()
    slots = min(profile.kv_capacity_tokens / context, MAX_BATCH)
    slope = profile.decode_d1_s_per_seq + profile.decode_d2_s_per_kv_token * context
    return profile.prefill_s(prompt).mean() + output.mean() * (slope + profile.decode_d0_s / slots)


def rate_per_s(
    profile: ServingProfile,
    prompt: np.ndarray,
    output: np.ndarray,
    load: float,
    count: int,
    dispatch: Dispatch,
) -> tuple[float, dict[str, float]]:
    """Requests replayed per CPU second, drawing them left out, and their summary."""
    rng = np.random.default_rng(0)
    one = engine(profile, MAX_BATCH)
    sizes = np.full((SITES, 1), REPLICAS)
    cluster = Cluster(sizes, [[one]] * SITES, np.ones((SITES, 1)), dispatch)
    tally = Tally(SITES)
    group, model = np.arange(SITES)[:, None].copy(), np.zeros((SITES, 1), np.int64)
    rtt_s, reference = np.full((SITES, 1), 0.05), np.array([one])
    gap_s = work_s(profile, prompt, output) / (load * SITES * REPLICAS)
    now, spent, books = 0.0, 0.0, np.zeros(10)
    for first in range(0, count + PIECE, PIECE):
        size = max(min(PIECE, count - first), 0)
        arrival = now + np.cumsum(rng.exponential(gap_s, size))
        pick = rng.integers(0, len(prompt), size)
        tokens = prompt[pick], output[pick]
        began = time.process_time()
        lane = np.floor(SITES * rng.random(size)).astype(np.int64)
        until = arrival[-1] if size else np.inf
        rows = cluster.serve(arrival, *tokens, lane, 0, first + np.arange(size), until)
        tally.add(rows, group, model, rtt_s, reference, 300.0)
        books += cluster.books.sum(axis=0)
        spent += time.process_time() - began
        now = until
        if not size:
            break
    summary = tally.summary(slice(None), 1.0)
    assert summary["served"] == count
    return count / spent, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", help="AzureLLMInferenceTrace_conv.csv, may be gzipped")
    rows = pd.read_csv(parser.parse_args().trace)
    prompt = rows["ContextTokens"].to_numpy(np.int32)
    output = rows["GeneratedTokens"].to_numpy(np.int32)
    profile = fit.profile("llama-3.1-70b", "H100", 4, "vllm")
    rate_per_s(profile, prompt, output, 0.6, 1000, "jsq")
    print(
        f"{'load':>5} {'dispatch':>12} {'requests':>9} {'per s':>11}  TTFT P50 / P99 s   "
        + " ".join(PEERS)
    )
    cases: list[tuple[float, Dispatch, int]] = [
        (load, d, 10**6) for load in (0.3, 0.6, 0.9) for d in ("jsq", "round_robin")
    ]
    cases += [(0.6, "jsq", 10**power) for power in (4, 5, 6, 7)]
    for load, dispatch, count in cases:
        rate, found = rate_per_s(profile, prompt, output, load, count, dispatch)
        ratios = " ".join(f"{rate / peer:,.0f}x" for peer in PEERS.values())
        print(
            f"{load:5.1f} {dispatch:>12} {count:9d} {rate:11,.0f}"
            f"  {found['ttft_p50_s']:.3f} / {found['ttft_p99_s']:.3f}   {ratios}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
