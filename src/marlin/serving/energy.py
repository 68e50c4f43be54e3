"""Energy of a token: a view derived from a serving profile's times and power."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marlin.physics.power import gpu_power_w
from marlin.serving.profiles import ServingProfile


def prompt_token_j(profile: ServingProfile, prompt_tokens: ArrayLike) -> NDArray[np.float64]:
    """GPU energy of a replica per token of a prompt that it processes alone [J].

    The weights are read once and meet every token; any shape in, same out.
    """
    tokens = np.asarray(prompt_tokens, float)
    return _step_j(profile, profile.weights_bytes, tokens, profile.prefill_s(tokens)) / tokens


def output_token_j(
    profile: ServingProfile, batch: ArrayLike, context_tokens: ArrayLike
) -> NDArray[np.float64]:
    """GPU energy of a replica per output token while `batch` sequences decode [J].

    A step reads the weights and the KV cache of `context_tokens` tokens a sequence; the arguments
    broadcast. Prefill in between is not part of it (`prompt_token_j`).
    """
    sequences, context = np.broadcast_arrays(
        np.asarray(batch, float), np.asarray(context_tokens, float)
    )
    moved = profile.weights_bytes + sequences * context * profile.kv_bytes_per_token
    seconds = profile.decode_step_s(sequences, context)
    return _step_j(profile, moved, sequences, seconds) / sequences


def _step_j(
    profile: ServingProfile,
    moved_bytes: ArrayLike,
    tokens: NDArray[np.float64],
    seconds: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Energy of all GPUs of a replica over a step [J]: power at the step's own rates."""
    flop = 2.0 * profile.parameters * profile.gpu_flops_scale * tokens
    power = gpu_power_w(
        np.asarray(moved_bytes, float) / profile.tp / seconds / 1e12,
        flop / profile.tp / seconds / 1e12,
        context_w=profile.gpu_context_w,
        w_per_tb_per_s=profile.gpu_w_per_tb_per_s,
        w_per_tflop_per_s=profile.gpu_w_per_tflop_per_s,
        tdp_w=profile.gpu_tdp_w,
    )
    return np.asarray(power * seconds * profile.tp)
