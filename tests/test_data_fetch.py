"""Fetching: verified, atomic, and one clear sentence for every failure."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from marlin import fetch_cli
from marlin.data import download as downloading
from marlin.data import registry
from marlin.data.fetch import cached, fetch, origin_of, target, use_package
from marlin.data.registry import Source, SourceFile
from marlin.data.tables import table, table_bytes
from marlin.errors import UserError

CONTENT = b"hour,value\n" + b"0,1.5\n" * 5000
UNREACHABLE = "http://127.0.0.1:9/thing.csv"


def make_source(url: str = "") -> Source:
    file = SourceFile(
        "thing",
        "part/thing.csv",
        len(CONTENT),
        hashlib.sha256(CONTENT).hexdigest(),
        "topic/thing.csv.gz",
        url,
    )
    tables = ("embedded/rtt.csv",)
    about = ("thing", "A thing", "v1", "CC0", "nobody", "patel2024splitwise", "nowhere", "")
    return Source(*about, tables, "A test.", True, False, (file,))


@pytest.fixture
def thing(monkeypatch: pytest.MonkeyPatch) -> Source:
    item = make_source()
    monkeypatch.setattr(registry, "sources", lambda: {"thing": item})
    monkeypatch.setattr(downloading, "_sleep", lambda _: None)
    monkeypatch.delenv("MARLIN_MIRROR", raising=False)
    return item


def put(root: Path, data: bytes, name: str = "topic/thing.csv.gz") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def assert_nothing_left(cache: Path) -> None:
    assert [p for p in cache.rglob("*") if p.is_file()] == []


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Short(Quiet):
    """Announces more bytes than it sends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100])


def serve(handler: type[Quiet], folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: handler(*a, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    yield from serve(Quiet, tmp_path / "mirror")


@pytest.fixture
def short_web(tmp_path: Path) -> Iterator[str]:
    yield from serve(Short, tmp_path / "mirror")


@pytest.mark.parametrize("stored", ["topic/thing.csv.gz", "topic/thing.csv"])
@pytest.mark.parametrize("over_http", [False, True])
def test_mirror_gives_uncompressed_verified_file(
    thing: Source, tmp_path: Path, web: str, stored: str, over_http: bool
) -> None:
    put(tmp_path / "mirror", gzip.compress(CONTENT) if stored.endswith("gz") else CONTENT, stored)
    base = web if over_http else str(tmp_path / "mirror")
    paths = fetch(["thing"], "mirror", base, tmp_path / "cache", progress=False)
    assert paths == {"thing": [tmp_path / "cache/thing/v1/part/thing.csv"]}
    assert paths["thing"][0].read_bytes() == CONTENT
    assert cached(tmp_path / "cache", "thing", ["part/thing.csv"]) == paths["thing"]
    assert origin_of(tmp_path / "cache", "thing") == "mirror"


def test_valid_file_is_kept_and_a_damaged_one_is_replaced(thing: Source, tmp_path: Path) -> None:
    stored = put(tmp_path / "mirror", gzip.compress(CONTENT))
    arguments = (["thing"], "mirror", str(tmp_path / "mirror"), tmp_path / "cache", False)
    path = fetch(*arguments)["thing"][0]
    hidden = stored.rename(stored.with_suffix(".away"))
    assert fetch(*arguments)["thing"][0] == path
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(UserError, match=r"does not have the registered checksum"):
        cached(tmp_path / "cache", "thing", ["part/thing.csv"])
    hidden.rename(stored)
    assert fetch(*arguments)["thing"][0].read_bytes() == CONTENT


def test_mirror_from_the_environment(
    thing: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "mirror", gzip.compress(CONTENT))
    monkeypatch.setenv("MARLIN_MIRROR", str(tmp_path / "mirror"))
    fetch(["thing"], "mirror", None, tmp_path / "cache", progress=False)
    assert target(tmp_path / "cache", thing, "part/thing.csv").read_bytes() == CONTENT


def failure(source: str, mirror: str | None, cache: Path) -> str:
    with pytest.raises(UserError) as error:
        fetch(["thing"], source, mirror, cache, progress=False)  # ty: ignore[invalid-argument-type]
    assert_nothing_left(cache)
    return str(error.value)


def test_no_mirror_says_what_to_set(thing: Source, tmp_path: Path) -> None:
    message = failure("mirror", None, tmp_path / "cache")
    assert "MARLIN_MIRROR" in message
    assert "DATA=embedded" in message
    assert "\n" not in message


def test_truncated_gzip_names_the_file(thing: Source, tmp_path: Path) -> None:
    whole = gzip.compress(CONTENT)
    put(tmp_path / "mirror", whole[: len(whole) // 2])
    message = failure("mirror", str(tmp_path / "mirror"), tmp_path / "cache")
    assert "topic/thing.csv.gz is a damaged or truncated gzip" in message


def test_wrong_checksum_names_file_and_both_sums(thing: Source, tmp_path: Path) -> None:
    other = CONTENT.replace(b"1.5", b"2.5")
    put(tmp_path / "mirror", gzip.compress(other))
    message = failure("mirror", str(tmp_path / "mirror"), tmp_path / "cache")
    assert hashlib.sha256(other).hexdigest()[:12] in message
    assert thing.files[0].sha256[:12] in message
    assert "topic/thing.csv.gz" in message


def test_missing_in_folder_and_on_the_web(thing: Source, tmp_path: Path, web: str) -> None:
    (tmp_path / "mirror").mkdir()
    for base in (str(tmp_path / "mirror"), web):
        message = failure("mirror", base, tmp_path / "cache")
        assert f"mirror {base} has no topic/thing.csv.gz" in message


def test_mirror_that_is_not_a_folder(thing: Source, tmp_path: Path) -> None:
    assert "is not a folder" in failure("mirror", str(tmp_path / "none"), tmp_path / "cache")


def test_connection_that_breaks_off(thing: Source, tmp_path: Path, short_web: str) -> None:
    (tmp_path / "mirror").mkdir()
    message = failure("mirror", short_web, tmp_path / "cache")
    assert "cannot download" in message
    assert "the connection broke off, 5 attempts" in message


def test_primary_without_a_network(
    thing: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "sources", lambda: {"thing": make_source(UNREACHABLE)})
    message = failure("primary", None, tmp_path / "cache")
    assert UNREACHABLE in message
    assert "MARLIN_MIRROR" in message


def test_primary_downloads_and_is_recorded(
    thing: Source, tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "mirror", CONTENT, "origin.csv")
    item = make_source(f"{web}/origin.csv")
    monkeypatch.setattr(registry, "sources", lambda: {"thing": item})
    paths = fetch(["thing"], "primary", None, tmp_path / "cache", progress=False)
    assert paths["thing"][0].read_bytes() == CONTENT
    assert origin_of(tmp_path / "cache", "thing") == "primary"


def test_derived_file_has_no_primary(thing: Source, tmp_path: Path) -> None:
    assert "derived file" in failure("primary", None, tmp_path / "cache")


def test_cache_without_the_file_says_what_to_run(thing: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `marlin fetch` first"):
        cached(tmp_path, "thing", ["part/thing.csv"])
    with pytest.raises(UserError, match="run `marlin fetch` first"):
        origin_of(tmp_path, "thing")


def test_package_stands_in_until_files_come(thing: Source, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert use_package(["thing"], cache) == [thing]
    assert origin_of(cache, "thing") == "package"
    put(tmp_path / "mirror", gzip.compress(CONTENT))
    fetch(["thing"], "mirror", str(tmp_path / "mirror"), cache, progress=False)
    assert origin_of(cache, "thing") == "mirror"
    assert use_package(["thing"], cache) == []
    assert origin_of(cache, "thing") == "mirror"


def test_file_without_its_marker_is_fetched_again(thing: Source, tmp_path: Path) -> None:
    put(tmp_path / "mirror", gzip.compress(CONTENT))
    arguments = (["thing"], "mirror", str(tmp_path / "mirror"), tmp_path / "cache", False)
    fetch(*arguments)
    (tmp_path / "cache/thing/v1/origin.txt").unlink()
    fetch(*arguments)
    assert origin_of(tmp_path / "cache", "thing") == "mirror"


def test_cache_that_cannot_be_written(thing: Source, tmp_path: Path) -> None:
    put(tmp_path / "mirror", gzip.compress(CONTENT))
    blocked = tmp_path / "cache"
    blocked.write_text("a file and not a folder")
    for call in (
        lambda: fetch(["thing"], "mirror", str(tmp_path / "mirror"), blocked, progress=False),
        lambda: use_package(["thing"], blocked),
    ):
        with pytest.raises(UserError, match=r"--cache or MARLIN_CACHE"):
            call()


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["marlin fetch", *map(str, arguments)])
    fetch_cli.main()


@pytest.fixture
def two(thing: Source, web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sources, of which only one has a URL; returns an empty cache."""
    put(tmp_path / "mirror", gzip.compress(CONTENT))
    put(tmp_path / "mirror", CONTENT, "origin.csv")
    other = replace(make_source(f"{web}/origin.csv"), id="other")
    facts = replace(thing, id="facts", files=())
    known = {"thing": thing, "other": other, "facts": facts}
    monkeypatch.setattr(registry, "sources", lambda: known)
    return tmp_path / "cache"


def test_cli_brings_from_the_internet_what_is_there(
    two: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    receipt = tmp_path / "receipt.json"
    run_cli(monkeypatch, "--source", "primary", "--cache", two, "--receipt", receipt)
    printed = capsys.readouterr().out
    assert "thing: not on the internet, so rtt.csv of the package stands for it" in printed
    assert "1 files of 1 data sets" in printed
    content = json.loads(receipt.read_text())
    origins = {"thing": "package", "other": "primary", "facts": "package"}
    assert {name: entry["origin"] for name, entry in content.items()} == origins
    assert list(content["thing"]["files"]) == ["embedded/rtt.csv"]
    run_cli(monkeypatch, "--list", "--cache", two)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "tables of the package" in lines["thing"]
    assert "yes, primary" in lines["other"]
    assert "mirror, internet" in lines["other"]


def test_cli_takes_everything_from_a_mirror(
    two: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_cli(monkeypatch, "--list", "--cache", two)
    assert capsys.readouterr().out.count("  no  ") == 2
    run_cli(monkeypatch, "--mirror", tmp_path / "mirror", "--cache", two)
    printed = capsys.readouterr().out
    assert "stands for" not in printed
    assert "2 files of 2 data sets" in printed
    assert origin_of(two, "thing") == origin_of(two, "other") == "mirror"
    run_cli(monkeypatch, "facts", "--mirror", tmp_path / "mirror", "--cache", two)
    assert "facts: nothing to fetch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["thing", "--source", "primary"], "thing.csv is a derived file"),
        (["thing", "--source", "mirror"], "set MARLIN_MIRROR"),
        (["--source", "primary", "--mirror", "x"], "exclude each other"),
        (["--list", "thin"], "nearest is 'thing'"),
    ],
)
def test_cli_mistakes_end_in_one_sentence(
    two: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_cli(monkeypatch, *arguments, "--cache", two)
    message = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1
    assert message.startswith("marlin: error: ")
    assert words in message


def test_unknown_source_names_the_nearest() -> None:
    with pytest.raises(UserError, match="nearest is 'aware20'"):
        registry.source("aware2")


PINNED = re.compile(
    r"https://(raw\.githubusercontent\.com/[\w-]+/[\w.-]+/[0-9a-f]{40}/"
    r"|github\.com/[\w-]+/[\w-]+/raw/[0-9a-f]{40}/"
    r"|github\.com/[\w-]+/[\w-]+/releases/download/[\w.-]+/"
    r"|zenodo\.org/records/\d+/files/"
    r"|data\.electricitymaps\.com/\d{4}-\d\d-\d\d/)"
)


def test_registry_is_pinned_and_citable() -> None:
    entries = set(re.findall(r"@\w+\{([^,]+),", read_package_file("sources.bib")))
    seen = set()
    for item in registry.sources().values():
        assert item.files or item.id == "operational-water-factors"
        # Half a source from the internet, or from a mirror, would be a source of two kinds.
        assert item.has_primary or not any(file.url for file in item.files)
        assert item.in_mirror or not any(file.mirror_path for file in item.files)
        assert bool(item.tables) == item.scenario
        for name in item.tables:
            assert table_bytes(name)
        assert item.citation in entries
        assert registry.bibtex(item).startswith("@")
        assert item.citation in registry.bibtex(item)
        assert min(len(item.licence), len(item.attribution), len(item.origin), len(item.use)) > 2
        for file in item.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) or not file.mirror_path
            assert file.url == "" or PINNED.match(file.url), file.url
            assert file.url or file.mirror_path
            seen.add((file.source, file.name))
    assert len(seen) == sum(len(item.files) for item in registry.sources().values())
    assert len(table("files.csv")) == len(seen)


def test_what_has_unclear_terms_is_not_in_the_package() -> None:
    for item in registry.sources().values():
        if item.fetch_only:
            assert set(item.tables) <= {"embedded/ewif.csv"}, item.id
        assert item.fetch_only or "AGPL" not in item.licence
        assert item.fetch_only or "none" not in item.licence


def read_package_file(name: str) -> str:
    return files("marlin.data").joinpath(name).read_text(encoding="utf-8")


@pytest.mark.mirror
def test_every_file_of_the_mirror_is_registered(mirror: str) -> None:
    if mirror.startswith("http"):
        pytest.skip("lists a folder")
    there = {str(p.relative_to(mirror)) for p in Path(mirror).rglob("*") if p.is_file()}
    registered = {f.mirror_path for item in registry.sources().values() for f in item.files}
    assert {path for path in there if not path.endswith("PROVENANCE.md")} <= registered


@pytest.mark.mirror
def test_whole_mirror_over_http(
    mirror: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Everything that the mirror holds, over the loopback interface: every file is verified."""
    if mirror.startswith("http"):
        pytest.skip("serves a folder")
    cache = tmp_path / "cache"
    for base in serve(Quiet, Path(mirror)):
        run_cli(monkeypatch, "--all", "--mirror", base, "--cache", cache)
    printed = capsys.readouterr().out
    mirrored = [item for item in registry.sources().values() if item.in_mirror]
    files = [(item, file) for item in mirrored for file in item.files]
    assert f"{len(files)} files of {len(mirrored)} data sets" in printed
    assert "azure-llm-2024-rows: left out, the internet alone has it" in printed
    for item, file in files:
        path = target(cache, item, file.name)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        assert origin_of(cache, item.id) == "mirror"
    stray = [p for p in cache.rglob(".*") if p.is_file()]
    assert stray == []
