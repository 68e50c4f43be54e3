"""Replay a plan on a trace, request by request.

`marlin replay --plan PLAN --trace TRACE` reads `PLAN` (an .npz of `save_plan`: shares and levels by
epoch, the time of the first epoch, the settings of the run) and `TRACE` (a CSV file with
timestamp, prompt_tokens, output_tokens and, where known, origin, model and service by name), and
writes `summary.json`, `sites.parquet` and `epochs.parquet`; with --requests also
`requests.parquet`, one row a request.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from marlin import compose
from marlin.config import InputsConfig, RunConfig
from marlin.entry import ADHOC, guard
from marlin.errors import UserError
from marlin.files import write_bytes, write_json, write_parquet
from marlin.fleet import replay as fleet_replay
from marlin.fleet.contract import Plan
from marlin.fleet.replay import Result, Rules
from marlin.fleet.world import chosen_profiles
from marlin.serving import profiles
from marlin.serving.replay.requests import Requests, requests
from marlin.task import Task, load_run

REQUIRED = ("timestamp", "prompt_tokens", "output_tokens")
CLASSES = ("origin", "model", "service")


@dataclass(frozen=True)
class SavedPlan:
    """Plans of consecutive epochs, arrays [T, ...], from `first` on, under `settings`."""

    plans: Plan
    first: np.datetime64
    settings: RunConfig


def save_plan(path: Path, plans: Plan, first: np.datetime64, settings: RunConfig) -> None:
    """Write a plan file."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        routing=np.asarray(plans.routing),
        power=np.asarray(plans.power),
        first=np.array(str(first.astype("datetime64[s]"))),
        settings=np.array(compose.to_yaml(settings)),
    )
    write_bytes(path, stream.getvalue())


def load_plan(path: Path, given: InputsConfig) -> SavedPlan:
    """Read a plan file; `UserError` when it is absent or lacks something."""
    if not path.is_file():
        raise UserError(f"plan: {path} does not exist; name a file that save_plan wrote")
    try:
        with np.load(path) as held:
            values = {name: held[name] for name in ("routing", "power", "first", "settings")}
    except (KeyError, ValueError, OSError) as error:
        raise UserError(
            f"plan: {path} is not a plan file ({error}); it needs routing, power, first, settings"
        ) from error
    import yaml

    settings = compose.validate(yaml.safe_load(str(values["settings"])))
    return SavedPlan(
        Plan(values["routing"].astype(float), values["power"].astype(float)),
        np.datetime64(str(values["first"])),
        settings.model_copy(update={"inputs": given}),
    )


def read_trace(path: Path, task: Task, epochs: np.ndarray, seed: int) -> Requests:
    """Requests of a CSV trace on the world of `task`, from the first of `epochs` on.

    Timestamps are seconds, or times of day of which the first is the start. A class column that is
    absent is drawn with `seed` from the demand of the request's epoch, and a line says so.
    Raises `UserError` naming the column or the row at fault.
    """
    if not path.is_file():
        raise UserError(f"trace: {path} does not exist; give a CSV file")
    table = pd.read_csv(path)
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise UserError(f"trace: {path} has no column {missing[0]}; it needs {', '.join(REQUIRED)}")
    stamps = table["timestamp"]
    if not pd.api.types.is_numeric_dtype(stamps):
        try:
            times = pd.to_datetime(stamps, format="ISO8601")
        except ValueError as error:
            raise UserError(f"trace: {path} has a timestamp that is no time: {error}") from error
        stamps = (times - times.iloc[0]).dt.total_seconds()
    arrival_s = stamps.to_numpy(float)
    names = dict(
        zip(CLASSES, (task.world.origins, task.world.models, task.world.services), strict=True)
    )
    rate = task.epochs.inputs.arrival_rate_per_s[epochs].reshape(len(epochs), -1)
    within = np.clip(np.nan_to_num(arrival_s) // task.world.epoch_s, 0, len(epochs) - 1).astype(int)
    drawn = _draw(rate, within, np.random.default_rng(seed))
    columns = dict(zip(CLASSES, np.unravel_index(drawn, task.world.class_shape), strict=True))
    for name, known in names.items():
        if name in table:
            columns[name] = pd.Index(known).get_indexer(table[name])
            if (columns[name] < 0).any():
                n = int(np.argmax(columns[name] < 0))
                raise UserError(
                    f"trace: row {n + 2} of {path} has {name} {table[name].iloc[n]!r}; "
                    f"known: {', '.join(known)}"
                )
        elif len(known) > 1:
            print(f"trace: no column {name}; drawn from the scenario's demand", file=sys.stderr)
    return requests(
        arrival_s,
        table["prompt_tokens"].to_numpy(),
        table["output_tokens"].to_numpy(),
        **columns,
    )


def _draw(rate: np.ndarray, epoch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A class [N] for each request from rates [T, K] of its epoch [N]."""
    share = np.cumsum(rate, axis=1)
    if (share[:, -1] <= 0).any():
        raise UserError(
            "trace: an epoch of the scenario has no demand to draw classes from; "
            "give the columns origin, model and service"
        )
    share /= share[:, -1:]
    drawn = np.empty(len(epoch), int)
    u = rng.random(len(epoch))
    for t in np.unique(epoch):
        drawn[epoch == t] = np.searchsorted(share[t], u[epoch == t], side="right")
    return drawn


def replay_saved(
    saved: SavedPlan, trace: Path, rules: Rules, requests_file: Path | None = None
) -> Result:
    """Replay a saved plan on a trace, with a progress bar; write requests where asked."""
    task = load_run(saved.settings)
    at = np.flatnonzero(task.epochs.time.astype("datetime64[s]") == saved.first)
    count = len(saved.plans.routing)
    if not len(at) or at[0] + count > len(task.epochs.time):
        raise UserError(
            f"plan: its {count} epochs from {saved.first} are not in the scenario "
            f"({task.epochs.time[0]} to {task.epochs.time[-1]})"
        )
    epochs = at[0] + np.arange(count)
    run = saved.settings
    from marlin import inputs

    calibrated = profiles.load(inputs.ready(run).profiles)
    stream = read_trace(trace, task, epochs, rules.seed)
    kept: list[pd.DataFrame] = []
    with tqdm(total=len(stream), unit=" requests", disable=not sys.stderr.isatty()) as bar:
        result = fleet_replay.replay(
            task.world,
            chosen_profiles(run.fleet, run.serving, calibrated),
            run.serving.max_batch,
            saved.plans,
            task.truth(epochs),
            [stream],
            rules,
            kept.append if requests_file else None,
            bar.update,
        )
    if requests_file:
        table = pd.concat(kept, ignore_index=True).sort_values("request", ignore_index=True)
        write_parquet(requests_file, table)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `marlin replay`."""
    parser = argparse.ArgumentParser(prog="marlin replay", description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="plan file (.npz)")
    parser.add_argument("--trace", type=Path, required=True, help="requests (.csv)")
    parser.add_argument("--output", type=Path, default=Path(ADHOC) / "replay")
    parser.add_argument("--requests", action="store_true", help="write one row a request too")
    parser.add_argument("--dispatch", choices=("jsq", "round_robin", "least_kv"), default="jsq")
    parser.add_argument("--chunked", action="store_true", help="prompts in pieces beside decoding")
    parser.add_argument("--step-tokens", type=int, help="token budget of a step")
    parser.add_argument("--seed", type=int, default=0, help="draws the site of each request")
    parser.add_argument("--scenario", help="scenario.nc (default: made in the cache)")
    parser.add_argument("--profiles", help="profiles.parquet (default: made in the cache)")
    given = parser.parse_args(arguments)
    with guard():
        paths = InputsConfig(scenario=given.scenario, profiles=given.profiles)
        rules = Rules(given.dispatch, given.chunked, given.step_tokens, given.seed)
        rows = given.output / "requests.parquet" if given.requests else None
        result = replay_saved(load_plan(given.plan, paths), given.trace, rules, rows)
        write_json(given.output / "summary.json", result.summary)
        write_parquet(given.output / "sites.parquet", result.sites)
        write_parquet(given.output / "epochs.parquet", result.epochs)
        found = result.summary
        print(
            f"{found['arrived']:.0f} requests: {found['served']:.0f} served, "
            f"{found['dropped']:.0f} dropped, {found['rejected']:.0f} rejected; "
            f"TTFT P50 {found.get('ttft_p50_s', 0):.3f} s, P99 {found.get('ttft_p99_s', 0):.3f} s; "
            f"{found['energy_kwh']:.1f} kWh, {found['carbon_kg']:.1f} kg; in {given.output}"
        )


if __name__ == "__main__":
    main()
