"""A user's fleet file: the schema of `conf/fleet`, every wrong field with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.reader import ReaderError

from marlin.config import FleetConfig
from marlin.data.places import nearest_zone
from marlin.data.tables import measured_zones, nearest, table
from marlin.errors import UserError

MAX_BYTES = 1 << 20
MAX_NODES = 50_000  # of the YAML tree, aliases expanded

Place = tuple[int | str, ...]


@dataclass(frozen=True)
class BadField:
    """A field that cannot be used: its line in the file and why."""

    line: int
    reason: str


def read(path: Path) -> FleetConfig:
    """The fleet of a file.

    Raises:
        UserError: there is no such file, or a field is wrong; the first is named with its line.
    """
    fleet, bad = check(path)
    if fleet is None or bad:
        more = f" (and {len(bad) - 1} more: `marlin validate {path}`)" if len(bad) > 1 else ""
        raise UserError(f"{path}, line {bad[0].line}: {bad[0].reason}{more}")
    return fleet


def check(path: Path) -> tuple[FleetConfig | None, list[BadField]]:
    """The fleet of a file, or nothing, and every wrong field by line.

    Raises:
        UserError: there is no such file, or it is not a text of at most MAX_BYTES.
    """
    text = _text(path)
    try:
        tree = _Tree(text)
    except _Wrong as wrong:
        return None, [BadField(wrong.line, wrong.reason)]
    bad = list(tree.bad)
    fleet = None
    if not bad:
        try:
            fleet = FleetConfig.model_validate(tree.value)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                place = found["loc"] or _site_at_fault(tree.value, found["msg"])
                bad.append(BadField(tree.line(place), _reason(found)))
    if fleet is not None:
        bad += _place_problems(fleet, tree)
    return fleet, sorted(bad, key=lambda field: field.line)


def _text(path: Path) -> str:
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}: give the path of a YAML file")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES} bytes: it is not a fleet")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text: save it as UTF-8") from None


class _Wrong(Exception):
    def __init__(self, line: int, reason: str) -> None:
        self.line, self.reason = line, reason


class _Tree:
    """Plain values of a YAML text, and the line of each; doubled keys are `bad`."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {(): 1}
        self.bad: list[BadField] = []
        self.size, self.open = 0, set[int]()
        try:
            self.loader = yaml.SafeLoader(text)
            node = self.loader.get_single_node()
            if node is None:
                raise _Wrong(1, "the file is empty: it must hold a fleet (name, node_types, sites)")
            self.value = self._value(node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise _Wrong(line, f"not YAML: {error.problem or error.context}") from None
        except ReaderError as error:
            line = text[: error.position].count("\n") + 1 if isinstance(error.position, int) else 1
            raise _Wrong(line, "not YAML: a control character in the text") from None
        except RecursionError:
            raise _Wrong(1, "not a fleet: nested too deeply") from None

    def line(self, place: Sequence[int | str]) -> int:
        """Line of a field, or of the innermost part of its path that the file has."""
        found = tuple(place)
        while found not in self.lines:
            found = found[:-1]
        return self.lines[found]

    def _value(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        self.size += 1
        if self.size > MAX_NODES:
            raise _Wrong(line, f"more than {MAX_NODES} fields: it is not a fleet")
        if id(node) in self.open:
            raise _Wrong(line, "an alias holds itself")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(n, (*place, i)) for i, n in enumerate(node.value)]
            try:
                return self.loader.construct_object(node)
            except (ValueError, OverflowError, KeyError, IndexError):
                raise _Wrong(line, f"{str(node.value)[:40]!r} is not a value of YAML") from None
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                parts = self._value(value, (*place, "<<"))
                for part in parts if isinstance(parts, list) else [parts]:
                    if not isinstance(part, dict):
                        raise _Wrong(line, "<< must name a mapping")
                    merged = part | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise _Wrong(line, "a key must be a word")
            name = str(key.value)
            if name in own:
                self.bad.append(BadField(line, f"{name!r} is there twice: keep one"))
            self.lines[(*place, name)] = line
            own[name] = self._value(value, (*place, name))
        return merged | own


def _site_at_fault(value: Any, message: str) -> Place:
    """Place of the site that a check of the whole fleet names."""
    sites = value["sites"] if isinstance(value, dict) else []
    for index, site in enumerate(sites):
        if f"site {site['name']} has " in message:
            return ("sites", index, "nodes")
    return ()


def _reason(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "the file"
    kind = error["type"]
    if kind == "missing":
        return f"{name} is missing"
    if kind == "extra_forbidden":
        fields = {"name", "node_types", "sites", "zone", "cooling", "network", "nodes", "gpu"}
        fields |= {"gpus", "base_idle_w", "base_full_w", "boot_s"}
        return f"{name} is unknown{nearest(str(error['loc'][-1]), sorted(fields))}"
    message = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    shown = f" (it is {str(given)[:40]!r})" if not isinstance(given, dict | list) else ""
    return f"{name}: {message[:1].lower()}{message[1:]}{shown}"


def _place_problems(fleet: FleetConfig, tree: _Tree) -> Iterator[BadField]:
    """Zones without data and Azure regions without round trips."""
    zones = measured_zones()
    rtt = table("embedded/rtt.csv")
    regions = sorted(set(rtt["from_region"]) | set(rtt["to_region"]))
    known, what = regions, "Azure region"
    if fleet.round_trips is not None:
        known, what = list(fleet.round_trips.rtt_ms), "place of round_trips"
    for index, site in enumerate(fleet.sites):
        if site.zone not in zones:
            yield BadField(
                tree.line(("sites", index, "zone")),
                f"there are no data of grid zone {site.zone!r}"
                f"{nearest_zone(site.zone, zones, site.network)}; zones: {', '.join(zones)}",
            )
        if site.network not in known:
            yield BadField(
                tree.line(("sites", index, "network")),
                f"unknown {what} {site.network!r}{nearest(site.network, known)}",
            )
