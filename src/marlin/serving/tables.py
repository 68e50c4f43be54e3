"""Dense step times of one replica: any mix of prompt tokens and decoding sequences.

A step of an engine passes its tokens through the linear layers once, and each sequence through
attention. The tables hold the three parts apart, so that one form gives prefill (with or without
cached prefix), decode and mixed steps (chunked prefill):

    t(n, prefix; B, ctx) = k (S(B) + D(B, ctx)) + p (S(n + B) - S(B) + A(n, prefix)) + h + g B

S: linear layers by tokens; A: attention of n prompt tokens behind a cached prefix; D: attention of
B sequences with ctx tokens each; k, p: what the engine takes over its kernels; h, g: its time on
the host per step and per sequence. A step without decodes counts the weight pass as S(1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numba
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


LARGEST = 16384  # tokens; the axes hold whole numbers


@dataclass(frozen=True)
class Overhead:
    """What an engine takes beside the kernels: factors of their times, seconds on the host."""

    kernel: float = 1.0
    prefill: float = 1.0
    step_s: float = 0.0
    sequence_s: float = 0.0


@dataclass(frozen=True, eq=False)
class StepTables:
    """Kernel seconds on grids of tokens and sequences, and the engine's overhead.

    `linear_s` is [N] over `tokens`; `context_s` [P, Q] over `prompt_tokens` x `prefix_tokens`;
    `generation_s` [M, C] over `batch` x `context_tokens`. All axes ascend; values between are
    interpolated linearly, values outside take the nearest segment's line.
    """

    tokens: Floats
    linear_s: Floats
    prompt_tokens: Floats
    prefix_tokens: Floats
    context_s: Floats
    batch: Floats
    context_tokens: Floats
    generation_s: Floats
    overhead: Overhead = Overhead()

    def prefill_s(self, prompt_tokens: ArrayLike, prefix_tokens: ArrayLike = 0.0) -> Floats:
        """Seconds to process prompts alone, `prefix_tokens` of context being cached already."""
        return self.mixed_s(prompt_tokens, prefix_tokens, 0.0, 0.0)

    def decode_s(self, batch: ArrayLike, context_tokens: ArrayLike) -> Floats:
        """Seconds of one decode step of `batch` sequences with `context_tokens` each."""
        return self.mixed_s(0.0, 0.0, batch, context_tokens)

    def mixed_s(
        self,
        prompt_tokens: ArrayLike,
        prefix_tokens: ArrayLike,
        batch: ArrayLike,
        context_tokens: ArrayLike,
    ) -> Floats:
        """Seconds of a step with prompt tokens and decodes; the arguments broadcast."""
        n, prefix, b, context = np.broadcast_arrays(
            *(np.asarray(x, float) for x in (prompt_tokens, prefix_tokens, batch, context_tokens))
        )
        over = self.overhead
        flat = _mixed(
            n.ravel(), prefix.ravel(), b.ravel(), context.ravel(),
            self.tokens, self.linear_s,
            self.prompt_tokens, self.prefix_tokens, self.context_s,
            self.batch, self.context_tokens, self.generation_s, self._segments,
            over.kernel, over.prefill, over.step_s, over.sequence_s,
        )  # fmt: skip
        return flat.reshape(n.shape)

    @cached_property
    def _segments(self) -> NDArray[np.int64]:
        """Segment of each axis [5] that holds a whole number [0, 16384]: a look-up, no search."""
        numbers = np.arange(LARGEST + 1)
        axes = (
            self.tokens, self.prompt_tokens, self.prefix_tokens, self.batch, self.context_tokens
        )  # fmt: skip
        found = [np.searchsorted(axis, numbers, "right") - 1 for axis in axes]
        ends = [len(axis) - 2 for axis in axes]
        return np.stack([np.clip(f, 0, end) for f, end in zip(found, ends, strict=True)])


@numba.njit(cache=True)
def _segment(axis, value):  # pragma: no cover
    """Left end of the segment of `axis` that holds `value`, and the share of it passed."""
    low, high = 0, len(axis) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if axis[middle] <= value:
            low = middle
        else:
            high = middle
    return low, (value - axis[low]) / (axis[low + 1] - axis[low])


@numba.njit(cache=True)
def line(axis, values, x):  # pragma: no cover
    """Linear interpolation of `values` [N] over `axis` [N] at the number `x`."""
    i, share = _segment(axis, x)
    return values[i] + share * (values[i + 1] - values[i])


@numba.njit(cache=True)
def plane(rows, columns, values, x, y):  # pragma: no cover
    """Bilinear interpolation of `values` [N, M] over `rows` x `columns` at two numbers."""
    i, share = _segment(rows, x)
    j, other = _segment(columns, y)
    left = values[i, j] + share * (values[i + 1, j] - values[i, j])
    right = values[i, j + 1] + share * (values[i + 1, j + 1] - values[i, j + 1])
    return left + other * (right - left)


@numba.njit(cache=True, inline="always")
def _found(axis, segments, value):  # pragma: no cover
    i = segments[min(max(int(value), 0), LARGEST)]
    return i, (value - axis[i]) / (axis[i + 1] - axis[i])


@numba.njit(cache=True, inline="always")
def _corner(values, i, share, j, other):  # pragma: no cover
    left = values[i, j] + share * (values[i + 1, j] - values[i, j])
    right = values[i, j + 1] + share * (values[i + 1, j + 1] - values[i, j + 1])
    return left + other * (right - left)


@numba.njit(cache=True, error_model="numpy")
def _mixed(
    n, prefix, b, context,
    tokens, linear, prompts, prefixes, attention, batch, contexts, generation, segments,
    kernel, prefill, step, sequence,
):  # pragma: no cover  # fmt: skip
    out = np.empty(len(n))
    for k in range(len(n)):
        i, share = _found(tokens, segments[0], max(b[k], 1.0))
        passed = linear[i] + share * (linear[i + 1] - linear[i])
        time = kernel * passed + step + sequence * b[k]
        if b[k] > 0:
            i, share = _found(batch, segments[3], b[k])
            j, other = _found(contexts, segments[4], context[k])
            time += kernel * _corner(generation, i, share, j, other)
        if n[k] > 0:
            i, share = _found(tokens, segments[0], n[k] + b[k])
            more = linear[i] + share * (linear[i + 1] - linear[i]) - passed
            i, share = _found(prompts, segments[1], n[k])
            j, other = _found(prefixes, segments[2], prefix[k])
            time += prefill * (max(more, 0.0) + _corner(attention, i, share, j, other))
        out[k] = time
    return out


NAMES = tuple(field.name for field in fields(StepTables) if field.name != "overhead")
OVERHEADS = tuple(field.name for field in fields(Overhead))
COLUMNS = (*(f"table_{name}" for name in NAMES), *(f"overhead_{name}" for name in OVERHEADS))


def to_columns(tables: list[StepTables]) -> pd.DataFrame:
    """One row a table: arrays flattened row by row, and the overheads; columns `COLUMNS`."""
    rows = []
    for table in tables:
        row: dict[str, object] = {f"table_{k}": getattr(table, k).ravel() for k in NAMES}
        row |= {f"overhead_{k}": getattr(table.overhead, k) for k in OVERHEADS}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def from_row(row: pd.Series) -> StepTables:
    """The tables of one row of a profile file."""
    arrays = {name: np.asarray(row[f"table_{name}"], float) for name in NAMES}
    arrays["context_s"] = arrays["context_s"].reshape(len(arrays["prompt_tokens"]), -1)
    arrays["generation_s"] = arrays["generation_s"].reshape(len(arrays["batch"]), -1)
    overhead = Overhead(*(float(row[f"overhead_{name}"]) for name in OVERHEADS))
    return StepTables(**arrays, overhead=overhead)
