"""The hardware table of MARLIN (2026), as serving profiles of the fluid model.

Its simulator gives a node one request at a time, at a fixed time per token whether prompt or
output; a busy node draws its full power and a waiting one 15 % of it. In the terms of a profile:
one slot, prefill and decode at that time per token, power linear in the work done.
"""

from __future__ import annotations

from marlin.errors import UserError
from marlin.serving.hardware import GPUS
from marlin.serving.profiles import ServingProfile

BACKEND = "paper"
READY_SHARE = 0.15
"""Power of a node that waits over that of a busy one."""
GPU_MEMORY_BYTES = 80e9
LOAD_BYTES_PER_S = {"A100": 64e9, "H100": 128e9}

# Milliseconds per token by GPU and GPUs of the node: 7B and 70B, FP16, batch 16, a chat.
MS_PER_TOKEN = {
    ("A100", 2): {"llama-2-7b": 0.0939, "llama-2-70b": 0.8216},
    ("A100", 4): {"llama-2-7b": 0.0448, "llama-2-70b": 0.3921},
    ("A100", 8): {"llama-2-7b": 0.0214, "llama-2-70b": 0.1868},
    ("H100", 2): {"llama-2-7b": 0.0296, "llama-2-70b": 0.2592},
    ("H100", 4): {"llama-2-7b": 0.0141, "llama-2-70b": 0.1237},
    ("H100", 8): {"llama-2-7b": 0.00675, "llama-2-70b": 0.0589},
}
# Weights and KV cache per token in bytes, parameters.
SIZES = {
    "llama-2-7b": (13e9, 0.000262e9, 6.74e9),
    "llama-2-70b": (138e9, 0.00131e9, 68.98e9),
}


def profiles(models: list[str]) -> list[ServingProfile]:
    """Profiles of `models` on every node of the table; UserError for a model not in it."""
    for name in models:
        if name not in SIZES:
            raise UserError(
                f"serving=paper: the table of MARLIN has no {name!r}; it has {', '.join(SIZES)}"
            )
    return [_profile(name, gpu, gpus) for gpu, gpus in MS_PER_TOKEN for name in models]


def _profile(model: str, gpu: str, gpus: int) -> ServingProfile:
    token_s = MS_PER_TOKEN[gpu, gpus][model] / 1000
    weights_bytes, kv_bytes, parameters = SIZES[model]
    tdp_w = GPUS[gpu].tdp_w
    full_tflop_per_s = 2 * parameters / token_s / gpus / 1e12
    return ServingProfile(
        model=model,
        gpu=gpu,
        tp=gpus,
        backend=BACKEND,
        engine_version="2026",
        source="paper table",
        licence="facts read in the public code of MARLIN (2026)",
        prefill_p0_s=0.0,
        prefill_p1_s_per_token=token_s,
        prefill_p2_s_per_token2=0.0,
        decode_d0_s=token_s,
        decode_d1_s_per_seq=0.0,
        decode_d2_s_per_kv_token=0.0,
        prefill_fit_error_median=0.0,
        prefill_fit_error_p90=0.0,
        decode_fit_error_median=0.0,
        decode_fit_error_p90=0.0,
        kv_bytes_per_token=kv_bytes,
        kv_capacity_tokens=(gpus * GPU_MEMORY_BYTES - weights_bytes) / kv_bytes,
        weights_bytes=weights_bytes,
        parameters=parameters,
        load_s=weights_bytes / LOAD_BYTES_PER_S[gpu],
        gpu_tdp_w=tdp_w,
        gpu_context_w=READY_SHARE * tdp_w,
        gpu_deep_idle_w=READY_SHARE * tdp_w,
        gpu_w_per_tb_per_s=0.0,
        gpu_w_per_tflop_per_s=(1 - READY_SHARE) * tdp_w / full_tflop_per_s,
        gpu_flops_scale=1.0,
        power_source="paper table: busy at TDP, ready at 0.15 TDP",
    )
