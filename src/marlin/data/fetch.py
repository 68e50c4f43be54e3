"""Fetch registered files from a mirror or from their origin into a cache, always verified."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import zlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from marlin.data import registry
from marlin.data.download import CHUNK, InterruptedDownloadError, download
from marlin.data.registry import Source, SourceFile
from marlin.errors import UserError
from marlin.files import sha256, write_json

if TYPE_CHECKING:
    import requests

Origin = Literal["mirror", "primary"]
PACKAGE = "package"
KEEP_FROM = 1 << 20
HTTP = ("http://", "https://")
NO_SOURCE = (
    "measured data need a mirror or a network: set MARLIN_MIRROR (MIRROR=... with make) to a "
    "folder or an http base URL, or use DATA=embedded"
)


def fetch(
    ids: Iterable[str],
    source: Origin,
    mirror: str | None,
    cache: Path,
    progress: bool = True,
) -> dict[str, list[Path]]:
    """Bring every file of the sources `ids` into `cache` and return their paths by source.

    `source` "mirror" reads `mirror` (a folder or an http base URL, else the environment variable
    MARLIN_MIRROR); "primary" reads the pinned URLs of the registry. Files already in the cache
    with the right SHA-256 are kept. Content is uncompressed, checked, and only then moved to
    <cache>/<id>/<version>/<name>. Of a file without a registered checksum the one seen is kept
    (`seen`). A large download that breaks off leaves a hidden part, from which the next call goes
    on. Raises UserError; never falls back to another origin: what the package stands for is asked
    for with `use_package`.
    """
    chosen = [registry.source(name) for name in ids]
    base = mirror or os.environ.get("MARLIN_MIRROR")
    if source == "mirror" and not base:
        raise UserError(NO_SOURCE)
    todo = [
        (item, file)
        for item in chosen
        for file in item.files
        if not (_marker(cache, item).exists() and _is_valid(cache, item, file))
    ]
    import requests

    with requests.Session() as session:
        for item, file in _with_bar(todo, progress):
            places = _places(str(base), file) if source == "mirror" else _primary(file)
            _store(cache, item, file, places, session, progress)
            marker = _marker(cache, item)
            _note(marker, _merged_origin(marker, source))
    return {item.id: [target(cache, item, f.name) for f in item.files] for item in chosen}


def use_package(ids: Iterable[str], cache: Path) -> list[Source]:
    """Record that the tables in the package stand for the sources `ids`; return those recorded.

    One whose files are in `cache` already, whole and verified, stays as it is, and so does one
    that has no files.
    """
    recorded = []
    for item in map(registry.source, ids):
        if not all(_is_valid(cache, item, file) for file in item.files):
            _note(_marker(cache, item), PACKAGE)
            recorded.append(item)
    return recorded


def present(cache: Path, item: Source) -> int:
    """Return how many files of a source are in the cache with the registered size, if it is."""
    paths = [(target(cache, item, file.name), file.size) for file in item.files]
    return sum(
        path.is_file() and path.stat().st_size == (size or path.stat().st_size)
        for path, size in paths
    )


def seen(cache: Path, item: Source) -> dict[str, str]:
    """Return the SHA-256 that files without a registered one had when they were fetched."""
    path = _seen_file(cache, item)
    return json.loads(path.read_text()) if path.exists() else {}


def target(cache: Path, item: Source, name: str) -> Path:
    """Return where a file of a source lies in the cache."""
    return cache / item.id / item.version / name


def cached(cache: Path, source_id: str, names: Iterable[str]) -> list[Path]:
    """Return the verified cached paths of some files of a source; UserError says what to run."""
    item = registry.source(source_id)
    members = {file.name: file for file in item.files}
    paths = []
    for name in names:
        path = target(cache, item, name)
        if not path.exists():
            raise UserError(f"{path} is missing: run `marlin fetch` first; {NO_SOURCE}")
        if not _is_valid(cache, item, members[name]):
            kind = "registered checksum" if members[name].sha256 else "checksum seen by the fetch"
            raise UserError(
                f"{path} does not have the {kind}: delete it and run "
                f"`marlin fetch {source_id}` again"
            )
        paths.append(path)
    return paths


def origin_of(cache: Path, source_id: str) -> str:
    """Return where a source comes from: "mirror", "primary", "mirror and primary" or PACKAGE."""
    item = registry.source(source_id)
    origin = recorded_origin(cache, item)
    if origin is None:
        raise UserError(f"{_marker(cache, item)} is missing: run `marlin fetch` first; {NO_SOURCE}")
    return origin


def recorded_origin(cache: Path, item: Source) -> str | None:
    """Return where a source comes from, None before it was fetched."""
    if not item.files:
        return PACKAGE
    marker = _marker(cache, item)
    return marker.read_text().strip() if marker.exists() else None


def _store(
    cache: Path,
    item: Source,
    file: SourceFile,
    places: list[str],
    session: requests.Session,
    progress: bool,
) -> None:
    """Bring one file from the first of `places` that has it, verify it, and move it into place.

    Two calls for one file wait for each other: the later one finds the file there.
    """
    path = target(cache, item, file.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part_of(path) as part:
            content = path.with_name(f".{path.name}.content")
            keep = False
            try:
                if not _is_valid(cache, item, file):
                    where = _read(places, file, part, content, session, progress)
                    _verify(content, file, where)
                    if not file.sha256:
                        known = seen(cache, item) | {file.name: sha256(content)}
                        write_json(_seen_file(cache, item), known)
                    content.replace(path)
            except (InterruptedDownloadError, KeyboardInterrupt):
                keep = os.fstat(part.fileno()).st_size >= KEEP_FROM
                raise
            finally:
                content.unlink(missing_ok=True)
                if not keep:
                    _part(path).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{item.id}: cannot bring {file.name} to {path.parent} ({error}): mend that, or name "
            "another folder with --cache or MARLIN_CACHE"
        ) from error


@contextmanager
def _part_of(path: Path) -> Generator[BinaryIO]:
    """Open the part of the file `path` for appending, alone: others wait."""
    while True:
        with _part(path).open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Who waited may hold a part that the one before has finished and taken away.
            if _part(path).exists() and os.path.samestat(
                os.fstat(stream.fileno()), _part(path).stat()
            ):
                yield stream
                return


def _read(
    places: list[str],
    file: SourceFile,
    part: BinaryIO,
    content: Path,
    session: requests.Session,
    progress: bool,
) -> str:
    """Write the uncompressed content of `file` to `content`; return the place it came from.

    A wrong content that was put together over two calls is downloaded once more, from its start.
    """
    for place in places:
        if not place.startswith(HTTP):
            if Path(place).is_file():
                _expand(Path(place), content, where=place)
                return place
            continue
        resumed = download(session, place, part, resume=bool(file.sha256), progress=progress)
        if resumed is None:
            continue
        part.flush()
        try:
            _expand(Path(part.name), content, where=place)
            _verify(content, file, place)
        except UserError:
            if not resumed:
                raise
            download(session, place, part, resume=False, progress=progress)
            part.flush()
            _expand(Path(part.name), content, where=place)
        return place
    raise UserError(_missing(places, file))


def _part(path: Path) -> Path:
    """Return where the download of the file `path` grows."""
    return path.with_name(f".{path.name}.part")


def _seen_file(cache: Path, item: Source) -> Path:
    return cache / item.id / item.version / "seen.json"


def _marker(cache: Path, item: Source) -> Path:
    """Return the file that says where a source came from."""
    return cache / item.id / item.version / "origin.txt"


def _note(marker: Path, origin: str) -> None:
    """Write a marker, atomically."""
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        part = Path(f"{marker}.part-{os.getpid()}")
        part.write_text(origin + "\n")
        part.replace(marker)
    except OSError as error:
        raise UserError(
            f"cannot write {marker} ({error}): mend that, or name another folder with --cache or "
            "MARLIN_CACHE"
        ) from error


def _merged_origin(marker: Path, origin: Origin) -> str:
    """Name both origins of a source whose files came from a mirror and from the internet."""
    before = marker.read_text().strip() if marker.exists() else origin
    return origin if before in (origin, PACKAGE) else "mirror and primary"


def _places(base: str, file: SourceFile) -> list[str]:
    """Return where a mirror may have a file: as the registry says, or (not) compressed."""
    if not file.mirror_path:
        raise UserError(
            f"{file.source}: {file.name} is on the internet alone: add --source primary to fetch it"
        )
    if not base.startswith(HTTP) and not Path(base).is_dir():
        raise UserError(f"mirror {base} is not a folder: {NO_SOURCE}")
    plain = file.mirror_path.removesuffix(".gz")
    candidates = dict.fromkeys([file.mirror_path, plain, f"{plain}.gz"])
    return [f"{base.rstrip('/')}/{path}" for path in candidates]


def _primary(file: SourceFile) -> list[str]:
    """Return the pinned URL of a file."""
    if not file.url:
        raise UserError(
            f"{file.source}: {file.name} is a derived file that no public URL has: fetch it from "
            "a mirror (MARLIN_MIRROR), or name no data set, and the tables in the package stand "
            "for it"
        )
    return [file.url]


def _missing(places: list[str], file: SourceFile) -> str:
    """Say that none of `places` has a file."""
    if places == [file.url]:
        return f"{file.source}: {file.url} is gone (HTTP 404): use a mirror instead"
    base = places[0].removesuffix(f"/{file.mirror_path}")
    return (
        f"{file.source}: mirror {base} has no {file.mirror_path}: complete the mirror or "
        "choose another"
    )


def _expand(stored: Path, out: Path, *, where: str) -> None:
    """Copy `stored` to `out`, uncompressed if its place `where` says that it is compressed."""
    if not where.endswith(".gz"):
        shutil.copyfile(stored, out)
        return
    try:
        with gzip.open(stored, "rb") as packed, out.open("wb") as plain:
            shutil.copyfileobj(packed, plain, CHUNK)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{where} is a damaged or truncated gzip file ({error}): copy it to the mirror again"
        ) from error


def _is_valid(cache: Path, item: Source, file: SourceFile) -> bool:
    """Whether a file is in the cache with the checksum registered, else with the one seen."""
    path = target(cache, item, file.name)
    if not path.is_file() or (file.size and path.stat().st_size != file.size):
        return False
    expected = file.sha256 or seen(cache, item).get(file.name)
    return expected is not None and sha256(path) == expected


def _verify(path: Path, file: SourceFile, where: str) -> None:
    size = path.stat().st_size
    if file.size and not file.sha256 and size != file.size:
        raise UserError(
            f"{file.source}: {where} has {size} bytes but the registry expects {file.size} for "
            f"{file.name}: the file was changed or cut short; restore it or choose another mirror"
        )
    actual = sha256(path)
    if file.sha256 and actual != file.sha256:
        raise UserError(
            f"{file.source}: {where} has SHA-256 {actual[:12]}... but the registry expects "
            f"{file.sha256[:12]}... for {file.name}: the file was changed or cut short; restore "
            "it or choose another mirror"
        )


def _with_bar(
    todo: list[tuple[Source, SourceFile]], progress: bool
) -> Iterable[tuple[Source, SourceFile]]:
    if not progress or not todo:
        return todo
    from tqdm import tqdm

    return tqdm(todo, desc="fetch", unit="file")
