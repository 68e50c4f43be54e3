"""Croissant metadata of the tables in the package: `python -m marlin.data.croissant --url URL`.

Written when asked for, so that checksums are those of the tables as they are.
"""

from __future__ import annotations

import argparse
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from marlin import __version__
from marlin.data.registry import bibtex, scenario_sources
from marlin.data.tables import table, table_bytes
from marlin.files import write_json

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "sc": "https://schema.org/",
    "source": "cr:source",
}
TYPES = {"i": "sc:Integer", "f": "sc:Float"}


def metadata(url: str) -> dict[str, Any]:
    """Return the Croissant 1.0 description of the embedded tables, published at `url`, as JSON-LD.

    Source: Croissant format specification 1.0 (MLCommons 2024).
    """
    names = sorted(
        path.name
        for path in files("marlin.data").joinpath("embedded").iterdir()
        if ".csv" in path.name
    )
    sources = scenario_sources().values()
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": "marlin-embedded",
        "description": (
            "Climatologies of carbon intensity, electricity price and weather of 16 grid zones, "
            "water and scarcity factors, round trips, request rates and token lengths, computed "
            "from measured data: derived figures, not a record of any real day."
        ),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": __version__,
        "url": url,
        "license": sorted({item.licence for item in sources}),
        "creditText": " ".join(item.attribution for item in sources),
        "citeAs": "\n\n".join(bibtex(item) for item in sources),
        "isBasedOn": [{"@type": "sc:Dataset", "name": item.title} for item in sources],
        "rai:dataCollection": "Public data sets, named in isBasedOn; no persons are in them.",
        "rai:dataLimitations": (
            "Drawn years are not records. User locations are modelled. Use measured data for "
            "published results."
        ),
        "distribution": [_file_object(name) for name in names],
        "recordSet": [_record_set(name) for name in names],
    }


def _file_object(name: str) -> dict[str, Any]:
    content = table_bytes(f"embedded/{name}")
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": f"embedded/{name}",
        "contentSize": f"{len(content)} B",
        "encodingFormat": "application/gzip" if name.endswith(".gz") else "text/csv",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _record_set(name: str) -> dict[str, Any]:
    stem = name.partition(".")[0]
    frame = table(f"embedded/{name}")
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{stem}/{column}",
            "name": column,
            "dataType": TYPES.get(frame[column].dtype.kind, "sc:Text"),
            "source": {"fileObject": {"@id": name}, "extract": {"column": column}},
        }
        for column in frame
    ]
    return {"@type": "cr:RecordSet", "@id": stem, "name": stem, "field": fields}


def main() -> None:
    """Write the metadata to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="where the tables are published")
    parser.add_argument("--output", type=Path, default=Path("croissant.json"))
    given = parser.parse_args()
    write_json(given.output, metadata(given.url))


if __name__ == "__main__":
    main()
