"""`marlin doctor`: what this machine has, and what to do about what is missing."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from marlin import __version__, compose, inputs, plan, provenance
from marlin.entry import guard
from marlin.errors import UserError

DISTRIBUTION = "marlin-bench"
MIN_FREE_GB = 2.0


def packages() -> Iterator[tuple[str, str, str]]:
    """Required packages: name, version range, and installed version or an empty text."""
    for requirement in metadata.requires(DISTRIBUTION) or []:
        if "extra ==" in requirement:
            continue
        found = re.match(r"([\w.-]+)\s*([^;]*)", requirement)
        assert found is not None
        try:
            version = metadata.version(found[1])
        except metadata.PackageNotFoundError:
            version = ""
        yield found[1], found[2].strip(), version


def torch_hint(version: str) -> str:
    """What the installed build of torch computes on, from its version alone."""
    return "processor only" if "+cpu" in version else "graphics processor if there is one"


def hints() -> Iterator[str]:
    """What is missing and what to do, one sentence each."""
    for name, wanted, version in packages():
        if not version:
            yield f"{name} {wanted} is not installed: run `make install`"
    for path in sorted((compose.conf_dir() / "suite").glob("*.yaml")):
        try:
            plan.load(path.stem)
        except UserError as error:
            yield f"suite {path.stem} cannot run: {error}"
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free < MIN_FREE_GB:
        yield f"only {free:.1f} GB are free here: a suite and its environment want {MIN_FREE_GB}"
    mirror = os.environ.get("MARLIN_MIRROR")
    if mirror and not mirror.startswith("http") and not Path(mirror).is_dir():
        yield f"MARLIN_MIRROR={mirror} is not a folder: correct it, or unset it to use the internet"


def measured_data() -> tuple[int, int]:
    """How many data sets of a measured scenario are in the cache, of how many."""
    from marlin.data import fetch, registry

    sources = registry.scenario_sources().values()
    there = [
        source
        for source in sources
        if all(fetch.target(inputs.raw_dir(), source, file.name).is_file() for file in source.files)
    ]
    return len(there), len(sources)


def report() -> Iterator[str]:
    """The report, line by line."""
    yield f"marlin     {__version__}, settings in {compose.conf_dir()}"
    yield f"python     {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield f"processor  {os.cpu_count()} cores, {provenance.cpu_capability()}"
    for name, wanted, version in packages():
        note = f" ({torch_hint(version)})" if name == "torch" else ""
        yield f"package    {name:20} {version or 'missing':12} wanted {wanted or 'any'}{note}"
    there, registered = measured_data()
    mirror = os.environ.get("MARLIN_MIRROR") or "none named (MARLIN_MIRROR)"
    yield f"data       {there} of {registered} measured data sets in {inputs.raw_dir()}"
    yield f"mirror     {mirror}"
    for suite in plan.suites():
        paper = plan.load(suite).results / "paper.pdf"
        yield f"suite      {suite:20} {'paper made' if paper.is_file() else 'no paper yet'}"


def main() -> None:
    """Command line of `marlin doctor`; exit status 1 when something is missing."""
    argparse.ArgumentParser(prog="marlin doctor", description=__doc__).parse_args()
    with guard():
        missing = list(hints())
        if not any(hint.startswith("suite ") for hint in missing):
            print("\n".join(report()))
        if missing:
            raise UserError("; ".join(missing))
        print("nothing is missing")


if __name__ == "__main__":
    main()
