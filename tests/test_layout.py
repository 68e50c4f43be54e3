"""Who may import whom: the arrows of the design, read from the source files."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from marlin import sources

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "marlin"
# Settings, errors and files may be used by all; what they import is tested below.
COMMON = {"config", "errors", "files"}
ALLOWED = {
    "physics": set(),
    "serving": {"physics"},
    "fleet": {"physics", "serving"},
    "games": set(),
    "schedulers": {"fleet", "games", "serving"},
    "data": {"physics"},
    "envs": {"fleet", "games", "compose", "task"},
    "bounds": {
        "fleet", "schedulers", "serving", "compose", "data", "evaluate", "inputs", "judge", "task",
    },
    "tracking": {"provenance"},
}  # fmt: skip
HEAVY = {
    "torch", "matplotlib", "seaborn", "wandb", "pymoo", "sklearn", "aiconfigurator_core",
    "snakemake",
}  # fmt: skip
OTHER_NAMES = {
    "aiconfigurator-core": "aiconfigurator_core",
    "array-api-compat": "array_api_compat",
    "hydra-core": "hydra",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}


def modules(folder):
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def foreign(folder):
    """Top-level parts of marlin that the modules of a folder import, with the module at fault."""
    for module, path in modules(folder):
        for name in sources.imports(path, module):
            part = name.split(".")[1] if "." in name else None
            if part and part != folder and part not in COMMON:
                yield part, module


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_follow_the_arrows(folder):
    wrong = {(part, module) for part, module in foreign(folder) if part not in ALLOWED[folder]}
    assert wrong <= {("entry", module) for _, module in wrong}


def test_analysis_knows_the_simulation_by_its_files_alone():
    wrong = {
        (name, module)
        for module, path in modules("analysis")
        for name in sources.imports(path, module)
        if name.startswith(("marlin.fleet", "marlin.schedulers", "marlin.games", "marlin.envs"))
        # The names and order of the objectives are part of the files' format.
        and not name.startswith("marlin.fleet.contract")
        and name != "marlin.fleet"
    }
    assert wrong == set()


def external(path):
    """Packages from elsewhere that a file imports: (name, at module level)."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "marlin":
                yield top, node in tree.body


def test_every_import_is_a_declared_dependency_and_every_dependency_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in project["dependencies"]}
    wanted = {OTHER_NAMES.get(name, name) for name in declared}
    used = {top for _, path in modules("") for top, _ in external(path)}
    used |= {"snakemake"}  # run as a module
    assert used == wanted


def test_the_command_line_starts_without_heavy_imports():
    program = "import sys, marlin.cli; print(*sorted(set(sys.modules) & set(sys.argv[1:])))"
    names = sorted(HEAVY | {"pandas", "hydra", "scipy", "pydantic"})
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")


@pytest.mark.parametrize("method", ["round_robin", "nearest", "carbon_greedy", "weighted_greedy"])
def test_methods_that_do_not_learn_need_no_learning_stack(method):
    program = (
        "import sys, marlin.train, marlin.evaluate; from marlin import compose; "
        "from marlin.task import make_scheduler; "
        f"make_scheduler(compose.compose(['method={method}'])); "
        f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("stage", [name for name in sources.STAGES if name != "fetch"])
def test_what_a_stage_imports_when_it_starts_is_declared_as_its_source(stage):
    entry = sources.STAGES[stage]
    program = (
        f"import sys, {entry}; print(*[n for n in sys.modules if n.split('.')[0] == 'marlin'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {sources.file_of(name) for name in done.stdout.split()}
    loaded -= {sources.file_of(name) for name in sources.PLUMBING}
    assert loaded <= set(sources.closure(stage))


def test_a_closure_follows_imports_wherever_they_stand(tmp_path, monkeypatch):
    package = tmp_path / "marlin"
    files = {
        "__init__.py": "",
        "train.py": "from marlin.tools import deep\ndef late():\n    from . import errors, lazy\n",
        "lazy.py": "import marlin.plan\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import marlin.unused\n",
        "plan.py": "import marlin.other",
        "errors.py": "import marlin.other",
        "other.py": "",
        "unused.py": "",
        "tools/__init__.py": "",
        "tools/deep.py": "from ..lazy import anything",
        "tools/table.csv": "1",
        "tools/__pycache__/deep.cpython-311.pyc": "",
        "tools/__pycache__/deep.loop-1.py311.1.nbc": "",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(exist_ok=True, parents=True)
        (package / name).write_text(text)
    monkeypatch.setattr(sources, "PACKAGE", package)
    found = [path.relative_to(package).as_posix() for path in sources.closure("train")]
    # Bookkeeping (errors, plan) is a border; tables beside code count, compiled code does not.
    tools = ["tools/__init__.py", "tools/deep.py", "tools/table.csv"]
    assert found == ["__init__.py", "lazy.py", *tools, "train.py"]
    before = sources.digest(sources.closure("train"))
    (package / "tools" / "table.csv").write_text("2")
    assert sources.digest(sources.closure("train")) != before


def test_the_package_is_the_one_under_test():
    assert Path(sources.PACKAGE) == PACKAGE
    assert importlib.metadata.version("marlin-bench")
