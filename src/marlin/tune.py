"""Tune every method alike: `python -m marlin.tune FOLDER method=a,b [trials=8] [SETTINGS...]`.

A method's candidates are in conf/tuning/METHOD.yaml. Every method gets the same number of
settings, its own defaults first; each is scored on the validation days by the fluid model, never
on a test day. Writes `tuning.csv` in FOLDER and skips what is in there already.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import Field, ValidationError
from tqdm import tqdm

from marlin import compose
from marlin.config import RunConfig, Section
from marlin.entry import folder_entry
from marlin.errors import UserError
from marlin.evaluate import run_day, summary
from marlin.files import write_text
from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import VALIDATION
from marlin.schedulers.base import Scheduler
from marlin.task import Task, load_run, make_scheduler

TRIALS = 8
REFERENCE = "weighted_round_robin"
# A tenth of what methods that learn get in `quick`; the calls of a decision stay as they are.
BASE_SETTINGS = (
    "budget=quick", "budget.name=tuning", "budget.training_epochs=9600", "budget.checkpoints=1",
)  # fmt: skip
RATIOS = {name: f"{name.rpartition('_')[0]}_ratio" for name in OBJECTIVES}
COLUMNS = (
    "run", "method", "setting", *RATIOS.values(), "dropped_share", "score", "chosen",
)  # fmt: skip
DIGITS = 6  # significant ones of what is written, so that a table read back is the same table


class Space(Section):
    """What is tried for a method and by what a setting is judged."""

    score: Literal["balanced", "ttft_s", "carbon_kg", "water_l", "cost_usd"]
    values: dict[str, list[Any]] = Field(min_length=1)


def space(method: str) -> Space:
    """The candidates of a method.

    Raises:
        UserError: there is no file for the method, or it is not as it must be.
    """
    path = compose.conf_dir() / "tuning" / f"{method}.yaml"
    if not path.is_file():
        raise UserError(f"there is nothing to tune for method={method}: write {path} first")
    try:
        return Space.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise UserError(f"{path}: {compose.sentence(error, Space)}") from None


def candidates(
    values: dict[str, list[Any]], default: dict[str, Any], trials: int
) -> list[dict[str, Any]]:
    """Settings to try: the default, then others of the grid, drawn at random if there are more.

    Raises:
        UserError: the grid has fewer settings than `trials`.
    """
    grid = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    first = {name: default[name] for name in values}
    rest = [setting for setting in grid if setting != first]
    if len(rest) < trials - 1:
        raise UserError(
            f"there are {1 + len(rest)} settings to try but trials={trials}: every method gets the "
            "same number, so lower trials or add values"
        )
    drawn = np.random.default_rng(0).choice(len(rest), trials - 1, replace=False)
    return [first, *(rest[i] for i in sorted(drawn))]


def validation_totals(task: Task, scheduler: Scheduler) -> dict[str, float]:
    """Objectives of the method itself over the validation days; TTFT is the mean over requests."""
    days = [
        summary(run_day(task, scheduler, start, task.run.seed, "").outcomes)
        for start in task.days(VALIDATION)
    ]
    requests = sum(day["requests"] for day in days)
    totals = {name: sum(day[name] for day in days) for name in OBJECTIVES}
    totals["ttft_s"] = sum(day["ttft_s"] * day["requests"] for day in days) / requests
    return totals | {"dropped_share": sum(day["dropped"] for day in days) / requests}


def score(ratios: dict[str, float], judged_by: str) -> float:
    """The ratio of one objective, or the geometric mean of all four; lower is better.

    Raises:
        UserError: an energy cost that is not positive has no geometric mean.
    """
    if judged_by != "balanced":
        return ratios[judged_by]
    if min(ratios.values()) <= 0.0:
        raise UserError(
            "energy cost over the validation days is not positive, so the four ratios have no "
            "geometric mean: judge the method by one objective in conf/tuning"
        )
    return math.exp(sum(math.log(value) for value in ratios.values()) / len(ratios))


def trial(task: Task, reference: dict[str, float], judged_by: str) -> dict[str, float]:
    """Train and score one setting: ratios to the reference, requests dropped, the score."""
    scheduler = make_scheduler(task.run)
    scheduler.reset(task.world, task.run.seed)
    scheduler.train(task)
    totals = validation_totals(task, scheduler)
    ratios = {name: totals[name] / reference[name] for name in OBJECTIVES}
    found = {RATIOS[name]: ratio for name, ratio in ratios.items()}
    found |= {"dropped_share": totals["dropped_share"], "score": score(ratios, judged_by)}
    return {name: float(f"{value:.{DIGITS}g}") for name, value in found.items()}


def combinations(arguments: Sequence[str]) -> tuple[list[list[str]], int]:
    """Overrides for each method, and the number of trials.

    Raises:
        UserError: something else than the method has several values, or trials is no count.
    """
    trials, settings = TRIALS, []
    for text in arguments:
        name, _, value = text.partition("=")
        if name != "trials":
            settings.append(text)
        elif value.isdecimal() and int(value) > 0:
            trials = int(value)
        else:
            raise UserError(f"{text} is not a count: it must be a whole number > 0")
    every = compose.expand([*BASE_SETTINGS, *settings])
    for text in itertools.chain(*every):
        if not text.startswith("method=") and not all(text in others for others in every):
            raise UserError(f"{text} is one of several: tuning goes over methods alone")
    return every, trials


def runs(overrides: Sequence[str], trials: int) -> list[tuple[dict[str, Any], RunConfig]]:
    """The settings of a method to try, each with its checked run."""
    base = compose.compose(overrides)
    found = []
    for setting in candidates(space(base.method["name"]).values, base.method, trials):
        given = [f"method.{name}={json.dumps(value)}" for name, value in setting.items()]
        found.append((setting, compose.compose([*overrides, *given])))
    return found


def reference_totals(task: Task, overrides: Sequence[str]) -> dict[str, float]:
    """Totals of the method that ratios are taken to, with its own defaults."""
    shared = [text for text in overrides if not text.startswith("method")]
    run = compose.compose([*shared, f"method={REFERENCE}"])
    return validation_totals(replace(task, run=run), make_scheduler(run))


def identity(run: RunConfig) -> str:
    """What tells a run from others: a digest of its settings, and its seed."""
    return f"{compose.fingerprint(run)[:16]}-{run.seed}"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows that are done, none if there is no file."""
    if not path.is_file():
        return []
    rows: list[Any] = pd.read_csv(path).to_dict("records")
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """The table, with the setting of the least score of each method chosen; the first of equals."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["chosen"] = frame.index.isin(list(frame.groupby("method")["score"].idxmin()))
    write_text(path, frame.to_csv(index=False))


def tune(folder: Path, arguments: list[str]) -> None:
    """Try all settings of the methods given and write `tuning.csv`."""
    every, trials = combinations(arguments)
    planned = [item for overrides in every for item in runs(overrides, trials)]
    path = folder / "tuning.csv"
    rows = read(path)
    done = {row["run"] for row in rows}
    todo = [(setting, run) for setting, run in planned if identity(run) not in done]
    if todo:
        task = load_run(todo[0][1])
        reference = reference_totals(task, every[0])
        for setting, run in tqdm(todo, unit="setting", disable=not sys.stderr.isatty()):
            method = run.method["name"]
            found = trial(replace(task, run=run), reference, space(method).score)
            text = json.dumps(setting, sort_keys=True)
            rows.append({"run": identity(run), "method": method, "setting": text} | found)
            write(path, rows)
    print(f"{len(todo)} settings tried, {len(planned) - len(todo)} known before: {path}")


if __name__ == "__main__":
    folder_entry(tune, __doc__)
