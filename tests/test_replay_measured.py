"""Replay against what was measured: one vLLM run request by request, and Splitwise's table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq

from marlin.serving.fit import relative_nnls
from marlin.serving.hardware import MEMORY_UTILISATION, RESERVE_BYTES
from marlin.serving.models import MODELS
from marlin.serving.replay import kernel
from marlin.serving.replay.cluster import single

pytestmark = pytest.mark.mirror

LAYERS = 32  # of Llama-3.1-8B
CALIBRATION = 100  # requests of the log that the one free number is fitted to


@pytest.fixture(scope="module")
def serving(mirror: str) -> Path:
    if not Path(mirror).is_dir():
        pytest.skip("needs the measured data as a folder")
    return Path(mirror) / "serving"


def test_a_saturated_vllm_run_request_by_request(serving: Path) -> None:
    log = serving / "vllm-request-log" / "RTXPRO6000_Llama-3.1-8B" / "requests.jsonl"
    rows = pd.DataFrame([json.loads(line) for line in log.read_text().splitlines()])
    arrival = (rows.queued_ts - rows.queued_ts.min()).to_numpy()
    output = rows.output_toks.to_numpy()
    ttft = (rows.first_token_ts - rows.queued_ts).to_numpy()
    tpot = (rows.last_token_ts - rows.first_token_ts).to_numpy() / (output - 1)
    coefficients = rtx_pro_6000(serving)

    def simulate(host_s: float) -> tuple[np.ndarray, np.ndarray]:
        cluster = single(vllm(coefficients, host_s))
        index = np.arange(len(rows))
        prompt = rows.input_toks.to_numpy()
        found = np.sort(cluster.serve(arrival, prompt, output, 0, 0, index), order="index")
        return found["first"] - found["arrival"], (found["finish"] - found["first"]) / (output - 1)

    # Kernel tables know no host: its time a step is fitted to TPOT of the first requests alone.
    def excess(host_s: float) -> float:
        return float(np.median(simulate(host_s)[1][:CALIBRATION]) - np.median(tpot[:CALIBRATION]))

    host_s = brentq(excess, 0.0, 0.02, xtol=1e-5)
    my_ttft, my_tpot = (values[CALIBRATION:] for values in simulate(host_s))
    ttft, tpot = ttft[CALIBRATION:], tpot[CALIBRATION:]
    error = {
        "tpot_p50": np.median(my_tpot) / np.median(tpot) - 1,
        "ttft_p50": np.median(my_ttft) / np.median(ttft) - 1,
        "ttft_p95": np.quantile(my_ttft, 0.95) / np.quantile(ttft, 0.95) - 1,
    }
    print(f"host {1e3 * host_s:.2f} ms a step;", {k: f"{100 * v:+.1f} %" for k, v in error.items()})
    assert abs(error["tpot_p50"]) < 0.05
    assert abs(error["ttft_p50"]) < 0.15
    assert abs(error["ttft_p95"]) < 0.15


def rtx_pro_6000(serving: Path) -> np.ndarray:
    """p0, p1, p2, d0, d1, d2 in seconds from measured kernels of a decode step and a prompt."""
    folder = serving / "llmservingsim-profiles/perf/RTXPRO6000/Llama-3.1-8B/bf16/tp1"
    tables = [pd.read_csv(folder / f"{n}.csv.gz") for n in ("dense", "attention", "per_sequence")]
    layers = tables[0].pivot_table(index="tokens", columns="layer", values="time_us")

    def dense_us(tokens: pd.Series) -> np.ndarray:
        of = {n: np.interp(tokens, c.dropna().index, c.dropna()) for n, c in layers.items()}
        once = of.pop("embedding") + of.pop("final_layernorm")
        return np.asarray(once + LAYERS * (sum(of.values()) + of["layernorm"]))  # two norms a layer

    def head_us(sequences: pd.Series) -> np.ndarray:
        parts = (p for _, p in tables[2].groupby("layer"))
        return sum(np.interp(sequences, p.sequences, p.time_us) for p in parts)

    attention = tables[1]
    decode = attention[
        (attention.prefill_chunk == 0)
        & attention.kv_decode.between(256, 8192)
        & (attention.n_decode * attention.kv_decode <= 400_000)
    ]
    batch = decode.n_decode.to_numpy(float)
    step_us = LAYERS * decode.time_us + dense_us(decode.n_decode) + head_us(decode.n_decode)
    terms = np.stack([np.ones_like(batch), batch, batch * decode.kv_decode], axis=1)
    steps, _ = relative_nnls(terms, step_us.to_numpy())
    alone = attention[
        (attention.n_decode == 0) & (attention.kv_prefill == 0) & (attention.prefill_chunk >= 64)
    ]
    tokens = alone.prefill_chunk.to_numpy(float)
    one = pd.Series(np.ones(len(alone)))
    prompt_us = LAYERS * alone.time_us.to_numpy() + dense_us(alone.prefill_chunk) + head_us(one)
    prompts, _ = relative_nnls(np.stack([np.ones_like(tokens), tokens, tokens**2], 1), prompt_us)
    return np.concatenate([prompts, steps]) / 1e6


def vllm(coefficients: np.ndarray, host_s: float) -> np.void:
    """The replica of the log: 96 GB, 128 sequences, chunks of 2,048 tokens, `host_s` a step."""
    model = MODELS["llama-3.1-8b"]
    free = MEMORY_UTILISATION * 96e9 - RESERVE_BYTES - model.weights_bytes("bfloat16")
    p0, p1, p2, d0, d1, d2 = coefficients
    limits = (int(free / model.kv_bytes_per_token), 128, 2048, 1)
    return np.array([(p0 + host_s, p1, p2, d0 + host_s, d1, d2, *limits)], kernel.ENGINE)[0]


# Splitwise Table IV, median requests alone on DGX: TTFT, TBT, E2E in ms.
SPLITWISE = {
    ("a100-80gb", 1500, 13): (185, 52, 856),
    ("h100-80gb", 1500, 13): (95, 31, 493),
    ("a100-80gb", 1020, 129): (155, 40, 4957),
    ("h100-80gb", 1020, 129): (84, 28, 3387),
}


@pytest.mark.parametrize("case", SPLITWISE, ids=lambda case: f"{case[0]}-{case[1]}")
def test_splitwise_median_requests(serving: Path, case: tuple[str, int, int]) -> None:
    gpu, prompt, output = case
    table = pd.read_csv(serving / "splitwise-perf-model" / "perf_model.csv")
    table = table[
        (table.model == "llama2-70b") & (table.hardware == gpu) & (table.tensor_parallel == 8)
    ]
    alone = table[(table.batch_size == 1) & (table.token_size == 128)]
    means = alone.groupby("prompt_size").prompt_time.mean()
    tokens = means.index.to_numpy(float)
    one = np.ones_like(tokens)
    prefill, _ = relative_nnls(np.stack([one, tokens, tokens**2], axis=1), means.to_numpy())
    steps = table[(table.prompt_size == 512) & (table.token_size == 128)]
    batch = steps.batch_size.to_numpy(float)
    decode, _ = relative_nnls(
        np.stack([np.ones_like(batch), batch], 1), steps.token_time.to_numpy()
    )
    limits = (400_000, 64, 8192, 0)
    chosen = np.array([(*prefill / 1e3, *decode / 1e3, 0.0, *limits)], kernel.ENGINE)[0]
    rows = single(chosen).serve(np.zeros(1), np.array([prompt]), np.array([output]), 0)
    ttft, e2e = 1e3 * rows["first"][0], 1e3 * rows["finish"][0]
    tbt = (e2e - ttft) / (output - 1)
    error = [
        mine / theirs - 1 for mine, theirs in zip((ttft, tbt, e2e), SPLITWISE[case], strict=True)
    ]
    print(case, [f"{100 * e:+.0f} %" for e in error])
    assert abs(error[0]) < 0.2
    assert abs(error[1]) < 0.2
    # The paper's own TBT of the conversation trace is 10 % below its published profile.
    assert abs(error[2]) < 0.2
