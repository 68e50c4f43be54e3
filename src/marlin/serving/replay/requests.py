"""Requests as arrays, and what is refused before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from marlin.errors import UserError


@dataclass(frozen=True)
class Requests:
    """N requests in order of arrival; every array is [N].

    `arrival_s` is when the user sends it, seconds from the start of the replay; tokens count from
    one; `origin`, `model` and `service` are positions in the names of the world.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    origin: NDArray[np.int16]
    model: NDArray[np.int16]
    service: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __getitem__(self, part: slice) -> Requests:
        return replace(self, **{f.name: getattr(self, f.name)[part] for f in fields(self)})


def requests(
    arrival_s: NDArray,
    prompt_tokens: NDArray,
    output_tokens: NDArray,
    origin: NDArray | int = 0,
    model: NDArray | int = 0,
    service: NDArray | int = 0,
) -> Requests:
    """Requests from arrays of one length, checked; a class index may be one number for all."""
    count = len(arrival_s)

    def classes(index: NDArray | int) -> NDArray[np.int16]:
        return np.broadcast_to(np.asarray(index, np.int16), (count,))

    made = Requests(
        np.asarray(arrival_s, np.float64),
        np.asarray(prompt_tokens),
        np.asarray(output_tokens),
        classes(origin),
        classes(model),
        classes(service),
    )
    check(made)
    return replace(
        made,
        prompt_tokens=made.prompt_tokens.astype(np.int32),
        output_tokens=made.output_tokens.astype(np.int32),
    )


def check(given: Requests, after_s: float = 0.0, first: int = 0) -> None:
    """Raise `UserError` naming the first request that cannot be replayed.

    `after_s` is the last arrival before these, `first` the position of the first of them.
    """
    lengths = {f.name: len(getattr(given, f.name)) for f in fields(given)}
    if len(set(lengths.values())) > 1:
        raise UserError(f"requests: columns differ in length ({lengths}); give one value a request")
    if not len(given):
        return
    arrival = given.arrival_s
    bad = ~np.isfinite(arrival) | (arrival < 0)
    if bad.any():
        n = int(np.argmax(bad))
        raise UserError(
            f"requests: number {first + n} arrives at {arrival[n]} s; "
            "times must be finite and not negative, counted from the start of the replay"
        )
    back = np.diff(arrival, prepend=after_s) < 0
    if back.any():
        n = int(np.argmax(back))
        raise UserError(
            f"requests: number {first + n} arrives at {arrival[n]} s, before the one ahead of it; "
            "sort the trace by time"
        )
    for name in ("prompt_tokens", "output_tokens"):
        tokens = getattr(given, name)
        bad = ~(tokens >= 1) | (tokens > np.iinfo(np.int32).max // 2)
        if bad.any():
            n = int(np.argmax(bad))
            raise UserError(
                f"requests: number {first + n} has {name} = {tokens[n]}; "
                "a request has at least one token of each: remove or mend that row"
            )
