"""`marlin reproduce`: run a suite from data to paper, or go on where it stopped."""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marlin import compose, plan, plan_cli
from marlin.entry import guard
from marlin.errors import UserError

DEFAULT_SUITE = "quick"
KEYS = ("suite", "data", "mirror")
PROGRESS = re.compile(r"(\d+) of (\d+) steps")
PR_SET_PDEATHSIG = 1
ERROR = re.compile(r"Error|Exception")
LOG_LINES = 20


def choices(config: Mapping[str, Any]) -> dict[str, str]:
    """Suite and data from Snakemake's config.

    Raises:
        UserError: a key that is not one of suite, data and mirror.
    """
    for key in config:
        if key not in KEYS:
            near = compose.nearest(key, KEYS)
            raise UserError(
                f"--config {key} is unknown: the nearest is {near!r}; science is set in conf/"
            )
    return {
        "suite": str(config.get("suite", DEFAULT_SUITE)),
        "data": str(config.get("data", "embedded")),
    }


def set_environment(mirror: str | None) -> None:
    """What jobs inherit: the commands of this Python, one thread each, where the mirror is."""
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if mirror:
        os.environ["MARLIN_MIRROR"] = str(mirror)


def reproduce(suite: str, data: str, mirror: str | None, cores: int) -> Path:
    """Make everything of a suite that is missing or out of date; returns the paper's path.

    A second call for the same suite waits until the first has ended.

    Raises:
        UserError: wrong settings, a stage that failed, or results that do not fit the plan.
    """
    root = compose.conf_dir().parent
    if not (root / "workflow" / "Snakefile").is_file():
        raise UserError(f"{root} has no workflow/Snakefile: run from the project's repository")
    if mirror and "://" not in mirror:
        mirror = str(Path(mirror).resolve())
    os.chdir(root)
    chosen = plan.load(suite, data)
    set_environment(mirror)
    began = time.monotonic()
    with _only_one(chosen.results) as lock:
        _snakemake(chosen, cores, lock)
        plan_cli.verify(chosen, chosen.results)
    paper = chosen.results / "paper.pdf"
    print(f"paper: {paper} ({_clock(time.monotonic() - began)})")
    return paper


def main() -> None:
    """Command line of `marlin reproduce`."""
    parser = argparse.ArgumentParser(prog="marlin reproduce", description=__doc__)
    parser.add_argument("--suite", default=DEFAULT_SUITE, help="default: %(default)s")
    parser.add_argument("--data", default="embedded", help="embedded (default) or measured")
    parser.add_argument("--mirror", help="folder or http base URL of the measured data")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="default: all")
    given = parser.parse_args()
    with guard():
        reproduce(given.suite, given.data, given.mirror, given.cores)


@contextmanager
def _only_one(results: Path) -> Generator[int]:
    """Hold the suite's lock. The kernel frees it when its holders die, however they die."""
    results.mkdir(parents=True, exist_ok=True)
    with (results / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another `marlin reproduce` writes {results}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _end_with_parent() -> None:
    """Let the kernel end this process when the one that started it is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _snakemake(chosen: plan.Plan, cores: int, lock: int) -> None:
    """Run the workflow with one line of progress.

    Snakemake's own lock would outlive a killed run. Ours does not, and Snakemake holds it too, so
    that it is free only when nobody writes any more.
    """
    command = [
        *(sys.executable, "-m", "snakemake", "--nolock", "--cores", str(cores)),
        *("--config", f"suite={chosen.suite}", f"data={chosen.data}"),
    ]
    began = time.monotonic()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=[lock],
        preexec_fn=_end_with_parent,
    ) as process:
        assert process.stdout is not None
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                _show(line, began)
        except KeyboardInterrupt:
            process.wait()
            raise
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if process.returncode:
        raise UserError(_failure(lines))


def _show(line: str, began: float) -> None:
    """Rewrite the line of progress on a terminal; elsewhere print one line a step."""
    found = PROGRESS.search(line)
    if not found:
        return
    done, total = map(int, found.groups())
    elapsed = time.monotonic() - began
    left = f", about {_clock(elapsed / done * (total - done))} left" if done < total else ""
    text = f"{done} of {total} steps, {_clock(elapsed)}{left}"
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _failure(lines: list[str]) -> str:
    """The stage that failed and why, from the end of its log."""
    failed = re.compile(r"^Error in rule (\w+)", re.MULTILINE).search("".join(lines))
    if failed is None:
        said = [line.strip() for line in lines if line.strip()]
        first = next((n for n, line in enumerate(said) if ERROR.search(line)), -1)
        return f"snakemake stopped: {' '.join(said[first:][:3])}"
    after = "".join(lines)[failed.end() :]
    log = re.compile(r"^\s+log: (\S+)", re.MULTILINE).search(after)
    if log is None:
        return f"stage {failed[1]} failed without a log"
    path = Path(log[1])
    said = path.read_text(encoding="utf-8").strip().splitlines() if path.is_file() else []
    own = [line for line in said if line.startswith("marlin: error: ")]
    if own:
        return f"stage {failed[1]}: {own[-1].removeprefix('marlin: error: ')}"
    print("\n".join(said[-LOG_LINES:]), file=sys.stderr)
    return f"stage {failed[1]} failed: its log is {path}"


if __name__ == "__main__":
    main()
