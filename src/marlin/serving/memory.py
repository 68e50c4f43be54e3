"""What fits on the GPUs of a replica: weights first, the rest is KV cache."""

from __future__ import annotations

import numpy as np

from marlin.errors import UserError
from marlin.serving.hardware import Gpu
from marlin.serving.models import Model

MIN_KV_TOKENS = 8192  # less than one long request is no replica


def _room_tokens(model: Model, gpu: Gpu, tp: int, precision: str) -> float:
    room = gpu.usable_bytes * tp - model.weights_bytes(precision)
    return float(np.floor(room / model.kv_bytes_per_token))


def gpus_needed(model: Model, gpu: Gpu, precision: str = "bfloat16") -> int:
    """Smallest power of two of GPUs that holds the weights and one request of 8,192 tokens."""
    count = 1
    while _room_tokens(model, gpu, count, precision) < MIN_KV_TOKENS:
        count *= 2
    return count


def kv_capacity_tokens(model: Model, gpu: Gpu, tp: int, precision: str = "bfloat16") -> float:
    """Tokens of BF16 KV cache that fit on the `tp` GPUs of a replica.

    `((0.9 memory - reserve) tp - weights) / bytes of a token`. Raises `UserError`, which
    says how many GPUs the model needs, when they are too few.
    """
    tokens = _room_tokens(model, gpu, tp, precision)
    if tokens < MIN_KV_TOKENS:
        weights_gb = model.weights_bytes(precision) / 1e9
        raise UserError(
            f"serving: {model.name} ({weights_gb:.0f} GB of weights) does not fit on "
            f"{tp} x {gpu.name}; it needs {gpus_needed(model, gpu, precision)} (serving.models, tp)"
        )
    return tokens
