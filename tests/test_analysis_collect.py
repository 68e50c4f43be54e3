from __future__ import annotations

from pathlib import Path

import analysis_results
import pandas as pd
import pytest

from marlin.analysis.collect import collect
from marlin.entry import results_entry
from marlin.errors import UserError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return analysis_results.write(tmp_path / "results", seeds=2, days=2)


def edit(path: Path, **columns: object) -> None:
    pd.read_parquet(path).assign(**columns).to_parquet(path, index=False)


def test_every_row_of_every_run_once_sorted_and_repeatable(results: Path) -> None:
    collect(results)
    episodes = pd.read_parquet(results / "episodes.parquet")
    assert len(episodes) == len(analysis_results.METHODS) * 2 * 2
    keys = ["scenario", "method", "ablation", "seed", "day"]
    assert episodes[keys].equals(episodes[keys].sort_values(keys).reset_index(drop=True))
    raw = pd.read_parquet(results / "runs/year/nsga2/none/seed-1/episodes.parquet")
    own = episodes[(episodes["method"] == "nsga2") & (episodes["seed"] == 1)]
    assert own["carbon_kg"].sum() == raw["carbon_kg"].sum()
    assert (
        len(pd.read_parquet(results / "epochs.parquet"))
        == len(analysis_results.METHODS) * 2 * 96 * 12
    )
    learning = pd.read_parquet(results / "learning.parquet")
    assert set(learning["method"]) == {"marlin"}
    assert learning["training_epochs"].dtype.kind == "i"
    names = ("episodes", "epochs", "learning")
    before = [(results / f"{name}.parquet").read_bytes() for name in names]
    collect(results)
    assert before == [(results / f"{name}.parquet").read_bytes() for name in names]
    assert not list(results.glob(".*"))


def test_no_method_that_learns_gives_an_empty_curve(results: Path) -> None:
    for seed in (0, 1):
        path = results / f"runs/year/marlin/none/seed-{seed}/learning.parquet"
        pd.read_parquet(path).iloc[:0].to_parquet(path, index=False)
    collect(results)
    assert pd.read_parquet(results / "learning.parquet").empty


def test_a_gap_is_an_error_that_names_the_file(results: Path) -> None:
    edit(results / "runs/year/nearest/none/seed-1/episodes.parquet", water_l=[1.0, None])
    with pytest.raises(UserError, match=r"nearest/none/seed-1/episodes.parquet: column 'water_l'"):
        collect(results)


def test_ttft_may_be_missing_only_where_a_site_has_no_request(results: Path) -> None:
    path = results / "runs/year/nearest/none/seed-0/epochs.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, ["ttft_s", "requests_per_s"]] = [float("nan"), 0.0]
    frame.to_parquet(path, index=False)
    collect(results)
    frame.loc[0, "requests_per_s"] = 1.0
    frame.to_parquet(path, index=False)
    with pytest.raises(UserError, match="column 'ttft_s' has no value in row 0"):
        collect(results)


def test_a_missing_column_file_or_tree_is_an_error(results: Path, tmp_path: Path) -> None:
    path = results / "runs/year/nsga2/none/seed-0/episodes.parquet"
    whole = pd.read_parquet(path)
    whole.drop(columns="cost_usd").to_parquet(path, index=False)
    with pytest.raises(UserError, match="column 'cost_usd' is missing"):
        collect(results)
    path.unlink()
    with pytest.raises(UserError, match=r"nsga2/none/seed-0/episodes.parquet does not exist"):
        collect(results)
    with pytest.raises(UserError, match="holds no runs"):
        collect(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "columns", [{"seed": 7}, {"method": "nsga3"}, {"scenario": "other"}, {"ablation": "veto"}]
)
def test_rows_of_another_run_are_an_error(results: Path, columns: dict[str, object]) -> None:
    edit(results / "runs/year/nsga2/none/seed-1/episodes.parquet", **columns)
    with pytest.raises(UserError, match="rows of another run"):
        collect(results)


def test_the_same_cell_twice_is_an_error(results: Path) -> None:
    path = results / "runs/year/nsga2/none/seed-1/episodes.parquet"
    frame = pd.read_parquet(path)
    pd.concat([frame, frame]).to_parquet(path, index=False)
    with pytest.raises(UserError, match="repeat the key"):
        collect(results)


def test_command_line_speaks_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["collect", str(tmp_path)])
    with pytest.raises(SystemExit, match="1"):
        results_entry(collect)
    assert "holds no runs" in capsys.readouterr().err
