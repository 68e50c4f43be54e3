"""The house is in order: style, types, generated files, and no words that do not belong."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SKIPPED = {
    ".git",
    ".venv",
    ".hypothesis",
    ".cache",
    ".snakemake",
    "results",
    "__pycache__",
    "wandb",
    ".gl",
}


def tool(name, *arguments):
    path = BIN / name if (BIN / name).is_file() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: pip install -e '.[dev]'")
    return subprocess.run([str(path), *arguments], cwd=ROOT, capture_output=True, text=True)


def tracked():
    """Files of the project, without caches and results."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part in SKIPPED or part.endswith((".egg-info", "_cache")) for part in parts)
        if path.is_file() and not hidden:
            yield path


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("ty", "check", "--python", sys.prefix, "src"),
        ("snakefmt", "--check", "Snakefile", "workflow"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_style_and_types(command):
    done = tool(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_environment_yml_is_the_one_pyproject_gives():
    command = ["yaml", "-f", "pyproject.toml", "-n", "marlin", "-p", "3.11", "--no-header"]
    done = tool("pyproject2conda", *command)
    assert done.returncode == 0, done.stderr
    given = (ROOT / "environment.yml").read_text()
    assert yaml.safe_load(given) == yaml.safe_load(done.stdout), "run `make environment.yml`"


def requirement_name(requirement: str) -> str:
    """Name of the package in `name>=1.0`."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def test_constraints_pin_every_direct_dependency_but_torch_exactly():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    direct = {requirement_name(text).lower() for text in wanted}
    assert direct - pinned == {"torch"}
    assert "torch" not in pinned


def test_every_dependency_has_its_reason():
    text = (ROOT / "docs" / "dependencies.md").read_text()
    explained = set(re.findall(r"^\| `([\w.-]+)` \|", text, re.MULTILINE))
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    assert explained == {requirement_name(requirement) for requirement in wanted}


def test_no_absolute_paths_and_no_package_index_in_the_repository():
    forbidden = re.compile(
        r"/(?:home|root|Users|work|tmp|mnt)/|--(?:extra-)?index-url|pypi\.\w+/simple"
    )
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path != Path(__file__) and b"\0" not in (content := path.read_bytes())
        for match in forbidden.finditer(content.decode("utf-8", "replace"))
    }
    assert found == set()


def test_citation_and_version_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "license", "version"} <= set(citation)
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_has_a_place_for_what_is_not_released():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE)


def test_make_explains_itself():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    names = re.findall(r"^make (\w+)", done.stdout, re.MULTILINE)
    assert {"install", "test", "lint", "reproduce", "dashboard", "clean"} <= set(names)


def test_make_says_in_one_sentence_that_python_is_missing(tmp_path):
    for name in ("pyproject.toml", "constraints.txt", "Makefile"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = ["make", "-s", "install", "PYTHON="]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "marlin needs Python 3.11 or later" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_script_of_continuous_integration_can_be_run():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_numbers_of_the_readme_are_those_of_the_reference_results():
    with (ROOT / "results/reference/quick-measured/claims.csv").open() as stream:
        alone = [row for row in csv.DictReader(stream) if row["policy"] == "one_objective"]
    rows = {(row["objective"], row["contender"]): row for row in alone}
    printed = re.findall(
        r"^\| ([\w ]+) \| (\d+) \| (.+) \| (.+) \| `(\w+)` \|$", README, re.MULTILINE
    )
    names = {"time to first token": "ttft_s", "carbon": "carbon_kg", "water": "water_l"}
    names["energy cost"] = "cost_usd"
    assert [names[cells[0]] for cells in printed] == list(names.values())
    for name, claim, published, own, baseline in printed:
        assert float(rows[names[name], "marlin"]["claimed_percent"]) == float(claim)
        for contender, text in (("marlin", published), ("marlin_nash", own)):
            row = rows[names[name], contender]
            values = [row[f"reduction_percent{end}"] for end in ("", "_low", "_high")]
            shown = [f"{float(value):.1f}".replace("-", "−") for value in values]
            assert text == f"{shown[0]} [{shown[1]}, {shown[2]}]"
            assert row["best_baseline"] == baseline
