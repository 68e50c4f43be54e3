"""Kernel tables of aiconfigurator-core: static latency of one engine step on one replica.

The package composes a step from measured operator times (NVIDIA, Apache-2.0). There is no server,
tokeniser or scheduler in it: its prefill is a lower bound for time to first token.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marlin.errors import UserError
from marlin.serving.hardware import Gpu
from marlin.serving.models import Model

LICENCE = "Apache-2.0"


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


def package_version() -> str:
    """Version of the kernel tables' package."""
    from importlib.metadata import version

    return version("aiconfigurator-core")


@cache
def compile_engine(model: Model, gpu: Gpu, tp: int, backend: str, precision: str) -> Engine:
    """Build the step model; `UserError` when the tables do not cover the combination."""
    # The package reports at WARNING tables of other models that it fills in: no use here.
    logging.getLogger("aiconfigurator_core").setLevel(logging.ERROR)
    from aiconfigurator_core.sdk.engine import EngineHandle
    from aiconfigurator_core.sdk.perf_database import resolve_query_version

    try:
        version = resolve_query_version(gpu.system, backend, "current")
        handle = EngineHandle.compile(
            model.path,
            gpu.system,
            backend,
            backend_version=version,
            tp_size=tp,
            gemm_quant_mode=precision,
        )
        handle.predict_prefill_latency(1, 1024)
        handle.decode_step_latency(1, 1024, 0)
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"serving: aiconfigurator-core has no tables for {model.name} ({precision}) "
            f"on {tp} x {gpu.name} under {backend}: {error}"
        ) from error
    return Engine(handle, version)
