"""`marlin fetch`: bring the measured data into the cache, from a mirror or from their origin.

With no data set named, everything that a measured scenario needs is brought. On the internet
some data sets have no files (they were digitized or flattened): the tables in the package stand
for those then, and a line says so.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from marlin import inputs
from marlin.data import fetch, registry
from marlin.data.registry import Source
from marlin.data.tables import table_bytes
from marlin.entry import guard
from marlin.errors import UserError
from marlin.files import write_json


def main() -> None:
    """Command line of `marlin fetch`."""
    given = _parser().parse_args()
    with guard():
        chosen = [registry.source(name) for name in given.names or registry.sources()]
        if given.list:
            print("\n".join(listing(chosen, given.cache)))
            return
        if given.mirror and given.source == "primary":
            raise UserError("--mirror and --source primary exclude each other: leave one out")
        mirror = given.mirror or os.environ.get("MARLIN_MIRROR")
        origin = given.source or ("mirror" if mirror else "primary")
        from_files = [item for item in chosen if item.files]
        if origin == "primary" and not given.names:
            from_files = [item for item in from_files if item.has_primary]
        paths = fetch.fetch([item.id for item in from_files], origin, mirror, given.cache)
        others = [item.id for item in chosen if item not in from_files]
        for item in fetch.use_package(others, given.cache):
            print(f"{item.id}: not on the internet, so {words(item)} of the package stands for it")
        for item in chosen:
            if given.names and not item.files:
                print(f"{item.id}: nothing to fetch, {words(item)} is in the package")
        print(f"{sum(map(len, paths.values()))} files of {len(paths)} data sets in {given.cache}")
        if given.receipt:
            write_json(given.receipt, receipt(chosen, given.cache))


def words(item: Source) -> str:
    """The names of the package's tables of a data set."""
    return " and ".join(name.rpartition("/")[2] for name in item.tables)


def listing(chosen: list[Source], cache: Path) -> Iterator[str]:
    """One line a data set: what it is, what of it is in the cache, and where it can be had."""
    rows = [("data set", "version", "size", "in the cache", "to be had from", "licence")]
    for item in chosen:
        size = f"{sum(file.size for file in item.files) / 1e3:.0f} kB"
        places = ["mirror"] * bool(item.files) + ["internet"] * item.has_primary
        where = ", ".join(places) or "package"
        rows.append((item.id, item.version, size, presence(item, cache), where, item.licence))
    for name, version, size, there, where, licence in rows:
        yield f"{name:26} {version:18} {size:>8}  {there:22} {where:17} {licence}"


def presence(item: Source, cache: Path) -> str:
    """What of a data set is in the cache: files by number and origin, or the package's tables."""
    there, origin = fetch.present(cache, item), fetch.recorded_origin(cache, item)
    if origin == fetch.PACKAGE:
        return "tables of the package"
    if origin and there == len(item.files):
        return f"yes, {origin}"
    return f"{there} of {len(item.files)} files" if there else "no"


def receipt(chosen: list[Source], cache: Path) -> dict[str, dict[str, object]]:
    """What a measured scenario reads: origin, version and SHA-256 of every file, by data set."""
    result: dict[str, dict[str, object]] = {}
    for item in chosen:
        origin = fetch.origin_of(cache, item.id)
        if origin == fetch.PACKAGE:
            sums = {name: hashlib.sha256(table_bytes(name)).hexdigest() for name in item.tables}
        else:
            sums = {file.name: file.sha256 for file in item.files}
        result[item.id] = {"files": sums, "origin": origin, "version": item.version}
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="marlin fetch", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="DATA_SET", help="default: all")
    parser.add_argument(
        "--list", action="store_true", help="print data sets, what is in the cache, and licences"
    )
    parser.add_argument(
        "--source",
        choices=("mirror", "primary"),
        help="default: the mirror if one is named, else the internet (primary)",
    )
    parser.add_argument("--mirror", help="folder or http base URL (default: MARLIN_MIRROR)")
    parser.add_argument("--cache", type=Path, default=inputs.raw_dir(), help="default: %(default)s")
    parser.add_argument("--receipt", type=Path, help="write what was fetched to this JSON file")
    return parser


if __name__ == "__main__":
    main()
