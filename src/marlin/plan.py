"""From a suite to its cells: what to run, with which settings, and how to recognise the results.

A suite (`conf/suite/*.yaml`) names a matrix of scenarios, methods and ablations. A cell is one
element of it, with all its seeds, and is the unit of work of the pipeline. Where nothing is left to
chance a cell has one seed, as every other would give the same. Everything here is a
pure function of `conf/` and the package's sources, so that a plan is cached by their hash.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from marlin import compose, inputs, provenance, seal, sources
from marlin.config import RunConfig, SuiteConfig
from marlin.errors import UserError
from marlin.files import sha256, write_json

DATA = ("embedded", "measured")
NO_ABLATION = "none"
RUNS = "runs"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Cell:
    """A scenario, a method and an ablation, with the settings that they resolve to."""

    scenario: str
    method: str
    ablation: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    fingerprint: str
    training_fingerprint: str
    scenario_file: str
    profiles_file: str
    bounds_file: str
    module: str

    @property
    def name(self) -> str:
        """Scenario, method and ablation, as in the path of the results."""
        return f"{self.scenario}/{self.method}/{self.ablation}"


@dataclass(frozen=True)
class Product:
    """A file that cells share: a prepared scenario, calibrated profiles or bounds."""

    overrides: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """All cells of a suite, and the products they need by file stem."""

    suite: str
    data: str
    cells: tuple[Cell, ...]
    scenarios: dict[str, Product]
    profiles: dict[str, Product]
    bounds: dict[str, Product]

    @property
    def results(self) -> Path:
        """Result tree of the suite."""
        return Path("results", self.suite if self.data == "embedded" else f"{self.suite}-measured")

    @property
    def runs(self) -> int:
        """Number of runs: cells by their seeds."""
        return sum(len(cell.seeds) for cell in self.cells)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def cell(self, name: str) -> Cell:
        """The cell called `scenario/method/ablation`; raises UserError with the nearest name."""
        cells = {cell.name: cell for cell in self.cells}
        if name not in cells:
            near = compose.nearest(name, cells)
            raise UserError(f"suite {self.suite} has no cell {name!r}: the nearest is {near!r}")
        return cells[name]

    def folders(self, cell: Cell) -> list[Path]:
        """Run folders of a cell, one a seed."""
        return [self.results / RUNS / cell.name / f"seed-{seed}" for seed in cell.seeds]


def suites() -> list[str]:
    """Names of the suites."""
    return sorted(path.stem for path in (compose.conf_dir() / "suite").glob("*.yaml"))


def load(suite: str, data: str = "embedded") -> Plan:
    """The plan of a suite on embedded or measured data, from the cache if nothing changed.

    Raises:
        UserError: an unknown suite or data source, or a cell whose settings are wrong.
    """
    if data not in DATA:
        raise UserError(f"data={data} is unknown: it must be {' or '.join(DATA)}")
    path = compose.conf_dir() / "suite" / f"{suite}.yaml"
    if not path.is_file():
        near = compose.nearest(suite, suites())
        raise UserError(
            f"suite={suite} is unknown: the nearest is {near!r} (conf/suite has "
            f"{', '.join(suites())})"
        )
    settings = _read(path)
    own = json.dumps(compose.own_files(settings.overrides), sort_keys=True)
    digest = hashlib.sha256(f"{_settings_digest()}{own}".encode()).hexdigest()
    cached = inputs.cache_dir() / "plans" / f"{suite}-{data}-{digest[:24]}.json"
    if cached.is_file():
        return _from_dict(json.loads(cached.read_text(encoding="utf-8")))
    plan = make(settings, data)
    write_json(cached, asdict(plan))
    return plan


def make(suite: SuiteConfig, data: str) -> Plan:
    """Compose every cell of a suite; raises UserError for the first that is wrong."""
    cells: list[Cell] = []
    scenarios: dict[str, Product] = {}
    profiles: dict[str, Product] = {}
    bounds: dict[str, Product] = {}
    for scenario, method, ablation in _matrix(suite):
        overrides = (
            f"scenario={scenario}",
            f"method={method}",
            f"ablation={ablation}",
            f"signals={data}",
            *suite.overrides,
        )
        try:
            run = compose.compose(overrides)
        except UserError as error:
            raise UserError(
                f"suite {suite.name}, {scenario}/{method}/{ablation}: {error}"
            ) from None
        _check_names(run, scenario, method, ablation)
        cells.append(
            Cell(
                scenario=scenario,
                method=method,
                ablation=ablation,
                overrides=overrides,
                seeds=tuple(range(suite.seeds if takes_chance(run) else 1)),
                fingerprint=compose.fingerprint(run),
                training_fingerprint=compose.training_fingerprint(run),
                scenario_file=_share(
                    scenarios, scenario, run, overrides, inputs.scenario_fingerprint
                ),
                profiles_file=_share(
                    profiles, "profiles", run, overrides, inputs.profiles_fingerprint
                ),
                bounds_file=_share(bounds, scenario, run, overrides, inputs.bounds_fingerprint),
                module=sources.module_of(run.method["_target_"]),
            )
        )
    return Plan(suite.name, data, tuple(cells), scenarios, profiles, bounds)


def takes_chance(run: RunConfig) -> bool:
    """Whether the seed can change a run: by its method, or by noise injected into forecasts.

    The requests of the judge are drawn by day, the same for every seed.
    """
    scheduler = compose.load_class(run.method["_target_"])
    return run.signals.forecast_noise > 0.0 or getattr(scheduler, "chance", True)


def problems(plan: Plan, results: Path) -> Iterator[str]:
    """What is false in a result tree, one sentence each: plan, records and seals compared."""
    for cell in plan.cells:
        yield from _cell_problems(plan, cell, results)
    sealed = seal.read(results)
    for name, digest in sorted(sealed.items()):
        path = results / name
        if not path.is_file():
            yield f"{path} is missing"
        elif sha256(path) != digest:
            yield f"{path} is not what its stage wrote"
    for name in _recorded(results):
        if name not in sealed:
            yield f"{results / name} is in {MANIFEST} but no stage has sealed it"


def manifest(plan: Plan, results: Path) -> dict[str, Any]:
    """SHA-256 of all sealed results of the plan by their path, and what the plan was."""
    return {
        "data": plan.data,
        "files": seal.read(results),
        "plan_sha256": plan.fingerprint,
        "suite": plan.suite,
    }


def set_aside(plan: Plan, results: Path) -> list[Path]:
    """Move what an earlier form of the suite left behind out of the tables' way.

    Run folders, scenarios, bounds and seals that the plan does not name go to `set-aside/`;
    nothing is deleted. Returns the folders and files that were moved.
    """
    named = {
        folder.relative_to(plan.results) for cell in plan.cells for folder in plan.folders(cell)
    }
    stale = [
        path
        for path in results.glob(f"{RUNS}/*/*/*/seed-*")
        if path.relative_to(results) not in named
    ]
    stems = {f"{stem}{end}" for stem in plan.scenarios for end in (".nc", ".nc.sha256")}
    stems |= {f"{stem}.sources.json" for stem in plan.scenarios}
    stale += [path for path in results.glob("data/*.nc*") if path.name not in stems]
    stale += [path for path in results.glob("data/*.sources.json") if path.name not in stems]
    stale += [path for path in results.glob("bounds/*.parquet") if path.stem not in plan.bounds]
    seals = {f"prepare/{stem}" for stem in plan.scenarios}
    seals |= {f"bounds/{stem}" for stem in plan.bounds}
    seals |= {f"calibrate/{stem}" for stem in plan.profiles}
    seals |= {f"{stage}/{cell.name}" for cell in plan.cells for stage in ("train", "evaluate")}
    for path in results.glob(f"{seal.FOLDER}/*/**/*.sha256"):
        name = path.relative_to(results / seal.FOLDER).with_suffix("").as_posix()
        if name not in seals:
            stale.append(path)
    for path in stale:
        target = results / "set-aside" / path.relative_to(results)
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, target)
    return stale


def _replace(path: Path, target: Path) -> None:
    import shutil

    if target.is_dir():
        shutil.rmtree(target)
    path.replace(target)


def _cell_problems(plan: Plan, cell: Cell, results: Path) -> Iterator[str]:
    records = (
        ("train", provenance.RECORD, "run", cell.training_fingerprint),
        ("evaluate", provenance.EVALUATION, "evaluation", cell.fingerprint),
    )
    for stage, file, what, fingerprint in records:
        code = sources.digest(sources.closure(stage, cell.module))
        for folder in plan.folders(cell):
            path = results / folder.relative_to(plan.results) / file
            if not path.is_file():
                yield f"{path} is missing: the {what} did not finish"
                continue
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["config_sha256"] != fingerprint:
                yield f"{path} was made with other settings than conf/ now gives {cell.name}"
            elif record["code_sha256"] != code:
                yield f"{path} was made by other code than the package now has"


def _recorded(results: Path) -> list[str]:
    path = results / MANIFEST
    return sorted(json.loads(path.read_text(encoding="utf-8"))["files"]) if path.is_file() else []


def _read(path: Path) -> SuiteConfig:
    try:
        suite = SuiteConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise UserError(f"conf/suite/{path.name}: {compose.sentence(error, SuiteConfig)}") from None
    if suite.name != path.stem:
        raise UserError(f"conf/suite/{path.name} names itself {suite.name!r}: the two must agree")
    unknown = set(suite.ablated_methods) - set(suite.methods)
    if unknown:
        raise UserError(f"conf/suite/{path.name}: {min(unknown)!r} is ablated but not in methods")
    return suite


def _matrix(suite: SuiteConfig) -> Iterator[tuple[str, str, str]]:
    """Scenarios x methods x ablations; the cells without ablation come first."""
    ablations = sorted(suite.ablations, key=lambda name: name != NO_ABLATION)
    ablated = suite.ablated_methods or suite.methods
    for ablation, scenario, method in itertools.product(ablations, suite.scenarios, suite.methods):
        if ablation == NO_ABLATION or method in ablated:
            yield scenario, method, ablation


def _check_names(run: RunConfig, scenario: str, method: str, ablation: str) -> None:
    """Folders are named after files of `conf/`, tables after names inside them: they must agree."""
    for group, option, name in (
        ("scenario", scenario, run.scenario.name),
        ("method", method, run.method["name"]),
        ("ablation", ablation, run.ablation),
    ):
        if option != name:
            raise UserError(f"conf/{group}/{option}.yaml names itself {name!r}: the two must agree")


def _share(
    products: dict[str, Product],
    stem: str,
    run: RunConfig,
    overrides: tuple[str, ...],
    fingerprint: Callable[[RunConfig], str],
) -> str:
    """Stem of the product that a cell needs; an ablation that needs its own gets its own."""
    wanted = fingerprint(run)
    own = stem if run.ablation == NO_ABLATION else f"{stem}-{run.ablation}"
    for name in (stem, own):
        if name not in products:
            products[name] = Product(_deciding(overrides, fingerprint, wanted), wanted)
        if products[name].fingerprint == wanted:
            return name
    raise UserError(
        f"two methods of {own} need different data: keep scenario, fleet, workload, signals, "
        "physics and serving the same for all methods, or vary them by ablation"
    )


def _deciding(
    overrides: tuple[str, ...], fingerprint: Callable[[RunConfig], str], wanted: str
) -> tuple[str, ...]:
    """The overrides that decide a product: another method or budget must not make it anew."""
    kept = list(overrides)
    for text in overrides:
        fewer = [other for other in kept if other != text]
        try:
            unchanged = fingerprint(compose.compose(fewer)) == wanted
        except UserError:
            unchanged = False
        if unchanged:
            kept = fewer
    return tuple(kept)


def _settings_digest() -> str:
    """SHA-256 of all that decides a plan: `conf/`, the package, and schedulers from elsewhere."""
    folder = compose.conf_dir()
    files = [(path.relative_to(folder), path) for path in sorted(folder.rglob("*.yaml"))]
    package = sources.PACKAGE
    files += [(path.relative_to(package), path) for path in sorted(package.rglob("*.py"))]
    for path in sorted((folder / "method").glob("*.yaml")):
        target = str((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("_target_", ""))
        module = sources.module_of(target)
        file = sources.file_of(module) if module else None
        if file is not None and not file.is_relative_to(package):
            files.append((Path(path.name), file))
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{name}\0{sha256(path)}\n".encode())
    return total.hexdigest()


def _from_dict(raw: dict[str, Any]) -> Plan:
    cells = [
        cell | {name: tuple(cell[name]) for name in ("overrides", "seeds")} for cell in raw["cells"]
    ]
    products = {
        kind: {
            stem: Product(tuple(product["overrides"]), product["fingerprint"])
            for stem, product in raw[kind].items()
        }
        for kind in ("scenarios", "profiles", "bounds")
    }
    return Plan(
        raw["suite"],
        raw["data"],
        tuple(Cell(**cell) for cell in cells),
        **products,
    )
