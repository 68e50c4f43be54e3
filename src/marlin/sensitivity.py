"""How far uncertain parameters move each objective: `python -m marlin.sensitivity FOLDER SETTINGS`.

One parameter at a time goes to the ends of its range while the others stay, on the first test day
of the scenario with a fixed method. Writes `sensitivity.csv` and the tornado figure in FOLDER.
Carbon counts what hardware embodies and the network draws, which two of the ranges are about.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import xarray as xr
from tqdm import tqdm

from marlin import compose, inputs
from marlin.config import RunConfig
from marlin.entry import folder_entry
from marlin.evaluate import reported, run_day, summary
from marlin.files import write_bytes
from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import build_epochs, build_world
from marlin.serving.hardware import POWER_RANGES
from marlin.serving.profiles import ServingProfile
from marlin.task import Task, forecast_inputs, make_scheduler

BASE = "base"
# The middle of the ranges where the settings have another: life-cycle carbon, half-filled nodes.
BASE_SETTINGS = ("signals.carbon_family=lifecycle", "method.target_utilisation=0.5")
STRETCH = 1.77
"""Median of fibre path over distance in the measured round trips."""


@dataclass(frozen=True)
class Range:
    """A parameter, its ends and its middle; what changes it is a setting, a profile or the RTT.

    `setting` is an override with a place for the value; `profile` a field of the H100 profiles;
    with neither, the value is the stretch of network paths.
    """

    name: str
    unit: str
    low: float | str
    base: float | str
    high: float | str
    setting: str = ""
    profile: str = ""


def ranges(run: RunConfig) -> list[Range]:
    """The parameters and their uncertainty. Sources: docs/physics.md and docs/power.md."""
    power = POWER_RANGES["H100"]
    traffic, compute = power["w_per_tb_per_s"], power["w_per_tflop_per_s"]
    nodes = [f"fleet.node_types.{name}" for name in run.fleet.node_types]
    node_base = " ".join(f"{n}.base_idle_w={{0}} {n}.base_full_w={{0}}" for n in nodes)
    return [
        Range("node base power", "W", 1200, "1200-2800", 2800, node_base),
        Range("H100 power per traffic", "W/(TB/s)", traffic.low, traffic.base, traffic.high,
              profile="gpu_w_per_tb_per_s"),
        Range("H100 power per compute", "W/(TFLOP/s)", compute.low, compute.base, compute.high,
              profile="gpu_w_per_tflop_per_s"),
        Range("replica utilisation", "", 0.2, 0.5, 0.8, "method.target_utilisation={0}"),
        Range("cycles of concentration", "", 3, 4, 6, "physics.cycles_of_concentration={0}"),
        Range("hydropower water", "L/kWh", 0, 0, 17, "signals.hydropower_l_per_kwh={0}"),
        Range("embodied carbon", "g/GPU-h", 9.5, 20, 37.5, "physics.embodied_g_per_gpu_hour={0}"),
        Range("network energy", "kWh/GB", 0.001, 0.01, 0.06, "physics.network_kwh_per_gb={0}"),
        Range("path stretch", "", 1.3, STRETCH, 2.5),
        Range("carbon family", "", "direct", "lifecycle", "marginal", "signals.carbon_family={0}"),
    ]  # fmt: skip


def score(
    run: RunConfig, parameter: Range | None = None, value: float | str = 0
) -> dict[str, float]:
    """Objectives of the first test day, with one parameter at `value` where it is no setting."""
    from marlin.data.prepare import read
    from marlin.serving import profiles as serving

    ready = inputs.ready(run)
    scenario, profiles = read(ready.scenario), serving.load(ready.profiles)
    if parameter is not None and parameter.profile:
        profiles = [_changed(profile, parameter.profile, float(value)) for profile in profiles]
    elif parameter is not None and not parameter.setting:
        scenario = _stretched(scenario, float(value), run.workload.last_mile_rtt_s)
    world = build_world(scenario, run, profiles)
    epochs = build_epochs(scenario, run, world)
    task = Task(run, world, epochs, forecast_inputs(run, epochs, world.epochs_per_day, run.seed))
    day = run_day(task, make_scheduler(run), task.test_days()[0], run.seed, "")
    cost = summary(day.outcomes)
    carbon_kg = reported(task, day)["sci_g_per_request"] * cost["served"] / 1000
    return {name: cost[name] for name in OBJECTIVES} | {"carbon_kg": carbon_kg}


def _changed(profile: ServingProfile, field: str, value: float) -> ServingProfile:
    return replace(profile, **{field: value}) if profile.gpu == "H100" else profile


def _stretched(scenario: xr.Dataset, stretch: float, last_mile_s: float) -> xr.Dataset:
    """Round trips as if paths were `stretch` times the distance; the last mile stays."""
    path_s = (scenario["rtt_s"] - last_mile_s) * stretch / STRETCH
    return scenario.assign(rtt_s=path_s + last_mile_s)


def table(settings: Sequence[str]) -> pd.DataFrame:
    """One row for each parameter and end, and the base, with the four objectives."""
    settings = [*BASE_SETTINGS, *settings]
    run = compose.compose(settings)
    cases = [(r, level, getattr(r, level)) for r in ranges(run) for level in ("low", "high")]
    first = score(run)
    rows = [{"parameter": BASE, "unit": "", "level": BASE, "value": "", **first}]
    for parameter, level, value in tqdm(cases, unit="run", disable=not sys.stderr.isatty()):
        extra = parameter.setting.format(value).split() if parameter.setting else []
        cost = score(compose.compose([*settings, *extra]), parameter, value)
        row = {"parameter": parameter.name, "unit": parameter.unit, "level": level, "value": value}
        rows.append(row | cost)
    return pd.DataFrame(rows)


def build(folder: Path, settings: list[str]) -> None:
    """Write `sensitivity.csv` and the figure `tornado`."""
    from marlin.analysis.plots import tornado
    from marlin.analysis.plots.style import save, style

    frame = table(["method=round_robin", "scenario=fortnight", *settings])
    text = frame.to_csv(index=False, float_format="%.6g")
    write_bytes(folder / "sensitivity.csv", text.encode())
    with style():
        save(tornado.draw(frame), folder, "tornado")
    print(f"{len(frame)} runs in {folder / 'sensitivity.csv'}, figure tornado beside it")


if __name__ == "__main__":
    folder_entry(build, __doc__)
