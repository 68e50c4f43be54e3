"""A user's request trace: read in pieces, every bad row kept by line, statistics of the rest."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from marlin.data.tables import nearest
from marlin.errors import UserError

REQUIRED = ("timestamp", "prompt_tokens", "output_tokens")
NAMES = ("origin", "model", "service")
LAYOUTS = (  # columns of well-known public traces, by the names used here
    {"TIMESTAMP": "timestamp", "ContextTokens": "prompt_tokens",
     "GeneratedTokens": "output_tokens"},
    {"Timestamp": "timestamp", "Request tokens": "prompt_tokens",
     "Response tokens": "output_tokens", "Model": "model"},
)  # fmt: skip
ONE_NAME = "all"  # of a column that the trace does not have
MAX_TOKENS = 10_000_000
MAX_NAMES = 1000
PIECE_BYTES = 16 << 20
PIECE_ROWS = 400_000
SLOT_S = 900
MICRO = 1_000_000
LATEST_S = 4_102_444_800  # 2100-01-01
EPOCH_UNITS = ((1e11, MICRO), (1e14, 1e3), (1e17, 1.0), (np.inf, 1e-3))  # s, ms, us, ns
DATE_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d %H:%M", "%Y-%m-%d")
FIRST_SHOWN = 20
BINS_PER_DOUBLING = 8
MERGE_EVERY = 20


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its line in the file (a row number for Parquet) and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Trace:
    """What a trace holds. Columns that it does not have count as one name, `all`.

    `stamps_us` are the sorted UTC arrivals of each service (microseconds since 1970), `counts`
    rows (slot, origin, model, service, requests) by quarter hour since 1970, `prompt` and
    `output` rows (service, tokens, requests), `joint` rows (service, prompt, output, requests) with
    both lengths in bins of an eighth of a power of two.
    """

    columns: tuple[str, ...]
    rows: int
    bad: tuple[BadRow, ...]
    bad_counts: dict[str, int]
    notes: tuple[str, ...]
    counts: pl.DataFrame
    prompt: pl.DataFrame
    output: pl.DataFrame
    joint: pl.DataFrame
    stamps_us: dict[str, np.ndarray]

    @property
    def good(self) -> int:
        """Rows that can be used."""
        return self.rows - sum(self.bad_counts.values())

    @property
    def first_us(self) -> int:
        """First arrival, microseconds since 1970."""
        return min(int(stamps[0]) for stamps in self.stamps_us.values())

    @property
    def last_us(self) -> int:
        """Last arrival, microseconds since 1970."""
        return max(int(stamps[-1]) for stamps in self.stamps_us.values())

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last arrival."""
        return (self.last_us - self.first_us) / MICRO

    def names(self, column: str) -> list[str]:
        """Names in `origin`, `model` or `service`, sorted."""
        return sorted(self.counts[column].unique().to_list())


def read(path: Path, progress: bool | None = None) -> Trace:
    """Read a CSV (`.csv`) or Parquet (`.parquet`) trace in pieces.

    Raises:
        UserError: no such file, not such a file, or columns that are missing, doubled or of a
            wrong type. Bad rows raise nothing: they are in the result.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: give the path of a CSV or Parquet file")
    if not path.is_file():
        raise UserError(f"{path} is not a file: give the path of a CSV or Parquet file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read: check its permissions")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty: it must begin with a line of column names")
    pieces = _parquet(path) if _is_parquet(path) else _csv(path)
    shown = sys.stderr.isatty() if progress is None else progress
    reader = _Reader(path)
    with tqdm(desc=path.name, unit="row", unit_scale=True, disable=not shown) as bar:
        for piece in pieces:
            reader.add(piece)
            bar.update(piece.height)
    return reader.result()


class _Reader:
    """Sums over pieces; memory grows with distinct values, and with 8 bytes a row for stamps."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.last_us, self.unsorted = path, 0, None, 0
        self.bad: list[BadRow] = []
        self.bad_counts: Counter[str] = Counter()
        tables = ("counts", "prompt", "output", "joint")
        self.sums: dict[str, list[pl.DataFrame]] = {name: [] for name in tables}
        self.stamps: dict[str, list[np.ndarray]] = {}
        self.per_unit: float | None = None
        self.with_offset = self.without_offset = 0
        self.columns: tuple[str, ...] = ()

    def add(self, piece: pl.DataFrame) -> None:
        """Take in rows: `line`, REQUIRED, some of NAMES and, of CSV, `malformed`."""
        self.rows += piece.height
        self.columns = tuple(c for c in (*REQUIRED, *NAMES) if c in piece.columns)
        if not piece.height:
            return
        piece, stamp_reason = self._stamps(piece)
        piece = piece.with_columns(
            _whole(piece, name).alias(f"{name}_n") for name in ("prompt_tokens", "output_tokens")
        )
        reasons = [pl.col("malformed")] if "malformed" in piece.columns else []
        reasons.append(stamp_reason)
        reasons += [_token_reason(piece, name) for name in ("prompt_tokens", "output_tokens")]
        missing = [name for name in NAMES if name not in piece.columns]
        for name in (name for name in NAMES if name in piece.columns):
            piece = piece.with_columns(pl.col(name).str.strip_chars())
            reasons.append(_name_reason(piece, name))
        piece = piece.with_columns(pl.lit(ONE_NAME).alias(name) for name in missing)
        piece = piece.with_columns(reason=pl.coalesce(reasons))
        self._keep_bad(piece.filter(pl.col("reason").is_not_null()))
        good = piece.filter(pl.col("reason").is_null())
        if good.height:
            self._sum(good)

    def _stamps(self, piece: pl.DataFrame) -> tuple[pl.DataFrame, pl.Expr]:
        stamps = piece["timestamp"]
        empty = pl.col("timestamp").is_null()
        if isinstance(stamps.dtype, pl.Datetime):
            if stamps.dtype.time_zone:
                stamps = stamps.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            time = stamps.dt.cast_time_unit("us").cast(pl.Int64)
        elif stamps.dtype.is_numeric():
            time = self._epoch(stamps.cast(pl.Float64, strict=False))
        else:
            empty = empty | (pl.col("timestamp") == "")
            number = stamps.str.strip_chars().cast(pl.Float64, strict=False)
            time = self._epoch(number)
            if number.null_count() == len(number):
                time = self._dates(stamps)
            elif number.null_count():
                time = time.zip_with(number.is_not_null(), self._dates(stamps))
        known = pl.col("t").is_between(0, LATEST_S * MICRO, closed="left")
        reason = (
            pl.when(empty)
            .then(pl.lit("timestamp is empty"))
            .when(pl.col("t").is_null())
            .then(pl.lit("timestamp is neither ISO 8601 nor seconds since 1970"))
            .when(~known)
            .then(pl.lit("timestamp is not between 1970 and 2100"))
        )
        return piece.with_columns(t=time), reason

    def _epoch(self, number: pl.Series) -> pl.Series:
        """Microseconds of numbers since 1970; the first number of the file tells their unit."""
        finite = number.filter(number.is_finite())
        if self.per_unit is None and len(finite):
            first = abs(float(finite[0]))
            self.per_unit = next(unit for below, unit in EPOCH_UNITS if first < below)
        micro = (number * (self.per_unit or MICRO)).round()
        limit = 2.0 * LATEST_S * MICRO
        outside = ~micro.is_finite() | (micro.abs() > limit)
        return micro.set(outside.fill_null(False), -1.0).cast(pl.Int64)

    def _dates(self, stamps: pl.Series) -> pl.Series:
        text = stamps.str.strip_chars().str.replace("T", " ", literal=True)
        zulu = text.str.ends_with("Z")
        text = text.str.strip_suffix("Z")
        time = pl.Series([None] * len(text), dtype=pl.Int64)
        for form in DATE_FORMATS:
            if time.null_count() == 0:
                break
            parsed = text.str.to_datetime(form, time_unit="us", strict=False)
            if isinstance(parsed.dtype, pl.Datetime) and parsed.dtype.time_zone:
                parsed = parsed.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            found = parsed.cast(pl.Int64)
            new = int((time.is_null() & found.is_not_null()).sum())
            utc = int((time.is_null() & found.is_not_null() & zulu).sum())
            offsets = new if "%z" in form else utc
            self.with_offset += offsets
            self.without_offset += new - offsets
            time = time.zip_with(time.is_not_null(), found)
        return time

    def _keep_bad(self, bad: pl.DataFrame) -> None:
        if not bad.height:
            return
        for reason, number in bad["reason"].value_counts().iter_rows():
            self.bad_counts[reason] += number
        room = FIRST_SHOWN - len(self.bad)
        for line, reason in bad.select("line", "reason").head(room).iter_rows():
            self.bad.append(BadRow(line, reason))

    def _sum(self, good: pl.DataFrame) -> None:
        stamps = good["t"].to_numpy()
        earlier = int((np.diff(stamps) < 0).sum())
        if self.last_us is not None:
            earlier += int(stamps[0] < self.last_us)
        self.unsorted, self.last_us = self.unsorted + earlier, int(stamps[-1])
        keys = ["slot", *NAMES]
        slots = good.with_columns(slot=pl.col("t") // (SLOT_S * MICRO))
        self._push("counts", slots.group_by(keys).agg(requests=pl.len()))
        for name in ("prompt", "output"):
            tokens = pl.col(f"{name}_tokens_n").alias("tokens")
            grouped = good.group_by("service", tokens).agg(requests=pl.len())
            self._push(name, grouped)
        bins = [
            (pl.col(f"{name}_tokens_n").log(2) * BINS_PER_DOUBLING)
            .floor()
            .cast(pl.Int32)
            .alias(name)
            for name in ("prompt", "output")
        ]
        self._push("joint", good.group_by("service", *bins).agg(requests=pl.len()))
        for (service,), part in good.select("t", "service").group_by("service"):
            self.stamps.setdefault(str(service), []).append(part["t"].to_numpy())

    def _push(self, name: str, frame: pl.DataFrame) -> None:
        self.sums[name].append(frame)
        if len(self.sums[name]) >= MERGE_EVERY:
            self.sums[name] = [_merged(self.sums[name])]
        if name != "counts":
            return
        for column in NAMES:
            number = self.sums[name][0][column].n_unique()
            if number > MAX_NAMES:
                raise UserError(
                    f"{self.path}: column {column} has more than {MAX_NAMES} different names: "
                    "group them before"
                )

    def result(self) -> Trace:
        if not self.rows:
            raise UserError(f"{self.path} has column names but no row of data")
        if not self.stamps:
            first = self.bad[0]
            raise UserError(
                f"{self.path} has no usable row: all {self.rows} are bad, the first at line "
                f"{first.line}: {first.reason}"
            )
        notes = []
        if self.unsorted:
            notes.append(f"{self.unsorted} rows are earlier than the row before: sorted by time")
        if self.with_offset and self.without_offset:
            notes.append(
                f"{self.without_offset} timestamps have no offset and are read as UTC, "
                f"{self.with_offset} have one"
            )
        sums = {name: _merged(frames) for name, frames in self.sums.items()}
        stamps = {}
        for service in sorted(self.stamps):
            stamps[service] = np.sort(np.concatenate(self.stamps.pop(service)))
        return Trace(
            columns=self.columns,
            rows=self.rows,
            bad=tuple(self.bad),
            bad_counts=dict(sorted(self.bad_counts.items())),
            notes=tuple(notes),
            stamps_us=stamps,
            **sums,
        )


def quantile(tokens: pl.DataFrame, service: str, probabilities: np.ndarray) -> np.ndarray:
    """Quantiles of token counts of one service, linear between ordered requests (as NumPy's)."""
    part = tokens.filter(pl.col("service") == service).sort("tokens")
    values, last = part["tokens"].to_numpy(), np.cumsum(part["requests"].to_numpy())
    position = probabilities * (last[-1] - 1)
    below, above = np.floor(position), np.ceil(position)
    low = values[np.searchsorted(last, below, side="right")]
    high = values[np.searchsorted(last, above, side="right")]
    return low + (position - below) * (high - low)


def _merged(frames: list[pl.DataFrame]) -> pl.DataFrame:
    whole = pl.concat(frames)
    keys = [name for name in whole.columns if name != "requests"]
    return whole.group_by(keys).agg(pl.col("requests").sum()).sort(keys)


def _whole(piece: pl.DataFrame, name: str) -> pl.Expr:
    """Whole numbers of a column, null where there is none; 12.0 counts as 12."""
    column = pl.col(name)
    if piece.schema[name].is_integer():
        return column.cast(pl.Int64, strict=False)
    if piece.schema[name] == pl.String:
        column = column.str.strip_chars()
        direct = column.cast(pl.Int64, strict=False)
        if not piece.select((direct.is_null()).any()).item():
            return direct
        column = column.cast(pl.Float64, strict=False)
    column = column.cast(pl.Float64, strict=False)
    fits = column.is_finite() & (column == column.round()) & (column.abs() <= 1e18)
    return pl.when(fits).then(column).cast(pl.Int64, strict=False)


def _token_reason(piece: pl.DataFrame, name: str) -> pl.Expr:
    value, empty = pl.col(f"{name}_n"), pl.col(name).is_null()
    if piece.schema[name] == pl.String:
        empty = empty | (pl.col(name).str.strip_chars() == "")
    return (
        pl.when(empty)
        .then(pl.lit(f"{name} is empty"))
        .when(value.is_null())
        .then(pl.lit(f"{name} is not a whole number"))
        .when(value < 0)
        .then(pl.lit(f"{name} is negative"))
        .when(value == 0)
        .then(pl.lit(f"{name} is zero (a request that failed?)"))
        .when(value > MAX_TOKENS)
        .then(pl.lit(f"{name} is above {MAX_TOKENS}"))
    )


def _name_reason(piece: pl.DataFrame, name: str) -> pl.Expr:
    distinct = piece[name].unique().drop_nulls().to_list()
    odd = [text for text in distinct if text and not (text.isprintable() and len(text) <= 64)]
    return (
        pl.when(pl.col(name).is_null() | (pl.col(name) == ""))
        .then(pl.lit(f"{name} is empty"))
        .when(pl.col(name).is_in(odd))
        .then(pl.lit(f"{name} is longer than 64 characters or not printable"))
    )


def _columns(path: Path, found: list[str]) -> dict[str, str]:
    """Which columns of the file are read, as {name in the file: name here}."""
    doubled = [name for name, number in Counter(found).items() if number > 1]
    if doubled:
        raise UserError(f"{path} has two columns called {doubled[0]!r}: keep one")
    for layout in LAYOUTS:
        if {key for key, name in layout.items() if name in REQUIRED} <= set(found):
            return {key: name for key, name in layout.items() if key in found}
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        if len(found) == 1:
            for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
                if mark in found[0]:
                    raise UserError(f"{path} is separated by {word}: save it with commas")
        have = ", ".join(name if name.isprintable() else repr(name) for name in found[:12])[:200]
        raise UserError(
            f"{path} has no column {missing[0]!r}{nearest(missing[0], found)}; it must have "
            f"{', '.join(REQUIRED)}, and it has {have}"
        )
    return {name: name for name in found if name in (*REQUIRED, *NAMES)}


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as stream:
        return path.suffix.lower() in (".parquet", ".pq") or stream.read(4) == b"PAR1"


def _parquet(path: Path) -> Iterator[pl.DataFrame]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = _columns(path, list(file.schema_arrow.names))
        line = 1
        for batch in file.iter_batches(batch_size=PIECE_ROWS, columns=list(names)):
            frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch]))).rename(names)
            for name, dtype in frame.schema.items():
                frame = frame.with_columns(_typed(path, name, dtype))
            yield frame.with_row_index("line", line)
            line += frame.height
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"{path} is not a readable Parquet file ({type(error).__name__}): write it again"
        ) from error


def _typed(path: Path, name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if name in NAMES and isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    numeric = dtype.is_numeric()
    if name in REQUIRED and (numeric or dtype == pl.String):
        return column.cast(pl.Float64) if dtype.is_decimal() else column
    if name == "timestamp" and isinstance(dtype, pl.Datetime):
        return column
    wanted = "text" if name in NAMES else "whole numbers"
    wanted = "a time or a number" if name == "timestamp" else wanted
    raise UserError(f"{path}: column {name} is of type {dtype}: it must be {wanted}")


def _csv(path: Path) -> Iterator[pl.DataFrame]:
    with path.open("rb") as stream:
        header = stream.readline(1 << 20)
        if header[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UserError(f"{path} is UTF-16: save it as UTF-8")
        try:
            cells = next(csv.reader([header.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"{path}: line 1 is not column names in UTF-8: give a CSV or Parquet file"
            ) from error
        found = [cell.strip() for cell in cells]
        names = _columns(path, found)
        line, rest = 2, b""
        while True:
            block = stream.read(PIECE_BYTES)
            text = rest + block
            cut = text.rfind(b"\n") + 1 if block else len(text)
            piece, rest = text[:cut], text[cut:]
            if piece:
                if not piece.endswith(b"\n"):
                    piece += b"\n"
                frame = _fast(piece, found) if b'"' not in piece else None
                yield _picked(_slow(piece, found) if frame is None else frame, names, line)
                line += piece.count(b"\n")
            if not block:
                return


def _picked(frame: pl.DataFrame, names: dict[str, str], line: int) -> pl.DataFrame:
    columns = [*names, *(["malformed"] if "malformed" in frame.columns else [])]
    frame = frame.with_row_index("line", line) if "line" not in frame.columns else frame
    offset = 0 if "malformed" not in frame.columns else line
    frame = frame.with_columns(pl.col("line") + offset) if offset else frame
    return frame.select("line", *columns).rename(names)


def _fast(piece: bytes, found: list[str]) -> pl.DataFrame | None:
    """Rows of well-formed lines, or nothing where only `_slow` can tell what is wrong."""
    keys = [f"c{index}" for index in range(len(found))]
    try:
        frame = pl.read_csv(
            io.BytesIO(piece),
            has_header=False,
            schema=dict.fromkeys(keys, pl.String),
            quote_char=None,
        )
    except pl.exceptions.PolarsError:
        return None
    if frame.height != piece.count(b"\n") or frame[keys[-1]].null_count():
        return None
    frame.columns = found
    return frame


def _slow(piece: bytes, found: list[str]) -> pl.DataFrame:
    """Rows line by line, `line` from 0 and `malformed` with what is wrong; blank lines are left."""
    rows: list[list[str | None]] = []
    lines: list[int] = []
    malformed: list[str | None] = []
    for index, raw in enumerate(piece.split(b"\n")[:-1]):
        if not raw.strip():
            continue
        cells: list[str] = []
        reason = None
        try:
            cells = next(csv.reader([raw.decode().rstrip("\r")], strict=True), [])
        except UnicodeDecodeError:
            reason = "the line is not UTF-8"
        except csv.Error:
            reason = "quotes are not closed in the line"
        if reason is None and len(cells) != len(found):
            what = "fewer" if len(cells) < len(found) else "more"
            reason = f"the line has {what} fields than there are columns"
        rows.append([*cells] if reason is None else [None] * len(found))
        lines.append(index)
        malformed.append(reason)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(found, pl.String), orient="row")
    return frame.with_columns(
        pl.Series("line", lines, dtype=pl.Int64),
        pl.Series("malformed", malformed, dtype=pl.String),
    )
