"""The registry of sources: what each is, its licence, where it comes from and its checksums.

`sources.yaml` describes the sources, `files.csv` their files, `sources.bib` how to cite them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from marlin.data.tables import nearest, table
from marlin.errors import UserError


@dataclass(frozen=True)
class SourceFile:
    """One file of a source; `sha256` and `size` are those of the uncompressed content.

    They are empty and 0 where nobody has recorded them. `url` is empty for derived files, which
    only a mirror has, and ends in .gz where the origin compresses. `mirror_path` is relative to the
    mirror's root, ends in .gz where the mirror stores the file compressed, and is empty for files
    of the internet alone.
    """

    source: str
    name: str
    size: int
    sha256: str
    mirror_path: str
    url: str


@dataclass(frozen=True)
class Source:
    """A set of files with one origin, one licence and one version.

    `tables` are the tables in the package that stand for it: with `signals=embedded`, and with
    files from the internet where it has none there. `use` says what it is used for, `scenario`
    whether a measured scenario reads it, `fetch_only` that its terms are unclear or copyleft, so
    that nothing of it is in the package.
    """

    id: str
    title: str
    version: str
    licence: str
    attribution: str
    citation: str
    origin: str
    note: str
    tables: tuple[str, ...]
    use: str
    scenario: bool
    fetch_only: bool
    files: tuple[SourceFile, ...]

    @property
    def has_primary(self) -> bool:
        """Whether its files can be had from the internet."""
        return bool(self.files) and all(file.url for file in self.files)

    @property
    def in_mirror(self) -> bool:
        """Whether a mirror has its files."""
        return bool(self.files) and all(file.mirror_path for file in self.files)


@cache
def sources() -> dict[str, Source]:
    """Return every registered source by id."""
    rows = table("files.csv")
    text = files("marlin.data").joinpath("sources.yaml").read_text(encoding="utf-8")
    result = {}
    for name, fields in yaml.safe_load(text).items():
        members = tuple(
            SourceFile(name, r.name, int(r.size), r.sha256, r.mirror_path, r.url)
            for r in rows[rows["source"] == name]
            .rename_axis(None)
            .itertuples(index=False, name="Row")
        )
        packaged = tuple(fields.pop("tables"))
        result[name] = Source(id=name, files=members, tables=packaged, **fields)
    return result


def scenario_sources() -> dict[str, Source]:
    """Return by id the sources that a measured scenario reads."""
    return {name: item for name, item in sources().items() if item.scenario}


def bibtex(item: Source) -> str:
    """Return the BibTeX entry of a source."""
    text = files("marlin.data").joinpath("sources.bib").read_text(encoding="utf-8")
    entries = {entry.partition("{")[2].partition(",")[0]: entry for entry in text.split("\n\n")}
    return entries[item.citation].strip()


def source(name: str) -> Source:
    """Return one source; raise UserError with the known ids and the nearest one."""
    known = sources()
    if name not in known:
        raise UserError(
            f"unknown data source {name!r}{nearest(name, known)}; known: {', '.join(known)}"
        )
    return known[name]
