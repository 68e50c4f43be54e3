"""Downloads from a server at fault: what arrives is whole and right, or nothing is left."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from marlin.data import download as downloading
from marlin.data import fetch as fetching
from marlin.data import registry
from marlin.data.fetch import cached, fetch, seen, target
from marlin.data.registry import Source, SourceFile
from marlin.errors import UserError

BODY = bytes(range(256)) * 12_000
OTHER = bytes(reversed(BODY))
TAG = '"one"'
Answer = Callable[["Faulty"], None]


class Faulty(http.server.BaseHTTPRequestHandler):
    """Gives one answer of a script after the other, and the last one for ever after."""

    script: list[Answer]
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.headers.get("Range", ""), self.headers.get("If-Range")))
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        answer(self)

    def give(self, status: int, body: bytes, upto: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:upto])

    @property
    def offset(self) -> int:
        return int(self.headers.get("Range", "bytes=0-")[6:-1])

    def log_message(self, format: str, *args: object) -> None:
        pass


def whole(server: Faulty) -> None:
    server.give(200, BODY, ETag=TAG)


def wrong(server: Faulty) -> None:
    server.give(200, OTHER, ETag='"two"')


def rest(server: Faulty, upto: int | None = None) -> None:
    """The part asked for, as a server with ranges gives it."""
    if not server.offset:
        server.give(200, BODY, upto, ETag=TAG)
    elif server.offset >= len(BODY):
        server.give(416, b"", Content_Range=f"bytes */{len(BODY)}")
    else:
        span = f"bytes {server.offset}-{len(BODY) - 1}/{len(BODY)}"
        server.give(206, BODY[server.offset :], upto, Content_Range=span, ETag=TAG)


def drops(upto: int) -> Answer:
    """Breaks off after `upto` bytes of what was asked for."""
    return lambda server: rest(server, upto)


def status(code: int, **headers: str) -> Answer:
    return lambda server: server.give(code, b"no", None, **headers)


def crawls(server: Faulty) -> None:
    """Never ends: a byte now and then."""
    server.send_response(200)
    server.send_header("Content-Length", str(len(BODY)))
    server.end_headers()
    try:
        for _ in range(200):
            server.wfile.write(b"x")
            time.sleep(0.02)
    except OSError:
        return


class Site:
    """A server under test, the requests it got, and a source whose only file it has."""

    def __init__(self, server: http.server.ThreadingHTTPServer, cache: Path) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}/thing.bin"
        self.cache = cache
        self.asked: list[tuple[str, str | None]] = []
        self.item = self.source()

    def source(self, sha256: str | None = None, size: int = len(BODY), url: str = "") -> Source:
        sha256 = hashlib.sha256(BODY).hexdigest() if sha256 is None else sha256
        file = SourceFile("thing", "thing.bin", size, sha256, "thing.bin", url or self.url)
        about = ("thing", "A thing", "v1", "CC0", "nobody", "key", "nowhere", "")
        return Source(*about, (), "A test.", False, False, (file,))

    def bring(self) -> Path:
        return fetch(["thing"], "primary", None, self.cache, progress=False)["thing"][0]

    def fails(self) -> str:
        with pytest.raises(UserError) as error:
            self.bring()
        assert not target(self.cache, self.item, "thing.bin").exists()
        return str(error.value)

    def left(self) -> list[str]:
        return sorted(p.name for p in self.cache.rglob("*") if p.is_file())


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which the tests do not sit through."""
    slept: list[float] = []
    monkeypatch.setattr(downloading, "_sleep", slept.append)
    return slept


@pytest.fixture
def site(tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    result = Site(server, tmp_path / "cache")
    Faulty.asked = result.asked
    monkeypatch.setattr(registry, "sources", lambda: {"thing": result.item})
    yield result
    server.shutdown()
    server.server_close()


def play(*answers: Answer) -> None:
    Faulty.script = list(answers)


def test_goes_on_where_the_connection_dropped(site: Site) -> None:
    play(drops(1_000_000), drops(1_500_000), rest)
    assert site.bring().read_bytes() == BODY
    assert site.asked == [("", None), ("bytes=1000000-", TAG), ("bytes=2500000-", TAG)]
    assert site.left() == ["origin.txt", "thing.bin"]


def test_server_without_ranges_starts_again(site: Site) -> None:
    play(drops(1_000_000), whole)
    assert site.bring().read_bytes() == BODY


def test_file_that_changed_in_between_is_taken_anew(site: Site) -> None:
    play(lambda server: server.give(200, OTHER, 2_000_000, ETag='"two"'), whole)
    assert site.bring().read_bytes() == BODY


def test_large_part_is_kept_for_the_next_call(site: Site) -> None:
    play(drops(2_000_000), drops(0))
    assert "5 attempts" in site.fails()
    assert site.left() == [".thing.bin.part"]
    del site.asked[:]
    play(rest)
    assert site.bring().read_bytes() == BODY
    assert site.asked == [("bytes=2000000-", None)]
    assert site.left() == ["origin.txt", "thing.bin"]


def test_small_part_is_not_kept(site: Site) -> None:
    play(drops(1000), drops(0))
    assert "the connection broke off, 5 attempts" in site.fails()
    assert site.left() == []


def test_part_of_another_content_is_found_out_and_replaced(site: Site) -> None:
    part = target(site.cache, site.item, ".thing.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(OTHER[:1_500_000])
    play(rest)
    assert site.bring().read_bytes() == BODY
    assert [asked for asked, _ in site.asked] == ["bytes=1500000-", ""]


@pytest.mark.parametrize("length", [len(BODY), len(BODY) + 5])
def test_part_that_is_whole_or_too_long(site: Site, length: int) -> None:
    part = target(site.cache, site.item, ".thing.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes((BODY + BODY)[:length])
    play(rest)
    assert site.bring().read_bytes() == BODY
    assert site.left() == ["origin.txt", "thing.bin"]


def test_wrong_bytes_leave_nothing(site: Site) -> None:
    play(wrong)
    message = site.fails()
    assert hashlib.sha256(OTHER).hexdigest()[:12] in message
    assert site.left() == []


def test_damaged_gzip_leaves_nothing(site: Site) -> None:
    packed = gzip.compress(BODY, 1)
    site.item = site.source(url=f"{site.url}.gz")
    play(lambda server: server.give(200, packed[: len(packed) // 2]))
    assert "damaged or truncated gzip" in site.fails()
    play(lambda server: server.give(200, packed))
    assert site.bring().read_bytes() == BODY


def test_missing_file_is_not_asked_for_twice(site: Site) -> None:
    play(status(404))
    assert "is gone (HTTP 404): use a mirror instead" in site.fails()
    assert (len(site.asked), site.left()) == (1, [])


def test_refusal_is_not_asked_for_twice(site: Site) -> None:
    play(status(403))
    assert "answers HTTP 403" in site.fails()
    assert (len(site.asked), site.left()) == (1, [])


def test_busy_server_is_waited_for(site: Site, waits: list[float]) -> None:
    date = formatdate(time.time() + 60, usegmt=True)
    play(status(429, Retry_After="7"), status(503, Retry_After=date), status(500), whole)
    assert site.bring().read_bytes() == BODY
    assert waits[0] == 7
    assert 50 < waits[1] <= 60
    assert waits[2] == 4 * downloading.FIRST_WAIT_S


def test_server_that_stays_busy(site: Site, waits: list[float]) -> None:
    play(status(429))
    assert "HTTP 429, 5 attempts" in site.fails()
    assert waits == [0.5, 1.0, 2.0, 4.0]
    assert site.left() == []


def test_wait_that_is_too_long_is_reported(site: Site, waits: list[float]) -> None:
    play(status(429, Retry_After="3600"))
    assert "asks to wait for 3600 s (HTTP 429)" in site.fails()
    assert waits == []


def test_server_that_crawls(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "SLOW_WINDOW_S", 0.1)
    monkeypatch.setattr(downloading, "ATTEMPTS", 2)
    play(crawls)
    assert "slower than 1000 bytes a second, 2 attempts" in site.fails()
    assert site.left() == []


def test_server_that_says_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT_S", (0.2, 0.1))
    monkeypatch.setattr(downloading, "ATTEMPTS", 2)
    play(lambda _: time.sleep(0.5))
    assert "ReadTimeout" in site.fails()
    assert site.left() == []


def test_file_without_a_registered_checksum_has_its_own_kept(site: Site) -> None:
    site.item = site.source(sha256="", size=0)
    play(drops(1_000_000), rest)
    path = site.bring()
    assert seen(site.cache, site.item) == {"thing.bin": hashlib.sha256(BODY).hexdigest()}
    assert cached(site.cache, "thing", ["thing.bin"]) == [path]
    path.write_bytes(OTHER)
    with pytest.raises(UserError, match="does not have the checksum seen by the fetch"):
        cached(site.cache, "thing", ["thing.bin"])
    assert site.bring().read_bytes() == BODY


def test_file_without_a_checksum_goes_on_from_no_earlier_call(site: Site) -> None:
    site.item = site.source(sha256="", size=0)
    part = target(site.cache, site.item, ".thing.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(OTHER[:1_500_000])
    play(rest)
    assert site.bring().read_bytes() == BODY


def test_known_size_is_checked_where_the_checksum_is_not_known(site: Site) -> None:
    site.item = site.source(sha256="", size=5)
    play(whole)
    assert f"has {len(BODY)} bytes but the registry expects 5" in site.fails()
    assert site.left() == []


def test_two_calls_at_once_bring_one_file(site: Site) -> None:
    play(rest)
    found: list[bytes] = []
    calls = [
        threading.Thread(target=lambda: found.append(site.bring().read_bytes())) for _ in range(2)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert found == [BODY, BODY]
    assert len(site.asked) == 1
    assert site.left() == ["origin.txt", "thing.bin"]


def test_ctrl_c_keeps_a_large_part(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    play(rest)
    monkeypatch.setattr(fetching, "_expand", stop)
    with pytest.raises(KeyboardInterrupt):
        site.bring()
    assert site.left() == [".thing.bin.part"]
    monkeypatch.undo()
    monkeypatch.setattr(registry, "sources", lambda: {"thing": site.item})
    assert site.bring().read_bytes() == BODY
