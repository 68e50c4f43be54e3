"""Croissant metadata: the required fields, and references that lead somewhere."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from marlin.data import croissant
from marlin.data.registry import scenario_sources
from marlin.data.tables import table_bytes


def test_written_metadata_is_complete_and_consistent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "croissant.json"
    monkeypatch.setattr(
        sys, "argv", ["croissant", "--url", "https://example.org", "--output", str(path)]
    )
    croissant.main()
    record = json.loads(path.read_text())
    assert record["@type"] == "sc:Dataset"
    assert record["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    for name in ("name", "description", "license", "url", "version", "citeAs"):
        assert record[name], name
    ids = {entry["@id"] for entry in record["distribution"]}
    assert len(ids) == len(record["distribution"]) == len(record["recordSet"]) > 10
    for entry in record["distribution"]:
        content = table_bytes(entry["contentUrl"])
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    fields = [field for each in record["recordSet"] for field in each["field"]]
    assert len({field["@id"] for field in fields}) == len(fields)
    for field in fields:
        assert field["source"]["fileObject"]["@id"] in ids
        assert field["source"]["extract"]["column"] == field["name"]
        assert field["dataType"] in {"sc:Integer", "sc:Float", "sc:Text"}
    for item in scenario_sources().values():
        assert item.attribution in record["creditText"]
        assert item.citation in record["citeAs"]
    terms = {key.partition(":")[0] for key in record["@context"]}
    used = {key for each in (record, *record["recordSet"], *fields) for key in each}
    assert {key.partition(":")[0] for key in used if ":" in key and key[0] != "@"} <= terms
