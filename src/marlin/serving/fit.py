"""Fit one serving profile: dense kernel tables -> closed forms, with memory and power."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from marlin.errors import UserError
from marlin.serving import engine, hardware, memory, models, profiles, setups
from marlin.serving.tables import StepTables

PROMPT_TOKENS = np.unique(np.geomspace(128, 8192, 49).round().astype(np.int64))
CONTEXT_TOKENS = np.unique(np.geomspace(256, 8192, 21).round().astype(np.int64))


def relative_nnls(
    terms: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Non-negative coefficients that minimise the sum of squared relative residuals.

    `terms` is [N, K], `target` [N] and positive. Returns coefficients [K] and the absolute
    relative errors [N]. Columns are scaled before solving, so that tokens^2 and 1 weigh alike.
    """
    scaled = terms / target[:, None]
    norms = np.linalg.norm(scaled, axis=0)
    solution, _ = nnls(scaled / norms, np.ones(len(target)))
    coefficients = solution / norms
    return coefficients, np.abs(scaled @ coefficients - 1)


def prefill_grid(step: StepTables) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Prompt tokens [N] and seconds [N] of a prompt processed alone."""
    return PROMPT_TOKENS, step.prefill_s(PROMPT_TOKENS)


def decode_grid(
    step: StepTables, capacity_tokens: float, max_batch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Batch, context tokens and seconds, each [N], of the states that fit in the KV cache."""
    sizes = np.unique(np.geomspace(1, max_batch, 33).round().astype(np.int64))
    batch, context = (axis.ravel() for axis in np.meshgrid(sizes, CONTEXT_TOKENS, indexing="ij"))
    fits = batch * context <= capacity_tokens
    batch, context = batch[fits], context[fits]
    return batch, context, step.decode_s(batch, context)


def fit_prefill(
    tokens: NDArray[np.int64], seconds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`t_pre(P) = p0 + p1 P + p2 P^2`: coefficients [3] and absolute relative errors [N]."""
    x = tokens.astype(float)
    return relative_nnls(np.stack([np.ones_like(x), x, x**2], axis=1), seconds)


def fit_decode(
    batch: NDArray[np.int64], context: NDArray[np.int64], seconds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`t_dec(B, ctx) = d0 + d1 B + d2 B ctx`: coefficients [3] and absolute errors [N]."""
    b = batch.astype(float)
    return relative_nnls(np.stack([np.ones_like(b), b, b * context], axis=1), seconds)


def profile(
    model_name: str,
    gpu_name: str,
    tp: int,
    backend: str,
    precision: str = "bfloat16",
    max_batch: int = 256,
) -> profiles.ServingProfile:
    """Calibrate one profile of a GPU and a model by name; `UserError` names what is unknown."""
    model, gpu = models.model(model_name), hardware.gpu(gpu_name)
    return build(model, gpu, tp, backend, precision, max_batch)[0]


def build(
    model: models.Model,
    gpu: hardware.Gpu,
    tp: int,
    backend: str,
    precision: str = "bfloat16",
    max_batch: int = 256,
) -> tuple[profiles.ServingProfile, StepTables]:
    """Profile and step tables; `UserError` when it does not fit or there are no kernel tables."""
    capacity = memory.kv_capacity_tokens(model, gpu, tp, precision)
    if tp > 1 and gpu.name in engine.WITHOUT_LINKS:
        raise UserError(
            f"serving: the tables of {gpu.name} over PCIe are extrapolated beyond one GPU "
            f"({model.name}, tp {tp}): no profile"
        )
    step = engine.compile_engine(model, gpu, tp, backend, precision)
    tables = replace(step.tables(), overhead=setups.of_profile(backend, precision).overhead)
    prefill, prefill_error = fit_prefill(*prefill_grid(tables))
    decode, decode_error = fit_decode(*decode_grid(tables, capacity, max_batch))
    return describe(
        model, gpu, tp, backend, precision, step.version,
        f"aiconfigurator-core {engine.package_version()}, {gpu.system}, {precision}",
        engine.LICENCE, prefill, decode, prefill_error, decode_error,
    ), tables  # fmt: skip


def describe(
    model: models.Model,
    gpu: hardware.Gpu,
    tp: int,
    backend: str,
    precision: str,
    version: str,
    source: str,
    licence: str,
    prefill: NDArray[np.float64],
    decode: NDArray[np.float64],
    prefill_error: NDArray[np.float64],
    decode_error: NDArray[np.float64],
) -> profiles.ServingProfile:
    """A profile from its two closed forms [3], their errors [N] and what the GPU is."""
    weights = model.weights_bytes(precision)
    return profiles.ServingProfile(
        model=model.name,
        gpu=gpu.name,
        tp=tp,
        backend=backend,
        engine_version=version,
        source=source,
        licence=licence,
        prefill_p0_s=float(prefill[0]),
        prefill_p1_s_per_token=float(prefill[1]),
        prefill_p2_s_per_token2=float(prefill[2]),
        decode_d0_s=float(decode[0]),
        decode_d1_s_per_seq=float(decode[1]),
        decode_d2_s_per_kv_token=float(decode[2]),
        prefill_fit_error_median=float(np.median(prefill_error)),
        prefill_fit_error_p90=float(np.quantile(prefill_error, 0.9)),
        decode_fit_error_median=float(np.median(decode_error)),
        decode_fit_error_p90=float(np.quantile(decode_error, 0.9)),
        kv_bytes_per_token=float(model.kv_bytes_per_token),
        kv_capacity_tokens=memory.kv_capacity_tokens(model, gpu, tp, precision),
        weights_bytes=float(weights),
        parameters=float(model.active_parameters),
        load_s=weights / hardware.LOADER_BYTES_PER_S,
        gpu_tdp_w=float(gpu.tdp_w),
        gpu_context_w=gpu.context_w,
        gpu_deep_idle_w=gpu.deep_idle_w,
        gpu_w_per_tb_per_s=gpu.w_per_tb_per_s,
        gpu_w_per_tflop_per_s=gpu.w_per_tflop_per_s,
        gpu_flops_scale=1.0 if precision == "bfloat16" else 0.5,
        power_source=gpu.power_source,
        precision=precision,
    )
