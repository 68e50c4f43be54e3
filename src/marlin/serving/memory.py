"""What fits on the GPUs of a replica: weights first, the rest is KV cache."""

from __future__ import annotations

import numpy as np

from marlin.errors import UserError
from marlin.serving.hardware import Gpu
from marlin.serving.models import KV_BYTES, Model

MIN_KV_TOKENS = 8192  # less than one long request is no replica


def kv_bytes(model: Model, kv_precision: str = "bfloat16") -> float:
    """Bytes of KV cache of one token over all layers and GPUs."""
    return model.kv_bytes_per_token * KV_BYTES[kv_precision] / KV_BYTES["bfloat16"]


def _room_tokens(model: Model, gpu: Gpu, tp: int, precision: str, kv_precision: str) -> float:
    room = gpu.usable_bytes * tp - model.weights_bytes(precision)
    return float(np.floor(room / kv_bytes(model, kv_precision)))


def gpus_needed(
    model: Model, gpu: Gpu, precision: str = "bfloat16", kv_precision: str = "bfloat16"
) -> int:
    """Smallest power of two of GPUs that holds the weights and one request of 8,192 tokens."""
    count = 1
    while _room_tokens(model, gpu, count, precision, kv_precision) < MIN_KV_TOKENS:
        count *= 2
    return count


def kv_capacity_tokens(
    model: Model,
    gpu: Gpu,
    tp: int,
    precision: str = "bfloat16",
    kv_precision: str = "bfloat16",
) -> float:
    """Tokens of KV cache that fit on the `tp` GPUs of a replica.

    `((0.9 memory - reserve) tp - weights) / bytes of a token`. Raises `UserError`, which
    says how many GPUs the model needs, when they are too few.
    """
    tokens = _room_tokens(model, gpu, tp, precision, kv_precision)
    if tokens < MIN_KV_TOKENS:
        weights_gb = model.weights_bytes(precision) / 1e9
        raise UserError(
            f"serving: {model.name} ({weights_gb:.0f} GB of weights) does not fit on "
            f"{tp} x {gpu.name}; it needs "
            f"{gpus_needed(model, gpu, precision, kv_precision)} (serving.models, tp)"
        )
    return tokens
