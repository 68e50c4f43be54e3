"""Replicas in lanes, and the requests they hold, between calls of the compiled event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marlin.serving.profiles import ServingProfile
from marlin.serving.replay import kernel

Records = Any  # structured arrays, which no type checker follows
Dispatch = Literal["round_robin", "jsq", "least_kv"]
POLICY: dict[Dispatch, int] = {
    "round_robin": kernel.ROUND_ROBIN,
    "jsq": kernel.JSQ,
    "least_kv": kernel.LEAST_KV,
}
STEP_TOKENS = 8192  # prompt tokens in a step, prefill first
CHUNK_TOKENS = 2048  # tokens in a step with chunked prefill, vLLM's own default


def engine(
    profile: ServingProfile, max_batch: int, chunked: bool = False, step_tokens: int | None = None
) -> Records:
    """Closed forms and limits of a replica of that profile, as the event loop takes them."""
    values = (
        profile.prefill_p0_s,
        profile.prefill_p1_s_per_token,
        profile.prefill_p2_s_per_token2,
        profile.decode_d0_s,
        profile.decode_d1_s_per_seq,
        profile.decode_d2_s_per_kv_token,
        int(profile.kv_capacity_tokens),
        max_batch,
        step_tokens or (CHUNK_TOKENS if chunked else STEP_TOKENS),
        int(chunked),
    )
    return np.array([values], kernel.ENGINE)[0]


class Cluster:
    """Lanes of replicas; a lane is what one stream of requests is dispatched over.

    `sizes` [L, G] is the number of replicas that lane l has of kind g when all are on, `engines`
    [L][G] their closed forms, `speeds` [L, G] how much work a replica of a kind takes beside
    another. All replicas start on, ready and empty. The same calls give the same results.
    """

    def __init__(
        self,
        sizes: NDArray[np.int64],
        engines: Sequence[Sequence[Records]],
        speeds: NDArray[np.float64],
        dispatch: Dispatch = "jsq",
        patience_s: float = np.inf,
    ) -> None:
        sizes = np.asarray(sizes, np.int64)
        count = int(sizes.sum())
        flat = [e for row in engines for e in row]
        slots = max(int(e["max_batch"]) for e in flat)
        self.starts = (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
        self.sizes = sizes
        self.counts = sizes.copy()
        self.policy = POLICY[dispatch]
        self.patience_s = float(patience_s)
        self.time_s = 0.0
        self.replicas: Records = np.zeros(count, kernel.REPLICA)
        for name in ("head", "tail", "step", "step_tail", "partial"):
            self.replicas[name] = -1
        self.replicas["engine"] = np.repeat(np.arange(sizes.size), sizes.ravel())
        self.ready = np.zeros(count)
        self.books = np.zeros((count, len(kernel.BOOKS)))
        self._engines = np.array(flat, kernel.ENGINE)
        self._speeds = np.ascontiguousarray(speeds, float)
        self._ends = np.full(count, np.inf)
        self._loads = np.zeros(count)
        self._keys = np.zeros((count, slots), np.int64)
        self._rows = np.zeros((count, slots), np.int64)
        self._turns = np.zeros(len(sizes), np.int64)
        self._taken = np.zeros(sizes.shape, np.int64)
        self._table: Records = np.empty(0, kernel.REQUEST)

    @property
    def open(self) -> Records:
        """Requests that wait or are being served, `kernel.REQUEST` records."""
        return self._table[self._table["status"] == kernel.OPEN]

    def resize(self, counts: NDArray[np.int64], ready_s: NDArray[np.float64]) -> None:
        """Turn replicas on and off: `counts` [L, G] are on from now, new ones ready at `ready_s`.

        Replicas that are turned off take nothing new and finish what they have; one that is turned
        on again while it does so is ready at once.
        """
        for lane, kind in zip(*np.nonzero(counts > self.counts), strict=True):
            start = self.starts[lane, kind]
            fresh = np.arange(start + self.counts[lane, kind], start + counts[lane, kind])
            empty = np.isinf(self._ends[fresh])
            self.ready[fresh] = np.where(empty, ready_s[lane, kind], self.time_s)
        self._taken[counts != self.counts] = 0
        self.counts = np.array(counts, np.int64)

    def on(self) -> NDArray[np.bool_]:
        """Which replicas take requests, [R]."""
        within = np.arange(len(self.replicas)) - np.repeat(self.starts.ravel(), self.sizes.ravel())
        return within < np.repeat(self.counts.ravel(), self.sizes.ravel())

    def held_s(self) -> NDArray[np.float64]:
        """When each replica held its last request: now while it holds any, [R]."""
        return np.where(np.isinf(self._ends), self.replicas["time"], np.inf)

    def serve(
        self,
        arrival_s: NDArray[np.float64],
        prompt_tokens: NDArray[np.int32],
        output_tokens: NDArray[np.int32],
        lane: NDArray[np.int64] | int,
        tag: NDArray[np.int64] | int = 0,
        index: NDArray[np.int64] | int = 0,
        until_s: float = np.inf,
    ) -> Records:
        """Serve arrivals [N] and run to `until_s`; return what finished, `kernel.REQUEST` records.

        `tag` and `index` come back with each request. Books since the last call are in `books`.
        """
        table, kept = kernel.carry(
            self._table, len(arrival_s), self.replicas, self._keys, self._rows
        )
        new = table[kept:]
        new["arrival"], new["prompt"], new["output"] = arrival_s, prompt_tokens, output_tokens
        new["lane"], new["tag"], new["index"] = lane, tag, index
        new["first"] = new["finish"] = -1.0
        new["replica"] = new["next"] = -1
        for name in ("done", "preempted", "status", "stamp"):
            new[name] = 0
        self.books[:] = 0.0
        kernel.serve(
            table, kept, until_s, self.policy, self.patience_s,
            self.replicas, self._engines, self._ends, self._loads, self.ready,
            self._keys, self._rows, self.books,
            self.starts, self.counts, self._speeds, self._turns, self._taken,
        )  # fmt: skip
        self._table = table
        self.time_s = until_s
        return table[table["status"] != kernel.OPEN]


def single(
    engine: Records,
    replicas: int = 1,
    dispatch: Dispatch = "jsq",
    patience_s: float = np.inf,
) -> Cluster:
    """A cluster of one lane of equal replicas."""
    return Cluster(np.array([[replicas]]), [[engine]], np.ones((1, 1)), dispatch, patience_s)
