"""What a result was made from: `run.json` and `evaluation.json` in each run's folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from marlin import compose, inputs, sources
from marlin.config import RunConfig
from marlin.errors import UserError
from marlin.files import sha256, write_json, write_text

RESOLVED = "resolved.yaml"
RECORD = "run.json"
OUTPUTS = ("learning.parquet", "policy.npz")
EVALUATED = "evaluated.yaml"
EVALUATION = "evaluation.json"
VERSIONS = ("hydra-core", "numpy", "pandas", "pyarrow", "pymoo", "scipy", "torch", "xarray")


def digest_file(path: Path) -> Path:
    """The small file beside a big one that holds its SHA-256."""
    return path.with_name(f"{path.name}.sha256")


def write_digest(path: Path) -> None:
    """Write the digest file of `path`, in the form that `sha256sum --check` reads."""
    write_text(digest_file(path), f"{sha256(path)}  {path.name}\n")


def read_digest(path: Path) -> str:
    """SHA-256 of a file as its digest file gives it, computed where there is none."""
    beside = digest_file(path)
    return beside.read_text(encoding="utf-8").split()[0] if beside.is_file() else sha256(path)


def start(folder: Path, run: RunConfig) -> None:
    """Before a run: write its resolved settings and withdraw the record of an earlier run."""
    (folder / RECORD).unlink(missing_ok=True)
    write_text(folder / RESOLVED, compose.to_yaml(run))


def finish(folder: Path, run: RunConfig) -> None:
    """After a run: record what it was made from and the SHA-256 of what it made."""
    record = _record(folder, run, "train", (RESOLVED, *OUTPUTS)) | {
        "ablation": run.ablation,
        "config_sha256": compose.training_fingerprint(run),
        "method": run.method["name"],
        "scenario": run.scenario.name,
        "seed": run.seed,
        "versions": versions(),
    }
    write_json(folder / RECORD, record)


def evaluated(folder: Path, run: RunConfig, outputs: Sequence[str]) -> None:
    """After an evaluation: its resolved settings, and what its `outputs` were made from."""
    write_text(folder / EVALUATED, compose.to_yaml(run))
    record = _record(folder, run, "evaluate", (EVALUATED, *outputs))
    write_json(folder / EVALUATION, record | {"config_sha256": compose.fingerprint(run)})


def _record(folder: Path, run: RunConfig, stage: str, made: Sequence[str]) -> dict[str, Any]:
    """Digests of code, inputs and outputs, and the processor."""
    ready = inputs.ready(run)
    method = sources.module_of(run.method["_target_"])
    return {
        "code_sha256": sources.digest(sources.closure(stage, method)),
        "cpu": cpu_capability(),
        "inputs_sha256": {
            "profiles": read_digest(ready.profiles),
            "scenario": read_digest(ready.scenario),
        },
        "outputs_sha256": {
            name: sha256(folder / name) for name in made if (folder / name).is_file()
        },
    }


def read(folder: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        UserError: the run did not finish, or a file in its folder is not what the run wrote.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{path} is missing: the run did not finish, train it again")
    record = json.loads(path.read_text(encoding="utf-8"))
    for name, expected in record["outputs_sha256"].items():
        file = folder / name
        if not file.is_file() or sha256(file) != expected:
            raise UserError(
                f"{file} is not the file that its run wrote: delete {path} and run the suite again"
            )
    return record


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    return {name: metadata.version(name) for name in VERSIONS} | {
        "python": platform.python_version()
    }


def cpu_capability() -> str:
    """Widest vector instructions of the processor: floating-point sums may differ between them."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    widest = next((name for name in ("avx512f", "avx2") if name in flags), "baseline")
    return f"{platform.machine()} {widest}"
