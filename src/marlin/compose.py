"""From `conf/` and overrides to one checked `RunConfig`, or one sentence on what is wrong.

Hydra composes the YAML files; `marlin.config` and the method's own class check the result. Every
mistake a user can make here raises `UserError` and names the nearest valid setting.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib
import inspect
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

from marlin.config import RunConfig
from marlin.errors import UserError
from marlin.files import sha256

CONFIG_NAME = "config"
NOT_RUN_GROUPS = frozenset({"suite", "tuning"})
NOT_SEMANTIC = frozenset({"inputs", "seed", "tracking"})
NOT_TRAINING = re.compile(r"(scoring[.=]|scenario\.test_days=)")
METHOD_HEADER = ("_target_", "name")
KINDS = {
    "bool": "true or false",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "model": "a mapping",
    "string": "a text",
}


def conf_dir() -> Path:
    """Folder of the YAML files: `MARLIN_CONF`, else `conf/` of the repository.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(os.environ.get("MARLIN_CONF") or Path(__file__).parents[2] / "conf").resolve()
    if not (folder / f"{CONFIG_NAME}.yaml").is_file():
        raise UserError(
            f"no {CONFIG_NAME}.yaml in {folder}: install the package with `pip install -e .` "
            "from its repository, or set MARLIN_CONF to a folder of settings"
        )
    return folder


def groups() -> dict[str, list[str]]:
    """Options of each config group, by the names of the YAML files, save those not of a run."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(conf_dir().iterdir())
        if folder.is_dir() and folder.name not in NOT_RUN_GROUPS
    }


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """Compose and check one run.

    Args:
        overrides: Hydra overrides without sweeps, for example `["method=nsga2", "seed=3"]`.

    Returns:
        The checked run; `method` holds every parameter of the scheduler, defaults included.

    Raises:
        UserError: an unknown setting or option, a wrong type, a value out of range.
    """
    overrides = [text for text in overrides if not _is_hydra(text)]
    with _hydra() as hydra:
        try:
            raw = hydra(overrides)
        except Exception as error:
            _explain(overrides, error, hydra)
            raise
    return validate(raw)


def validate(raw: dict[str, Any]) -> RunConfig:
    """Check a resolved mapping (see `compose` for what it returns and raises)."""
    raw = _with_own_files(raw)
    try:
        run = RunConfig.model_validate(raw)
    except ValidationError as error:
        raise UserError(sentence(error, RunConfig)) from None
    return run.model_copy(update={"method": _checked_method(run.method)})


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """All combinations of a sweep (`a=1,2 seed=range(3)`), in the order in which Hydra runs them.

    Raises:
        UserError: an override that Hydra's grammar cannot read.
    """
    axes: dict[str, list[str]] = {}
    for override in _parse([text for text in overrides if not _is_hydra(text)]):
        key = override.get_key_element()
        if not override.is_sweep_override():
            axes[key] = [override.input_line]
        elif override.is_discrete_sweep():
            axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise UserError(f"{override.input_line!r} is a sweep without a list of values")
    return [list(combination) for combination in itertools.product(*axes.values())]


def check(overrides: Sequence[str]) -> list[RunConfig]:
    """Compose every combination of a sweep before anything runs; seeds share one composition.

    Raises:
        UserError: as `compose`, for the first combination that is wrong.
    """
    composed: dict[tuple[str, ...], dict[str, Any]] = {}
    runs = []
    for combination in expand(overrides):
        seeds = [text for text in combination if text.startswith("seed=")]
        rest = tuple(text for text in combination if text not in seeds)
        if rest not in composed:
            composed[rest] = compose(rest).model_dump()
        raw = dict(composed[rest])
        for text in seeds:
            raw["seed"] = yaml.safe_load(text.removeprefix("seed="))
        runs.append(validate(raw))
    return runs


def fingerprint(run: RunConfig, sections: Iterable[str] = ()) -> str:
    """SHA-256 of the settings that decide a result.

    Key order, comments, the tracker, input paths and the seed do not enter; the seed is recorded
    beside the fingerprint. With `sections`, only those parts of the run enter.
    """
    settings = _semantic(run)
    return _sha256({key: settings[key] for key in sections} or settings)


def training_fingerprint(run: RunConfig) -> str:
    """SHA-256 of the settings that training reads: not how many test days are scored, nor how."""
    settings = _semantic(run)
    del settings["scoring"], settings["scenario"]["test_days"]
    return _sha256(settings)


def training_overrides(overrides: Iterable[str]) -> tuple[str, ...]:
    """Overrides without those of what training does not read."""
    return tuple(text for text in overrides if not NOT_TRAINING.match(text))


def _semantic(run: RunConfig) -> dict[str, Any]:
    settings = run.model_dump(mode="json", exclude=set(NOT_SEMANTIC))
    # The content of a trace counts, by its digest, and not where it lies.
    del settings["workload"]["path"]
    return settings


def _sha256(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def to_yaml(run: RunConfig) -> str:
    """The resolved run as YAML that `load` reads back; input paths and tracker are left out."""
    settings = run.model_dump(mode="json", exclude=set(NOT_SEMANTIC - {"seed"}))
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def load(path: Path) -> RunConfig:
    """Read a `resolved.yaml`.

    Raises:
        UserError: the file is absent or does not hold a valid run.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run `marlin train` for this folder first")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return validate(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The candidate that reads most like `name`: as a whole, in its last part, and by section."""
    section, _, last = name.rpartition(".")

    def likeness(candidate: str) -> float:
        its_section, _, its_last = candidate.rpartition(".")
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        ending = difflib.SequenceMatcher(None, last, its_last).ratio()
        return whole + ending + 0.5 * (section == its_section)

    return max(sorted(candidates), key=likeness)


def method_parameters(method: dict[str, Any]) -> dict[str, Any]:
    """What a scheduler's class is called with: all but `_target_`, and `name` if it takes one."""
    accepted = _accepted(load_class(method["_target_"]))
    hidden = {key for key in METHOD_HEADER if key not in accepted}
    return {key: value for key, value in method.items() if key not in hidden}


def load_class(target: str) -> type:
    """Import the class that a `_target_` names.

    Raises:
        UserError: there is no such module or class.
    """
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"method._target_={target} cannot be imported ({error}): name it as module.Class, and "
            "run from the folder that holds the module or set PYTHONPATH to it"
        ) from None
    if not isinstance(found, type):
        raise UserError(f"method._target_={target} is not a class")
    return found


def own_files(overrides: Sequence[str]) -> dict[str, str]:
    """Digests by path of the user's files that overrides name."""
    keys = ("fleet.path=", "workload.path=")
    paths = [text.partition("=")[2].strip("'\"") for text in overrides if text.startswith(keys)]
    return {path: _digest(Path(path)) for path in paths}


def _with_own_files(raw: dict[str, Any]) -> dict[str, Any]:
    """Settings with a fleet file read in and with the digest of a trace."""
    raw = dict(raw)
    fleet, workload = raw.get("fleet"), raw.get("workload")
    if isinstance(fleet, dict) and "path" in fleet:
        if not fleet["path"]:
            raise UserError("fleet=own needs a file: add fleet.path=FILE")
        from marlin.data import own_fleet

        raw["fleet"] = own_fleet.read(Path(str(fleet["path"]))).model_dump(mode="json")
    if isinstance(workload, dict) and workload.get("name") == "own":
        path = workload.get("path")
        if not path:
            raise UserError("workload=own needs a file: add workload.path=FILE")
        if not workload.get("sha256"):
            raw["workload"] = workload | {"path": str(path), "sha256": _digest(Path(str(path)))}
    return raw


def _digest(path: Path) -> str:
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}: give the path of a file")
    status = path.stat()
    return _digest_of(path.resolve(), status.st_size, status.st_mtime_ns)


@functools.cache
def _digest_of(path: Path, size: int, mtime_ns: int) -> str:
    return sha256(path)


def _is_hydra(override: str) -> bool:
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def _opened(override: str) -> str:
    """Method parameters need not be in YAML: let Hydra add them, the class checks them."""
    return f"++{override}" if override.startswith("method.") else override


class _hydra:
    """Context in which calling it composes overrides into a plain dict."""

    def __enter__(self) -> _hydra:
        import hydra

        self._initialised = hydra.initialize_config_dir(str(conf_dir()), version_base="1.3")
        self._initialised.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._initialised.__exit__(*exception)

    def __call__(self, overrides: Sequence[str]) -> dict[str, Any]:
        import hydra
        from omegaconf import OmegaConf

        config = hydra.compose(CONFIG_NAME, [_opened(text) for text in overrides])
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert isinstance(container, dict)
        return {str(key): value for key, value in container.items()}


def _parse(overrides: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_overrides(overrides=list(overrides))
    except OverrideParseException as error:
        raise UserError(
            f"cannot read {error.override!r}: write setting=value, and quote a value that holds "
            "a comma, a bracket or an equals sign"
        ) from None


def _explain(overrides: Sequence[str], error: Exception, hydra: _hydra) -> None:
    """Raise the sentence for what Hydra refused; return if the cause is none of the user's."""
    known = groups()
    choices, values = [], []
    for override in _parse(overrides):
        key, value = override.key_or_group, override.value()
        if override.is_sweep_override():
            raise UserError(f"{override.input_line!r} lists several values: sweep with -m")
        if key not in known:
            values.append(override)
        elif not isinstance(value, str) or value not in known[key]:
            options = ", ".join(known[key])
            raise UserError(
                f"{key}={value} is unknown: the nearest is {nearest(str(value), known[key])!r} "
                f"(conf/{key} has {options})"
            )
        else:
            choices.append(override.input_line)
    settings = set(_dotted(hydra(choices))) if values else set()
    for override in values:
        key = override.key_or_group
        if key not in settings and not key.startswith("method."):
            near = nearest(key, settings | set(known))
            raise UserError(f"the setting {key!r} is unknown: the nearest is {near!r}")
    line = str(error).strip().splitlines()[0]
    raise UserError(f"the settings cannot be composed: {line}") from error


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, sections included."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")


def sentence(error: ValidationError, schema: Any, prefix: str = "") -> str:
    """The first mistake in one sentence: setting, what it must be, what it was."""
    first = error.errors(include_url=False)[0]
    name = prefix + ".".join(str(part) for part in first["loc"])
    value = first["input"]
    kind = first["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        near = nearest(name, (prefix + key for key in _schema_names(schema)))
        return f"the setting {name!r} is unknown: the nearest is {near!r}"
    if kind in ("missing", "missing_argument"):
        return f"the setting {name!r} is missing: give it in conf/ or on the command line"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"{name}={value} is out of range: it must be {_range(schema, first['loc'])}"
    if kind == "literal_error":
        expected = first["ctx"]["expected"]
        return f"{name}={value!r} is not an option: it must be {expected}"
    if kind.endswith(("_parsing", "_type", "_from_float")):
        return f"{name}={value!r} has the wrong type: it must be {KINDS[kind.split('_')[0]]}"
    reason = first["msg"].removeprefix("Value error, ")
    place = f"{name}={value!r}: " if name and not isinstance(value, dict | list) else ""
    place = place or (f"{name}: " if name else "")
    return place + reason[:1].lower() + reason[1:]


def _members(schema: Any) -> dict[str, Any]:
    """Fields of a pydantic model or dataclass by name."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return dict(schema.model_fields)
    return dict(getattr(schema, "__pydantic_fields__", {}))


def _schema_names(schema: Any, prefix: str = "") -> Iterator[str]:
    for key, field in _members(schema).items():
        yield f"{prefix}{key}"
        for part in (field.annotation, *get_args(field.annotation)):
            yield from _schema_names(part, f"{prefix}{key}.")


def _range(schema: Any, location: Sequence[int | str]) -> str:
    """The allowed range of a setting in words, from its field's bounds."""
    annotation, bounds = schema, []
    for part in location:
        field = _members(annotation).get(str(part))
        if field is not None:
            annotation, bounds = field.annotation, field.metadata
        else:
            annotation = next(reversed(get_args(annotation)), annotation)
    symbols = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return " and ".join(
        f"{symbol} {getattr(bound, key)}"
        for key, symbol in symbols.items()
        for bound in bounds
        if getattr(bound, key, None) is not None
    )


def _checked_method(method: dict[str, Any]) -> dict[str, Any]:
    """Check the scheduler's parameters against its class and fill in its defaults."""
    missing = [key for key in METHOD_HEADER if not isinstance(method.get(key), str)]
    if missing:
        raise UserError(f"the setting 'method.{missing[0]}' is missing: conf/method must name it")
    scheduler = load_class(method["_target_"])
    accepted = _accepted(scheduler)
    parameters = method_parameters(method)
    for key in sorted(parameters.keys() - accepted):
        raise UserError(f"the setting 'method.{key}' is unknown: {_method_hint(key, accepted)}")
    if is_pydantic_dataclass(scheduler):
        try:
            made = scheduler(**parameters)
        except ValidationError as error:
            raise UserError(sentence(error, scheduler, "method.")) from None
        parameters = TypeAdapter(scheduler).dump_python(made, mode="json", include=accepted)
    return {key: method[key] for key in reversed(METHOD_HEADER)} | parameters


def _accepted(scheduler: type) -> set[str]:
    """Names of the parameters that a scheduler's class takes."""
    if is_pydantic_dataclass(scheduler):
        return {field.name for field in dataclasses.fields(scheduler) if field.init}
    return set(inspect.signature(scheduler).parameters)


def _method_hint(key: str, accepted: set[str]) -> str:
    accepted = accepted - set(METHOD_HEADER)
    if not accepted:
        return "this method has no parameters"
    return f"the nearest is 'method.{nearest(key, accepted)}'"
