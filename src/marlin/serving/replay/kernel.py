"""Continuous batching on replicas, event by event: compiled, one core, no Python in the loop.

A replica is always in one *activity* that ends at a known time: a step that processes prompts, a
run of decode iterations, a wake-up, or nothing (it ends at infinity). Between an arrival, an
admission and a completion nothing but the context changes, by one token a sequence and iteration,
so a run of k iterations takes `k (d0 + d1 B + d2 K) + d2 B k (k - 1) / 2` seconds with B sequences
and K tokens of context at its start: an arithmetic series, whatever k is.

Steps, as vLLM schedules them:

- *prefill first* (`chunked` 0): while waiting prompts are admissible, a step processes whole ones,
  as many as the token budget holds and at least one, and decoding pauses. It takes
  `p0 + sum(p1 P + p2 P^2)`.
- *chunked* (`chunked` 1): every step decodes all sequences and fills what they leave of the token
  budget with pieces of prompts; the weight pass is shared, so a step takes
  `max(d0, p0 + sum(p1 c + p2 ((s + c)^2 - s^2))) + d1 B + d2 K` for pieces of c tokens after s.

Admission is first come, first served: a sequence slot must be free and the prompt must fit in the
KV cache beside all that runs, with one token to spare. When the next iteration would not fit, the
sequence admitted last gives up its cache and goes back to the head of the queue; its prompt and
what it has produced are computed again.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ENGINE = np.dtype(
    [
        ("p0", "f8"), ("p1", "f8"), ("p2", "f8"), ("d0", "f8"), ("d1", "f8"), ("d2", "f8"),
        ("capacity", "i8"), ("max_batch", "i8"), ("budget", "i8"), ("chunked", "i8"),
    ]
)  # fmt: skip
"""Closed forms of a step and the limits of a replica; `capacity` and `budget` in tokens."""

REQUEST = np.dtype(
    [
        ("arrival", "f8"),  # s, at the site
        ("first", "f8"),  # s, first token; -1 before
        ("finish", "f8"),  # s, last token, or when patience ended; -1 before
        ("index", "i8"),  # position in the trace
        ("prompt", "i4"), ("output", "i4"),  # tokens
        ("done", "i4"),  # tokens produced before the last preemption
        ("preempted", "i4"),  # times
        ("replica", "i4"), ("lane", "i4"), ("tag", "i4"),
        ("status", "i4"),
        ("next", "i8"),  # row behind it in a queue
        ("stamp", "i8"),  # order of admission on its replica
    ]
)  # fmt: skip

OPEN, SERVED, DROPPED, REJECTED = 0, 1, 2, 3

REPLICA = np.dtype(
    [
        ("time", "f8"),  # s, start of the activity
        ("accounted", "f8"),  # share of the activity that is in the books already
        ("act_kv", "f8"), ("act_tokens", "f8"), ("act_passes", "f8"), ("act_alone_s", "f8"),
        ("kind", "i8"), ("steps", "i8"), ("engine", "i8"),
        ("iteration", "i8"),  # decode iterations so far
        ("batch", "i8"), ("kv", "i8"),  # sequences that decode, and their context tokens
        ("joining", "i8"), ("held", "i8"),  # sequences in prefill, and the tokens kept for them
        ("waiting", "i8"), ("queued", "i8"),  # requests in the queue, and the tokens they need
        ("head", "i8"), ("tail", "i8"),
        ("step", "i8"), ("step_tail", "i8"),  # prompts that end with this step
        ("partial", "i8"), ("partial_tokens", "i8"),  # prompt under way in pieces
        ("stamp", "i8"),
    ]
)  # fmt: skip

IDLE, PREFILL, DECODE, WAKE = 0, 1, 2, 3

# Columns of the books of a replica: seconds, weight passes, KV tokens read and tokens computed, in
# steps with prompts and in decode alone; prompt seconds as if alone; decode tokens; peak of KV.
BOOKS = (
    "prefill_s", "decode_s", "prefill_passes", "decode_passes", "prefill_kv", "decode_kv",
    "prefill_tokens", "decode_tokens", "alone_s", "output_tokens",
)  # fmt: skip

ROUND_ROBIN, JSQ, LEAST_KV = 0, 1, 2

QUEUE_WEIGHT = 4
"""Of a request without its first token beside one that decodes, as vLLM's own balancer counts."""


@njit(cache=True)
def span_s(engine, batch, kv, steps):
    """Seconds of `steps` decode iterations of `batch` sequences with `kv` tokens at the start."""
    first = engine.d0 + engine.d1 * batch + engine.d2 * kv
    return steps * first + engine.d2 * batch * (0.5 * steps * (steps - 1.0))


@njit(cache=True)
def steps_until(engine, batch, kv, wait_s):
    """Smallest number of decode iterations, at least one, that takes `wait_s` or more."""
    first = engine.d0 + engine.d1 * batch + engine.d2 * kv
    if wait_s <= first:
        return 1
    half = 0.5 * engine.d2 * batch
    linear = first - half
    root = np.sqrt(linear * linear + 4.0 * half * wait_s)
    steps = max(int(np.ceil(2.0 * wait_s / (linear + root))), 1)
    while steps > 1 and span_s(engine, batch, kv, steps - 1) >= wait_s:
        steps -= 1
    while span_s(engine, batch, kv, steps) < wait_s:
        steps += 1
    return steps


@njit(cache=True)
def _sift_up(keys, rows, i):
    key, row = keys[i], rows[i]
    while i > 0:
        parent = (i - 1) >> 1
        if keys[parent] <= key:
            break
        keys[i], rows[i] = keys[parent], rows[parent]
        i = parent
    keys[i], rows[i] = key, row


@njit(cache=True)
def _sift_down(keys, rows, i, size):
    key, row = keys[i], rows[i]
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[i], rows[i] = keys[child], rows[child]
        i = child
    keys[i], rows[i] = key, row


@njit(cache=True)
def _requeue(replica, table, row):
    """Put a preempted request at the head of the queue."""
    table[row].preempted += 1
    table[row].next = replica.head
    replica.head = row
    if replica.tail < 0:
        replica.tail = row
    replica.waiting += 1
    replica.queued += table[row].prompt + table[row].done + 1


@njit(cache=True)
def _make_room(replica, engine, table, keys, rows):
    """Preempt, last admitted first, until the next decode iteration fits in the KV cache."""
    while replica.kv + replica.held > engine.capacity:
        if replica.partial >= 0:
            row = replica.partial
            replica.held -= table[row].prompt + table[row].done + 1
            replica.joining -= 1
            replica.partial = -1
        else:
            last = 0
            for i in range(1, replica.batch):
                if table[rows[i]].stamp > table[rows[last]].stamp:
                    last = i
            row = rows[last]
            done = table[row].output - (keys[last] - replica.iteration)
            table[row].done = done
            replica.kv -= table[row].prompt + done
            replica.batch -= 1
            size = replica.batch
            if last < size:
                keys[last], rows[last] = keys[size], rows[size]
                _sift_up(keys, rows, last)
                _sift_down(keys, rows, last, size)
        _requeue(replica, table, row)


@njit(cache=True)
def _append(replica, table, row):
    """Add a request to those whose prompt ends with this step."""
    table[row].next = -1
    if replica.step < 0:
        replica.step = row
    else:
        table[replica.step_tail].next = row
    replica.step_tail = row


@njit(cache=True)
def _begin(replica, engine, table, keys, rows, patience_s):
    """Choose what the replica does from `replica.time` on and return when that ends."""
    now = replica.time
    budget = engine.budget
    work_s, alone_s, tokens = 0.0, 0.0, 0
    if engine.chunked:
        _make_room(replica, engine, table, keys, rows)
        budget -= replica.batch
        if replica.partial >= 0 and budget > 0:
            row = replica.partial
            need = table[row].prompt + table[row].done
            start = replica.partial_tokens
            piece = min(need - start, budget)
            work_s += engine.p1 * piece + engine.p2 * piece * (2.0 * start + piece)
            budget -= piece
            tokens += piece
            replica.partial_tokens += piece
            if start + piece == need:
                _append(replica, table, row)
                replica.partial = -1
    while (
        replica.head >= 0
        and replica.partial < 0
        and replica.batch + replica.joining < engine.max_batch
    ):
        row = replica.head
        request = table[row]
        late = request.done == 0 and now - request.arrival > patience_s
        need = request.prompt + request.done
        piece = need
        if not late:
            if replica.kv + replica.held + need + 1 > engine.capacity:
                break
            if engine.chunked:
                if budget <= 0:
                    break
                piece = min(need, budget)
            elif tokens > 0 and need > budget:
                break
        replica.head = request.next
        if replica.head < 0:
            replica.tail = -1
        replica.waiting -= 1
        replica.queued -= need + 1
        if late:
            request.finish = request.arrival + patience_s
            request.status = DROPPED
            continue
        replica.stamp += 1
        request.stamp = replica.stamp
        replica.joining += 1
        replica.held += need + 1
        work_s += engine.p1 * piece + engine.p2 * piece * piece
        alone_s += engine.p0 + engine.p1 * need + engine.p2 * need * need
        budget -= piece
        tokens += piece
        if piece == need:
            _append(replica, table, row)
        else:
            replica.partial = row
            replica.partial_tokens = piece

    replica.accounted = 0.0
    replica.act_alone_s = alone_s
    if tokens > 0:
        replica.kind = PREFILL
        replica.act_passes = 1.0
        if engine.chunked and replica.batch > 0:
            replica.steps = 1
            replica.act_kv = replica.kv
            replica.act_tokens = tokens + replica.batch
            pass_s = max(engine.d0, engine.p0 + work_s)
            return now + pass_s + engine.d1 * replica.batch + engine.d2 * replica.kv
        replica.steps = 0
        replica.act_kv = 0.0
        replica.act_tokens = tokens
        return now + engine.p0 + work_s
    if replica.batch == 0:
        replica.kind = IDLE
        return np.inf
    _make_room(replica, engine, table, keys, rows)
    room = (engine.capacity - replica.kv - replica.held) // replica.batch + 1
    steps = min(keys[0] - replica.iteration, room)
    if replica.head >= 0 and table[replica.head].done == 0:
        left_s = table[replica.head].arrival + patience_s - now
        if left_s < span_s(engine, replica.batch, replica.kv, steps):
            steps = steps_until(engine, replica.batch, replica.kv, left_s)
    replica.kind = DECODE
    return _decode(replica, engine, steps)


@njit(cache=True)
def _decode(replica, engine, steps):
    """Set the activity to `steps` decode iterations from `replica.time`; return its end."""
    replica.steps = steps
    replica.act_passes = steps
    replica.act_tokens = steps * replica.batch
    replica.act_kv = steps * replica.kv + replica.batch * (0.5 * steps * (steps - 1.0))
    return replica.time + span_s(engine, replica.batch, replica.kv, steps)


@njit(cache=True)
def _account(replica, books, seconds, share):
    """Enter a share of the activity, which lasts `seconds`, in the books."""
    replica.accounted += share
    if replica.kind == WAKE:
        return
    prefill = replica.kind == PREFILL
    column = 0 if prefill else 1
    books[column] += share * seconds
    books[column + 2] += share * replica.act_passes
    books[column + 4] += share * replica.act_kv
    books[column + 6] += share * replica.act_tokens
    books[8] += share * replica.act_alone_s
    books[9] += share * replica.steps * replica.batch


@njit(cache=True)
def _complete(replica, end, table, keys, rows, books):
    """Carry the activity out: tokens are produced, sequences finish, prompts become sequences."""
    _account(replica, books, end - replica.time, 1.0 - replica.accounted)
    if replica.steps > 0:
        replica.iteration += replica.steps
        replica.kv += replica.steps * replica.batch
        replica.steps = 0
        while replica.batch > 0 and keys[0] == replica.iteration:
            request = table[rows[0]]
            request.finish = end
            request.status = SERVED
            replica.kv -= request.prompt + request.output
            replica.batch -= 1
            size = replica.batch
            if size > 0:
                keys[0], rows[0] = keys[size], rows[size]
                _sift_down(keys, rows, 0, size)
    row = replica.step
    while row >= 0:
        request = table[row]
        follower = request.next
        context = request.prompt + request.done + 1
        replica.held -= context
        replica.joining -= 1
        if request.done == 0:
            request.first = end
        if request.done + 1 == request.output:
            request.finish = end
            request.status = SERVED
        else:
            size = replica.batch
            keys[size] = replica.iteration + request.output - request.done - 1
            rows[size] = row
            _sift_up(keys, rows, size)
            replica.batch += 1
            replica.kv += context
        row = follower
    replica.step = -1
    replica.time = end


@njit(cache=True)
def _load(replica, engine, policy):
    """What the dispatcher compares: requests in the system, or the share of the KV cache."""
    if policy == LEAST_KV:
        return (replica.kv + replica.held + replica.queued) / engine.capacity
    return float(replica.batch + QUEUE_WEIGHT * (replica.joining + replica.waiting))


@njit(cache=True)
def _catch_up(
    r, until_s, policy, patience_s, replicas, engines, ends, loads, table, keys, rows, books
):
    """Carry out what ends before `until_s` on replica r."""
    replica = replicas[r]
    engine = engines[replica.engine]
    while ends[r] < until_s:
        _complete(replica, ends[r], table, keys[r], rows[r], books[r])
        ends[r] = _begin(replica, engine, table, keys[r], rows[r], patience_s)
    loads[r] = _load(replica, engine, policy)


@njit(cache=True)
def _enqueue(r, row, replicas, engines, ends, ready, table):
    """Add an arrival to replica r, which has been brought up to it."""
    replica = replicas[r]
    arrival = table[row].arrival
    alone = replica.head < 0
    table[row].next = -1
    table[row].replica = r
    if alone:
        replica.head = row
    else:
        table[replica.tail].next = row
    replica.tail = row
    replica.waiting += 1
    replica.queued += table[row].prompt + 1
    if replica.kind == IDLE:
        # It wakes and looks at its queue at once, or when it has booted and loaded.
        replica.kind = WAKE
        replica.time = arrival
        replica.accounted = 0.0
        replica.steps = 0
        ends[r] = max(arrival, ready[r])
    elif replica.kind == DECODE and alone:
        engine = engines[replica.engine]
        steps = steps_until(engine, replica.batch, replica.kv, arrival - replica.time)
        if steps < replica.steps:
            ends[r] = _decode(replica, engine, steps)


@njit(cache=True)
def _least(lo, count, offset, arrival, ready, loads):
    """Of `count` replicas from `lo` the ready one with the least load, ties in rotation."""
    best, found = -1, np.inf
    for i in range(count):
        r = i + offset
        if r >= count:
            r -= count
        r += lo
        if loads[r] < found and ready[r] <= arrival:
            best, found = r, loads[r]
    return best, found


@njit(cache=True)
def _least_asked(starts, counts, speeds, replicas):
    """The replica of a lane with the fewest requests for its speed, for when none is ready yet.

    Whatever the policy, a queue that waits for nodes to boot is spread over all of them; -1 if
    none is on.
    """
    best, found = -1, np.inf
    for g in range(len(starts)):
        for r in range(starts[g], starts[g] + counts[g]):
            asked = (replicas[r].waiting + replicas[r].batch + 1.0) / speeds[g]
            if asked < found:
                best, found = r, asked
    return best


@njit(cache=True)
def _next_in_turn(arrival, starts, counts, speeds, taken, ready):
    """Weighted round robin over the kinds of a lane, plain round robin within a kind."""
    kind, least = -1, np.inf
    for g in range(len(starts)):
        if counts[g] > 0:
            turn = (taken[g] + 1.0) / (counts[g] * speeds[g])
            if turn < least:
                least, kind = turn, g
    if kind < 0:
        return -1
    taken[kind] += 1
    for i in range(counts[kind]):
        r = starts[kind] + (taken[kind] + i) % counts[kind]
        if ready[r] <= arrival:
            return r
    return -1


@njit(cache=True)
def serve(
    table, first, until_s, policy, patience_s,
    replicas, engines, ends, loads, ready, keys, rows, books,
    starts, counts, speeds, turns, taken,
):  # fmt: skip
    """Send rows `first`.. of the table, in order of arrival, to replicas; then run to `until_s`.

    A lane l holds, of each kind g, the replicas `starts[l, g]`.. of which `counts[l, g]` are on;
    `speeds` [L, G] weighs kinds. What is under way at `until_s` is entered in the books up to
    there. A request is dropped when no replica of its lane is on, or when it has waited
    `patience_s`; it is rejected when prompt and output do not fit in the KV cache.
    """
    for row in range(first, len(table)):
        arrival, lane = table[row].arrival, table[row].lane
        chosen = -1
        if policy == ROUND_ROBIN:
            chosen = _next_in_turn(
                arrival, starts[lane], counts[lane], speeds[lane], taken[lane], ready
            )
        else:
            least = np.inf
            turns[lane] += 1
            for g in range(starts.shape[1]):
                lo, count = starts[lane, g], counts[lane, g]
                if count == 0:
                    continue
                for r in range(lo, lo + count):
                    if ends[r] < arrival:
                        _catch_up(
                            r, arrival, policy, patience_s,
                            replicas, engines, ends, loads, table, keys, rows, books,
                        )  # fmt: skip
                r, load = _least(lo, count, turns[lane] % count, arrival, ready, loads)
                if policy == JSQ:
                    load = (load + 1.0) / speeds[lane, g]
                if r >= 0 and load < least:
                    least, chosen = load, r
        if chosen < 0:
            chosen = _least_asked(starts[lane], counts[lane], speeds[lane], replicas)
        request = table[row]
        if chosen < 0:
            request.finish = arrival
            request.status = DROPPED
            continue
        engine = engines[replicas[chosen].engine]
        if request.prompt + request.output > engine.capacity:
            request.finish = arrival
            request.status = REJECTED
            continue
        _catch_up(
            chosen, arrival, policy, patience_s,
            replicas, engines, ends, loads, table, keys, rows, books,
        )  # fmt: skip
        _enqueue(chosen, row, replicas, engines, ends, ready, table)
        loads[chosen] = _load(replicas[chosen], engine, policy)
    for r in range(len(replicas)):
        _catch_up(
            r, until_s, policy, patience_s,
            replicas, engines, ends, loads, table, keys, rows, books,
        )  # fmt: skip
        replica = replicas[r]
        if ends[r] < np.inf and until_s < np.inf:
            if replica.kind == DECODE:
                engine = engines[replica.engine]
                steps = steps_until(engine, replica.batch, replica.kv, until_s - replica.time)
                if steps < replica.steps:
                    ends[r] = _decode(replica, engine, steps)
            length = ends[r] - replica.time
            if until_s > replica.time and length > 0.0:
                share = (until_s - replica.time) / length - replica.accounted
                _account(replica, books[r], length, share)


@njit(cache=True)
def carry(table, new_rows, replicas, keys, rows):
    """A table of the requests still open, with room for `new_rows`, and the number of the former.

    References to rows in queues and heaps are moved along.
    """
    moved = np.full(len(table), -1, np.int64)
    kept = 0
    for row in range(len(table)):
        if table[row].status == OPEN:
            moved[row] = kept
            kept += 1
    fresh = np.empty(kept + new_rows, table.dtype)
    for row in range(len(table)):
        if moved[row] >= 0:
            fresh[moved[row]] = table[row]
            if table[row].next >= 0:
                fresh[moved[row]].next = moved[table[row].next]
    for r in range(len(replicas)):
        replica = replicas[r]
        if replica.head >= 0:
            replica.head = moved[replica.head]
            replica.tail = moved[replica.tail]
        if replica.step >= 0:
            replica.step = moved[replica.step]
            replica.step_tail = moved[replica.step_tail]
        if replica.partial >= 0:
            replica.partial = moved[replica.partial]
        for i in range(replica.batch):
            rows[r, i] = moved[rows[r, i]]
    return fresh, kept
