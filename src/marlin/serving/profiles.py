"""Serving profiles: latency, memory and power of one replica of a model on some GPUs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from marlin.errors import UserError
from marlin.serving import memory
from marlin.serving.hardware import GPUS
from marlin.serving.models import MODELS


@dataclass(frozen=True)
class ServingProfile:
    """One calibrated (model, GPU, tensor parallelism, engine); units are in the names.

    `gpu_*` values are per GPU, all others per replica of `tp` GPUs. `*_fit_error_*` are absolute
    relative errors of the closed forms against the table they were fitted to.
    """

    model: str
    gpu: str
    tp: int
    backend: str
    engine_version: str
    source: str
    licence: str
    prefill_p0_s: float
    prefill_p1_s_per_token: float
    prefill_p2_s_per_token2: float
    decode_d0_s: float
    decode_d1_s_per_seq: float
    decode_d2_s_per_kv_token: float
    prefill_fit_error_median: float
    prefill_fit_error_p90: float
    decode_fit_error_median: float
    decode_fit_error_p90: float
    kv_bytes_per_token: float
    kv_capacity_tokens: float
    weights_bytes: float
    parameters: float
    load_s: float
    gpu_tdp_w: float
    gpu_context_w: float
    gpu_deep_idle_w: float
    gpu_w_per_tb_per_s: float
    gpu_w_per_tflop_per_s: float
    gpu_flops_scale: float
    power_source: str
    precision: str = "bfloat16"

    def prefill_s(self, prompt_tokens: ArrayLike) -> NDArray[np.float64]:
        """Seconds to process one prompt alone, `p0 + p1 P + p2 P^2`; any shape in, same out."""
        tokens = np.asarray(prompt_tokens, float)
        return (
            self.prefill_p0_s
            + self.prefill_p1_s_per_token * tokens
            + self.prefill_p2_s_per_token2 * tokens**2
        )

    def decode_step_s(self, batch: ArrayLike, context_tokens: ArrayLike) -> NDArray[np.float64]:
        """Seconds of one decode iteration, `d0 + d1 B + d2 B ctx`; the arguments broadcast.

        `context_tokens` is the mean number of tokens in the KV cache of a sequence.
        """
        sequences = np.asarray(batch, float)
        context = np.asarray(context_tokens, float)
        return (
            self.decode_d0_s
            + self.decode_d1_s_per_seq * sequences
            + self.decode_d2_s_per_kv_token * sequences * context
        )


COLUMNS = tuple(field.name for field in fields(ServingProfile))


def to_frame(profiles: list[ServingProfile]) -> pd.DataFrame:
    """One row a profile, columns in the order of the dataclass."""
    return pd.DataFrame([asdict(profile) for profile in profiles], columns=list(COLUMNS))


def from_frame(frame: pd.DataFrame) -> list[ServingProfile]:
    """Profiles of a table; `UserError` when a column is missing."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(
            f"serving profiles: column {missing[0]!r} is missing; run `marlin calibrate` again"
        )
    rows = frame[list(COLUMNS)].to_dict("records")
    return [ServingProfile(**{str(key): value for key, value in row.items()}) for row in rows]


def load(path: str | Path) -> list[ServingProfile]:
    """Profiles of a parquet file; `UserError` when it is absent."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"serving profiles: {path} does not exist; run `marlin calibrate` first")
    # Dense tables stay on disk: only the scalar columns are read.
    present = pq.read_schema(path).names
    return from_frame(pd.read_parquet(path, columns=[c for c in COLUMNS if c in present]))


def select(
    profiles: list[ServingProfile], model: str, gpu: str, tp: int, backend: str
) -> ServingProfile:
    """The profile of exactly that model, GPU, tensor parallelism and engine.

    Raises `UserError` when there is none: it says how many GPUs the model needs where `tp` are
    too few, else lists what exists.
    """
    for profile in profiles:
        if (profile.model, profile.gpu, profile.tp, profile.backend) == (model, gpu, tp, backend):
            return profile
    if model in MODELS and gpu in GPUS:
        memory.kv_capacity_tokens(MODELS[model], GPUS[gpu], tp)
    known = "; ".join(f"{p.model} on {p.tp} x {p.gpu} ({p.backend})" for p in profiles)
    raise UserError(
        f"serving: no profile of {model} on {tp} x {gpu} ({backend}); calibrated: {known or 'none'}"
    )
