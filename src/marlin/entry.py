"""What every command line of the package shares: one-sentence errors, Hydra's entry point."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marlin.errors import UserError

if TYPE_CHECKING:
    from marlin.config import RunConfig

ADHOC = "results/adhoc"
LONGEST_NAME = 200  # of a folder: file systems take 255 bytes
BY_HAND = (
    "${scenario.name}/${method.name}/${ablation}/"
    "${file_name:${hydra.job.override_dirname}}/seed-${seed}"
)
ONE_CELL = "seed-${seed}"
UNNAMED = ("seed", "scenario", "method", "ablation", "inputs.scenario", "inputs.profiles")


@contextmanager
def guard() -> Generator[None]:
    """End the process on a user's mistake with one sentence, on Ctrl-C without a traceback."""
    try:
        yield
    except UserError as error:
        sys.stdout.flush()
        print(f"marlin: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def results_entry(stage: Callable[[Path], None]) -> None:
    """Command line of a stage that works on a result tree: `python -m MODULE RESULTS`."""
    parser = argparse.ArgumentParser(description=stage.__doc__)
    parser.add_argument("results", type=Path, help="result tree of a suite")
    with guard():
        stage(parser.parse_args().results)


def folder_entry(stage: Callable[[Path, list[str]], None], explanation: str | None) -> None:
    """Command line of a study by hand: `python -m MODULE FOLDER SETTINGS...`."""
    parser = argparse.ArgumentParser(description=explanation)
    parser.add_argument("folder", type=Path, help="where table and figure go")
    parser.add_argument("settings", nargs="*", help="overrides, for example fleet=paper12")
    given = parser.parse_args()
    with guard():
        stage(given.folder, given.settings)


def hydra_entry(run_one: Callable[[RunConfig, Path], None]) -> None:
    """Run `run_one(run, folder)` for one run, or with -m for every combination of a sweep.

    All combinations are checked before the first starts. Results of a run made by hand go to
    `results/adhoc/<scenario>/<method>/<ablation>/<other settings>/seed-<k>`; with
    `hydra.sweep.dir=FOLDER` (or `hydra.run.dir` without -m) the caller chooses, and a sweep over
    seeds writes FOLDER/seed-<k>. Each folder gets `resolved.yaml` before and `run.json` after.
    """
    # One thread a process: runs are what is done side by side, and sums keep their order.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with guard():
        arguments = _arguments(sys.argv[1:])
        sys.argv[1:] = arguments
        _run_hydra(run_one)
        for text in arguments:
            if text.startswith("hydra.sweep.dir="):
                Path(text.partition("=")[2], "multirun.yaml").unlink(missing_ok=True)


def _arguments(arguments: list[str]) -> list[str]:
    """Hydra's arguments with folders filled in, after all combinations have been checked."""
    from hydra._internal.utils import get_args_parser

    from marlin import compose

    given = get_args_parser().parse_args(arguments)
    if given.help or given.hydra_help or given.cfg or given.info or given.shell_completion:
        return arguments
    overrides: list[str] = given.overrides
    runs = compose.check(overrides)
    if len(runs) > 1 and not given.multirun:
        raise UserError("several values for one setting are a sweep: add -m")
    keys = {text.partition("=")[0] for text in overrides}
    if "hydra.sweep.dir" in keys:
        cells = {compose.fingerprint(run) for run in runs}
        if len(cells) > 1 and "hydra.sweep.subdir" not in keys:
            raise UserError(
                "hydra.sweep.dir is one folder for seeds only, and this sweep varies more: "
                f"leave hydra.sweep.dir out (results then go to {ADHOC}) or sweep seeds alone"
            )
        folders = [f"hydra.sweep.subdir='{ONE_CELL}'"] if "hydra.sweep.subdir" not in keys else []
    else:
        folders = [f"hydra.sweep.dir={ADHOC}", f"hydra.sweep.subdir='{BY_HAND}'"]
    if "hydra.run.dir" not in keys:
        folders.append(f"hydra.run.dir='{ADHOC}/{BY_HAND}'")
    names = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(UNNAMED)}]"
    opened = [f"++{text}" if text.startswith("method.") else text for text in arguments]
    return [*opened, *folders, names]


def _run_hydra(run_one: Callable[[RunConfig, Path], None]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    from marlin import compose, provenance

    def task(settings: DictConfig) -> None:
        raw: Any = OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
        folder = Path(HydraConfig.get().runtime.output_dir)
        with guard():
            run = compose.validate(raw)
            provenance.start(folder, run)
            run_one(run, folder)
            provenance.finish(folder, run)
            if run.tracking.name == "wandb":
                from marlin.tracking import wandb_export

                wandb_export.replay(folder, Path(ADHOC).name, Path(ADHOC))

    def file_name(text: str) -> str:
        name = re.sub(r"[^\w.,-]", "", str(text))
        digest = hashlib.sha256(str(text).encode()).hexdigest()[:12]
        return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 13]}-{digest}"

    logging.getLogger("hydra").setLevel(logging.WARNING)
    OmegaConf.register_new_resolver("file_name", file_name, replace=True)
    path = str(compose.conf_dir())
    hydra.main(config_path=path, config_name=compose.CONFIG_NAME, version_base="1.3")(task)()
