"""Every YAML composes; every mistake a user can make ends in one sentence with a name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marlin import compose, inputs
from marlin.errors import UserError

ROOT = Path(__file__).parents[1]
SCHEDULERS = """
from pydantic import Field
from pydantic.dataclasses import dataclass


@dataclass
class Checked:
    population: int = Field(20, ge=4, le=100)
    rate: float = 0.1


class Plain:
    def __init__(self, alpha=1.0):
        self.alpha = alpha
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A copy of the settings with two schedulers of the user's own."""
    conf = tmp_path / "conf"
    for path in (ROOT / "conf").rglob("*.yaml"):
        copy = conf / path.relative_to(ROOT / "conf")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    (tmp_path / "own_schedulers.py").write_text(SCHEDULERS)
    for name in ("Checked", "Plain"):
        (conf / "method" / f"{name.lower()}.yaml").write_text(
            f"name: {name.lower()}\n_target_: own_schedulers.{name}\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MARLIN_CONF", str(conf))
    yield conf
    sys.modules.pop("own_schedulers", None)


EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
OWN_FILES = {"fleet": EXAMPLES / "fleet.yaml", "workload": EXAMPLES / "trace.csv"}
OWN_FLEET = ("fleet", "own")
OPTIONS = [(group, option) for group, names in compose.groups().items() for option in names]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_file_of_every_group_composes(group, option):
    file = OWN_FILES.get(group) if option == "own" else None
    extra = [f"{group}.path='{file}'"] if file else []
    if group == "ablation" and option.startswith("nash_"):
        extra = ["method=marlin_nash"]  # parts that only this method has
    run = compose.compose([f"{group}={option}", *extra])
    part = run.model_dump()[group]
    # A fleet of one's own brings its name.
    assert part == option or part["name"] == ("example" if (group, option) == OWN_FLEET else option)


@pytest.mark.parametrize("group", OWN_FILES)
def test_data_of_ones_own_need_a_file(group):
    with pytest.raises(UserError, match=f"add {group}.path=FILE"):
        compose.compose([f"{group}=own"])


@pytest.mark.parametrize(
    ("overrides", "wrong", "right"),
    [
        (["workload.peak_utilization=0.5"], "workload.peak_utilization", "peak_utilisation"),
        (["peak_utilisation=0.5"], "peak_utilisation", "workload.peak_utilisation"),
        (["scnario=year"], "scnario", "'scenario'"),
        (["scenario=yeer"], "scenario=yeer", "'year'"),
        (["method=round_robbin"], "method=round_robbin", "'round_robin'"),
        (["fleet.node_types.a100x8.boots_s=4"], "boots_s", "fleet.node_types.a100x8.boot_s"),
        (["+workload.noise_sdd=0.1"], "workload.noise_sdd", "workload.noise_sd"),
        (["serving.patience=9"], "serving.patience", "serving.patience_s"),
        (["method=checked", "method.populaton=9"], "method.populaton", "method.population"),
        (["method=plain", "method.alfa=2"], "method.alfa", "method.alpha"),
        (["signals.carbon_family=livecycle"], "livecycle", "'direct', 'lifecycle' or 'marginal'"),
        (["~seed"], "'seed'", "missing"),
        (["method._target_=nowhere.Nothing"], "nowhere.Nothing", "cannot be imported"),
        (["seed"], "'seed'", "setting=value"),
        (["seed=1,2"], "seed=1,2", "-m"),
    ],
)
def test_a_mistake_names_the_setting_and_the_nearest_valid_one(own, overrides, wrong, right):
    with pytest.raises(UserError) as error:
        compose.compose(overrides)
    sentence = str(error.value)
    assert wrong in sentence
    assert right in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("workload.peak_utilisation=3", "> 0 and <= 2"),
        ("workload.peak_utilisation=0", "> 0 and <= 2"),
        ("workload.noise_correlation=1", ">= 0 and < 1"),
        ("scenario.test_days=0", ">= 1 and <= 366"),
        ("seed=-1", ">= 0 and < 4294967296"),
        ("fleet.node_types.h100x8.gpus=99", ">= 1 and <= 16"),
        ("budget.calls_per_decision=0", ">= 1"),
    ],
)
def test_a_value_out_of_range_says_the_range(override, allowed):
    with pytest.raises(UserError) as error:
        compose.compose(["method=round_robin", override])
    assert override in str(error.value)
    assert str(error.value).endswith(allowed)


def test_a_method_parameter_out_of_range_says_the_range(own):
    with pytest.raises(UserError, match=r"method\.population=3 .* >= 4 and <= 100"):
        compose.compose(["method=checked", "method.population=3"])


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        ("workload.peak_utilisation=high", "a number"),
        ("seed=1.5", "a whole number"),
        ("serving.models=3", "a list"),
        ("scenario.train=2023", "a mapping"),
    ],
)
def test_a_wrong_type_says_the_right_one(override, kind):
    with pytest.raises(UserError, match=f"has the wrong type: it must be {kind}"):
        compose.compose(["method=round_robin", override])


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("scenario.train.first=2023-02-30", "must be a date"),
        ("scenario.train.last=2022-01-01", "ends .* before it begins"),
        ("scenario.test.first=2023-06-01", "share days"),
    ],
)
def test_days_that_cannot_be_are_refused(override, reason):
    with pytest.raises(UserError, match=reason):
        compose.compose(["scenario=year", "method=round_robin", override])


def test_a_misspelt_key_in_a_file_is_found_like_one_on_the_command_line(own):
    path = own / "ablation" / "none.yaml"
    path.write_text(path.read_text() + "workload:\n  noise_std: 0.1\n")
    with pytest.raises(UserError, match=r"workload\.noise_std.*workload\.noise_sd"):
        compose.compose([])


def test_resolved_settings_hold_the_defaults_of_the_method(own):
    run = compose.compose(["method=checked", "method.rate=0.5"])
    assert run.method["population"] == 20
    assert run.method["rate"] == 0.5


def test_resolved_settings_are_read_back_unchanged(tmp_path, own):
    run = compose.compose(["method=checked", "seed=7", "workload.peak_utilisation=0.75"])
    path = tmp_path / "resolved.yaml"
    path.write_text(compose.to_yaml(run))
    assert compose.load(path) == run


def test_fingerprint_ignores_comments_and_the_order_of_keys(own):
    before = compose.fingerprint(compose.compose(["method=checked"]))
    path = own / "physics" / "default.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    path.write_text("# another comment\n" + "\n".join(reversed(lines)) + "\n")
    assert compose.fingerprint(compose.compose(["method=checked"])) == before


def test_fingerprint_leaves_out_seed_tracker_and_input_paths(own):
    plain = compose.compose(["method=checked"])
    other = compose.compose(
        ["method=checked", "seed=5", "tracking=wandb", "inputs.scenario=somewhere.nc"]
    )
    assert compose.fingerprint(plain) == compose.fingerprint(other)


CHANGES = [
    "scenario.epoch_minutes=30",
    "scenario.test_days=7",
    "fleet.node_types.a100x8.boot_s=181",
    "workload.large_share=0.31",
    "workload.origins.korea.population_m=53",
    "signals.carbon_family=lifecycle",
    "physics.fan_power=0.031",
    "serving.max_batch=255",
    "budget.worlds=31",
    "method.target_utilisation=0.71",
]


@settings(max_examples=6, deadline=None)
@given(st.sets(st.sampled_from(CHANGES), min_size=1), st.randoms())
def test_any_change_of_a_setting_changes_the_fingerprint(chosen, random):
    ordered = sorted(chosen)
    base = ["method=nearest"]
    shuffled = random.sample(ordered, len(ordered))
    first = compose.fingerprint(compose.compose(base + ordered))
    assert first == compose.fingerprint(compose.compose(base + shuffled))
    assert first != compose.fingerprint(compose.compose(base))
    assert first != compose.fingerprint(compose.compose(base + ordered[1:]))


def test_fingerprints_of_products_cover_their_sections_only(own):
    base = compose.compose(["method=checked"])
    workload = compose.compose(["method=checked", "workload.noise_sd=0.1"])
    serving = compose.compose(["method=checked", "serving.max_batch=128"])
    method = compose.compose(["method=plain", "budget=tiny"])
    scenario, profiles = inputs.scenario_fingerprint, inputs.profiles_fingerprint
    assert scenario(base) == scenario(serving) == scenario(method) != scenario(workload)
    assert profiles(base) == profiles(workload) == profiles(method) != profiles(serving)


def test_a_sweep_expands_in_order_and_is_checked_before_anything_runs(own):
    combinations = compose.expand(["method=checked,plain", "seed=range(2)", "hydra.sweep.dir=x"])
    assert combinations == [
        ["method=checked", "seed=0"],
        ["method=checked", "seed=1"],
        ["method=plain", "seed=0"],
        ["method=plain", "seed=1"],
    ]
    runs = compose.check(["method=checked,plain", "seed=range(2)"])
    assert [(run.method["name"], run.seed) for run in runs] == [
        ("checked", 0),
        ("checked", 1),
        ("plain", 0),
        ("plain", 1),
    ]
    with pytest.raises(UserError, match=r"method\.population=3"):
        compose.check(["method=checked", "method.population=8,3", "seed=0,1"])


ENTRY = """
from marlin.entry import hydra_entry


def run_one(run, folder):
    (folder / "learning.parquet").write_text(run.method["name"] + str(run.seed))


if __name__ == "__main__":
    hydra_entry(run_one)
"""


@pytest.fixture
def entry(tmp_path, own):
    """A stage with Hydra's entry point, as a function of its arguments."""
    (tmp_path / "stage.py").write_text(ENTRY)
    for name in ("s.nc", "p.parquet"):
        (tmp_path / name).write_text(name)

    def call(*arguments):
        command = [sys.executable, "-m", "stage", *arguments]
        return subprocess.run(
            [*command, "inputs.scenario=s.nc", "inputs.profiles=p.parquet"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return call


def test_runs_by_hand_go_to_folders_named_after_what_varies(tmp_path, entry):
    done = entry("-m", "method=checked", "method.rate=0.1,0.2", "seed=0,1")
    assert done.returncode == 0, done.stderr
    folders = sorted(
        path.parent.relative_to(tmp_path / "results/adhoc").as_posix()
        for path in tmp_path.rglob("run.json")
    )
    assert folders == [
        f"year/checked/none/method.rate-{rate}/seed-{seed}"
        for rate in ("0.1", "0.2")
        for seed in (0, 1)
    ]
    assert all(
        (tmp_path / "results/adhoc" / folder / "resolved.yaml").is_file() for folder in folders
    )


def test_a_caller_chooses_the_folder_of_one_cell(tmp_path, entry):
    done = entry("-m", "method=plain", "seed=0,1", "hydra.sweep.dir=results/a/b")
    assert done.returncode == 0, done.stderr
    made = {path.relative_to(tmp_path / "results").as_posix() for path in tmp_path.rglob("*.json")}
    assert made == {"a/b/seed-0/run.json", "a/b/seed-1/run.json"}
    assert not list(tmp_path.rglob("multirun.yaml"))
    assert not list(tmp_path.rglob(".hydra"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m", "method=checked", "method.population=8,3"], "method.population=3 is out of range"),
        (["method=checked,plain"], "add -m"),
        (["-m", "method=checked,plain", "hydra.sweep.dir=x"], "one folder for seeds only"),
    ],
)
def test_a_sweep_with_a_mistake_fails_before_its_first_run(tmp_path, entry, arguments, sentence):
    done = entry(*arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_method_keeps_the_name_its_file_gives_it(own):
    (own / "method" / "closer.yaml").write_text(
        "name: closer\n_target_: marlin.schedulers.nearest.Nearest\ntarget_utilisation: 0.5\n"
    )
    run = compose.compose(["method=closer"])
    assert run.method["name"] == "closer"
    assert compose.method_parameters(run.method)["target_utilisation"] == 0.5
    plain = compose.compose(["method=plain", "method.alpha=2"])
    assert compose.method_parameters(plain.method) == {"alpha": 2}
