"""The calibration stage: serving profiles of a fleet or of everything, and their test."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pandas as pd
from tqdm import tqdm

from marlin.config import ServingConfig
from marlin.errors import UserError
from marlin.serving import (
    engine,
    fit,
    hardware,
    measurements,
    models,
    paper_table,
    profiles,
    silicon,
    tables,
)

TENSOR_PARALLEL = (1, 2, 4, 8)
PRECISIONS = ("bfloat16", "fp8", "nvfp4")
ABSENT = ["model", "gpu", "tp", "backend", "precision", "reason"]


def calibrate(serving: ServingConfig, gpus: Iterable[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Profiles of every model of `serving` on every GPU of the fleet, and the silicon table.

    `gpus` are GPU names such as H100; repeats do not matter. The first table has one row a
    profile (`profiles.COLUMNS`, then `tables.COLUMNS` unless a profile comes from a user's
    timings), the second one row a measured point (`silicon.COLUMNS`). Raises `UserError` for an
    unknown GPU or model, a missing `tp`, a model that does not fit in memory and a combination
    without kernel tables.
    """
    if serving.backend == paper_table.BACKEND:
        rows = paper_table.profiles([model.name for model in serving.models])
        return profiles.to_frame(rows), pd.DataFrame(columns=list(silicon.COLUMNS))
    names = sorted(set(gpus))
    known_gpus = hardware.GPUS | {
        name: hardware.Gpu(name=name, **card.model_dump(exclude={"measurements"}))
        for name, card in serving.gpus.items()
    }
    known_models = models.MODELS | {
        chosen.name: models.Model(name=chosen.name, path="", **chosen.card.model_dump())
        for chosen in serving.models
        if chosen.card is not None
    }
    built = []
    for chosen in serving.models:
        for name in names:
            if name not in known_gpus:
                raise UserError(
                    f"serving: unknown GPU {name!r}; known: {', '.join(known_gpus)} "
                    "(describe it in serving.gpus)"
                )
            if name not in chosen.tp:
                raise UserError(
                    f"serving {serving.name}: {chosen.name} has no tp for GPU {name}; "
                    f"add `{name}: <GPUs per replica>` to serving.models"
                )
            model = known_models.get(chosen.name) or models.model(chosen.name)
            gpu, tp = known_gpus[name], chosen.tp[name]
            card = serving.gpus.get(name)
            if card is not None and card.measurements is not None:
                own = measurements.profile(card.measurements, model, gpu, tp, serving.backend)
                built.append((own, None))
            else:
                built.append(
                    fit.build(model, gpu, tp, serving.backend, max_batch=serving.max_batch)
                )
    return _frame(built), silicon.compare()


def _frame(
    built: list[tuple[profiles.ServingProfile, tables.StepTables | None]],
) -> pd.DataFrame:
    """Profiles with their step tables; a profile of a user's timings has none."""
    scalars = profiles.to_frame([profile for profile, _ in built])
    dense = tables.to_columns([table for _, table in built if table is not None])
    dense.index = pd.Index([i for i, (_, table) in enumerate(built) if table is not None])
    return scalars.join(dense)


def calibrate_all() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every profile that the tables hold, and the combinations without one, each with the reason.

    Five models, five GPUs, three engines, 1 to 8 GPUs, three precisions. The second table has the
    columns `ABSENT`.
    """
    built, absent = [], []
    combinations = list(
        product(models.MODELS.values(), hardware.GPUS.values(), TENSOR_PARALLEL, engine.BACKENDS,
                PRECISIONS)
    )  # fmt: skip
    for model, gpu, tp, backend, precision in tqdm(combinations, desc="profiles", leave=False):
        try:
            built.append(fit.build(model, gpu, tp, backend, precision))
        except UserError as error:
            absent.append((model.name, gpu.name, tp, backend, precision, str(error)))
    return _frame(built), pd.DataFrame(absent, columns=ABSENT)


def error_table(points: pd.DataFrame) -> pd.DataFrame:
    """Held-out errors in long form: profile, quantity, points, median and P90, as shares."""
    rows = []
    by = ["model", "gpu", "backend", "precision"]
    for row in silicon.errors(points, by).to_dict("records"):
        name = f"{row['model']} {row['gpu']} {row['backend']} {row['precision']}"
        for quantity in ("ttft", "tpot"):
            median, tail = row[f"{quantity}_median"], row[f"{quantity}_p90"]
            rows.append((name, quantity.upper(), row["points"], median, tail))
    return pd.DataFrame(rows, columns=["profile", "quantity", "points", "median", "p90"])


def printed(errors: list[pd.DataFrame]) -> str:
    """Error tables (`error_table`, or others of the same columns) as one text, a row a profile."""
    table = pd.concat(errors, ignore_index=True)
    lines = [f"{'profile':38} {'quantity':9} {'points':>6} {'median':>8} {'P90':>8}"]
    for row in table.to_dict("records"):
        lines.append(
            f"{row['profile']:38} {row['quantity']:9} {row['points']:6} "
            f"{100 * row['median']:6.1f} % {100 * row['p90']:6.1f} %"
        )
    return "\n".join(lines)
