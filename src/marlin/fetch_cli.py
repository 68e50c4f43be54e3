"""`marlin fetch`: bring measured data into the cache, from a mirror or from their origin.

With no data set named, everything that a measured scenario needs is brought. On the internet
some data sets have no files (they were digitized or flattened): the tables in the package stand
for those then, and a line says so. `--list` shows every registered data set, `--list NAME` all
that is known of one.
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
        if given.list:
            named = [registry.source(name) for name in given.names]
            every = list(registry.sources().values())
            lines = details(named) if named else listing(every, given.cache)
            print("\n".join(lines))
            return
        if given.mirror and given.source == "primary":
            raise UserError("--mirror and --source primary exclude each other: leave one out")
        if given.all and given.names:
            raise UserError("--all and names of data sets exclude each other: leave one out")
        mirror = given.mirror or os.environ.get("MARLIN_MIRROR")
        origin = given.source or ("mirror" if mirror else "primary")
        known = registry.sources() if given.all else registry.scenario_sources()
        chosen = [registry.source(name) for name in given.names or known]
        from_files = [item for item in chosen if item.files]
        if not given.names:
            from_files = [item for item in from_files if has(item, origin)]
        paths = fetch.fetch([item.id for item in from_files], origin, mirror, given.cache)
        others = [item for item in chosen if item not in from_files]
        for line in left_out(others, given.cache, bool(given.names)):
            print(line)
        for line in unverified(from_files, given.cache):
            print(line)
        print(f"{sum(map(len, paths.values()))} files of {len(paths)} data sets in {given.cache}")
        if given.receipt:
            reached = [item for item in chosen if item in from_files or item.scenario]
            write_json(given.receipt, receipt(reached, given.cache))


def has(item: Source, origin: str) -> bool:
    """Whether an origin has the files of a data set."""
    return item.in_mirror if origin == "mirror" else item.has_primary


def left_out(others: list[Source], cache: Path, named: bool) -> Iterator[str]:
    """What stands for data sets whose files the origin does not have, one line each."""
    stand_ins = fetch.use_package([item.id for item in others if item.scenario], cache)
    for item in others:
        if item in stand_ins and item.files:
            yield f"{item.id}: not on the internet, so {words(item)} of the package stands for it"
        elif not item.files and named:
            yield f"{item.id}: nothing to fetch, {words(item)} is in the package"
        elif not item.scenario:
            place = "the internet" if item.has_primary else "a mirror"
            yield f"{item.id}: left out, {place} alone has it"


def unverified(items: list[Source], cache: Path) -> Iterator[str]:
    """One line for each file that could not be compared with a registered checksum."""
    for item in items:
        for name, seen in fetch.seen(cache, item).items():
            yield (
                f"{item.id}: {name} has no registered checksum, so it was not verified; its "
                f"SHA-256 is {seen}, kept for later reads"
            )


def words(item: Source) -> str:
    """The names of the package's tables of a data set."""
    return " and ".join(name.rpartition("/")[2] for name in item.tables)


def listing(chosen: list[Source], cache: Path) -> Iterator[str]:
    """One line a data set: what it is, what of it is in the cache, and where it can be had."""
    rows = [("data set", "used", "size", "in the cache", "to be had from", "licence")]
    for item in chosen:
        places = ["mirror"] * item.in_mirror + ["internet"] * item.has_primary
        where = ", ".join(places) or "package"
        used = "scenario" if item.scenario else "no"
        licence = f"{item.licence} (fetch only)" if item.fetch_only else item.licence
        rows.append((item.id, used, size(item), presence(item, cache), where, licence))
    for name, used, total, there, where, licence in rows:
        yield f"{name:32} {used:8} {total:>10}  {there:22} {where:17} {licence}"


def size(item: Source) -> str:
    """Size of a data set in plain words; "+" where not every file's is known."""
    total = sum(file.size for file in item.files)
    if not total and item.files:
        return "unknown"
    unit = f"{total / 1e6:.1f} MB" if total >= 1e6 else f"{total / 1e3:.0f} kB"
    return unit if all(file.size for file in item.files) else f"{unit} +"


def details(chosen: list[Source]) -> Iterator[str]:
    """All that the registry holds of data sets, for a reader."""
    for item in chosen:
        yield f"{item.id}: {item.title}"
        yield f"  used for     {item.use}"
        yield f"  licence      {item.licence}" + (" (fetch only)" if item.fetch_only else "")
        yield f"  attribution  {item.attribution}"
        yield f"  origin       {item.origin}"
        yield f"  note         {item.note}"
        for file in item.files:
            checked = f"sha256 {file.sha256}" if file.sha256 else "no registered checksum"
            bytes_ = f"{file.size} bytes" if file.size else "size unknown"
            yield f"  {file.name}: {bytes_}, {checked}"
            yield f"    {file.url or 'mirror only: ' + file.mirror_path}"
        yield registry.bibtex(item)


def presence(item: Source, cache: Path) -> str:
    """What of a data set is in the cache: files by number and origin, or the package's tables."""
    there, origin = fetch.present(cache, item), fetch.recorded_origin(cache, item)
    if origin == fetch.PACKAGE:
        return "tables of the package"
    if origin and there == len(item.files):
        return f"yes, {origin}"
    return f"{there} of {len(item.files)} files" if there else "no"


def receipt(chosen: list[Source], cache: Path) -> dict[str, dict[str, object]]:
    """What was brought: origin, version and SHA-256 of every file, by data set."""
    result: dict[str, dict[str, object]] = {}
    for item in chosen:
        origin = fetch.origin_of(cache, item.id)
        if origin == fetch.PACKAGE:
            sums = {name: hashlib.sha256(table_bytes(name)).hexdigest() for name in item.tables}
        else:
            seen = fetch.seen(cache, item)
            sums = {file.name: file.sha256 or seen[file.name] for file in item.files}
        result[item.id] = {"files": sums, "origin": origin, "version": item.version}
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="marlin fetch", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="DATA_SET", help="default: those of a scenario")
    parser.add_argument("--all", action="store_true", help="every registered data set")
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
