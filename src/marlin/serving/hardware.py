"""What a GPU is: peaks, memory, idle levels and the coefficients of its active power.

Active power of one GPU, with HBM traffic in TB/s and achieved compute in TFLOP/s:

    P = min(TDP, context + a * traffic + b * compute)

Sources
-------
Peaks and memory: vendor data sheets, as carried by aiconfigurator-core 0.12.0.
Idle levels of A100, H100 and L40S: Vadari, "The Model Parking Tax" (2026). H200 is taken as H100.
B200's are assumed; an intercept left free in the fit below comes to 190 W.
a, b of H100 and B200: fitted (`power_fit`) to ML.ENERGY Leaderboard v3.0 (Chung et al., 2025; vLLM
0.11.1) over dense models of 8 to 405 billion parameters, context power held at its idle level.
a, b of A100: our fit to the mean board power of Splitwise (Patel et al., ISCA 2024; Llama-2-70B,
tensor parallelism 2 and 4, prompts up to 512 tokens, batch 1 to 16), mean absolute error 4 %. That
engine is of 2023 and its batches are small, so b is the less certain of the two.
H200 takes the coefficients of H100 (same chip, newer stacks of the same memory). L40S has no
serving power data at all: it borrows the coefficients of H100, and its range says how little
that is worth (GDDR6 costs up to twice the energy per byte of HBM).
"""

from __future__ import annotations

from dataclasses import dataclass

from marlin.errors import UserError
from marlin.physics.power import OFF_NODE_W

GIB = 2**30
MEMORY_UTILISATION = 0.9  # vLLM's default share of GPU memory
RESERVE_BYTES = 4.5 * GIB  # per GPU: runtime, activations of an 8,192-token step, collectives
# ServerlessLLM (Fu et al., OSDI 2024): 84 s for the 138 GB of Llama-2-70B, common loader.
LOADER_BYTES_PER_S = 138e9 / 84

_ML_ENERGY = "fit to ML.ENERGY Leaderboard v3.0 (vLLM 0.11.1), held-out median error"
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
            "H100", "h100_sxm", 80 * GIB, 3.35, 989, 700, 122.0, 71.8, 144.0, 0.78,
            f"{_IDLE}; a, b: {_ML_ENERGY} 5 %",
        ),
        Gpu(
            "H200", "h200_sxm", 141 * GIB, 4.8, 989, 700, 125.0, 75.0, 144.0, 0.78,
            "assumed: coefficients and idle levels of H100",
        ),
        Gpu(
            "B200", "b200_sxm", 180 * GIB, 7.7, 2250, 1000, 190.0, 140.0, 129.0, 0.62,
            f"idle: assumed; a, b: {_ML_ENERGY} 4 %",
        ),
        Gpu(
            "L40S", "l40s", 46_068 * 2**20, 0.864, 362, 350, 102.1, 35.6, 144.0, 0.78,
            f"{_IDLE}; a, b: assumed, coefficients of H100",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """A constant with the ends that a sensitivity run may give it, in the constant's own unit."""

    low: float
    base: float
    high: float


# Low and high of every power constant; the reasons are in docs/power.md.
_ENDS: dict[str, dict[str, tuple[float, float]]] = {
    "A100": {
        "context_w": (63, 95), "deep_idle_w": (50, 63),
        "w_per_tb_per_s": (140, 211), "w_per_tflop_per_s": (1.3, 3.1),
    },
    "H100": {
        "context_w": (105, 146), "deep_idle_w": (68, 75),
        "w_per_tb_per_s": (125, 163), "w_per_tflop_per_s": (0.58, 1.25),
    },
    "H200": {
        "context_w": (105, 150), "deep_idle_w": (68, 90),
        "w_per_tb_per_s": (100, 180), "w_per_tflop_per_s": (0.58, 1.25),
    },
    "B200": {
        "context_w": (160, 243), "deep_idle_w": (100, 160),
        "w_per_tb_per_s": (116, 142), "w_per_tflop_per_s": (0.47, 1.05),
    },
    "L40S": {
        "context_w": (90, 110), "deep_idle_w": (33, 39),
        "w_per_tb_per_s": (125, 290), "w_per_tflop_per_s": (0.5, 1.4),
    },
}  # fmt: skip
POWER_RANGES: dict[str, dict[str, Range]] = {
    name: {
        constant: Range(low, getattr(GPUS[name], constant), high)
        for constant, (low, high) in ends.items()
    }
    for name, ends in _ENDS.items()
}
"""Range of each power constant (a field of `Gpu`), by GPU."""

NODE_RANGES: dict[str, Range] = {
    "base_idle_w": Range(800, 1200, 2000),
    "base_full_w": Range(2000, 2800, 3200),
    "off_node_w": Range(0, OFF_NODE_W, 50),
}
"""Range of the power beside the GPUs of a node with eight H100 [W]."""


def gpu(name: str) -> Gpu:
    """The GPU of that name; `UserError` names the known ones."""
    if name not in GPUS:
        raise UserError(
            f"serving: unknown GPU {name!r}; known: {', '.join(GPUS)} "
            "(add one in src/marlin/serving/hardware.py)"
        )
    return GPUS[name]
