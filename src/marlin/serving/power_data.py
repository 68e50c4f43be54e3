"""Measured GPU power of LLM serving, and the work that each measured run did.

Source: ML.ENERGY Leaderboard v3.0 (Chung et al., NeurIPS Datasets and Benchmarks 2025; vLLM 0.11.1,
GPU energy by hardware counter over a steady state in which a fixed number of requests runs). Its
rows are read from a mirror and are no part of this package.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from marlin.errors import UserError
from marlin.serving.models import Model

PATH = "serving/ml-energy-v3/llm_configurations.csv"
CONFIGURATION = ["gpu", "model", "gpus", "task"]
# Mean prompt tokens by task, stated in "Reading the ML.ENERGY Leaderboard v3.0" (January 2026).
PROMPT_TOKENS = {"lm-arena-chat": 634, "gpqa": 224}
# Squared coefficient of variation of reply lengths. Chat: 0.8 to 1.0 in the distributions that the
# source gives for seven models. Reasoning: assumed.
REPLY_CV2 = {"lm-arena-chat": 0.95, "gpqa": 0.5}
# Largest batch of the serving profiles. Beyond it the benchmark repeats its 1,024 prompts, which
# vLLM then finds in its prefix cache: prompts cost nothing there.
MAX_BATCH = 256
FP8_FLOP_SCALE = 0.5


@dataclass(frozen=True)
class Checkpoint:
    """A benchmarked model as an engine step reads it: bytes per weight, and experts if any.

    `intermediate` of the model is that of one expert; `shared` is the width of the MLP that every
    token passes.
    """

    model: Model
    mlp_bytes: float = 2.0
    attention_bytes: float = 2.0
    experts: int = 1
    active: int = 1
    shared: int = 0

    def step_bytes(self, tokens: float) -> float:
        """Weights that a step over `tokens` tokens reads: all experts that any of them picks."""
        touched = 1.0 - (1.0 - self.active / self.experts) ** tokens
        experts = self._mlp(self.model.intermediate) * self.experts * touched
        always = self._attention() * self.attention_bytes + self._mlp(self.shared) * self.mlp_bytes
        return always + experts * self.mlp_bytes + 2.0 * self._head()

    def flop_per_token(self) -> float:
        """Two FLOP per weight that a token meets, FP8 ones at `FP8_FLOP_SCALE`."""
        mlp = self._mlp(self.model.intermediate) * self.active + self._mlp(self.shared)
        scaled = mlp * _scale(self.mlp_bytes) + self._attention() * _scale(self.attention_bytes)
        return 2.0 * (scaled + self._head())

    def _attention(self) -> float:
        m = self.model
        return 2.0 * m.layers * m.hidden * m.head_dim * (m.heads + m.kv_heads)

    def _mlp(self, intermediate: int) -> float:
        return 3.0 * self.model.layers * self.model.hidden * intermediate

    def _head(self) -> float:
        return float(self.model.vocabulary * self.model.hidden)


def _scale(weight_bytes: float) -> float:
    return FP8_FLOP_SCALE if weight_bytes == 1.0 else 1.0


def _model(name: str, *sizes: int) -> Model:
    """Sizes as in the model card: layers, hidden, MLP, heads, KV heads, head size, vocabulary."""
    return Model(name, name, *sizes)


_LLAMA_8B = _model("Llama 3.1 8B", 32, 4096, 14336, 32, 8, 128, 128256)
_LLAMA_70B = _model("Llama 3.1 70B", 80, 8192, 28672, 64, 8, 128, 128256)
_LLAMA_405B = _model("Llama 3.1 405B", 126, 16384, 53248, 128, 8, 128, 128256)
_QWEN_30B = _model("Qwen3 30B-A3B", 48, 2048, 768, 32, 4, 128, 151936)
_QWEN_235B = _model("Qwen3 235B-A22B", 94, 4096, 1536, 64, 4, 128, 151936)
CHECKPOINTS: dict[str, Checkpoint] = {
    "meta-llama/Llama-3.1-8B-Instruct": Checkpoint(_LLAMA_8B),
    "meta-llama/Llama-3.1-70B-Instruct": Checkpoint(_LLAMA_70B),
    "meta-llama/Llama-3.3-70B-Instruct": Checkpoint(_LLAMA_70B),
    "meta-llama/Llama-3.1-405B-Instruct": Checkpoint(_LLAMA_405B),
    # The model card quantises the MLP alone.
    "meta-llama/Llama-3.1-405B-Instruct-FP8": Checkpoint(_LLAMA_405B, mlp_bytes=1.0),
    "Qwen/Qwen3-8B": Checkpoint(_model("Qwen3 8B", 36, 4096, 12288, 32, 8, 128, 151936)),
    "Qwen/Qwen3-14B": Checkpoint(_model("Qwen3 14B", 40, 5120, 17408, 40, 8, 128, 151936)),
    "Qwen/Qwen3-32B": Checkpoint(_model("Qwen3 32B", 64, 5120, 25600, 64, 8, 128, 151936)),
    "google/gemma-3-12b-it": Checkpoint(
        _model("Gemma 3 12B", 48, 3840, 15360, 16, 8, 256, 262208)
    ),
    "google/gemma-3-27b-it": Checkpoint(
        _model("Gemma 3 27B", 62, 5376, 21504, 32, 16, 128, 262208)
    ),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": Checkpoint(_QWEN_30B, experts=128, active=8),
    "Qwen/Qwen3-30B-A3B-Thinking-2507": Checkpoint(_QWEN_30B, experts=128, active=8),
    "Qwen/Qwen3-235B-A22B-Instruct-2507": Checkpoint(_QWEN_235B, experts=128, active=8),
    "Qwen/Qwen3-235B-A22B-Thinking-2507": Checkpoint(_QWEN_235B, experts=128, active=8),
    "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8": Checkpoint(_QWEN_235B, 1.0, 1.0, 128, 8),
    "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8": Checkpoint(_QWEN_235B, 1.0, 1.0, 128, 8),
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": Checkpoint(
        _model("Llama 4 Scout", 48, 5120, 8192, 40, 8, 128, 202048),
        experts=16, active=1, shared=8192,
    ),
}  # fmt: skip


def read(mirror: str) -> pd.DataFrame:
    """Runs of the known checkpoints up to `MAX_BATCH`; one row a run, power per GPU.

    Columns: `CONFIGURATION`, checkpoint, precision, moe, batch_limit, batch, output_tokens,
    tokens_per_s, power_w, `bandwidth_tb_per_s` and `compute_tflop_per_s`. `mirror` is a folder or
    an http base URL. Raises `UserError` when the file is not there.
    """
    source = f"{mirror.rstrip('/')}/{PATH}"
    try:
        raw = pd.read_csv(source)
    except OSError as error:
        raise UserError(
            f"power: {source} cannot be read ({error}); give --mirror the folder or URL of the data"
        ) from error
    raw = raw[raw.model.isin(CHECKPOINTS) & raw.task.isin(PROMPT_TOKENS)]
    raw = raw[raw.max_num_seqs <= MAX_BATCH].reset_index(drop=True)
    known = raw.model.map(CHECKPOINTS)
    runs = pd.DataFrame(
        {
            "gpu": raw.gpu_model,
            "model": known.map(lambda checkpoint: checkpoint.model.name),
            "gpus": raw.num_gpus,
            "task": raw.task,
            "checkpoint": raw.model,
            "precision": raw.weight_precision,
            "moe": known.map(lambda checkpoint: checkpoint.experts > 1),
            "batch_limit": raw.max_num_seqs,
            "batch": raw.avg_batch_size,
            "output_tokens": raw.avg_output_len,
            "tokens_per_s": raw.output_throughput_tokens_per_sec,
            "power_w": raw.avg_power_watts / raw.num_gpus,
        }
    )
    return work(runs)


def mean_context(
    task: str, output_tokens: NDArray[np.float64], prompt_scale: float = 1.0
) -> NDArray[np.float64]:
    """Tokens in cache of a running sequence: its prompt and, as long replies run longer,
    `O (1 + CV2) / 2` of its reply."""
    reply = np.asarray(output_tokens, float) * (1.0 + REPLY_CV2[task]) / 2.0
    return prompt_scale * PROMPT_TOKENS[task] + reply


def work(runs: pd.DataFrame, prompt_scale: float = 1.0) -> pd.DataFrame:
    """`runs` with HBM traffic and arithmetic of one GPU, from the measured token rate.

    In a steady state every engine step gives each of the B running sequences one token, so that
    there are rate / B steps a second; prompts join those steps. `prompt_scale` stretches all
    prompts (to see what a wrong length would do).
    """
    traffic, compute = [], []
    for run in runs.to_dict("records"):
        checkpoint = CHECKPOINTS[run["checkpoint"]]
        prompt = prompt_scale * PROMPT_TOKENS[run["task"]]
        batch, output, rate = run["batch"], run["output_tokens"], run["tokens_per_s"]
        steps_per_s = rate / batch
        prompt_rate = prompt * rate / output
        context = float(mean_context(run["task"], output, prompt_scale))
        weights = checkpoint.step_bytes(batch + prompt_rate / steps_per_s)
        kv = batch * context * checkpoint.model.kv_bytes_per_token
        flop_per_s = checkpoint.flop_per_token() * (rate + prompt_rate)
        traffic.append((weights + kv) * steps_per_s / run["gpus"] / 1e12)
        compute.append(flop_per_s / run["gpus"] / 1e12)
    return runs.assign(bandwidth_tb_per_s=traffic, compute_tflop_per_s=compute)
