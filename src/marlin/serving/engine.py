"""Kernel tables of aiconfigurator-core: static latency of one engine step on one replica.

The package composes a step from measured operator times (NVIDIA, Apache-2.0). There is no server,
tokeniser or scheduler in it: its prefill is a lower bound for time to first token.
"""

from __future__ import annotations

import json
import logging
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from marlin.errors import UserError
from marlin.serving.hardware import Gpu
from marlin.serving.models import Model
from marlin.serving.tables import StepTables

if TYPE_CHECKING:
    from collections.abc import Generator

LICENCE = "Apache-2.0"
BACKENDS = ("vllm", "sglang", "trtllm")
# All-reduce over PCIe is measured for small messages alone: prompts on more GPUs come out at
# seconds.
WITHOUT_LINKS = ("L40S",)

# The linear layers are measured on both sides of the edges at which engines change kernels, so the
# grid has both too; between them it is geometric.
_EDGES = np.array([32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512, 768, 1024, 1280, 1536,
                   1792, 2048, 2560, 3072, 3584, 4096, 8192])  # fmt: skip
TOKENS = np.unique(
    np.r_[np.arange(1, 33), np.geomspace(32, 16384, 41).round(), _EDGES, _EDGES + 1].astype(int)
)
PROMPT_TOKENS = np.unique(np.geomspace(32, 16384, 33).round().astype(int))
PREFIX_TOKENS = np.array([0, 1024, 4096, 8192])
BATCH = np.unique(np.geomspace(1, 512, 19).round().astype(int))
CONTEXT_TOKENS = np.unique(np.geomspace(128, 16384, 15).round().astype(int))


@dataclass(frozen=True)
class Engine:
    """Step times of (model, GPU, tensor parallelism, backend, precision)."""

    handle: Any
    version: str

    def prefill_s(self, prompt_tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds to process one prompt alone, same shape as `prompt_tokens`."""
        times = [self.handle.predict_prefill_latency(1, int(tokens)) for tokens in prompt_tokens]
        return np.array(times) / 1e3

    def decode_s(
        self, batch: NDArray[np.int64], context_tokens: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Seconds of one decode iteration, elementwise over two vectors of one length."""
        # The package evaluates the step at isl + osl // 2 + 1 tokens of context.
        pairs = zip(batch, context_tokens, strict=True)
        times = [self.handle.decode_step_latency(int(b), int(c) - 1, 0) for b, c in pairs]
        return np.array(times) / 1e3

    def tables(self) -> StepTables:
        """The three parts of a step on the grids of this module, without overhead."""
        part = self.handle.mixed_step_breakdown
        linear = [part(int(n), 0, int(n), 2)[1] for n in TOKENS]
        whole = self.handle.predict_prefill_latency
        context = [
            [
                whole(1, int(n + cached), int(cached)) - part(int(n), 0, int(n), 2)[1]
                for cached in PREFIX_TOKENS
            ]
            for n in PROMPT_TOKENS
        ]
        generation = [[part(1, int(b), int(c) - 1, 0)[3] for c in CONTEXT_TOKENS] for b in BATCH]
        return StepTables(
            TOKENS.astype(float), np.array(linear) / 1e3,
            PROMPT_TOKENS.astype(float), PREFIX_TOKENS.astype(float), np.array(context) / 1e3,
            BATCH.astype(float), CONTEXT_TOKENS.astype(float), np.array(generation) / 1e3,
        )  # fmt: skip


def package_version() -> str:
    """Version of the kernel tables' package."""
    from importlib.metadata import version

    return version("aiconfigurator-core")


@contextmanager
def _known_path(model: Model) -> Generator[str]:
    """A path by which the package finds the model: its own, or a folder with its sizes."""
    if model.path:
        yield model.path
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(model.card()))
        yield folder


@cache
def compile_engine(
    model: Model, gpu: Gpu, tp: int, backend: str, precision: str, kv_precision: str = "bfloat16"
) -> Engine:
    """Build the step model; `UserError` when the tables do not cover the combination."""
    # The package reports at WARNING tables of other models that it fills in: no use here.
    logging.getLogger("aiconfigurator_core").setLevel(logging.ERROR)
    from aiconfigurator_core.sdk.engine import EngineHandle
    from aiconfigurator_core.sdk.perf_database import resolve_query_version

    experts = {"moe_quant_mode": precision, "moe_tp_size": tp} if model.experts > 1 else {}
    try:
        version = resolve_query_version(gpu.system, backend, "current")
        with _known_path(model) as path:
            handle = EngineHandle.compile(
                path,
                gpu.system,
                backend,
                backend_version=version,
                tp_size=tp,
                gemm_quant_mode=precision,
                kvcache_quant_mode=kv_precision,
                **experts,
            )
        handle.predict_prefill_latency(1, 1024)
        handle.decode_step_latency(1, 1024, 0)
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"serving: aiconfigurator-core has no tables for {model.name} ({precision}) "
            f"on {tp} x {gpu.name} under {backend}: {str(error).split(' at /')[0]}"
        ) from error
    return Engine(handle, version)
