"""The workflow does what is needed and nothing else, and says so when a result is false.

One small suite is really run, in a copy of the repository; what would run after a change is then
read from dry runs. Commands, sources and settings are those of the copy.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml
from repository_copy import Copy

from marlin import plan, reproduce
from marlin.errors import UserError
from marlin.tracking import wandb_export

SEEDS = 2
SUITE = {
    "name": "probe",
    "scenarios": ["fortnight"],
    "methods": ["round_robin", "nearest", "nsga2_as_run"],
    "ablations": ["none"],
    "seeds": SEEDS,
    "overrides": ["budget=tiny", "scenario.test_days=1"],
}
RESULTS = "results/probe"
# Everything but figures, paper and manifest, which need a method that takes minutes.
TARGETS = ["runs", f"{RESULTS}/numbers.json", f"{RESULTS}/wandb/index.json"]
DOWNSTREAM = {"collect", "tables", "track"}
CELLS = SUITE["methods"]


class Probe(Copy):
    """The copy whose suite is `probe`: dry runs look at its targets unless told otherwise."""

    def planned(self, *arguments):
        return super().planned(*(arguments or (*TARGETS, "--config", "suite=probe")))


def of_cells(*stages, methods=CELLS):
    return {f"{stage} {method}" for stage in stages for method in methods}


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """A copy whose small suite has been run once."""
    made = Probe(tmp_path_factory.mktemp("repository"), SUITE)
    done = made.snakemake("--cores", "2", *TARGETS, "--config", "suite=probe")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_nothing_is_left_to_do_after_a_run(copy):
    assert copy.planned() == set()


def test_comments_key_order_and_touching_do_nothing(copy):
    physics = "conf/physics/default.yaml"
    touched = ("src/marlin/train.py", f"{RESULTS}/data/fortnight.nc", f"{RESULTS}/episodes.parquet")
    with copy.restored(physics, *touched, with_times=True):
        path = copy.folder / physics
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        path.write_text("# another comment\n" + "\n".join(reversed(lines)) + "\n")
        for name in touched:
            (copy.folder / name).touch()
        assert copy.planned() == set()


def test_a_parameter_of_one_method_concerns_that_method(copy):
    path = "conf/method/nearest.yaml"
    with copy.edited(path, "target_utilisation: 0.7", "target_utilisation: 0.61"):
        expected = of_cells("train", "evaluate", methods=["nearest"]) | DOWNSTREAM
        assert copy.planned() == expected
    assert copy.planned() == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "src/marlin/schedulers/nearest.py",
            of_cells("train", "evaluate", methods=["nearest"]) | DOWNSTREAM,
        ),
        (
            "src/marlin/serving/calibrate.py",
            {"calibrate", "fluid", "bounds"} | of_cells("train", "evaluate") | DOWNSTREAM,
        ),
        ("src/marlin/tracking/wandb_export.py", {"track"}),
        ("src/marlin/compose.py", set()),
    ],
)
def test_editing_a_source_file_concerns_the_stages_that_import_it(copy, name, expected):
    with copy.edited(name, '"""', '"""Edited. '):
        assert copy.planned() == expected


def test_a_setting_of_the_serving_section_makes_profiles_anew_but_no_scenario(copy):
    with copy.edited("conf/serving/vllm.yaml", "max_batch: 256", "max_batch: 200"):
        made = {"calibrate", "fluid", "bounds"} | of_cells("train", "evaluate")
        assert copy.planned() == made | DOWNSTREAM


def test_how_test_days_are_scored_trains_nothing_anew(copy):
    suite = "conf/suite/probe.yaml"
    with copy.edited(suite, '"scenario.test_days=1"', '"scenario.test_days=1", "scoring.epochs=3"'):
        assert copy.planned() == {"bounds"} | of_cells("evaluate") | DOWNSTREAM
    with copy.edited(suite, '"scenario.test_days=1"', '"scenario.test_days=2"'):
        assert copy.planned() == {"bounds"} | of_cells("evaluate") | DOWNSTREAM


def test_another_budget_makes_no_data_anew(copy):
    with copy.edited("conf/budget/tiny.yaml", "worlds: 16", "worlds: 8"):
        assert copy.planned() == of_cells("train", "evaluate") | DOWNSTREAM


def test_another_method_is_added_to_what_is_there(copy):
    with copy.edited("conf/suite/probe.yaml", '"nearest",', '"nearest", "carbon_greedy",'):
        expected = of_cells("train", "evaluate", methods=["carbon_greedy"]) | DOWNSTREAM
        assert copy.planned() == expected


def test_an_edited_result_is_named_and_a_restored_one_is_true(copy):
    name = f"{RESULTS}/runs/fortnight/nsga2_as_run/none/seed-1/episodes.parquet"
    with copy.restored(name):
        frame = pd.read_parquet(copy.folder / name)
        frame["carbon_kg"] *= 0.67
        frame.to_parquet(copy.folder / name, index=False)
        # Snakemake alone would only make anew what comes after it, from the false result.
        assert copy.planned() == DOWNSTREAM
        verified = copy.marlin("plan", "verify", "probe")
        assert verified.returncode == 1
        assert name in verified.stderr
    assert copy.marlin("plan", "verify", "probe").returncode == 0
    assert copy.planned() == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("runs/fortnight/nearest/none/seed-0/epochs.parquet", {"evaluate nearest"} | DOWNSTREAM),
        (
            "data/fortnight.nc",
            {"prepare", "bounds"} | of_cells("train", "evaluate") | DOWNSTREAM,
        ),
    ],
)
def test_a_deleted_result_is_made_again(copy, name, expected):
    with copy.restored(f"{RESULTS}/{name}", with_times=True):
        (copy.folder / RESULTS / name).unlink()
        assert copy.planned() == expected


def test_without_snakemakes_memory_changed_settings_go_unseen_but_not_unverified(copy):
    memory, aside = copy.folder / ".snakemake", copy.folder / "memory"
    memory.rename(aside)
    path = "conf/method/nearest.yaml"
    try:
        before = copy.planned()
        with copy.edited(path, "target_utilisation: 0.7", "target_utilisation: 0.61"):
            assert copy.planned() == before
            verified = copy.marlin("plan", "verify", "probe")
            assert verified.returncode == 1
            assert "other settings" in verified.stderr
    finally:
        shutil.rmtree(memory, ignore_errors=True)
        aside.rename(memory)


def test_the_comparison_with_replay_is_a_job_on_the_profiles(copy):
    target = f"{RESULTS}/serving/fluid.csv"
    with copy.restored(target, with_times=True):
        (copy.folder / target).unlink()
        assert copy.planned(target, "--config", "suite=probe") == {"fluid"}
        done = copy.snakemake("-n", "-p", target, "--config", "suite=probe")
    command = re.search(r"Shell command: \(?(.*)", done.stdout + done.stderr)
    assert command
    assert command[1].startswith("python -m marlin.fluid_validation scenario=fortnight")
    assert f"--profiles {RESULTS}/serving/profiles.parquet --output {target}" in command[1]


def test_commands_of_jobs_can_be_pasted_into_a_terminal(copy):
    done = copy.snakemake("-n", "-p", "-F", *TARGETS, "--config", "suite=probe")
    commands = re.findall(r"^Shell command: \(?(.*)$", done.stdout + done.stderr, re.MULTILINE)
    train = next(text for text in commands if "marlin.train" in text and "nearest" in text)
    assert train.startswith(
        "python -m marlin.train -m scenario=fortnight method=nearest ablation=none "
        "signals=embedded budget=tiny seed=0 "
        f"inputs.scenario={RESULTS}/data/fortnight.nc "
        f"inputs.profiles={RESULTS}/serving/profiles.parquet "
        f"hydra.sweep.dir={RESULTS}/runs/fortnight/nearest/none"
    )


def test_a_run_by_hand_gives_the_bytes_of_the_pipeline(copy):
    scenario, profiles = f"{RESULTS}/data/fortnight.nc", f"{RESULTS}/serving/profiles.parquet"
    trained = copy.run(
        *(sys.executable, "-m", "marlin.train", "-m", "scenario=fortnight", "method=nearest"),
        *("budget=tiny", "scenario.test_days=1", "seed=0", "hydra.sweep.dir=by-hand"),
        *(f"inputs.scenario={scenario}", f"inputs.profiles={profiles}"),
    )
    assert trained.returncode == 0, trained.stderr
    evaluated = copy.marlin(
        "evaluate", "by-hand/seed-0", "--scenario", scenario, "--profiles", profiles
    )
    assert evaluated.returncode == 0, evaluated.stderr
    theirs = copy.folder / RESULTS / "runs/fortnight/nearest/none/seed-0"
    names = sorted(path.name for path in theirs.iterdir() if path.is_file())
    assert "run.json" in names
    assert "episodes.parquet" in names
    for name in names:
        ours = copy.folder / "by-hand" / "seed-0" / name
        assert ours.read_bytes() == (theirs / name).read_bytes(), name


def test_an_evaluation_may_vary_what_training_does_not_read_and_nothing_else(copy):
    shutil.copytree(
        copy.folder / RESULTS / "runs/fortnight/nearest/none/seed-0", copy.folder / "again/seed-0"
    )
    command = [
        *("evaluate", "again/seed-0", "--scenario", f"{RESULTS}/data/fortnight.nc"),
        *("--profiles", f"{RESULTS}/serving/profiles.parquet", "--settings", "scenario=fortnight"),
        *("method=nearest", "budget=tiny", "scoring=fluid", "scenario.test_days=1"),
    ]
    done = copy.marlin(*command)
    assert done.returncode == 0, done.stderr
    assert "ttft_p95_s" not in pd.read_parquet(copy.folder / "again/seed-0/episodes.parquet")
    evaluated = yaml.safe_load((copy.folder / "again/seed-0/evaluated.yaml").read_text())
    assert evaluated["scoring"]["judge"] == "fluid"
    wrong = copy.marlin(*command, "method.target_utilisation=0.5")
    assert wrong.returncode == 1
    assert "again/seed-0 was trained with other settings" in wrong.stderr


def test_data_made_in_another_folder_have_the_same_bytes(copy, tmp_path):
    other = Probe(tmp_path, SUITE, copy.folder)
    made = [f"{RESULTS}/data/fortnight.nc", f"{RESULTS}/serving/profiles.parquet"]
    done = other.snakemake("--cores", "2", *made, "--config", "suite=probe")
    assert done.returncode == 0, done.stdout + done.stderr
    seals = sorted((tmp_path / RESULTS / "seals").rglob("*.sha256"))
    assert [path.stem for path in seals] == ["profiles", "fortnight"]
    for path in seals:
        assert path.read_text() == (copy.folder / path.relative_to(tmp_path)).read_text()


def test_the_tracker_gets_every_run_without_a_network(copy):
    results = copy.folder / RESULTS
    index = json.loads((results / "wandb/index.json").read_text())
    # Two methods without chance have one run, the third has one a seed.
    assert len(index) == 2 + SEEDS
    entry = index["runs/fortnight/nearest/none/seed-0"]
    assert entry["group"] == "fortnight/nearest"
    assert entry["job_type"] == "baseline"
    assert entry["tags"][:2] == ["probe", "none"]
    assert len({run["id"] for run in index.values()}) == len(index)
    for run in index.values():
        assert list((results / "wandb").glob(f"offline-run-*-{run['id']}/*.wandb"))


def test_history_and_summary_of_a_run_are_those_of_its_files():
    learning = pd.DataFrame(
        {
            "training_epochs": [0, 0, 96],
            "variant": ["balanced", "carbon", "balanced"],
            "ttft_s": [1.0, 2.0, 0.5],
            "carbon_kg": [10.0, 8.0, 9.0],
            "water_l": [3.0, 3.0, 3.0],
            "cost_usd": [4.0, 4.0, 4.0],
        }
    )
    rows = wandb_export.history(learning)
    assert [row["training_epochs"] for row in rows] == [0, 96]
    assert rows[0]["carbon/carbon_kg"] == 8.0
    assert "carbon/carbon_kg" not in rows[1]
    episodes = pd.DataFrame({"method": ["a", "a"], "seed": [0, 0], "carbon_kg": [1.0, 3.0]})
    assert wandb_export.summary(episodes) == {"a/carbon_kg": 2.0}


def test_both_entry_points_give_the_same_jobs(copy):
    root = copy.planned("--forceall", "--config", "suite=probe")
    inner = copy.planned("-s", "workflow/Snakefile", "--forceall", "--config", "suite=probe")
    assert root == inner
    assert {"prepare", "calibrate", "paper", "verify", "track"} <= root


def test_a_dry_run_of_the_paper_suite_takes_seconds_and_has_all_cells(copy):
    began = time.perf_counter()
    jobs = copy.planned("--config", "suite=paper", "data=measured")
    assert time.perf_counter() - began < 60
    methods = {cell.method for cell in plan.load("paper", "measured").cells}
    assert {job for job in jobs if job.startswith("train")} == of_cells("train", methods=methods)
    assert "fetch" in jobs


def test_snakemake_finds_nothing_to_criticise(copy):
    done = copy.snakemake("--lint", "--config", "suite=tiny")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("suite=tinny", "suite=tinny is unknown: the nearest is 'tiny'"),
        ("sweet=tiny", "--config sweet is unknown: the nearest is 'suite'"),
        ("data=imagined", "data=imagined is unknown"),
    ],
)
def test_snakemakes_own_settings_are_checked_too(copy, config, sentence):
    done = copy.snakemake("-n", "--config", config)
    assert done.returncode != 0
    assert sentence in done.stdout + done.stderr


def test_a_second_run_of_a_suite_waits_and_a_killed_one_leaves_no_lock(copy):
    results = copy.folder / RESULTS
    command = [sys.executable, "-m", "marlin.cli", "reproduce", "--suite", "probe"]
    with reproduce._only_one(results):
        with subprocess.Popen(
            command, cwd=copy.folder, env=copy.environment, stderr=subprocess.PIPE, text=True
        ) as second:
            assert second.stderr is not None
            said = second.stderr.readline()
            second.kill()
        assert said == f"waiting: another `marlin reproduce` writes {RESULTS}\n"
    holder = "import sys; from marlin import reproduce; from pathlib import Path\n"
    holder += f"with reproduce._only_one(Path({RESULTS!r})): print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder],
        cwd=copy.folder,
        env=copy.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        first.kill()
        first.wait()
        with (results / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_measured_data_without_mirror_and_network_are_one_sentence(copy, monkeypatch):
    # A port on which nothing listens.
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setitem(copy.environment, name, "http://127.0.0.1:9")
    done = copy.marlin("fetch", "azure-llm-2023")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("marlin: error: cannot download https://")
    assert "MARLIN_MIRROR" in last
    assert "Traceback" not in done.stderr


def test_a_failed_stage_is_told_by_its_own_sentence(tmp_path):
    log = tmp_path / "stage.log"
    log.write_text("something\nmarlin: error: the fleet has no sites\n")
    said = [
        "Building DAG\n",
        "Error in rule prepare:\n",
        "    jobid: 1\n",
        f"    log: {log} (check)\n",
    ]
    assert reproduce._failure(said) == "stage prepare: the fleet has no sites"
    assert reproduce._failure(["WorkflowError:\n", "no such rule\n"]).startswith(
        "snakemake stopped: WorkflowError: no such rule"
    )


def test_choices_name_the_nearest_key():
    assert reproduce.choices({"suite": "tiny"}) == {"suite": "tiny", "data": "embedded"}
    with pytest.raises(UserError, match="the nearest is 'mirror'"):
        reproduce.choices({"miror": "x"})
