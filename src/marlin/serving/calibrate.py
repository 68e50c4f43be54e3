"""The calibration stage: serving profiles of a fleet, and their test against measured runs."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from marlin.config import ServingConfig
from marlin.errors import UserError
from marlin.serving import fit, hardware, paper_table, profiles, silicon


def calibrate(serving: ServingConfig, gpus: Iterable[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Profiles of every model of `serving` on every GPU of the fleet, and the silicon table.

    `gpus` are GPU names such as H100; repeats do not matter. The first table has one row a
    profile (`profiles.COLUMNS`), the second one row a measured point (`silicon.COLUMNS`).
    Raises `UserError` for an unknown GPU or model, a missing `tp`, a model that does not fit in
    memory and a combination without kernel tables.
    """
    if serving.backend == paper_table.BACKEND:
        rows = paper_table.profiles([model.name for model in serving.models])
        return profiles.to_frame(rows), pd.DataFrame(columns=list(silicon.COLUMNS))
    names = sorted(set(gpus))
    for name in names:
        hardware.gpu(name)
    rows = []
    for model in serving.models:
        for name in names:
            if name not in model.tp:
                raise UserError(
                    f"serving {serving.name}: {model.name} has no tp for GPU {name}; "
                    f"add `{name}: <GPUs per replica>` to serving.models"
                )
            rows.append(
                fit.profile(
                    model.name, name, model.tp[name], serving.backend, max_batch=serving.max_batch
                )
            )
    points = silicon.compare([model.name for model in serving.models])
    return profiles.to_frame(rows), points
