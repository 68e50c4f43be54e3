"""Timings of others beside our profiles: a check by data that took no part in any fit.

    python -m marlin.serving.second_opinion --mirror FOLDER_OR_URL

prints a Markdown table of Splitwise's measured runs, and of steps composed from the operator times
of Vidur and LLMServingSim, each beside the closed form of our profile. All three are MIT-licensed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd

from marlin.entry import guard
from marlin.errors import UserError
from marlin.serving import fit
from marlin.serving.profiles import ServingProfile

COLUMNS = ["source", "model", "gpu", "tp", "phase", "size", "theirs_ms"]
PROMPTS = (512, 1024, 2048)
BATCHES = (1, 8, 64)
SPLITWISE_CONTEXT = 512 + 64  # prompt and half of the reply of its decode runs
HIDDEN, LAYERS = {"8B": 4096, "70B": 8192}, {"8B": 32, "70B": 80}
# Llama-2-70B and Llama-3.1-70B differ in vocabulary alone.
KIN = {"8B": "llama-3.1-8b", "70B": "llama-3.1-70b"}
PREFILL, DECODE = "prefill of one prompt", "decode step"
VIDUR = [
    ("a100", "8B", "Meta-Llama-3-8B", 1),
    ("a100", "70B", "Meta-Llama-3-70B", 4),
    ("a100", "70B", "Meta-Llama-3-70B", 8),
    ("h100", "70B", "Llama-2-70b-hf", 4),
    ("h100", "70B", "Llama-2-70b-hf", 8),
]
LLMSERVINGSIM = [("8B", "Llama-3.1-8B", 1), ("70B", "Llama-3.1-70B", 4)]
ONCE = ("embedding", "final_layernorm", "lm_head")


def _read(mirror: str, path: str) -> pd.DataFrame:
    source = f"{mirror.rstrip('/')}/serving/{path}"
    try:
        return pd.read_csv(source)
    except OSError as error:
        raise UserError(
            f"second opinion: {source} cannot be read ({error}); give --mirror the folder or URL "
            "of the measured data"
        ) from error


def splitwise(mirror: str) -> Iterator[tuple]:
    """Median time of Llama-2-70B runs of 2023: one prompt; one token at a prompt of 512 tokens."""
    runs = _read(mirror, "splitwise-perf-model/perf_model.csv")
    runs = runs[(runs.model == "llama2-70b") & (runs.token_size == 128)]
    for gpu in ("a100", "h100"):
        for tp in (4, 8):
            own = runs[(runs.hardware == f"{gpu}-80gb") & (runs.tensor_parallel == tp)]
            alone = own[own.batch_size == 1].groupby("prompt_size").prompt_time.median()
            steps = own[own.prompt_size == 512].groupby("batch_size").token_time.median()
            yield from (("Splitwise", "70B", gpu, tp, PREFILL, n, alone[n]) for n in PROMPTS)
            yield from (("Splitwise", "70B", gpu, tp, DECODE, n, steps[n]) for n in BATCHES)


def vidur(mirror: str) -> Iterator[tuple]:
    """Linear operators of all layers and two all-reduces a layer; attention is not in the mirror.

    A payload's all-reduce is interpolated, BF16.
    """
    for gpu, size, model, tp in VIDUR:
        times = _read(mirror, f"vidur-profiling/compute/{gpu}/{model}/mlp.csv.gz")
        times = times[times.num_tensor_parallel_workers == tp].groupby("num_tokens").median()
        layer = times.filter(like=".median").drop(columns="time_stats.emb.median").sum(axis=1)
        link = np.zeros(len(times))
        if tp > 1:
            network = _read(mirror, f"vidur-profiling/network/{gpu}_dgx/all_reduce.csv.gz")
            network = network[(network.num_workers == tp) & (network.devices_per_node == tp)]
            network = network.groupby("size")["time_stats.all_reduce.median"].median()
            link = np.interp(times.index * HIDDEN[size] * 2, network.index, network)
        total = LAYERS[size] * (layer + 2 * link)
        yield from (("Vidur, no attention", size, gpu, tp, PREFILL, n, total[n]) for n in PROMPTS)
        yield from (("Vidur, no attention", size, gpu, tp, DECODE, n, total[n]) for n in BATCHES)


def llmservingsim(mirror: str) -> Iterator[tuple]:
    """Kernels of one layer times the layers, without all-reduce; prefill alone.

    Its decode table does not say whether the cache size is of a sequence or of the batch.
    """
    for size, model, tp in LLMSERVINGSIM:
        times = _read(mirror, f"llmservingsim-profiles/v0/H100/{model}/tp{tp}/layers.csv.gz")
        table = times.pivot_table(index="input", columns="layer_name", values="latency(ns)")
        layer = table.drop(columns=list(ONCE)).sum(axis=1)
        head = table.loc[1, "lm_head"]  # of the last token alone
        total = (LAYERS[size] * layer + table["embedding"] + table["final_layernorm"] + head) / 1e6
        name = "LLMServingSim, no all-reduce" if tp > 1 else "LLMServingSim"
        yield from ((name, size, "h100", tp, PREFILL, n, total[n]) for n in PROMPTS)


def compare(mirror: str) -> pd.DataFrame:
    """Columns `COLUMNS`, `ours_ms` and `ratio` (ours over theirs); size is tokens or sequences."""
    rows = [*splitwise(mirror), *vidur(mirror), *llmservingsim(mirror)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["gpu"] = table.gpu.str.upper()
    profiles = {
        (model, gpu, tp): fit.profile(KIN[model], gpu, tp, "vllm")
        for model, gpu, tp in table[["model", "gpu", "tp"]].drop_duplicates().to_numpy()
    }
    keys = zip(table.model, table.gpu, table.tp, table.phase, table["size"], strict=True)
    table["ours_ms"] = [_ours_ms(profiles[m, g, tp], phase, n) for m, g, tp, phase, n in keys]
    table["ratio"] = table.ours_ms / table.theirs_ms
    return table


def _ours_ms(profile: ServingProfile, phase: str, size: int) -> float:
    if phase == PREFILL:
        return 1e3 * float(profile.prefill_s(size))
    return 1e3 * float(profile.decode_step_s(size, SPLITWISE_CONTEXT))


def markdown(table: pd.DataFrame) -> str:
    """The table with one row a source, layout and phase: theirs / ours in ms by size."""
    lines = ["| source | layout | prefill of 512, 1,024, 2,048 tokens | decode step of 1, 8, 64 |"]
    lines.append("|---|---|---|---|")
    for _, own in table.groupby(["source", "model", "gpu", "tp"]):
        first = own.iloc[0]
        cells = []
        for phase in (PREFILL, DECODE):
            rows = own[own.phase == phase]
            pairs = zip(rows.theirs_ms, rows.ours_ms, strict=True)
            cells.append(", ".join(f"{theirs:.0f} / {ours:.0f}" for theirs, ours in pairs) or "-")
        layout = f"{first.model}, {first.tp} x {first.gpu}"
        lines.append(f"| {first.source} | {layout} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line of the second opinion."""
    parser = argparse.ArgumentParser(description="Timings of others beside our profiles.")
    parser.add_argument("--mirror", required=True, help="folder or http base URL of measured data")
    given = parser.parse_args()
    with guard():
        print(markdown(compare(given.mirror)), end="")


if __name__ == "__main__":
    main()
