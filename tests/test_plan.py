"""A plan is a pure function of the settings, and a result tree can be held against it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marlin import compose, plan, plan_cli, seal, sources
from marlin.errors import UserError
from marlin.files import sha256

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def conf(tmp_path, monkeypatch, cache):
    """A copy of the settings with a small suite; the working folder is empty."""
    copy = tmp_path / "conf"
    for path in (ROOT / "conf").rglob("*.yaml"):
        target = copy / path.relative_to(ROOT / "conf")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    write_suite(copy)
    monkeypatch.setenv("MARLIN_CONF", str(copy))
    monkeypatch.setenv("MARLIN_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return copy


def write_suite(conf, **changes):
    suite = {
        "name": "pair",
        "scenarios": ["fortnight"],
        "methods": ["round_robin", "nearest"],
        "ablations": ["none"],
        "seeds": 2,
        "overrides": ["budget=tiny"],
    } | changes
    (conf / "suite" / "pair.yaml").write_text(json.dumps(suite))


def write_ablation(conf, name, text):
    (conf / "ablation" / f"{name}.yaml").write_text(
        f"# @package _global_\nablation: {name}\n{text}\n"
    )


def test_cells_are_the_matrix_in_a_stable_order(conf):
    write_ablation(conf, "busy", "workload: {peak_utilisation: 0.9}")
    write_suite(conf, ablations=["busy", "none"], ablated_methods=["nearest"])
    assert [cell.name for cell in plan.load("pair").cells] == [
        "fortnight/round_robin/none",
        "fortnight/nearest/none",
        "fortnight/nearest/busy",
    ]


def test_a_plan_comes_from_the_cache_and_is_the_same(conf, monkeypatch):
    monkeypatch.delenv("MARLIN_CACHE")
    first = plan.load("pair")
    assert len(list(Path(".cache/plans").glob("*.json"))) == 1
    began = time.perf_counter()
    assert plan.load("pair") == first
    assert time.perf_counter() - began < 0.5
    assert plan.load("pair", "measured") != first


def test_a_cell_has_a_seed_for_every_chance_and_one_where_there_is_none(conf):
    write_ablation(conf, "noise", "signals: {forecast_noise: 0.1}")
    write_suite(conf, methods=["nearest", "nsga2"], ablations=["none", "noise"], seeds=3)
    chosen = plan.load("pair")
    assert {cell.name: cell.seeds for cell in chosen.cells} == {
        "fortnight/nearest/none": (0,),
        "fortnight/nsga2/none": (0, 1, 2),
        "fortnight/nearest/noise": (0, 1, 2),
        "fortnight/nsga2/noise": (0, 1, 2),
    }
    assert chosen.runs == 10
    assert plan.load("pair") == chosen


def test_scoring_and_test_days_change_the_evaluation_and_not_the_training(conf):
    first = plan.load("pair")
    write_suite(conf, overrides=["budget=tiny", "scoring.epochs=3", "scenario.test_days=2"])
    second = plan.load("pair")
    for before, after in zip(first.cells, second.cells, strict=True):
        assert before.training_fingerprint == after.training_fingerprint
        assert before.fingerprint != after.fingerprint
    assert first.scenarios["fortnight"].fingerprint == second.scenarios["fortnight"].fingerprint
    assert first.bounds["fortnight"].fingerprint != second.bounds["fortnight"].fingerprint
    write_suite(conf, overrides=["budget=quick"])
    assert plan.load("pair").cells[0].training_fingerprint != first.cells[0].training_fingerprint


def test_comments_change_no_fingerprint_and_settings_do(conf):
    first = plan.load("pair")
    path = conf / "method" / "nearest.yaml"
    path.write_text("# nearer\n" + path.read_text())
    assert plan.load("pair") == first
    path.write_text(path.read_text().replace("utilisation: 0.7", "utilisation: 0.6"))
    changed = plan.load("pair")
    differing = [a.name for a, b in zip(first.cells, changed.cells, strict=True) if a != b]
    assert differing == ["fortnight/nearest/none"]


def test_products_are_shared_and_split_only_where_settings_differ(conf):
    write_ablation(conf, "busy", "workload: {peak_utilisation: 0.9}")
    write_ablation(conf, "small_batch", "serving: {max_batch: 32}")
    write_suite(conf, ablations=["none", "busy", "small_batch"])
    chosen = plan.load("pair")
    assert set(chosen.scenarios) == {"fortnight", "fortnight-busy"}
    assert set(chosen.profiles) == {"profiles", "profiles-small_batch"}
    files = {cell.name: (cell.scenario_file, cell.profiles_file) for cell in chosen.cells}
    assert files["fortnight/nearest/none"] == ("fortnight", "profiles")
    assert files["fortnight/nearest/busy"] == ("fortnight-busy", "profiles")
    assert files["fortnight/nearest/small_batch"] == ("fortnight", "profiles-small_batch")


def test_a_product_is_asked_for_with_what_decides_it_and_nothing_else(conf):
    first = plan.load("pair", "measured")
    assert first.scenarios["fortnight"].overrides == ("scenario=fortnight", "signals=measured")
    assert first.profiles["profiles"].overrides == ()
    write_suite(conf, methods=["nearest"], overrides=["budget=quick"])
    assert plan.load("pair", "measured").scenarios == first.scenarios


@pytest.mark.parametrize(
    ("suite", "data", "sentence"),
    [
        ("pear", "embedded", "suite=pear is unknown: the nearest is 'pair'"),
        ("pair", "imagined", "data=imagined is unknown: it must be embedded or measured"),
    ],
)
def test_an_unknown_suite_or_data_source_is_one_sentence(conf, suite, data, sentence):
    with pytest.raises(UserError, match=sentence):
        plan.load(suite, data)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": ["nearest", "narest"]}, "narest.*the nearest is 'nearest'"),
        ({"seeds": 0}, "seeds=0 is out of range: it must be >= 1 and <= 1000"),
        ({"sedes": 3}, "'sedes' is unknown: the nearest is 'seeds'"),
        ({"name": "other"}, "names itself 'other'"),
        ({"ablated_methods": ["marlin"]}, "'marlin' is ablated but not in methods"),
        ({"overrides": ["budgt=tiny"]}, "'budgt' is unknown: the nearest is 'budget'"),
    ],
)
def test_a_mistake_in_a_suite_names_it(conf, changes, sentence):
    write_suite(conf, **changes)
    with pytest.raises(UserError, match=sentence):
        plan.load("pair")


def test_planning_and_listing_need_no_learning_stack():
    program = (
        "import sys; from marlin import plan; p = plan.load('paper'); plan.make("
        "plan._read(plan.compose.conf_dir() / 'suite' / 'paper.yaml'), 'embedded'); "
        "print(*sorted({'torch', 'matplotlib', 'wandb', 'snakemake'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_paper_suite_lists_its_cells_in_seconds():
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "marlin.cli", "plan", "list", "paper"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert time.perf_counter() - began < 30
    chosen = plan.load("paper")
    assert [line.split()[0] for line in done.stdout.splitlines()[:-1]] == [
        cell.name for cell in chosen.cells
    ]
    assert done.stdout.splitlines()[-1].startswith(f"{len(chosen.cells)} cells, {chosen.runs} runs")


@pytest.fixture
def finished(conf):
    """A result tree as the stages leave it, with and without chance; contents are stand-ins."""
    write_suite(conf, methods=["round_robin", "nsga2_as_run"])
    chosen = plan.load("pair")
    results = chosen.results
    for cell in chosen.cells:
        files = []
        for seed, folder in zip(cell.seeds, chosen.folders(cell), strict=True):
            folder.mkdir(parents=True)
            for stage, name, fingerprint in (
                ("train", "run.json", cell.training_fingerprint),
                ("evaluate", "evaluation.json", cell.fingerprint),
            ):
                code = sources.digest(sources.closure(stage, cell.module))
                record = {"code_sha256": code, "config_sha256": fingerprint, "seed": seed}
                (folder / name).write_text(json.dumps(record))
                files.append(folder / name)
            (folder / "episodes.parquet").write_text(f"{cell.name} {seed}")
            files.append(folder / "episodes.parquet")
        seal.write(results / "seals" / "train" / f"{cell.name}.sha256", files)
    (results / "numbers.json").write_text("{}")
    seal.write(results / "seals" / "tables.sha256", [results / "numbers.json"])
    return chosen


def test_a_true_result_tree_verifies_and_gets_its_manifest(finished, capsys):
    plan_cli.verify(finished, finished.results, write_manifest=True)
    assert capsys.readouterr().out == "verified: 3 runs, 10 files in results/pair\n"
    manifest = json.loads((finished.results / "manifest.json").read_text())
    assert manifest["plan_sha256"] == finished.fingerprint
    assert manifest["files"]["numbers.json"] == sha256(finished.results / "numbers.json")
    assert len(manifest["files"]) == 10


FALSE = "runs/fortnight/nsga2_as_run/none/seed-1"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (f"{FALSE}/episodes.parquet", "better", "is not what its stage wrote"),
        ("numbers.json", '{"carbon": 0}', "is not what its stage wrote"),
        ("numbers.json", None, "is missing"),
        (f"{FALSE}/run.json", None, "is missing"),
        (f"{FALSE}/run.json", {"config_sha256": "0"}, "made with other settings"),
        (f"{FALSE}/run.json", {"code_sha256": "0"}, "made by other code"),
        (f"{FALSE}/evaluation.json", None, "is missing"),
        (f"{FALSE}/evaluation.json", {"config_sha256": "0"}, "made with other settings"),
    ],
)
def test_a_false_result_is_named(finished, name, text, reason, capsys):
    path = finished.results / name
    if text is None:
        path.unlink()
    elif isinstance(text, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | text))
    else:
        path.write_text(text)
    with pytest.raises(UserError) as error:
        plan_cli.verify(finished, finished.results, write_manifest=True)
    assert name in str(error.value)
    assert reason in str(error.value)
    assert not (finished.results / "manifest.json").exists()


def test_verify_on_the_command_line_exits_with_one_and_names_the_file(finished):
    command = [sys.executable, "-m", "marlin.cli", "plan", "verify", "pair"]
    true = subprocess.run(command, capture_output=True, text=True)
    assert (true.returncode, true.stderr) == (0, "")
    (finished.results / FALSE / "episodes.parquet").write_text("better")
    false = subprocess.run(command, capture_output=True, text=True)
    assert false.returncode == 1
    assert f"{FALSE}/episodes.parquet" in false.stderr
    assert "Traceback" not in false.stderr


def test_seals_are_read_by_sha256sum(finished):
    done = subprocess.run(
        "sha256sum --check --quiet $(find seals -type f)",
        shell=True,
        cwd=finished.results,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_a_suite_no_longer_names_is_set_aside_and_not_deleted(finished, conf):
    assert plan.set_aside(finished, finished.results) == []
    write_suite(conf, methods=["nsga2_as_run"], seeds=1)
    smaller = plan.load("pair")
    moved = {
        path.relative_to(finished.results).as_posix()
        for path in plan.set_aside(smaller, smaller.results)
    }
    assert moved == {
        "runs/fortnight/round_robin/none/seed-0",
        "runs/fortnight/nsga2_as_run/none/seed-1",
        "seals/train/fortnight/round_robin/none.sha256",
    }
    kept = finished.results / "set-aside" / FALSE / "episodes.parquet"
    assert kept.read_text() == "fortnight/nsga2_as_run/none 1"
    assert [path.name for path in finished.results.glob("runs/*/*/*/*")] == ["seed-0"]


def test_show_prints_settings_that_compose_to_the_fingerprint(conf, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["marlin plan", "show", "pair", "fortnight/nearest/none"])
    plan_cli.main()
    text = capsys.readouterr().out
    path = Path("shown.yaml")
    path.write_text(text)
    cell = plan.load("pair").cell("fortnight/nearest/none")
    assert compose.fingerprint(compose.load(path)) == cell.fingerprint
    with pytest.raises(UserError, match="the nearest is 'fortnight/nearest/none'"):
        plan.load("pair").cell("fortnight/narest/none")
