"""The two files every run reads: a prepared scenario and calibrated serving profiles."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marlin import compose
from marlin.config import RunConfig
from marlin.errors import UserError
from marlin.files import write_json, write_parquet

if TYPE_CHECKING:
    import pandas as pd

SCENARIO_SECTIONS = ("scenario", "fleet", "workload", "signals", "physics")
BOUNDS_SECTIONS = (*SCENARIO_SECTIONS, "serving", "faults", "scoring")


@dataclass(frozen=True)
class Inputs:
    """Paths of the two files."""

    scenario: Path
    profiles: Path


def cache_dir() -> Path:
    """Folder for what can be made again: `MARLIN_CACHE`, else `.cache` in the working folder."""
    return Path(os.environ.get("MARLIN_CACHE") or ".cache")


def raw_dir() -> Path:
    """Where `marlin fetch` puts measured data and `marlin prepare` finds them."""
    return cache_dir() / "raw"


def gpus(run: RunConfig) -> list[str]:
    """GPU models of the fleet, sorted."""
    return sorted({node_type.gpu for node_type in run.fleet.node_types.values()})


def scenario_fingerprint(run: RunConfig) -> str:
    """Fingerprint of the settings that decide the scenario file, names of the models included.

    It holds every day of the test period, however many of them are scored.
    """
    any_days = run.model_copy(update={"scenario": run.scenario.model_copy(update={"test_days": 1})})
    settings = [compose.fingerprint(any_days, SCENARIO_SECTIONS)]
    settings += [model.name for model in run.serving.models]
    return hashlib.sha256("\n".join(settings).encode()).hexdigest()


def profiles_fingerprint(run: RunConfig) -> str:
    """Fingerprint of the settings that decide the profiles: the serving section and the GPUs."""
    return compose.fingerprint(run, ("serving",))[:32] + "-".join(["", *gpus(run)])


def bounds_fingerprint(run: RunConfig) -> str:
    """Fingerprint of the settings that decide bounds: all that a scheduler does not choose.

    Scoring is among them, since the file holds replayed scores of what can be reached.
    """
    return compose.fingerprint(run, BOUNDS_SECTIONS)


def ready(run: RunConfig) -> Inputs:
    """Paths of the run's inputs; those not named in `run.inputs` are made in the cache once.

    Raises:
        UserError: a named file does not exist, or the data to make one are out of reach.
    """
    for key, path in run.inputs.model_dump().items():
        if path is not None and not Path(path).is_file():
            raise UserError(
                f"inputs.{key}={path} does not exist: make it with `marlin "
                f"{'prepare' if key == 'scenario' else 'calibrate'}`, or leave inputs.{key} out"
            )
    scenario = Path(run.inputs.scenario) if run.inputs.scenario else _cached_scenario(run)
    profiles = Path(run.inputs.profiles) if run.inputs.profiles else _cached_profiles(run)
    return Inputs(scenario, profiles)


def make_scenario(run: RunConfig, path: Path) -> None:
    """Prepare the run's scenario; its sources and its digest are written beside it."""
    from marlin import provenance
    from marlin.data import prepare

    path.parent.mkdir(parents=True, exist_ok=True)
    scenario = prepare.prepare(run, raw_dir())
    prepare.write(scenario, path)
    origin = {
        "source": scenario.attrs["source"],
        "sources": json.loads(scenario.attrs["sources"]),
    }
    write_json(path.with_suffix(".sources.json"), origin)
    provenance.write_digest(path)


def make_profiles(run: RunConfig, path: Path) -> str:
    """Calibrate the run's serving profiles; the validation table is written beside them.

    Returns the table of held-out errors as text.
    """
    from marlin.serving import calibrate

    path.parent.mkdir(parents=True, exist_ok=True)
    profiles, silicon = calibrate.calibrate(run.serving, gpus(run))
    # Profiles last: where they are, the points are too.
    write_parquet(silicon_path(path), silicon)
    write_parquet(path, profiles)
    return _errors(silicon)


def draw_silicon(path: Path) -> Path:
    """Draw predicted against measured latency beside the profiles at `path`; returns the PNG."""
    import pandas as pd

    from marlin.analysis.plots import calibration
    from marlin.analysis.plots.style import save, style

    table = silicon_path(path)
    with style():
        save(calibration.draw(pd.read_parquet(table)), table.parent, table.stem)
    return table.with_suffix(".png")


def silicon_path(path: Path) -> Path:
    """Where the measured points lie that validate the profiles at `path`."""
    name = path.name.replace("profiles", "silicon")
    return path.with_name(name if name != path.name else f"{path.stem}-silicon.parquet")


def _errors(points: pd.DataFrame) -> str:
    """Held-out errors of latency at measured points, and of power as the package holds them."""
    from marlin.serving import calibrate, power_validation

    power = power_validation.error_table(power_validation.table(None))
    return calibrate.printed([calibrate.error_table(points), power])


def make_all_profiles(path: Path) -> str:
    """Calibrate every profile; validation and the list of those without data beside them.

    Returns the table of held-out errors and the counts as text.
    """
    from marlin.serving import calibrate, silicon

    path.parent.mkdir(parents=True, exist_ok=True)
    profiles, absent = calibrate.calibrate_all()
    points = silicon.compare()
    name = path.name.removesuffix(".parquet")
    write_parquet(silicon_path(path), points)
    write_parquet(path.with_name(f"{name}-absent.parquet"), absent)
    write_parquet(path, profiles)
    counts = f"{len(profiles)} profiles; {len(absent)} combinations without one ({name}-absent)"
    return f"{_errors(points)}\n{counts}"


def _cached_scenario(run: RunConfig) -> Path:
    from marlin import provenance, sources

    code = sources.digest(sources.closure("prepare"))
    parts = [run.scenario.name, scenario_fingerprint(run)[:16], code[:8], *_origins(run)]
    path = cache_dir() / "scenarios" / f"{'-'.join(parts)}.nc"
    if not provenance.digest_file(path).is_file():
        make_scenario(run, path)
    return path


def _origins(run: RunConfig) -> list[str]:
    """A digest of where the fetched files came from, so that another fetch is another scenario."""
    from marlin.data import fetch, registry

    if run.signals.source == "embedded":
        return []
    found = [
        str(fetch.recorded_origin(raw_dir(), item)) for item in registry.scenario_sources().values()
    ]
    return [hashlib.sha256("\n".join(found).encode()).hexdigest()[:8]]


def _cached_profiles(run: RunConfig) -> Path:
    from marlin import sources

    code = sources.digest(sources.closure("calibrate"))
    name = f"profiles-{profiles_fingerprint(run)}-{code[:8]}.parquet"
    path = cache_dir() / "serving" / name
    if not path.is_file():
        make_profiles(run, path)
    return path
