"""Test of profiles against measured end-to-end runs ("silicon").

aiconfigurator-core carries 5,221 measured runs of serving engines: mean time to first token and
mean time per output token by model, GPU, tensor parallelism, lengths and concurrency. Those of the
dense models on one replica are predicted with the closed loop of their client around the step
tables of their own model, GPU, engine and precision. Half of the configurations fitted the engine's
overheads (`setups`); only the other half judges.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from marlin.errors import UserError
from marlin.serving import engine, hardware, memory, models, setups
from marlin.serving.closed_loop import closed_loop
from marlin.serving.hardware import Gpu
from marlin.serving.models import Model
from marlin.serving.setups import Setup
from marlin.serving.tables import StepTables

KEYS = ["model", "gpu", "tp", "backend", "precision"]
CONFIGURATION = [*KEYS, "input_tokens", "output_tokens"]
COLUMNS = [
    "model", "gpu", "tp", "backend", "engine_version", "precision", "collection",
    "input_tokens", "output_tokens", "concurrency", "split",
    "measured_ttft_s", "measured_tpot_s", "predicted_ttft_s", "predicted_tpot_s", "excluded",
]  # fmt: skip
CHECKPOINTS = {
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "nvidia/Qwen3-32B-NVFP4": "qwen3-32b",
}
KV_EXCEEDED = "KV cache too small for the concurrency"
NOT_PREFILLED = "collection shorter than its own prefills: cached prompts"
NO_SETUP = "fewer than 20 runs of the engine by that generator"


@cache
def measured() -> pd.DataFrame:
    """Measured points of the dense models: aggregated, one replica, on the GPUs we know.

    Times in seconds. Precision is the quantisation of the linear layers; where the source leaves
    it empty the checkpoint is unquantised. Prefill and decode on separate GPUs are left out.
    """
    import aiconfigurator_core

    path = Path(aiconfigurator_core.__file__).parent / "systems" / "silicon_sample.csv"
    if not path.is_file():
        raise UserError(f"silicon: {path.name} is missing; install aiconfigurator-core 0.12.0")
    raw = pd.read_csv(path)
    systems = {gpu.system: gpu.name for gpu in hardware.GPUS.values()}
    keep = raw.model_path.isin(CHECKPOINTS) & raw.system.isin(systems) & (raw["mode"] == "agg")
    keep &= (raw.pp_size == 1) & (raw.silicon_ttft_ms > 0) & (raw.silicon_tpot_ms > 0)
    raw = raw[keep]
    source = raw.silicon_data_source.fillna("")
    table = pd.DataFrame(
        {
            "model": raw.model_path.map(CHECKPOINTS),
            "gpu": raw.system.map(systems),
            "tp": raw.tp_size.astype(int),
            "backend": raw.backend,
            "engine_version": raw.backend_version.fillna("not stated"),
            "precision": raw.gemm_quant_mode.fillna("bfloat16"),
            # Points of InferenceMAX carry a `wip` flag, those of single deployments a job.
            "collection": np.select(
                [source.str.contains("wip="), source.str.contains("gtl_")],
                ["InferenceMAX", "Dynamo job"],
                "sweep",
            ),
            "input_tokens": raw.isl,
            "output_tokens": raw.osl,
            "concurrency": raw.batch_size.astype(int),
            "measured_ttft_s": raw.silicon_ttft_ms / 1e3,
            "measured_tpot_s": raw.silicon_tpot_ms / 1e3,
        }
    )
    table["split"] = [
        setups.split(row) for row in table[CONFIGURATION].itertuples(index=False, name=None)
    ]
    order = [*CONFIGURATION, "concurrency", "collection"]
    return table.sort_values(order, kind="stable").reset_index(drop=True)


@cache
def kernel_tables(
    model: Model, gpu: Gpu, tp: int, backend: str, precision: str, kv_precision: str
) -> StepTables:
    """Step tables of the kernels alone; `UserError` when there are none."""
    return engine.compile_engine(model, gpu, tp, backend, precision, kv_precision).tables()


def setup_keys(points: pd.DataFrame) -> pd.Series:
    """The key of each point's setup: collection, engine and model, with slashes between."""
    return points.collection + "/" + points.backend + "/" + points.model


def predict(points: pd.DataFrame, setup: Setup) -> pd.DataFrame:
    """Points of one setup with predictions and the reason of exclusion ("" when kept)."""
    out = points.assign(predicted_ttft_s=np.nan, predicted_tpot_s=np.nan, excluded="")
    ttft, tpot, excluded = [], [], []
    for row in points.to_dict("records"):
        model, gpu = models.model(row["model"]), hardware.gpu(row["gpu"])
        tables = _with_overhead(model, gpu, row["tp"], row["backend"], row["precision"], setup)
        capacity = memory.kv_capacity_tokens(
            model, gpu, row["tp"], row["precision"], setup.kv_precision
        )
        lengths = row["input_tokens"], row["output_tokens"]
        client = setups.client(setup, row["backend"], row["tp"], row["collection"], lengths)
        seen = closed_loop(tables, capacity, setup.scheduler, client, row["concurrency"], *lengths)
        ttft.append(seen[0])
        tpot.append(seen[1])
        excluded.append(KV_EXCEEDED if row["concurrency"] * sum(lengths) > capacity else "")
    out["predicted_ttft_s"], out["predicted_tpot_s"], out["excluded"] = ttft, tpot, excluded
    return out


def _with_overhead(
    model: Model, gpu: Gpu, tp: int, backend: str, precision: str, setup: Setup
) -> StepTables:
    tables = kernel_tables(model, gpu, tp, backend, precision, setup.kv_precision)
    return replace(tables, overhead=setup.overhead)


def impossible(points: pd.DataFrame) -> pd.Series:
    """Runs shorter than the prefills of their own prompts, kernels alone: prompts were cached."""
    out = []
    for row in points.to_dict("records"):
        tables = kernel_tables(
            models.model(row["model"]), hardware.gpu(row["gpu"]), row["tp"], row["backend"],
            row["precision"], "bfloat16",
        )  # fmt: skip
        cycle = row["measured_ttft_s"] + row["output_tokens"] * row["measured_tpot_s"]
        out.append(row["concurrency"] * float(tables.prefill_s(row["input_tokens"])) > cycle)
    return pd.Series(out, index=points.index, dtype=bool)


def compare() -> pd.DataFrame:
    """Every measured point of the dense models beside its prediction; columns `COLUMNS`."""
    groups = []
    points = measured()
    for key, own in points.groupby(setup_keys(points), sort=True):
        setup = setups.SETUPS.get(tuple(str(key).split("/")))
        if setup is not None:
            groups.append(predict(own, setup))
            continue
        reason = NOT_PREFILLED if impossible(own).any() else NO_SETUP
        groups.append(own.assign(predicted_ttft_s=np.nan, predicted_tpot_s=np.nan, excluded=reason))
    return pd.concat(groups, ignore_index=True)[COLUMNS]


def judged(points: pd.DataFrame) -> pd.DataFrame:
    """Points of configurations that took no part in a fit and that no rule excludes."""
    return points[(points.excluded == "") & (points.split == "held out")]


def errors(points: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Absolute relative errors of TPOT and TTFT by group, over the held-out points.

    Columns: `by`, points, excluded, then median, P90 and signed median of both.
    """
    rows = []
    for _, group in points.groupby(by, sort=True):
        kept = judged(group)
        if kept.empty:
            continue
        row = {name: group[name].iloc[0] for name in by}
        row |= {"points": len(kept), "excluded": int((group.excluded != "").sum())}
        for name in ("tpot", "ttft"):
            error = kept[f"predicted_{name}_s"] / kept[f"measured_{name}_s"] - 1
            row[f"{name}_median"] = error.abs().median()
            row[f"{name}_p90"] = error.abs().quantile(0.9)
            row[f"{name}_bias"] = error.median()
        rows.append(row)
    return pd.DataFrame(rows)
