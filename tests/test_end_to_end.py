"""The whole road to the paper, twice: once in peace, once killed at three moments.

Both must end in the same bytes, and what was finished before a kill is not made again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository_copy import Copy

from marlin.files import sha256

SUITE = {
    "name": "road",
    "scenarios": ["fortnight"],
    "methods": ["round_robin", "carbon_greedy", "marlin"],
    "ablations": ["none"],
    "seeds": 1,
    "overrides": ["budget=tiny", "budget.training_epochs=384", "budget.checkpoints=1"],
}
CELLS = "fortnight/{}/none.sha256"
RESULTS = Path("results/road")
PATIENCE_S = 600.0
SETTLED_NS = 2_000_000_000


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    copy = Copy(tmp_path_factory.mktemp("peace"), SUITE)
    done = copy.marlin("reproduce", "--suite", "road", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return copy


def digests(copy: Copy) -> dict[str, str]:
    """SHA-256 of every file that the manifest names, read again from disk."""
    results = copy.folder / RESULTS
    named = json.loads((results / "manifest.json").read_text())["files"]
    found = {name: sha256(results / name) for name in named}
    assert found == named
    return found


@pytest.mark.slow
def test_the_road_ends_in_a_paper_whose_every_part_is_there(in_peace: Copy) -> None:
    names = set(digests(in_peace))
    for name in (
        "paper.pdf",
        "episodes.parquet",
        "learning.parquet",
        "numbers.json",
        "tables/main.tex",
        "figures/pareto.pdf",
        "figures/day.png",
        "figures/learning.svg",
        "serving/silicon.parquet",
        "data/fortnight.nc",
        "runs/fortnight/marlin/none/seed-0/policy.npz",
    ):
        assert name in names, name
    results = in_peace.folder / RESULTS
    assert (results / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((results / "wandb" / "index.json").read_text())


@pytest.mark.slow
def test_a_second_call_does_nothing(in_peace: Copy) -> None:
    results = in_peace.folder / RESULTS
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.sha256")}
    done = in_peace.marlin("reproduce", "--suite", "road")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.sha256")} == before


@pytest.mark.slow
def test_killed_at_three_moments_it_ends_in_the_same_bytes(in_peace: Copy, tmp_path: Path) -> None:
    copy = Copy(tmp_path, SUITE)
    seals = copy.folder / RESULTS / "seals"
    moments = (
        seals / "calibrate" / "profiles.sha256",
        seals / "train" / CELLS.format("round_robin"),
        seals / "evaluate" / CELLS.format("carbon_greedy"),
    )
    finished: dict[Path, int] = {}
    for moment in moments:
        kill_when_made(copy, moment)
        for path, made in finished.items():
            assert path.stat().st_mtime_ns == made, f"{path} was made again"
        # A job whose last file has just appeared may still be in progress.
        settled = time.time_ns() - SETTLED_NS
        made_at = {path: path.stat().st_mtime_ns for path in seals.rglob("*.sha256")}
        finished = {path: made for path, made in made_at.items() if made < settled}
    assert finished
    done = copy.marlin("reproduce", "--suite", "road", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    for path, made in finished.items():
        assert path.stat().st_mtime_ns == made, f"{path} was made again"
    assert digests(copy) == digests(in_peace)


def kill_when_made(copy: Copy, path: Path) -> None:
    """Start the run, and kill it and all its jobs at once as soon as `path` is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "marlin.cli", "reproduce", "--suite", "road", "--cores", "2"],
        cwd=copy.folder,
        env=copy.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + PATIENCE_S
    while not path.is_file():
        assert process.poll() is None, f"the run ended before it made {path}"
        assert time.monotonic() < deadline, f"{path} was not made in {PATIENCE_S:.0f} s"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
