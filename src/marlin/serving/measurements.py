"""A profile from a user's own timings: a CSV with one measured step a line.

Columns: model, tp, batch, context_tokens, prompt_tokens, seconds. A line with prompt_tokens alone
is a prefill, one with batch alone a decode step, one with both a mixed step. The closed forms are
fitted to all lines together, a mixed step taking `t_dec(B, ctx) + t_pre(P) - d0`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from marlin.errors import UserError
from marlin.serving import fit, hardware, models, profiles

COLUMNS = ["model", "tp", "batch", "context_tokens", "prompt_tokens", "seconds"]
MIN_KIND = 3  # a closed form has three coefficients


def read(path: str | Path) -> pd.DataFrame:
    """Timings of a file; `UserError` names a missing file or column and the first bad line."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"serving.gpus: measurements {path} do not exist")
    table = pd.read_csv(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing; needed: {', '.join(COLUMNS)}")
    numbers = table[COLUMNS[1:]].apply(pd.to_numeric, errors="coerce")
    work = numbers.batch + numbers.prompt_tokens
    good = numbers.ge(0).all(axis=1) & (numbers.seconds > 0) & (work > 0) & (numbers.tp >= 1)
    if not good.all():
        raise UserError(
            f"{path}, line {int(np.argmin(good)) + 2}: tp at least 1, seconds above 0, the others "
            "not negative, and batch or prompt_tokens above 0 are needed"
        )
    table[COLUMNS[1:]] = numbers
    return table


def profile(
    path: str | Path,
    model: models.Model,
    gpu: hardware.Gpu,
    tp: int,
    backend: str,
    precision: str = "bfloat16",
) -> profiles.ServingProfile:
    """The profile of one layout; `UserError` when the file has too few lines of it."""
    table = read(path)
    own = table[(table.model == model.name) & (table.tp == tp)]
    alone, idle = own[own.batch == 0], own[own.prompt_tokens == 0]
    if min(len(alone), len(idle)) < MIN_KIND:
        known = sorted({f"{name} on {count:g}" for name, count in zip(table.model, table.tp)})  # noqa: B905
        raise UserError(
            f"{path}: {model.name} on {tp} x {gpu.name} needs {MIN_KIND} prefills and {MIN_KIND} "
            f"decode steps, and has {len(alone)} and {len(idle)}; the file has {'; '.join(known)}"
        )
    prompt, batch = own.prompt_tokens.to_numpy(float), own.batch.to_numpy(float)
    kv = batch * own.context_tokens.to_numpy(float)
    terms = np.stack(
        [(prompt > 0) * 1.0, prompt, prompt**2, (prompt == 0) * 1.0, batch, kv], axis=1
    )
    found, error = fit.relative_nnls(terms, own.seconds.to_numpy(float))
    return fit.describe(
        model, gpu, tp, backend, precision, "measured", f"measurements in {Path(path).name}",
        "of the user", found[:3], found[3:], error[prompt > 0], error[batch > 0],
    )  # fmt: skip
