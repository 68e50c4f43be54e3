"""Which source files decide what a stage computes: the static closure of its imports."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent
STAGES = {
    "fetch": "marlin.data.fetch",
    "prepare": "marlin.data.prepare",
    "calibrate": "marlin.serving.calibrate",
    "power": "marlin.serving.power_validation",
    "fluid": "marlin.fluid_validation",
    "train": "marlin.train",
    "evaluate": "marlin.evaluate",
    "bounds": "marlin.bounds.__main__",
    "agreement": "marlin.agreement",
    "collect": "marlin.analysis.collect",
    "tables": "marlin.analysis.tables",
    "figures": "marlin.analysis.figures",
    "paper": "marlin.paper",
    "track": "marlin.tracking.wandb_export",
}
NOT_SOURCES = (".md", ".py")
COMPILED = "__pycache__"  # of Python and of numba, which writes there while a stage runs
# Composition and bookkeeping: what they decide is in the fingerprint of the settings already, so
# that a reworded error message does not train everything again.
PLUMBING = frozenset(
    f"marlin.{name}"
    for name in (
        "cli",
        "compose",
        "config",
        "doctor",
        "entry",
        "errors",
        "fetch_cli",
        "inputs",
        "plan",
        "provenance",
        "plan_cli",
        "reproduce",
        "seal",
        "sources",
        "validate_cli",
    )
)


def closure(stage: str, *modules: str) -> list[Path]:
    """Source files of the package that `stage` imports, directly or not, sorted.

    Tables and registries count as sources of the subpackage they lie in.
    The walk stops at composition and bookkeeping.

    Args:
        stage: a key of `STAGES`.
        modules: further entry modules, for example the one that holds a cell's scheduler.
    """
    todo, found = [STAGES[stage], *modules], dict[str, Path]()
    while todo:
        module = todo.pop()
        path = file_of(module)
        if path is None or module in found or module in PLUMBING:
            continue
        found[module] = path
        todo.extend(_parents(module))
        todo.extend(imports(path, module))
    return sorted({*found.values(), *_tables(found.values())})


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of source files (names relative to the package)."""
    total = hashlib.sha256()
    for path in paths:
        name = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else Path(path.name)
        total.update(
            f"{name.as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    return total.hexdigest()


@functools.cache
def imports(path: Path, module: str) -> tuple[str, ...]:
    """Modules of this package that a source file imports, wherever in the file it does so."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return tuple(sorted(set(_imported(tree, package))))


def module_of(target: str) -> str:
    """Module that holds the class named by a `_target_`."""
    return target.rpartition(".")[0]


def file_of(module: str) -> Path | None:
    """File of a module, inside the package by its name, elsewhere by the import system."""
    first, *rest = module.split(".")
    if first != "marlin":
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            return None
        return Path(spec.origin) if spec and spec.origin else None
    base = PACKAGE.joinpath(*rest)
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file() and base != PACKAGE.with_suffix(".py"):
            return path
    return None


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(name, package) if node.level else name
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "marlin" and file_of(name))


def _tables(modules: Iterable[Path]) -> Iterator[Path]:
    """Tables and registries beside the modules of subpackages, and below."""
    for folder in {path.parent for path in modules if path.is_relative_to(PACKAGE)} - {PACKAGE}:
        for path in folder.rglob("*"):
            compiled = path.parent.name == COMPILED
            hidden = path.name[0] == "." or path.suffix in NOT_SOURCES
            if path.is_file() and not compiled and not hidden:
                yield path


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
