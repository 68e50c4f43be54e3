"""Fetch registered files from a mirror or from their origin into a cache, always verified."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from marlin.data import registry
from marlin.data.registry import Source, SourceFile
from marlin.errors import UserError
from marlin.files import sha256

Origin = Literal["mirror", "primary"]
PACKAGE = "package"
ATTEMPTS = 3
TIMEOUT_S = 30.0
CHUNK = 1 << 20
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
    <cache>/<id>/<version>/<name>. Raises UserError; never falls back to another origin: what the
    package stands for is asked for with `use_package`.
    """
    chosen = [registry.source(name) for name in ids]
    base = mirror or os.environ.get("MARLIN_MIRROR")
    if source == "mirror" and not base:
        raise UserError(NO_SOURCE)
    todo = [
        (item, file)
        for item in chosen
        for file in item.files
        if not (_marker(cache, item).exists() and _is_valid(target(cache, item, file.name), file))
    ]
    for item, file in _with_bar(todo, progress):
        if source == "mirror":
            _store(cache, item, file, source, lambda f, out: _from_mirror(str(base), f, out))
        else:
            _store(cache, item, file, source, _from_primary)
    return {item.id: [target(cache, item, f.name) for f in item.files] for item in chosen}


def use_package(ids: Iterable[str], cache: Path) -> list[Source]:
    """Record that the tables in the package stand for the sources `ids`; return those recorded.

    One whose files are in `cache` already, whole and verified, stays as it is, and so does one
    that has no files.
    """
    recorded = []
    for item in map(registry.source, ids):
        if not all(_is_valid(target(cache, item, file.name), file) for file in item.files):
            _note(_marker(cache, item), PACKAGE)
            recorded.append(item)
    return recorded


def present(cache: Path, item: Source) -> int:
    """Return how many files of a source are in the cache with the registered size."""
    paths = [(target(cache, item, file.name), file.size) for file in item.files]
    return sum(path.is_file() and path.stat().st_size == size for path, size in paths)


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
        if not _is_valid(path, members[name]):
            raise UserError(
                f"{path} does not have the registered checksum: delete it and run "
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
    origin: Origin,
    read: Callable[[SourceFile, Path], str],
) -> None:
    """Read one file to a temporary name, verify it, and move it into place."""
    path = target(cache, item, file.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
            part = Path(folder) / "content"
            where = read(file, part)
            _verify(part, file, where)
            part.replace(path)
    except OSError as error:
        raise UserError(
            f"{item.id}: cannot bring {file.name} to {path.parent} ({error}): mend that, or name "
            "another folder with --cache or MARLIN_CACHE"
        ) from error
    marker = _marker(cache, item)
    _note(marker, _merged_origin(marker, origin))


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


def _from_mirror(base: str, file: SourceFile, out: Path) -> str:
    """Write the uncompressed content of a mirrored file to `out`; return where it was found."""
    plain = file.mirror_path.removesuffix(".gz")
    candidates = dict.fromkeys([file.mirror_path, plain, f"{plain}.gz"])
    if base.startswith(("http://", "https://")):
        places = [f"{base.rstrip('/')}/{path}" for path in candidates]
        stored = out.with_name("stored")
        found = next((place for place in places if _download(place, stored)), None)
    else:
        if not Path(base).is_dir():
            raise UserError(f"mirror {base} is not a folder: {NO_SOURCE}")
        places = [str(Path(base) / path) for path in candidates]
        found = next((place for place in places if Path(place).is_file()), None)
        stored = Path(found or "")
    if found is None:
        raise UserError(
            f"{file.source}: mirror {base} has no {file.mirror_path}: complete the mirror or "
            "choose another"
        )
    _expand(stored, out, compressed=found.endswith(".gz"), where=found)
    return found


def _from_primary(file: SourceFile, out: Path) -> str:
    """Download a file from its pinned URL to `out`; return the URL."""
    if not file.url:
        raise UserError(
            f"{file.source}: {file.name} is a derived file that no public URL has: fetch it from "
            "a mirror (MARLIN_MIRROR), or name no data set, and the tables in the package stand "
            "for it"
        )
    if not _download(file.url, out):
        raise UserError(f"{file.source}: {file.url} is gone (HTTP 404): use a mirror instead")
    return file.url


def _download(url: str, out: Path) -> bool:
    """Download `url` to `out` with retries; False where the server has no such file."""
    import pooch
    import requests

    downloader = pooch.HTTPDownloader(progressbar=False, timeout=TIMEOUT_S)
    for attempt in range(ATTEMPTS):
        try:
            downloader(url, str(out), None)
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code == 404:
                return False
            reason = f"HTTP {error.response.status_code if error.response is not None else '?'}"
        except requests.RequestException as error:
            reason = type(error).__name__
        else:
            return True
        if attempt + 1 < ATTEMPTS:
            time.sleep(0.5 * 4**attempt)
    raise UserError(f"cannot reach {url} ({reason} after {ATTEMPTS} attempts): {NO_SOURCE}")


def _expand(stored: Path, out: Path, *, compressed: bool, where: str) -> None:
    """Copy `stored` to `out`, uncompressed."""
    if not compressed:
        shutil.copyfile(stored, out)
        return
    try:
        with gzip.open(stored, "rb") as packed, out.open("wb") as plain:
            shutil.copyfileobj(packed, plain, CHUNK)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{where} is a damaged or truncated gzip file ({error}): copy it to the mirror again"
        ) from error


def _is_valid(path: Path, file: SourceFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def _verify(path: Path, file: SourceFile, where: str) -> None:
    actual = sha256(path)
    if actual != file.sha256:
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
