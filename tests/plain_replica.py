"""A replica of continuous batching, one iteration at a time, in plain Python."""

from __future__ import annotations

import math


def plain(engine, arrivals, prompts, outputs, patience_s=math.inf, ready_s=0.0):
    """(first token, finish, status, preemptions) of each request on one replica.

    Sequences are lists [request, tokens produced]; nothing is skipped and no sum has a closed form.
    """
    e = {name: engine[name].item() for name in engine.dtype.names}
    count = len(arrivals)
    first, finish = [-1.0] * count, [-1.0] * count
    status, preempted, done = ["open"] * count, [0] * count, [0] * count
    waiting, running = [], []  # running in order of admission
    partial = None  # [request, prompt tokens computed]
    coming = 0
    now = ready_s

    def context(r):
        return prompts[r] + done[r]

    def in_use():
        used = sum(context(r) for r in running)
        return used + (context(partial[0]) + 1 if partial else 0)

    def make_room():
        nonlocal partial
        while in_use() > e["capacity"]:
            if partial:
                victim, partial = partial[0], None
            else:
                victim = running.pop()
            preempted[victim] += 1
            waiting.insert(0, victim)

    def step_prompt(r, t):
        if first[r] < 0:
            first[r] = t
        done[r] += 1
        if done[r] == outputs[r]:
            finish[r], status[r] = t, "served"
        else:
            running.append(r)

    while True:
        if not waiting and not running and partial is None:
            if coming == count:
                return first, finish, status, preempted
            now = max(now, arrivals[coming])
        while coming < count and arrivals[coming] <= now:
            waiting.append(coming)
            coming += 1
        budget, work, tokens, ending = e["budget"], 0.0, 0, []
        if e["chunked"]:
            make_room()
            budget -= len(running)
            if partial and budget > 0:
                r, start = partial
                piece = min(context(r) - start, budget)
                work += e["p1"] * piece + e["p2"] * ((start + piece) ** 2 - start**2)
                budget, tokens = budget - piece, tokens + piece
                partial = [r, start + piece]
                if start + piece == context(r):
                    ending.append(r)
                    partial = None
        while waiting and partial is None and len(running) + len(ending) < e["max_batch"]:
            r = waiting[0]
            if done[r] == 0 and now - arrivals[r] > patience_s:
                waiting.pop(0)
                finish[r], status[r] = arrivals[r] + patience_s, "dropped"
                continue
            need = context(r)
            if in_use() + sum(context(i) + 1 for i in ending) + need + 1 > e["capacity"]:
                break
            piece = need
            if e["chunked"]:
                if budget <= 0:
                    break
                piece = min(need, budget)
            elif tokens and need > budget:
                break
            waiting.pop(0)
            work += e["p1"] * piece + e["p2"] * piece**2
            budget, tokens = budget - piece, tokens + piece
            if piece == need:
                ending.append(r)
            else:
                partial = [r, piece]
        decoding = list(running)
        kv = sum(context(r) for r in decoding)
        if tokens and not (e["chunked"] and decoding):
            now += e["p0"] + work
            decoding = []
        elif tokens:
            now += max(e["d0"], e["p0"] + work) + e["d1"] * len(decoding) + e["d2"] * kv
        elif decoding:
            make_room()
            decoding = list(running)
            kv = sum(context(r) for r in decoding)
            now += e["d0"] + e["d1"] * len(decoding) + e["d2"] * kv
        for r in decoding:
            done[r] += 1
            if done[r] == outputs[r]:
                running.remove(r)
                finish[r], status[r] = now, "served"
        for r in ending:
            step_prompt(r, now)
