"""Download one file over http: resumed where it broke off and retried with patience."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from time import sleep as _sleep
from typing import TYPE_CHECKING, BinaryIO

from marlin.errors import UserError

if TYPE_CHECKING:
    import requests

ATTEMPTS = 5
FIRST_WAIT_S = 0.5
WAIT_LIMIT_S = 120.0
TIMEOUT_S = (10.0, 30.0)
SLOW_WINDOW_S = 30.0
SLOW_BYTES_PER_S = 1000.0
CHUNK = 1 << 20
BAR_FROM = 4 << 20
BROKE_OFF = "the connection broke off"
GONE = (404, 410)
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class InterruptedDownloadError(UserError):
    """A download that was given up: what has arrived is good to go on from."""


class _DroppedError(Exception):
    """One attempt that broke off; its text says why, `wait_s` when the server wants the next."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def download(
    session: requests.Session, url: str, part: BinaryIO, *, resume: bool, progress: bool
) -> bool | None:
    """Append to `part` (opened for appending) what it lacks of `url`.

    Returns whether bytes that an earlier call had left were kept, None where the server has no
    such file. `resume` says that those may be kept: the caller must then verify the content, and
    download anew if it is wrong. An attempt that breaks off is followed by another, from the byte
    it reached if the server can, at most ATTEMPTS times without a megabyte of progress. Raises
    InterruptedDownloadError after that, and where the server wants a longer wait than WAIT_LIMIT_S.
    """
    if not resume:
        part.truncate(0)
    kept = _size(part) > 0
    failures, furthest, validator = 0, _size(part), None
    while True:
        if validator is None and not resume:
            part.truncate(0)
        try:
            response = _get(session, url, _size(part), validator)
            with response:
                if response.status_code in GONE:
                    return None
                if _already_whole(response, part):
                    return kept
                if response.status_code != 206:
                    part.truncate(0)
                    kept = False
                validator = _validator(response)
                _receive(response, part, progress)
            return kept
        except _DroppedError as reason:
            if _size(part) >= furthest + CHUNK:
                failures, furthest = 0, _size(part)
            failures += 1
            if failures >= ATTEMPTS:
                raise InterruptedDownloadError(
                    f"cannot download {url} ({reason}, {ATTEMPTS} attempts): try again later, or "
                    "use a mirror (MARLIN_MIRROR)"
                ) from reason
            wait_s = FIRST_WAIT_S * 2 ** (failures - 1) if reason.wait_s is None else reason.wait_s
            if wait_s > WAIT_LIMIT_S:
                raise InterruptedDownloadError(
                    f"{url} asks to wait for {wait_s:.0f} s ({reason}): try again after that"
                ) from reason
            _sleep(wait_s)


def _get(
    session: requests.Session, url: str, offset: int, validator: str | None
) -> requests.Response:
    """Ask for `url` from byte `offset`; return an answer that has content or is final."""
    import requests

    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise UserError(f"{url} is not an http address ({error}): correct it") from error
    except requests.RequestException as error:
        raise _DroppedError(_words(error)) from error
    code = response.status_code
    if code in TRY_AGAIN:
        response.close()
        raise _DroppedError(f"HTTP {code}", _retry_after(response))
    if code == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
        response.close()
        raise UserError(f"{url} answers with another part than asked for: use another mirror")
    if code not in (200, 206, 416, *GONE):
        response.close()
        raise UserError(f"{url} answers HTTP {code}: use another mirror or ask who runs that one")
    return response


def _already_whole(response: requests.Response, part: BinaryIO) -> bool:
    """Whether a refused range says that `part` is all there is; one that is longer is emptied."""
    if response.status_code != 416:
        return False
    if response.headers.get("Content-Range", "") == f"bytes */{_size(part)}":
        return True
    part.truncate(0)
    raise _DroppedError("the file there is shorter than the part here")


def _receive(response: requests.Response, part: BinaryIO, progress: bool) -> None:
    """Append the body of `response` to `part`; _DroppedError where it ends early or is too slow."""
    declared = response.headers.get("Content-Length")
    expected = int(declared) if declared else None
    start = _size(part)
    bar = None
    if progress and expected and expected >= BAR_FROM:
        from tqdm import tqdm

        bar = tqdm(
            total=start + expected,
            initial=start,
            unit="B",
            unit_scale=True,
            desc=response.url.rpartition("/")[2],
            leave=False,
        )
    try:
        for data in _chunks(response):
            part.write(data)
            if bar:
                bar.update(len(data))
    finally:
        part.flush()
        if bar:
            bar.close()
    if expected is not None and _size(part) - start != expected:
        raise _DroppedError(BROKE_OFF)


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives; _DroppedError where the connection fails or crawls."""
    import urllib3

    since, arrived = monotonic(), 0
    while True:
        try:
            data = response.raw.read1(CHUNK)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _DroppedError(_words(error)) from error
        if not data:
            return
        yield data
        arrived += len(data)
        elapsed = monotonic() - since
        if elapsed >= SLOW_WINDOW_S:
            if arrived < SLOW_BYTES_PER_S * elapsed:
                raise _DroppedError(f"slower than {SLOW_BYTES_PER_S:.0f} bytes a second")
            since, arrived = monotonic(), 0


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds that the server asks to wait: a number or a date in its header."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds()) if when.tzinfo else None


def _validator(response: requests.Response) -> str | None:
    """Return what proves to the server that the rest is asked of the same content."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _size(part: BinaryIO) -> int:
    part.flush()
    return os.fstat(part.fileno()).st_size


def _words(error: Exception) -> str:
    import urllib3

    broke_off = isinstance(error, urllib3.exceptions.ProtocolError)
    return BROKE_OFF if broke_off else type(error).__name__
