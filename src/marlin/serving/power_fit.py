"""Fit of active GPU power to measurements, judged on models that the fit has not seen.

`python -m marlin.serving.power_validation --mirror FOLDER_OR_URL` repeats both.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from marlin.physics.power import gpu_power_w
from marlin.serving import hardware

ROBUST_SCALE = 0.05  # relative errors beyond this weigh linearly, not squared


def predict(
    runs: pd.DataFrame, gpu: hardware.Gpu, a: float, b: float, context_w: float | None = None
) -> NDArray[np.float64]:
    """Power of one GPU in W, [N], with a in W per TB/s and b in W per TFLOP/s."""
    power = gpu_power_w(
        runs.bandwidth_tb_per_s.to_numpy(),
        runs.compute_tflop_per_s.to_numpy(),
        context_w=gpu.context_w if context_w is None else context_w,
        w_per_tb_per_s=a,
        w_per_tflop_per_s=b,
        tdp_w=gpu.tdp_w,
    )
    return cast("NDArray[np.float64]", power)


def fit(runs: pd.DataFrame, gpu: hardware.Gpu) -> tuple[float, float]:
    """a and b of one kind of GPU: least relative error, context power held at its idle level."""
    measured = runs.power_w.to_numpy()
    found = least_squares(
        lambda x: predict(runs, gpu, x[0], x[1]) / measured - 1.0,
        [100.0, 1.0],
        bounds=([0.0, 0.0], [1e3, 50.0]),
        loss="soft_l1",
        f_scale=ROBUST_SCALE,
    )
    return float(found.x[0]), float(found.x[1])


def fit_with_intercept(runs: pd.DataFrame, gpu: hardware.Gpu) -> tuple[float, float, float]:
    """Intercept, a and b, all free: does the fit itself find the idle level?"""
    measured = runs.power_w.to_numpy()
    found = least_squares(
        lambda x: predict(runs, gpu, x[1], x[2], x[0]) / measured - 1.0,
        [gpu.context_w, 100.0, 1.0],
        bounds=([0.0, 0.0, 0.0], [gpu.tdp_w, 1e3, 50.0]),
        loss="soft_l1",
        f_scale=ROBUST_SCALE,
    )
    return float(found.x[0]), float(found.x[1]), float(found.x[2])


def held_out(runs: pd.DataFrame) -> pd.Series:
    """Predicted power of every run, by constants fitted without any run of its model.

    Each dense model in turn is left out with all its GPU counts, tasks, precisions and batches, and
    is predicted from the other dense models on that GPU. Mixture-of-experts models are never part
    of a fit.
    """
    power = pd.Series(np.nan, index=runs.index)
    for name, rows in runs.groupby("gpu"):
        gpu = hardware.gpu(str(name))
        dense = rows[~rows.moe]
        for model, own in rows.groupby("model"):
            a, b = fit(dense[dense.model != model], gpu)
            power[own.index] = predict(own, gpu, a, b)
    return power
