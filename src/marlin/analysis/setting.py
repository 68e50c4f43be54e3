"""What the result tree says of its own setting: resolved configuration and data sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from marlin.errors import UserError

EMBEDDED = "embedded"
ORIGIN_NAMES = {
    EMBEDDED: "climatologies embedded in the package",
    "mirror": "measured series from a mirror",
    "primary": "measured series from their publishers",
}
JOIN = " and "


def resolved(results: Path) -> dict[str, Any]:
    """The resolved configuration of the first evaluation of the tree, as plain mappings.

    Raises UserError when there is none.
    """
    paths = sorted(results.glob("runs/*/*/*/seed-*/evaluated.yaml"))
    if not paths:
        raise UserError(f"{results / 'runs'} holds no evaluated.yaml: evaluate the suite first")
    return yaml.safe_load(paths[0].read_text(encoding="utf-8"))


def data_sources(results: Path) -> tuple[str, list[dict[str, Any]]]:
    """Where the signals came from and the data sets by id.

    The origin is `embedded`, `mirror`, `primary` or several of them joined by `and`. Raises
    UserError when a scenario's sources are missing or scenarios differ in their origin.
    """
    paths = sorted((results / "data").glob("*.sources.json"))
    if not paths:
        raise UserError(f"{results / 'data'} holds no *.sources.json: prepare the scenarios first")
    kinds, entries = set(), {}
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {"source", "sources"} <= set(content)
        if not known or not set(content["source"].split(JOIN)) <= set(ORIGIN_NAMES):
            raise UserError(f"{path} does not name its data sources: prepare the scenario again")
        kinds.add(content["source"])
        entries.update({entry["id"]: entry for entry in content["sources"]})
    if len(kinds) > 1:
        raise UserError(
            f"{results / 'data'} mixes scenarios of {' and '.join(sorted(kinds))} data: "
            "prepare them from one source"
        )
    return kinds.pop(), [entries[key] for key in sorted(entries)]
