"""A trace and a fleet of the user's own: what is refused, and how they become a scenario."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marlin import cli, compose, plan
from marlin.data import own_fleet, own_trace, own_workload
from marlin.data.prepare import prepare
from marlin.errors import UserError

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
TRACE, FLEET = EXAMPLES / "trace.csv", EXAMPLES / "fleet.yaml"
HEADER = "timestamp,prompt_tokens,output_tokens\n"
OVERRIDES = [
    "scenario=fortnight",
    "method=round_robin",
    "budget=tiny",
    "workload=own",
    f"workload.path='{TRACE}'",
    "fleet=own",
    f"fleet.path='{FLEET}'",
]


def written(folder: Path, content: str | bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


BAD_LINES = {
    b"x,1,1": "timestamp is neither",
    b",1,1": "timestamp is empty",
    b"nan,1,1": "not between 1970",
    b"1e300,1,1": "not between 1970",
    b"5,-1,1": "prompt_tokens is negative",
    b"5,1,0": "output_tokens is zero",
    b"5,inf,1": "not a whole number",
    b"5,1.5,1": "not a whole number",
    b"5,99999999999999999999999,1": "not a whole number",
    b"5,20000000,1": "above",
    b"5,,1": "prompt_tokens is empty",
    b"5,1": "fewer fields",
    b"5,1,1,1": "more fields",
    b"5,\xff,1": "not UTF-8",
    b'5,"1,1': "quotes",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, line: bytes) -> None:
    content = HEADER.encode() + b"1,10,10\n\n" + line + b"\n2.5,10,10\n"
    found = own_trace.read(written(tmp_path, content))
    assert [bad.line for bad in found.bad] == [4]
    assert BAD_LINES[line] in found.bad[0].reason
    assert (found.rows, found.good, found.span_s) == (3, 2, 1.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (HEADER, "no row"),
        (HEADER.replace(",", ";"), "semicolons"),
        (HEADER.replace("output", "prompt"), "two columns"),
        ("timestamp,promt_tokens,output_tokens\n1,1,1\n", "nearest is 'promt_tokens'"),
        (HEADER.encode("utf-16"), "UTF-16"),
        (b"\x00\xff\xfe\n", "not column names"),
        (b"PAR1 but no table", "Parquet"),
        (HEADER + "a,b,c\n", "no usable row"),
    ],
)
def test_a_file_that_is_no_trace(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        own_trace.read(written(tmp_path, content))
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(UserError):
            own_trace.read(path)


def test_times_of_every_kind_are_the_same_instant(tmp_path: Path) -> None:
    texts = (
        ["2024-01-01T00:00:00Z", "2024-01-01T01:00:01+01:00"],
        ["2024-01-01 00:00:00", "2024-01-01 00:00:01.0000000"],
        ["1704067200", "1704067201"],
        ["1704067200000", "1704067201000"],
    )
    for first, second in texts:
        path = written(tmp_path, f"\ufeff{HEADER}{second},1,1\n{first},2,2\n")
        found = own_trace.read(path)
        assert (found.first_us, found.span_s) == (1_704_067_200_000_000, 1.0)
        assert found.notes == ("1 rows are earlier than the row before: sorted by time",)


def test_parquet_is_read_as_csv_is_and_its_types_are_checked(tmp_path: Path) -> None:
    frame = pl.read_csv(TRACE, try_parse_dates=True)
    frame.write_parquet(tmp_path / "trace.parquet")
    a, b = own_trace.read(TRACE), own_trace.read(tmp_path / "trace.parquet")
    for name in ("counts", "prompt", "output"):
        assert getattr(a, name).equals(getattr(b, name))
    frame.with_columns(prompt_tokens=pl.lit([1])).write_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(UserError, match="prompt_tokens is of type List"):
        own_trace.read(tmp_path / "wrong.parquet")


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = own_trace.read(TRACE)
    monkeypatch.setattr(own_trace, "PIECE_BYTES", 1000)
    pieces = own_trace.read(TRACE)
    assert pieces.counts.equals(whole.counts)
    assert pieces.rows == whole.rows
    values = pl.read_csv(TRACE).filter(pl.col("service") == "chat")["prompt_tokens"].to_numpy()
    q = np.linspace(0, 1, 101)
    np.testing.assert_allclose(own_trace.quantile(pieces.prompt, "chat", q), np.quantile(values, q))


def test_variability_within_hours_leaves_the_daily_cycle_out() -> None:
    busy, quiet = np.arange(100) * 1_000_000, 3_600_000_000 + np.arange(30) * 100_000_000
    assert own_workload.arrival_cv2(np.concatenate([busy, quiet])) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("hours", "clock"), [(1, "shape"), (30, "day"), (168, "week")])
def test_a_short_trace_says_what_is_done_and_keeps_its_level(
    tmp_path: Path, capsys: pytest.CaptureFixture, hours: int, clock: str
) -> None:
    rows = "".join(f"{1_704_067_200 + 60 * k},{k % 7 + 1},5\n" for k in range(60 * hours))
    path = written(tmp_path, HEADER + rows)
    changed = [f"workload.path='{path}'", "workload.noise_sd=0"]
    dataset = prepare(compose.compose([*OVERRIDES, *changed]))
    assert own_workload.CLOCKS[clock] in capsys.readouterr().err
    time = pd.DatetimeIndex(dataset["time"].to_numpy())
    total = dataset["arrival_rate_per_s"].sum(["origin", "model", "service"]).to_numpy()
    assert total[time < time[0] + pd.Timedelta(days=7)].mean() == pytest.approx(1 / 60, rel=0.03)
    assert dataset["service"].values.tolist() == ["all"]
    assert dataset.sizes["origin"] == 12


def test_both_examples_run_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for path, word in ((TRACE, "2000 usable"), (FLEET, "3 sites")):
        monkeypatch.setattr(sys, "argv", [])
        cli.main(["validate", str(path), "--output", str(tmp_path)])
        assert word in capsys.readouterr().out
        assert (tmp_path / f"{path.stem}.summary.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MARLIN_CACHE", str(tmp_path / "cache"))
    from marlin.evaluate import evaluate
    from marlin.task import load_run, make_scheduler

    run = compose.compose(OVERRIDES)
    task = load_run(run)
    assert task.world.services == ("chat", "search")
    assert task.world.origins == ("britain", "canada", "southeast-asia")
    scheduler = make_scheduler(run)
    scheduler.reset(task.world, 0)
    episodes, _, _ = evaluate(task, scheduler, 0)
    assert (episodes["served"] > 0).all()
    assert np.isfinite(episodes[["ttft_s", "carbon_kg", "water_l", "cost_usd"]]).all(axis=None)


def test_an_edited_file_changes_fingerprint_and_plan(tmp_path: Path) -> None:
    path = written(tmp_path, TRACE.read_text())
    same = [*OVERRIDES, f"workload.path='{path}'"]
    run = compose.compose(same)
    assert compose.fingerprint(run) == compose.fingerprint(compose.compose(OVERRIDES))
    before = compose.own_files(same[-1:])
    path.write_text(TRACE.read_text() + "2025-03-10T23:59:59Z,5,5,canada,chat\n")
    assert compose.own_files(same[-1:]) != before
    assert compose.fingerprint(compose.compose(same)) != compose.fingerprint(run)
    with pytest.raises(UserError, match="not the file"):
        own_workload.load(run)
    assert plan.load("tiny").cells


def test_names_and_bad_rows_are_refused_when_used(tmp_path: Path) -> None:
    text = TRACE.read_text()
    for old, new, message in (
        ("britain", "britan", "nearest is 'britain'"),
        ("canada,chat", "canada,", "bad rows"),
    ):
        path = written(tmp_path, text.replace(old, new))
        run = compose.compose([*OVERRIDES, f"workload.path='{path}'"])
        with pytest.raises(UserError, match=message):
            own_workload.load(run)
    skipping = compose.compose(
        [*OVERRIDES, f"workload.path='{path}'", "workload.skip_bad_rows=true"]
    )
    own = own_workload.load(skipping)
    assert own is not None
    assert own.skipped == text.count("canada,chat")


FLEET_MISTAKES = {
    "zone: GB": ("zone: FR", "nearest is 'GB'"),
    "network: North Europe": ("network: North Urope", "nearest is 'North Europe'"),
    "cooling: tower": ("cooling: tent", "cooling"),
    "h100x8: 12": ("h100x8: -1", "-1 nodes"),
    "base_idle_w: 1200": ("base_idle_w: .inf", "finite"),
    "gpus: 8": ("gpus: 8, gpus: 4", "twice"),
    "name: example": ("nome: example", "nearest is 'name'"),
    "sites:": ("sites: {}\nothers:", "list"),
    "name: dublin": ("name: *nobody", "alias"),
    "node_types:": ("\tnode_types:", "YAML"),
}


@pytest.mark.parametrize("old", FLEET_MISTAKES)
def test_a_wrong_field_is_named_by_its_line(tmp_path: Path, old: str) -> None:
    new, message = FLEET_MISTAKES[old]
    text = FLEET.read_text()
    line = text[: text.index(old)].count("\n") + 1
    _, bad = own_fleet.check(written(tmp_path, text.replace(old, new, 1), "fleet.yaml"))
    assert any(message in field.reason for field in bad)
    assert any(abs(field.line - line) <= 1 for field in bad)


def test_anchors_merge_and_bombs_end(tmp_path: Path) -> None:
    text = FLEET.read_text().replace("nodes: {h100x8: 12}", "nodes: &n {h100x8: 12}", 1)
    text = text.replace("nodes: {h100x8: 20}", "nodes: {<<: *n}", 1)
    assert own_fleet.read(written(tmp_path, text)).sites[1].nodes == {"h100x8": 12}
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join(['*' + chr(97 + k)] * 9)}]\n" for k in range(9)
    )
    for content in (bomb, "a: &a [*a]", "[" * 2000, "null", "- 1", "a: 2024-13-45"):
        with pytest.raises(UserError):
            own_fleet.read(written(tmp_path, content))


@pytest.mark.parametrize("number", [1, 30])
def test_sizes_of_fleets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, number: int
) -> None:
    lines = FLEET.read_text().splitlines(keepends=True)
    site = next(line for line in lines if "dublin" in line)
    sites = [site.replace("dublin", f"site-{k}") for k in range(number)]
    path = written(tmp_path, "".join(lines[: lines.index(site)] + sites), "fleet.yaml")
    assert len(compose.compose([*OVERRIDES, f"fleet.path='{path}'"]).fleet.sites) == number
    monkeypatch.setattr(sys, "argv", [])
    cli.main(["validate", str(path)])
    assert f"{number} sites in 1 zones" in capsys.readouterr().out


def check_no_traceback(folder: Path, content: bytes, name: str) -> None:
    path = written(folder, content, name)
    try:
        own_trace.read(path, progress=False) if name != "fleet.yaml" else own_fleet.read(path)
    except UserError as error:
        message = str(error)
    else:
        return
    assert len(message) < 3000


CELL = st.sampled_from(
    ["1", "-1", "0", "", "nan", "inf", "1e400", "2024-01-01T00:00:00+25:00", '"', "\ufeff", "x",
     "9" * 40, "\x00", "2024-02-30", "1,1", "\r", "\n", ";", "\udcff"]
)  # fmt: skip
ROWS = st.lists(st.lists(CELL, max_size=5).map(",".join), max_size=6).map("\n".join)
CSV = st.tuples(st.sampled_from([HEADER, HEADER.strip() + ",origin\n", ""]), ROWS).map(
    lambda parts: "".join(parts).encode("utf-8", "surrogateescape")
)
SPOTS = st.lists(st.tuples(st.integers(0, 800), st.binary(max_size=6)), max_size=5)


def spoilt(spots: list[tuple[int, bytes]], content: bytes) -> bytes:
    for place, new in spots:
        content = content[:place] + new + content[place + len(new) :]
    return content


TEXTS = st.one_of(CSV, st.binary(max_size=200), SPOTS.map(lambda s: spoilt(s, TRACE_BYTES)))
TOKENS = st.sampled_from(
    [" ", "\n", "  ", "- ", ": ", "a", "name", "sites", "&a ", "*a", "<<", "{", "}", "[", "]",
     "null", "~", "\t", "|", ">", "!!int ", "!!python/name:os.system ", "2024-13-45", ".nan", "'",
     "%", "? ", "1_0:99", "0b2", "\x07"]
)  # fmt: skip
FLEETS = st.one_of(
    st.lists(TOKENS, max_size=40).map(lambda parts: "".join(parts).encode()),
    st.binary(max_size=200),
    SPOTS.map(lambda s: spoilt(s, FLEET.read_bytes())),
    st.tuples(st.integers(0, 800), TOKENS).map(
        lambda p: FLEET.read_bytes()[: p[0]] + p[1].encode() + FLEET.read_bytes()[p[0] :]
    ),
)
TRACE_BYTES = TRACE.read_bytes()[:900]
RELAXED: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=150, **RELAXED)
@given(content=TEXTS)
def test_no_csv_ends_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    check_no_traceback(tmp_path, content, "trace.csv")


@settings(max_examples=150, **RELAXED)
@given(content=FLEETS)
def test_no_yaml_ends_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    check_no_traceback(tmp_path, content, "fleet.yaml")


@pytest.mark.extended
@settings(max_examples=10_000, **RELAXED)
@given(content=TEXTS)
def test_ten_thousand_csv_files(tmp_path: Path, content: bytes) -> None:
    check_no_traceback(tmp_path, content, "trace.csv")


@pytest.mark.extended
@settings(max_examples=10_000, **RELAXED)
@given(content=FLEETS)
def test_ten_thousand_yaml_files(tmp_path: Path, content: bytes) -> None:
    check_no_traceback(tmp_path, content, "fleet.yaml")
