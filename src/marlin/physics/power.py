"""Electric power of GPUs and nodes, before cooling and distribution.

All functions are pointwise and broadcast; arguments may be numbers, NumPy arrays or torch tensors.
"""

from __future__ import annotations

from typing import Literal

from marlin.physics.arrays import Array, lesser

OFF_NODE_W = 25.0
"""A node that is off still feeds its management controller; 0-50 W is usual."""


def gpu_power_w(
    bandwidth_tb_per_s: Array | float,
    compute_tflop_per_s: Array | float,
    *,
    context_w: Array | float,
    w_per_tb_per_s: Array | float,
    w_per_tflop_per_s: Array | float,
    tdp_w: Array | float,
) -> Array:
    """Power of one GPU from the work it does: `min(TDP, P_context + a BW + b F)` [W].

    `bandwidth_tb_per_s` is HBM traffic (weights and KV cache read) in 1e12 bytes/s and
    `compute_tflop_per_s` achieved arithmetic in 1e12 FLOP/s, both means over the time for which
    the power is wanted. `context_w` is the power of a GPU that holds a model and does nothing.
    With a, b >= 0 the power rises with either rate and never passes `tdp_w`.

    Source: form and coefficients fitted by this project to ML.ENERGY Leaderboard v3 (2025);
    context power from Vadari, "The Model Parking Tax" (2026).
    """
    power = (
        context_w + w_per_tb_per_s * bandwidth_tb_per_s + w_per_tflop_per_s * compute_tflop_per_s
    )
    return lesser(power, tdp_w)


def node_power_w(
    gpu_power_w: Array | float,
    utilisation: Array | float,
    *,
    gpus: Array | float,
    base_idle_w: Array | float,
    base_full_w: Array | float,
) -> Array:
    """Power of a node that is on [W]: its GPUs, and a base that grows with utilisation (0..1).

    `gpu_power_w` is the mean power of one of its `gpus` GPUs. The base (processors, memory, fans,
    network) goes linearly from `base_idle_w` to `base_full_w`.

    Source: 8xH100 node measured at 8.4 kW under full load (Latif et al., IEEE Access 2025),
    hence 2.8 kW beside eight GPUs at 700 W; 1.2 kW lightly loaded (EcoLogits 0.11).
    """
    return gpus * gpu_power_w + base_idle_w + (base_full_w - base_idle_w) * utilisation


def node_idle_power_w(
    off_state: Literal["off", "deep_idle"],
    gpus: Array | float,
    gpu_deep_idle_w: Array | float,
    base_idle_w: Array | float,
) -> Array:
    """Power of a node that the scheduler has put to rest [W].

    "off": the management controller alone (`OFF_NODE_W`). "deep_idle": the node is up but its GPUs
    hold no context. A node that holds a model and waits is not at rest: give `gpu_power_w` zero
    rates for it.

    Source: deep idle of GPUs, Vadari (2026).
    """
    deep_idle_w = gpus * gpu_deep_idle_w + base_idle_w
    return 0 * deep_idle_w + OFF_NODE_W if off_state == "off" else deep_idle_w
