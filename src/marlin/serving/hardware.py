"""What a GPU is: peaks, memory, idle levels and the coefficients of its active power.

Active power of one GPU, with HBM traffic in TB/s and achieved compute in TFLOP/s:

    P = min(TDP, context + a * traffic + b * compute)

Sources
-------
Peaks and memory: vendor data sheets, as carried by aiconfigurator-core 0.12.0.
Idle levels of A100, H100 and L40S: Vadari, "The Model Parking Tax" (2026). H200 is taken as H100.
a, b of H100 and B200: fitted to ML.ENERGY Leaderboard v3.0 (Chung et al., 2025; vLLM 0.11.1) over
dense models of 8 to 405 billion parameters, mean absolute error 9 % and 6 %, with prompts assumed
to have 300 tokens because that dataset omits them. H200 takes the coefficients of H100.
a, b of A100: our fit to the mean board power of Splitwise (Patel et al., ISCA 2024; Llama-2-70B,
tensor parallelism 2 and 4, prompts up to 512 tokens, batch 1 to 16), mean absolute error 4 %. That
engine is of 2023 and its batches are small, so b is the less certain of the two.
L40S has no serving power data at all: it borrows the coefficients of H100 and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from marlin.errors import UserError

GIB = 2**30
MEMORY_UTILISATION = 0.9  # vLLM's default share of GPU memory
RESERVE_BYTES = 4.5 * GIB  # per GPU: runtime, activations of an 8,192-token step, collectives
# ServerlessLLM (Fu et al., OSDI 2024): 84 s for the 138 GB of Llama-2-70B, common loader.
LOADER_BYTES_PER_S = 138e9 / 84

_ML_ENERGY = "fit to ML.ENERGY Leaderboard v3.0 (vLLM 0.11.1), mean absolute error"
_IDLE = "idle: Vadari 2026"


@dataclass(frozen=True)
class Gpu:
    """One GPU model: capacities in bytes, TB/s and TFLOP/s (dense BF16), power in W."""

    name: str
    system: str
    memory_bytes: float
    bandwidth_tb_per_s: float
    compute_tflop_per_s: float
    tdp_w: float
    context_w: float
    deep_idle_w: float
    w_per_tb_per_s: float
    w_per_tflop_per_s: float
    power_source: str

    @property
    def usable_bytes(self) -> float:
        """Bytes left on one GPU for weights and KV cache."""
        return MEMORY_UTILISATION * self.memory_bytes - RESERVE_BYTES


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            "A100", "a100_sxm", 80 * GIB, 2.039, 312, 400, 80.0, 53.7, 175.5, 2.24,
            f"{_IDLE}; a, b: fit to Splitwise A100 board power, mean absolute error 4 %",
        ),
        Gpu(
            "H100", "h100_sxm", 80 * GIB, 3.35, 989, 700, 122.0, 71.8, 140.0, 1.37,
            f"{_IDLE}; a, b: {_ML_ENERGY} 9 %",
        ),
        Gpu(
            "H200", "h200_sxm", 141 * GIB, 4.8, 989, 700, 125.0, 75.0, 140.0, 1.37,
            "assumed: coefficients and idle levels of H100",
        ),
        Gpu(
            "B200", "b200_sxm", 180 * GIB, 7.7, 2250, 1000, 190.0, 140.0, 144.0, 0.83,
            f"idle: assumed; a, b: {_ML_ENERGY} 6 %",
        ),
        Gpu(
            "L40S", "l40s", 46_068 * 2**20, 0.864, 362, 350, 102.1, 35.6, 140.0, 1.37,
            f"{_IDLE}; a, b: assumed, coefficients of H100",
        ),
    )
}  # fmt: skip


def gpu(name: str) -> Gpu:
    """The GPU of that name; `UserError` names the known ones."""
    if name not in GPUS:
        raise UserError(
            f"serving: unknown GPU {name!r}; known: {', '.join(GPUS)} "
            "(add one in src/marlin/serving/hardware.py)"
        )
    return GPUS[name]
