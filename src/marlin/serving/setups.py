"""Engines and load generators of the measured runs, and what was fitted to half of them.

The discrete choices of a setup are those with the smaller error on the fitted half; the five
numbers are found there by `engine_fit`. A configuration is (model, GPU, tensor parallelism, engine,
precision, input and output length); a hash of its name puts it in one half or the other, with all
its concurrencies, so that no configuration is on both sides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from marlin.serving.closed_loop import Client, Scheduler
from marlin.serving.tables import Overhead

STREAM_TOKENS = 20


@dataclass(frozen=True)
class Setup:
    """An engine with its settings under one load generator."""

    scheduler: Scheduler
    client: Client
    overhead: Overhead
    kv_precision: str = "bfloat16"


# InferenceMAX (SemiAnalysis, October 2025) draws lengths in 0.8 to 1 of nominal, ten requests a
# client, all clients at once, with FP8 and FP4 checkpoints and an FP8 cache. The sweeps do not
# state theirs: equal lengths.
SETUPS: dict[tuple[str, str, str], Setup] = {
    ("InferenceMAX", "vllm", "llama-3.1-70b"): Setup(
        Scheduler(), Client(length_low=0.8, request_s=0.018),
        Overhead(0.958, 1.230, 2.85e-4, 2.37e-5), "fp8"),
    ("InferenceMAX", "trtllm", "llama-3.1-70b"): Setup(
        Scheduler(chunked=False), Client(length_low=0.8, request_s=0.027),
        Overhead(0.750, 1.061, 0.0, 8.63e-6), "fp8"),
    ("sweep", "vllm", "qwen3-32b"): Setup(
        Scheduler(max_prompts=2), Client(request_s=0.044),
        Overhead(0.970, 1.047, 1.55e-3, 3.34e-5)),
    ("sweep", "trtllm", "qwen3-32b"): Setup(
        Scheduler(max_prompts=3), Client(request_s=0.061),
        Overhead(0.884, 1.106, 0.0, 3.33e-5), "fp8"),
    ("sweep", "trtllm", "llama-3.1-8b"): Setup(
        Scheduler(chunked=False, max_prompts=1), Client(spare=1, request_s=0.025),
        Overhead(0.919, 1.048, 6.64e-4, 1.25e-5)),
    ("sweep", "sglang", "qwen3-32b"): Setup(
        Scheduler("exclusive", chunked=False), Client(request_s=0.070),
        Overhead(0.876, 0.987, 1.63e-3, 3.37e-5)),
    ("sweep", "sglang", "llama-3.1-8b"): Setup(
        Scheduler(slots=448), Client(request_s=0.487),
        Overhead(0.800, 0.739, 8.41e-3, 1.20e-5)),
}  # fmt: skip


def split(configuration: tuple[object, ...]) -> str:
    """`fitted` or `held out`, by the last bit of the SHA-256 of the configuration's name."""
    name = "|".join(str(part) for part in configuration)
    return "fitted" if hashlib.sha256(name.encode()).digest()[-1] % 2 == 0 else "held out"


def client(
    setup: Setup, backend: str, tp: int, collection: str, lengths: tuple[int, int]
) -> Client:
    """The setup's client; some TensorRT-LLM runs of InferenceMAX stream 20 tokens at a time.

    Their first token comes 20 steps late where input and output are 1,024 tokens on fewer than
    eight GPUs, and nowhere else.
    """
    late = collection == "InferenceMAX" and backend == "trtllm" and tp < 8
    if late and lengths == (1024, 1024):
        return replace(setup.client, stream_tokens=STREAM_TOKENS)
    return setup.client


def of_profile(backend: str, precision: str) -> Setup:
    """The setup whose overheads a profile takes: the same engine, and precision where measured."""
    unquantised = {"vllm": "qwen3-32b", "trtllm": "llama-3.1-8b", "sglang": "qwen3-32b"}
    if precision == "bfloat16" or backend == "sglang":
        return SETUPS["sweep", backend, unquantised[backend]]
    return SETUPS["InferenceMAX", backend, "llama-3.1-70b"]
