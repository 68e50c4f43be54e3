"""Benchmark clients in a closed loop around one replica: mean TTFT and TPOT at a concurrency.

Each of C clients sends its next request when the last one ends. The engine admits requests first
come first served while the KV cache and its slots have room, and fills each step up to a budget of
tokens with prompts. Steps are simulated; stretches of pure decode are taken in one go, so that the
cost is per request and not per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from marlin.serving.tables import StepTables, line, plane

MODES = {"mixed": 0, "exclusive": 1}


@dataclass(frozen=True)
class Scheduler:
    """How an engine fills a step.

    mode: `mixed` adds prompt tokens to the decodes of a step; `exclusive` lets decodes wait.
    chunked: whether a prompt may be cut at the budget.
    max_prompts: prompts that one step may touch. slots: sequences at a time.
    """

    mode: str = "mixed"
    chunked: bool = True
    token_budget: int = 8192
    max_prompts: int = 1024
    slots: int = 1024


@dataclass(frozen=True)
class Client:
    """How a load generator sends.

    length_low: lengths are uniform in this share of nominal to nominal (1: all equal).
    waves: requests per client; all clients start at once.
    spare: requests that it holds in flight beyond the slots of the engine.
    request_s: fixed time to first token outside the engine's steps (network, tokeniser, server).
    stream_tokens: tokens that the server collects before it sends the first.
    """

    length_low: float = 1.0
    waves: int = 10
    spare: int = 0
    request_s: float = 0.0
    stream_tokens: int = 0


def closed_loop(
    tables: StepTables,
    kv_capacity_tokens: float,
    scheduler: Scheduler,
    client: Client,
    concurrency: int,
    input_tokens: float,
    output_tokens: float,
) -> tuple[float, float]:
    """Mean TTFT and TPOT in seconds over all requests of `concurrency` clients.

    Lengths are drawn with a fixed seed: equal arguments give equal numbers.
    """
    count = concurrency * client.waves
    shares = np.random.default_rng(7).uniform(client.length_low, 1.0, (2, count))
    prompts, outputs = np.maximum(np.round(shares * [[input_tokens], [output_tokens]]), 2.0)
    over = tables.overhead
    first, tpot = _simulate(
        tables.tokens, tables.linear_s, tables.prompt_tokens,
        np.ascontiguousarray(tables.context_s[:, 0]),
        tables.batch, tables.context_tokens, tables.generation_s,
        over.kernel, over.prefill, over.step_s, over.sequence_s,
        kv_capacity_tokens, concurrency, prompts, outputs,
        MODES[scheduler.mode], scheduler.chunked, scheduler.token_budget, scheduler.max_prompts,
        min(scheduler.slots, concurrency - client.spare),
    )  # fmt: skip
    return first + client.request_s + client.stream_tokens * tpot, tpot


@numba.njit(cache=True)
def _simulate(
    tokens, linear, lengths, attention, batches, contexts, generation,
    kernel, prefill, step_s, sequence_s, capacity, clients, prompts, outputs,
    exclusive, chunked, budget, max_prompts, slots,
):  # pragma: no cover  # fmt: skip
    count = len(prompts)
    arrived, first, ended = np.zeros(count), np.zeros(count), np.zeros(count)
    running = np.zeros(clients, np.bool_)
    request, left = np.zeros(clients, np.int64), np.zeros(clients)
    client_of = np.arange(count) % clients
    queue = np.empty(count, np.int64)
    for c in range(clients):
        queue[c] = c
    head, tail, sent, finished, batch = 0, clients, clients, 0, 0
    time, reserved, context, progress = 0.0, 0.0, 0.0, 0.0
    while finished < count:
        taken, work, entered, done, touched = 0.0, 0.0, head, progress, 0
        room = float(budget - (0 if exclusive else batch))
        while entered < tail and room > 0 and touched < max_prompts:
            r = queue[entered]
            if done == 0:
                full = reserved + prompts[r] + outputs[r] > capacity
                crowded = batch + entered - head >= slots
                if (full or crowded) and (batch > 0 or entered > head):
                    break
                if not chunked and prompts[r] > room and taken > 0:
                    break
                reserved += prompts[r] + outputs[r]
            part = prompts[r] - done
            if chunked:
                part = min(part, room)
            taken += part
            room -= part
            work += line(lengths, attention, done + part)
            if done > 0:
                work -= line(lengths, attention, done)
            done += part
            touched += 1
            if done < prompts[r]:
                break
            entered += 1
            done = 0.0
        decoding = 0 if (exclusive and taken > 0) else batch
        passed = line(tokens, linear, max(float(decoding), 1.0))
        step = kernel * passed + step_s + sequence_s * decoding
        advance = 0.0
        if taken > 0:
            more = line(tokens, linear, taken + decoding) - passed
            step += prefill * (max(more, 0.0) + max(work, 0.0))
            if decoding > 0:
                step += kernel * plane(batches, contexts, generation, decoding, context / decoding)
                advance = 1.0
            time += step
        else:
            advance = np.inf
            for c in range(clients):
                if running[c]:
                    advance = min(advance, left[c])
            middle = context / batch + 0.5 * advance
            step += kernel * plane(batches, contexts, generation, batch, middle)
            time += advance * step
        if advance > 0:
            context += advance * batch
            for c in range(clients):
                if running[c]:
                    left[c] -= advance
                    if left[c] <= 0:
                        r = request[c]
                        ended[r], running[c] = time, False
                        finished += 1
                        batch -= 1
                        context -= prompts[r] + outputs[r]
                        reserved -= prompts[r] + outputs[r]
                        if sent < count:
                            client_of[sent] = c
                            arrived[sent] = time
                            queue[tail] = sent
                            tail += 1
                            sent += 1
        if taken > 0:
            while head < entered:
                r = queue[head]
                c = client_of[r]
                first[r], running[c], request[c], left[c] = time, True, r, outputs[r] - 1
                batch += 1
                context += prompts[r] + 1
                head += 1
            progress = done
    return np.mean(first - arrived), np.mean((ended - first) / (outputs - 1))
