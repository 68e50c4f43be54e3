"""What single requests ask of a fleet that is judged by replay: work, and latency from below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marlin.bounds.work import Work, least_draw_w, most_draw_w
from marlin.fleet.terms import TINY
from marlin.fleet.world import World
from marlin.serving.profiles import ServingProfile
from marlin.serving.replay.cluster import STEP_TOKENS
from marlin.serving.replay.requests import Requests

UNITS = ("prompt_tokens", "prompt_tokens2", "decode_tokens", "kv_tokens")
"""Work: tokens and squared lengths of prompts, tokens after the first, and the tokens of context
that these read."""


STEP = (
    "prefill_p0_s", "prefill_p1_s_per_token", "prefill_p2_s_per_token2",
    "decode_d0_s", "decode_d1_s_per_seq", "decode_d2_s_per_kv_token",
)  # fmt: skip


@dataclass(frozen=True)
class Groups:
    """N groups of requests that are alike but for their output; every array is [N]."""

    count: np.ndarray
    epoch: np.ndarray
    origin: np.ndarray
    model: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray  # mean
    output_tokens2: np.ndarray  # mean square


@dataclass(frozen=True)
class Asked:
    """What requests ask, by the epoch in which they arrive."""

    units_per_s: np.ndarray  # [T, K] by model and `UNITS`, K = M x 4
    latency_s: np.ndarray  # [T] sum over requests of the least TTFT
    arrived: np.ndarray  # [T] requests


def single(given: Requests, epoch_s: float) -> Groups:
    """A stream of single requests, each a group."""
    output = given.output_tokens.astype(float)
    return Groups(
        np.ones(len(given)),
        (given.arrival_s // epoch_s).astype(int),
        given.origin,
        given.model,
        given.prompt_tokens.astype(float),
        output,
        output**2,
    )


def expected(world: World, arrival_rate_per_s: np.ndarray, prompt_tokens: np.ndarray) -> Groups:
    """What rates [T, O, M, S] bring on average, with equally likely prompt lengths [S, Q]."""
    constants, lengths = world.constants, prompt_tokens.shape[-1]
    count = arrival_rate_per_s[..., None] * world.epoch_s / lengths
    count = np.broadcast_to(count, (*count.shape[:-1], lengths))
    epoch, origin, model, service, length = (i.ravel() for i in np.indices(count.shape))
    output = constants.output_tokens
    square = output**2 * (1.0 + constants.output_cv2)
    prompt = prompt_tokens[service, length]
    return Groups(count.ravel(), epoch, origin, model, prompt, output[service], square[service])


def replay_work(
    world: World,
    profiles: list[list[ServingProfile]],
    max_batch: int,
    context_tokens: np.ndarray,
    step_tokens: float = STEP_TOKENS,
) -> Work:
    """Work of replay with prompts before decoding (not chunked): classes K = M x `UNITS`.

    A step costs its time at context power and what it moves and computes on top, up to TDP. A step
    with prompts is shared by `step_tokens`, the most that one holds; a decode iteration by a full
    batch, full by `max_batch` or by the KV cache, whichever holds fewer sequences of
    `context_tokens` [M] (any value is valid). `profiles` [G][M] is `fleet.world.chosen_profiles`.
    """
    constants = world.constants
    p0, p1, p2, d0, d1, d2 = (_column(profiles, name) for name in STEP)
    capacity, none = _column(profiles, "kv_capacity_tokens"), np.zeros_like(p0)
    by_cache = context_tokens / capacity > 1.0 / max_batch
    of_token = np.where(by_cache, 0.0, 1.0 / max_batch)  # of an iteration
    of_context = np.where(by_cache, 1.0 / capacity, 0.0)
    replica_s = [p1 + p0 / step_tokens, p2, d1 + d0 * of_token, d2 + d0 * of_context]
    weights, kv = constants.weights_bytes, _column(profiles, "kv_bytes_per_token")
    read = [none + weights / step_tokens, none, weights * of_token, weights * of_context + kv]
    flop = [none + constants.flop_per_token, none, none + constants.flop_per_token, none]
    busy_s = np.stack(replica_s, axis=-1) * constants.gpus_per_replica[:, :, None]  # of GPUs
    limit_w = (constants.gpu_tdp_w - constants.gpu_context_w).clip(min=0.0)[:, None, None]
    dynamic_j = np.minimum(
        limit_w * busy_s,
        constants.gpu_w_per_tb_per_s[:, :, None] * np.stack(read, axis=-1) * 1e-12
        + constants.gpu_w_per_tflop_per_s[:, :, None] * np.stack(flop, axis=-1) * 1e-12,
    )
    node_s = (busy_s / constants.gpus[:, None, None]).clip(min=TINY**2)
    standing_w = constants.gpus * constants.gpu_context_w + constants.base_full_w
    rest_w = least_draw_w(world)
    work_w = (standing_w - rest_w)[:, None, None] + dynamic_j / node_s
    kept_w = constants.gpus * constants.gpu_context_w + constants.base_idle_w - rest_w
    return Work(
        per_node_s=(1.0 / node_s).reshape(len(node_s), -1),
        work_w=work_w.reshape(len(node_s), -1),
        kept_w=kept_w,
        rest_w=rest_w,
        most_w=most_draw_w(world),
    )


def asked(
    world: World, profiles: list[list[ServingProfile]], given: Groups, available: np.ndarray
) -> Asked:
    """What requests ask of the fleet; `available` [T, D, G] as in `Inputs`, `profiles` [G][M].

    The least TTFT of a request is a round trip and its own prompt on the fastest type of a site,
    at the best site with a node that runs, or the patience if that is less.
    """
    epochs, models = len(available), len(world.models)
    latency_s = np.full(len(given.count), world.patience_s)
    for d, g in np.argwhere(world.constants.nodes > 0):
        for m in range(models):
            usable = (given.model == m) & (available[given.epoch, d, g] > 0.0)
            alone_s = profiles[g][m].prefill_s(given.prompt_tokens[usable])
            there_s = world.constants.rtt_s[given.origin[usable], d] + alone_s
            latency_s[usable] = np.minimum(latency_s[usable], there_s)
    units = np.stack(_units(given), axis=-1) * given.count[:, None]
    total = np.zeros((epochs, models, len(UNITS)))
    np.add.at(total, (given.epoch, given.model), units)
    return Asked(
        total.reshape(epochs, -1) / world.epoch_s,
        np.bincount(given.epoch, latency_s * given.count, epochs),
        np.bincount(given.epoch, given.count, epochs),
    )


def mean_context_tokens(given: Asked) -> np.ndarray:
    """Context that a token after the first reads, by model [M]."""
    total = given.units_per_s.sum(axis=0).reshape(-1, len(UNITS))
    return total[:, 3] / total[:, 2].clip(min=TINY)


def _units(given: Groups) -> tuple[np.ndarray, ...]:
    """Mean of each of `UNITS`: the i-th token after the first reads prompt + i tokens."""
    prompt, output, square = given.prompt_tokens, given.output_tokens, given.output_tokens2
    later = output - 1.0
    read = later * (prompt + 1.0) + 0.5 * (square - 3.0 * output + 2.0)
    return prompt, prompt**2, later, read


def _column(profiles: list[list[ServingProfile]], name: str) -> np.ndarray:
    """A field of the profiles as [G, M]."""
    return np.array([[getattr(p, name) for p in row] for row in profiles], float)
