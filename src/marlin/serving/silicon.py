"""Test of the closed forms against measured end-to-end runs ("silicon").

aiconfigurator-core carries 5,221 measured runs of serving engines: mean time to first token and
mean time per output token by model, GPU, tensor parallelism, lengths and concurrency. None of them
is used in a fit. Each is predicted from the profile of its own model, GPU, engine and precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from marlin.errors import UserError
from marlin.serving import fit, hardware
from marlin.serving.profiles import ServingProfile

KEYS = ["model", "gpu", "tp", "backend", "precision"]
COLUMNS = [
    "model", "gpu", "tp", "backend", "engine_version", "precision", "collection",
    "input_tokens", "output_tokens", "concurrency",
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
NO_TABLES = "no kernel tables"


@dataclass(frozen=True)
class Protocol:
    """How a load generator draws lengths and starts.

    `length_factor` is mean over nominal tokens; `waves` requests per client: all clients start at
    once, so that one request in `waves` of them queues behind the whole first wave.
    """

    length_factor: float
    waves: float


# InferenceMAX (SemiAnalysis, October 2025): lengths uniform in 0.8 to 1 of nominal, ten requests
# per client, all clients at once, FP8 or FP4 checkpoints, at most 8,192 tokens in a step.
INFERENCEMAX = Protocol(length_factor=0.9, waves=10)
# The other collections do not say: nominal lengths, steady state.
STEADY = Protocol(length_factor=1.0, waves=np.inf)


def closed_loop(
    profile: ServingProfile,
    concurrency: NDArray[np.float64],
    input_tokens: NDArray[np.float64],
    output_tokens: NDArray[np.float64],
    waves: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean TTFT and TPOT in seconds, [N], of `concurrency` clients that never pause, all [N].

    The closed-loop form of the fluid model, solved as a fixed point. Of C clients
    `B = C (O - 1) tpot / (ttft + (O - 1) tpot)` decode at a time. Each token of a request waits
    for its share of the others' prefills, which run in mixed steps and share the weight pass:
    `tpot = t_dec(B) + B (t_pre - d0) / (O - 1)`. TTFT is half a step until the engine looks,
    queueing behind other prompts (M/D/1), and the mixed step itself,
    `s = t_pre + t_dec(B) - d0`; the first wave waits `(C - 1) t_pre / 2` more.
    """
    prefill = profile.prefill_s(input_tokens)
    extra = np.maximum(prefill - profile.decode_d0_s, 0)
    context = input_tokens + output_tokens / 2
    steps = np.maximum(output_tokens - 1, 1)
    tpot, ttft = profile.decode_step_s(concurrency, context), prefill
    for _ in range(100):
        cycle = ttft + steps * tpot
        running = concurrency * steps * tpot / cycle
        step = profile.decode_step_s(running, context)
        service = prefill + step - profile.decode_d0_s
        load = np.minimum((concurrency - 1) * service / cycle, 0.95)
        wait = load * service / (2 * (1 - load))
        tpot = 0.5 * tpot + 0.5 * (step + running * extra / steps)
        ttft = 0.5 * ttft + 0.5 * (step / 2 + wait + service)
    return ttft + (concurrency - 1) * prefill / 2 / waves, tpot


def measured(model_names: list[str]) -> pd.DataFrame:
    """Measured points of these models: dense, aggregated, one node, on the GPUs we know.

    Times in seconds. Precision is the quantisation of the linear layers; where the source leaves
    it empty the checkpoint is unquantised. Prefill and decode on separate GPUs are left out.
    """
    import aiconfigurator_core

    path = Path(aiconfigurator_core.__file__).parent / "systems" / "silicon_sample.csv"
    if not path.is_file():
        raise UserError(f"silicon: {path.name} is missing; install aiconfigurator-core 0.12.0")
    raw = pd.read_csv(path)
    systems = {gpu.system: gpu.name for gpu in hardware.GPUS.values()}
    model = raw.model_path.map(CHECKPOINTS)
    keep = model.isin(model_names) & raw.system.isin(systems) & (raw["mode"] == "agg")
    keep &= (raw.pp_size == 1) & (raw.silicon_ttft_ms > 0) & (raw.silicon_tpot_ms > 0)
    raw, model = raw[keep], model[keep]
    # Points of InferenceMAX name their dated export and carry a `wip` flag.
    inferencemax = raw.silicon_data_source.fillna("").str.contains("wip=")
    table = pd.DataFrame(
        {
            "model": model,
            "gpu": raw.system.map(systems),
            "tp": raw.tp_size.astype(int),
            "backend": raw.backend,
            "engine_version": raw.backend_version.fillna("not stated"),
            "precision": raw.gemm_quant_mode.fillna("bfloat16"),
            "collection": np.where(inferencemax, "InferenceMAX", raw.model_path),
            "input_tokens": raw.isl,
            "output_tokens": raw.osl,
            "concurrency": raw.batch_size.astype(int),
            "measured_ttft_s": raw.silicon_ttft_ms / 1e3,
            "measured_tpot_s": raw.silicon_tpot_ms / 1e3,
        }
    )
    return table.sort_values([*KEYS, "input_tokens", "output_tokens", "concurrency"])


def predict(points: pd.DataFrame, profile: ServingProfile) -> pd.DataFrame:
    """Points of one group with predictions and the reason of exclusion ("" when kept)."""
    out = points.copy()
    inferencemax = (points.collection == "InferenceMAX").to_numpy()
    factor = np.where(inferencemax, INFERENCEMAX.length_factor, STEADY.length_factor)
    waves = np.where(inferencemax, INFERENCEMAX.waves, STEADY.waves)
    clients = points.concurrency.to_numpy(float)
    prompt, output = points.input_tokens * factor, points.output_tokens * factor
    ttft, tpot = closed_loop(profile, clients, prompt.to_numpy(), output.to_numpy(), waves)
    out["predicted_ttft_s"], out["predicted_tpot_s"] = ttft, tpot
    # Prefills of one cycle, alone, against the measured cycle.
    cycle = points.measured_ttft_s + output * points.measured_tpot_s
    impossible = clients * profile.prefill_s(prompt) > cycle.to_numpy()
    need = clients * (points.input_tokens + points.output_tokens)
    out["excluded"] = np.where(need > profile.kv_capacity_tokens, KV_EXCEEDED, "")
    out["impossible"] = impossible
    return out


def unpredicted(points: pd.DataFrame) -> pd.DataFrame:
    """Points of a group without kernel tables: no prediction, and the reason."""
    return points.assign(
        predicted_ttft_s=np.nan, predicted_tpot_s=np.nan, excluded=NO_TABLES, impossible=False
    )


def compare(model_names: list[str]) -> pd.DataFrame:
    """Every measured point of these models beside its prediction; columns `COLUMNS`."""
    groups = []
    for _, points in measured(model_names).groupby(KEYS, sort=True):
        first = points.iloc[0]
        try:
            profile = fit.profile(
                first.model, first.gpu, int(first.tp), first.backend, first.precision
            )
        except UserError:
            groups.append(unpredicted(points))
            continue
        groups.append(predict(points, profile))
    if not groups:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(groups, ignore_index=True)
    suspect = table.groupby(["collection", "backend", "gpu"]).impossible.transform("any")
    table.loc[suspect, "excluded"] = NOT_PREFILLED
    return table[COLUMNS]


def errors(points: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Absolute relative errors of TPOT and TTFT by group, over the points that are kept.

    Columns: `by`, points, excluded, then median, P90 and signed median of both.
    """
    rows = []
    for _, group in points.groupby(by, sort=True):
        kept = group[group.excluded == ""]
        row = {name: group[name].iloc[0] for name in by}
        row |= {"points": len(kept), "excluded": len(group) - len(kept)}
        for name in ("tpot", "ttft"):
            error = kept[f"predicted_{name}_s"] / kept[f"measured_{name}_s"] - 1
            row[f"{name}_median"] = error.abs().median()
            row[f"{name}_p90"] = error.abs().quantile(0.9)
            row[f"{name}_bias"] = error.median()
        rows.append(row)
    return pd.DataFrame(rows)


def coverage(profile_table: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Per profile, how many measured points test exactly it, and how many its nearest kin.

    `points` counts the same model, GPU, tensor parallelism, engine and precision;
    `other_precision` the same in FP8 or FP4; `other_engine` another engine or number of GPUs.
    Zero means untested, not correct.
    """
    kept = points[points.excluded == ""]
    rows = []
    for row in profile_table[["model", "gpu", "tp", "backend"]].itertuples(index=False):
        kin = kept[(kept.model == row.model) & (kept.gpu == row.gpu)]
        same = (kin.tp == row.tp) & (kin.backend == row.backend)
        exact = same & (kin.precision == "bfloat16")
        rows.append(
            {
                **row._asdict(),
                "points": int(exact.sum()),
                "other_precision": int((same & ~exact).sum()),
                "other_engine": int((~same).sum()),
            }
        )
    return pd.DataFrame(rows)
