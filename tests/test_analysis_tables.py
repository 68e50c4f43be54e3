from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import analysis_results
import numpy as np
import pandas as pd
import pytest
from scipy.stats import trim_mean

from marlin.analysis import comparison, numbers, summary, tables
from marlin.analysis.collect import collect
from marlin.analysis.display import decimals, number, tex, with_interval
from marlin.analysis.numbers import change_words, data_words, outcome
from marlin.analysis.schema import method_name, model_name, order_methods, parts_of
from marlin.analysis.statistics import Estimate
from marlin.errors import UserError

ROOT = Path(__file__).parents[1]
OBJECTIVES = analysis_results.OBJECTIVES
METHOD_OF = {method_name(method): method for method in analysis_results.METHODS}
SCALES = {"ttft_s": 1.0, "carbon_kg": 1e-3, "water_l": 1e-3, "cost_usd": 1.0}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = analysis_results.write(tmp_path_factory.mktemp("tables") / "results")
    collect(folder)
    tables.build(folder)
    return folder


@pytest.fixture
def episodes(results: Path) -> pd.DataFrame:
    return pd.read_parquet(results / "episodes.parquet")


def load(results: Path, name: str) -> dict:
    return json.loads((results / "tables" / f"{name}.json").read_text(encoding="utf-8"))


def cells(episodes: pd.DataFrame, method: str, objective: str) -> pd.DataFrame:
    own = episodes[episodes["method"] == method]
    return own.pivot(index="seed", columns="day", values=objective)


def ratio(episodes: pd.DataFrame, method: str, other: str, objective: str) -> float:
    own, base = cells(episodes, method, objective), cells(episodes, other, objective)
    return float(trim_mean((own / base).to_numpy().ravel(), 0.25))


def test_agreements_are_means_over_seeds(results: Path) -> None:
    rows = load(results, "agreement")["rows"]
    assert [row[0] for row in rows] == ["TTFT", "Carbon", "Water", "Energy cost"]
    assert [row[1] for row in rows] == ["0.200", "0.250", "0.300", "0.250"]
    assert rows[0][2] == "51.0 [50.0, 52.0]"
    assert [as_number(row[3]) for row in rows] == [30.0, 10.0, 10.0, 20.0]
    empty = tables.agreement_table(pd.read_parquet(results / "agreement.parquet").iloc[:0])
    assert empty.rows == []


def best_baseline(episodes: pd.DataFrame, objective: str) -> str:
    methods = [m for m in episodes["method"].unique() if not m.startswith("marlin")]
    return min(methods, key=lambda m: ratio(episodes, m, "round_robin", objective))


def as_number(text: str) -> float:
    return float(text.split(" [")[0].replace("−", "-").replace("\u202f", ""))


def half_a_unit(text: str) -> float:
    """Half of the last printed digit: what correct rounding may take away."""
    shown = text.split(" [")[0]
    places = len(shown.split(".")[1]) if "." in shown else 0
    return 0.5 * 10.0**-places + 1e-9


def test_each_printed_objective_is_the_interquartile_mean_of_raw_episodes(
    results: Path, episodes: pd.DataFrame
) -> None:
    table = load(results, "main")
    assert len(table["rows"]) == len(analysis_results.METHODS)
    for row in table["rows"]:
        method = METHOD_OF[row[0]]
        for index, objective in enumerate(OBJECTIVES):
            shown = row[1 + 2 * index]
            raw = trim_mean(cells(episodes, method, objective).to_numpy().ravel(), 0.25)
            assert abs(as_number(shown) - raw * SCALES[objective]) <= half_a_unit(shown)
            change = row[2 + 2 * index]
            best = best_baseline(episodes, objective)
            if method == best:
                assert change == "–"
            else:
                expected = 100 * (ratio(episodes, method, best, objective) - 1)
                assert abs(as_number(change) - expected) <= half_a_unit(change)
        own = episodes[episodes["method"] == method]
        served = 100 * own["served"].sum() / own["requests"].sum()
        assert abs(as_number(row[-2]) - served) <= half_a_unit(row[-2])
        assert row[-1] == "3 × 6"


def test_bold_marks_the_lowest_value_of_each_objective(
    results: Path, episodes: pd.DataFrame
) -> None:
    table = load(results, "main")
    marked = {(METHOD_OF[table["rows"][y][0]], OBJECTIVES[(x - 1) // 2]) for y, x in table["bold"]}
    lowest = set()
    for objective in OBJECTIVES:
        means = {
            m: trim_mean(cells(episodes, m, objective).to_numpy().ravel(), 0.25)
            for m in episodes["method"].unique()
        }
        lowest.add((min(means, key=means.__getitem__), objective))
    assert marked == lowest


def test_each_printed_reduction_is_recomputed(results: Path, episodes: pd.DataFrame) -> None:
    """Claims are held against the best published system, reductions against the best of all."""
    claims = {"ttft_s": 18, "carbon_kg": 33, "water_l": 43, "cost_usd": 11}
    numbers = json.loads((results / "numbers.json").read_text(encoding="utf-8"))["claims"]
    tested, overall = load(results, "claims")["rows"], load(results, "reductions")["rows"]
    for row, other, objective in zip(tested, overall, OBJECTIVES, strict=True):
        variant = f"marlin_{objective.split('_')[0]}"
        best = best_baseline(episodes, objective)
        # NSGA-II is the only published system of the tree.
        assert (row[1], METHOD_OF[row[2]]) == ("MARLIN", "nsga2")
        assert (other[1], METHOD_OF[other[2]]) == ("MARLIN", best)
        assert row[3] == f"≥ {claims[objective]}"
        words = numbers[objective]["one_objective"]
        for against, shown, printed in (
            ("nsga2", row[4:6], words["against_best"]),
            (best, other[3:5], words["against_all"]),
        ):
            for text, method in zip(shown, (variant, "marlin"), strict=True):
                expected = 100 * (1 - ratio(episodes, method, against, objective))
                assert abs(as_number(text) - expected) <= half_a_unit(text)
            assert printed["percent"] == shown[0].split(" [")[0]
        measured = 100 * (1 - ratio(episodes, variant, "nsga2", objective))
        assert (row[6] == "met") == (measured >= claims[objective])
        against = 100 * (1 - ratio(episodes, variant, "round_robin", objective))
        printed = as_number(words["against_round_robin"]["percent"])
        assert abs(printed - against) <= 0.05 + 1e-9
        assert words["verdict"] == row[6]
        assert numbers[objective]["best_of_all"] == method_name(best)


def test_without_published_systems_claims_are_held_against_any_baseline(
    episodes: pd.DataFrame,
) -> None:
    frame = episodes[episodes["method"] != "nsga2"]
    assert summary.claim_baselines(frame) == summary.best_baselines(frame)
    assert summary.claim_baselines(episodes) == dict.fromkeys(OBJECTIVES, "nsga2")


def test_a_front_is_measured_against_what_the_bounds_allow(
    results: Path, episodes: pd.DataFrame
) -> None:
    """Every objective of the box [0, 2] is at least 0.3; carbon + water at least 1.2."""
    free = 1.7**4 - 1.7**2 * (1.2 - 2 * 0.3) ** 2 / 2
    shown = {row[0]: row[1:] for row in load(results, "fronts")["rows"]}
    sides = [
        cells(episodes, "nearest", o) / cells(episodes, "weighted_round_robin", o)
        for o in OBJECTIVES
    ]
    volume = np.prod([np.maximum(0.0, 2.0 - side) for side in sides], axis=0)
    expected = 100 * trim_mean(volume.ravel(), 0.25) / free
    assert as_number(shown["Nearest"][1]) == pytest.approx(expected, abs=0.4)
    assert as_number(shown["MARLIN"][1]) > as_number(shown["NSGA-II"][1])
    assert (shown["MARLIN"][0], shown["Nearest"][0]) == ("5", "1")
    order = [as_number(row[2]) for row in load(results, "fronts")["rows"]]
    assert order == sorted(order, reverse=True)


def test_leaders_and_their_margins_are_recomputed(results: Path, episodes: pd.DataFrame) -> None:
    """Among all: MARLIN's variants lead, and the next is another system, never another variant."""
    rows = [row for row in load(results, "leaders")["rows"] if row[0] == "all schedulers"]
    for row, objective in zip(rows, OBJECTIVES, strict=True):
        best = f"marlin_{objective.split('_')[0]}"
        following = best_baseline(episodes, objective)
        assert row[2:4] == [method_name(best), method_name(following)]
        expected = 100 * (1 - ratio(episodes, best, following, objective))
        assert abs(as_number(row[4]) - expected) <= half_a_unit(row[4])
        under_nearest = 100 * (1 - ratio(episodes, best, "nearest", objective))
        assert abs(as_number(row[6]) - under_nearest) <= half_a_unit(row[6])
    # One published system alone has none to lead before.
    assert not [row for row in load(results, "leaders")["rows"] if row[0] == "published systems"]
    as_run = episodes[episodes["method"] == "nsga2"].assign(method="nsga2_as_run")
    helix = episodes[episodes["method"] == "nearest"].assign(method="helix_as_run")
    frame = pd.concat([episodes, as_run, helix], ignore_index=True)
    table = comparison.leaders(frame, tables.read_bounds(results))
    own = table[table["field"] == comparison.PUBLISHED_SYSTEMS].set_index("objective")
    assert tuple(own.loc["ttft_s", ["best", "next"]]) == ("helix_as_run", "nsga2")
    assert own.loc["carbon_kg", "next"] == "helix_as_run"
    assert own.loc["carbon_kg", "best"] in ("nsga2", "nsga2_as_run")
    assert numbers.leaders_sentence(table).startswith(
        "Of the published systems the best are Helix as run on time to first token ("
    )


def test_improvement_is_counted_over_all_pairs(results: Path, episodes: pd.DataFrame) -> None:
    pairs = comparison.improvements(summary.main_runs(episodes)).set_index(["method", "other"])
    assert not {method for pair in pairs.index for method in pair} & {"marlin_ttft", "marlin_cost"}
    assert pairs.loc[("marlin", "round_robin"), "improvement"] == 1.0
    for method, other in pairs.index:
        back = pairs.loc[(other, method), "improvement"]
        assert pairs.loc[(method, other), "improvement"] + back == pytest.approx(1.0)
    first = load(results, "improvements")["rows"][0]
    assert first == ["MARLIN", "1.00", "6", "0"]


def test_decision_times_are_those_of_the_package(results: Path) -> None:
    measured = comparison.decision_times(["nsga2"]).set_index("sites")
    row = next(row for row in load(results, "decisions")["rows"] if row[0] == "NSGA-II")
    assert as_number(row[1]) == pytest.approx(1e3 * measured.loc[12, "median_s"], abs=0.051)
    assert as_number(row[4]) == pytest.approx(1e3 * measured.loc[64, "p95_s"], abs=0.051)
    known = {path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")}
    assert set(comparison.decision_times(sorted(known))["method"]) >= {"marlin", "mpc", "helix"}
    assert comparison.decision_times(["mine"]).empty


def test_printed_errors_of_the_serving_model_are_recomputed(results: Path) -> None:
    silicon = pd.read_parquet(results / "serving/silicon.parquet")
    silicon = silicon[(silicon["excluded"] == "") & (silicon["split"] == "held out")]
    error = 100 * (silicon["predicted_tpot_s"] / silicon["measured_tpot_s"] - 1).abs()
    for row in load(results, "calibration")["rows"]:
        own = (silicon["model"].map(model_name) == row[0]) & (silicon["gpu"] == row[1])
        assert int(row[4]) == own.sum()
        assert abs(as_number(row[7]) - error[own].median()) <= 0.05 + 1e-9
        assert abs(as_number(row[8]) - error[own].quantile(0.9)) <= 0.05 + 1e-9
    shown = {(row[0], row[1]): row[-1] for row in load(results, "profiles")["rows"]}
    assert shown["Llama 3.1 70B", "A100"] == "0"
    numbers = json.loads((results / "numbers.json").read_text(encoding="utf-8"))
    assert numbers["calibration"]["untested"] == "Llama 3.1 70B on A100"
    assert abs(float(numbers["calibration"]["all"]["tpot_median_percent"]) - error.median()) < 0.06


def test_printed_errors_of_power_are_recomputed(results: Path) -> None:
    power = pd.read_csv(results / "serving/power.csv")
    for row in load(results, "power")["rows"]:
        own = power[(power["gpu"] == row[0]) & (power["moe"] == ("experts" in row[1]))]
        assert (int(row[2]), int(row[3])) == (len(own), own["runs"].sum())
        assert abs(as_number(row[4]) - 100 * own["w_median"].median()) <= 0.05 + 1e-9
        assert abs(as_number(row[5]) - 100 * own["w_median"].max()) <= 0.05 + 1e-9
    numbers = json.loads((results / "numbers.json").read_text(encoding="utf-8"))["power"]
    dense = power[~power["moe"]]
    assert int(numbers["configurations"]) == len(dense)
    assert abs(float(numbers["w_median_percent"]) - 100 * dense["w_median"].median()) < 0.06
    assert float(numbers["w_median_percent"]) <= 8


def test_tex_holds_the_same_strings_and_csv_the_full_precision(
    results: Path, episodes: pd.DataFrame
) -> None:
    for name in (
        "main",
        "claims",
        "fronts",
        "references",
        "calibration",
        "profiles",
        "power",
        "sources",
    ):
        table = load(results, name)
        text = (results / "tables" / f"{name}.tex").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.endswith(r" \\")]
        bold = {tuple(place) for place in table["bold"]}
        expected = [table["columns"], *table["rows"]]
        for y, (line, row) in enumerate(zip(lines, expected, strict=True), start=-1):
            for x, (found, cell) in enumerate(
                zip(line.removesuffix(r" \\").split(" & "), row, strict=True)
            ):
                assert (r"\textbf{" in found) == ((y, x) in bold)
                assert re.sub(r"\\textbf\{([^}]*)\}", r"\1", found) == tex(cell)
    frame = pd.read_csv(results / "tables/main.csv")
    row = frame[(frame["method"] == "marlin") & (frame["objective"] == "carbon_kg")].iloc[0]
    raw = trim_mean(cells(episodes, "marlin", "carbon_kg").to_numpy().ravel(), 0.25)
    assert row["value"] == pytest.approx(raw, rel=1e-12)


def test_equal_inputs_give_equal_bytes(results: Path) -> None:
    files = [*sorted((results / "tables").iterdir()), results / "numbers.json"]
    before = [path.read_bytes() for path in files]
    tables.build(results)
    assert before == [path.read_bytes() for path in files]


def test_tables_do_not_import_a_plotting_library() -> None:
    code = (
        "import sys, marlin.analysis.tables; "
        "print({'matplotlib', 'seaborn', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_words_follow_the_numbers() -> None:
    falls = change_words(Estimate(12.34, 10.0, 14.0))
    assert falls["phrase"] == "a reduction of 12.3\u00a0%"
    assert falls["interval_phrase"] == "(10.0 to 14.0\u00a0%)"
    rises = change_words(Estimate(-3.46, -5.0, -2.0))
    assert rises["phrase"] == "an increase of 3.5\u00a0%"
    assert rises["interval_phrase"] == "(2.0 to 5.0\u00a0%)"
    assert change_words(Estimate(1.0, 1.0, 1.0))["interval_phrase"] == ""
    assert "not measured years" in data_words("embedded")["abstract_sentence"]
    assert data_words("mirror")["measured"] == "yes"
    assert data_words("embedded and mirror")["measured"] == "no"


def test_the_outcome_is_told_as_it_is() -> None:
    def told(*verdicts: str) -> str:
        entries = {
            objective: {"in_sentence": objective, "one_objective": {"verdict": verdict}}
            for objective, verdict in zip(OBJECTIVES, verdicts, strict=True)
        }
        return outcome(entries)["sentences"]

    assert told(*["met"] * 4) == "All claimed reductions are met."
    assert told(*["not met"] * 4) == "None of the claimed reductions is reproduced."
    mixed = told("met", "not met", "open", "met")
    assert "is met for ttft_s and cost_usd." in mixed
    assert "inside the interval, for water_l." in mixed
    assert "not reproduced for carbon_kg." in mixed


def test_verdicts() -> None:
    assert summary.verdict(18, Estimate(18.0, 17.0, 19.0)) == "met"
    assert summary.verdict(18, Estimate(17.0, 15.0, 18.5)) == "open"
    assert summary.verdict(18, Estimate(17.0, 15.0, 17.9)) == "not met"


def test_display_of_numbers() -> None:
    assert number(-0.04, 1) == "0.0"
    assert number(-12.25, 1) == "−12.2"
    assert number(12345.6, 0) == "12\u202f346"
    assert [decimals(v) for v in (0.4231, 42.31, 4231.0, 99999.0)] == [4, 2, 0, 0]
    assert with_interval(Estimate(1.0, 0.5, 1.25), 2) == "1.00 [0.50, 1.25]"
    assert with_interval(Estimate(1.0, 1.0, 1.0), 2) == "1.00"
    assert tex("50 % & a_b −1") == r"50 \% \& a\_b $-$1"


def test_ablations_are_paired_with_the_full_method(episodes: pd.DataFrame) -> None:
    full = episodes[episodes["method"] == "marlin"]
    worse = full.assign(ablation="no_veto", carbon_kg=full["carbon_kg"] * 1.1)
    frame = pd.concat([episodes, worse], ignore_index=True)
    table = summary.ablations(frame).set_index("objective")
    assert table.loc["carbon_kg", "change_percent"] == pytest.approx(10.0)
    assert table.loc["water_l", "change_percent"] == 0.0
    shown = tables.ablations_table(frame)
    # The fourth root of 1.1.
    assert shown.rows == [["MARLIN", "no_veto", "–", "10.0", "–", "–", "2.4"]]


def test_forms_as_run_are_held_against_the_common_form(episodes: pd.DataFrame) -> None:
    assert tables.regimes_table(episodes).rows == []
    own = episodes[episodes["method"].isin(["nsga2", "marlin_carbon"])]
    forms = {"nsga2": "nsga2_as_run", "marlin_carbon": "marlin_as_run_carbon"}
    as_run = own.assign(
        method=own["method"].map(forms),
        ttft_s=2.0 * own["ttft_s"],
        dropped=0.25 * own["requests"],
    )
    frame = pd.concat([episodes, as_run], ignore_index=True)
    rows = tables.regimes_table(frame).rows
    assert rows == [
        ["NSGA-II", "100.0", "–", "–", "–", "0.00", "25.00"],
        ["MARLIN carbon", "100.0", "–", "–", "–", "0.00", "25.00"],
    ]


def test_scenarios_are_shown_apart_and_pooled_for_the_claims(episodes: pd.DataFrame) -> None:
    second = episodes.assign(scenario="b", carbon_kg=episodes["carbon_kg"] * 2)
    frame = pd.concat([episodes, second], ignore_index=True)
    table = tables.main_table(frame)
    assert table.columns[:2] == ["Scenario", "Scheduler"]
    assert len(table.rows) == 2 * len(analysis_results.METHODS)
    alone, pooled = (
        summary.reductions(runs, summary.best_baselines(runs)) for runs in (episodes, frame)
    )
    # Twice the same ratios: the same middle half.
    assert pooled["reduction_percent"].to_numpy() == pytest.approx(
        alone["reduction_percent"].to_numpy(), abs=0.3
    )


def test_what_is_missing_is_named(results: Path, episodes: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no round_robin"):
        summary.main_runs(episodes[episodes["method"] != "round_robin"])
    holes = episodes.drop(episodes[episodes["method"] == "nearest"].index[:1])
    with pytest.raises(UserError, match=r"'nearest'.* is not complete"):
        tables.main_table(holes)
    with pytest.raises(UserError, match=r"episodes.parquet does not exist"):
        tables.build(tmp_path)
    without = episodes[~episodes["method"].str.startswith("marlin")]
    assert tables.claims_table(without).rows == []
    with pytest.raises(UserError, match="lack one of them"):
        tables.claims_table(episodes[episodes["method"] != "marlin_water"])


def test_sources_that_say_nothing_are_an_error(tmp_path: Path) -> None:
    from marlin.analysis.setting import data_sources

    with pytest.raises(UserError, match="prepare the scenarios first"):
        data_sources(tmp_path)
    analysis_results.sources(tmp_path, "embedded", "a")
    assert data_sources(tmp_path)[0] == "embedded"
    analysis_results.sources(tmp_path, "mirror", "b")
    with pytest.raises(UserError, match="mixes"):
        data_sources(tmp_path)
    analysis_results.sources(tmp_path, "hearsay", "b")
    with pytest.raises(UserError, match="does not name its data sources"):
        data_sources(tmp_path)


def test_prose_numbers_count_what_is_there(results: Path) -> None:
    numbers = json.loads((results / "numbers.json").read_text(encoding="utf-8"))
    assert (numbers["seeds"], numbers["days"], numbers["baseline_count"]) == ("3", "6", "six")
    assert numbers["utilisation_percent"] == "38"
    assert numbers["setting"]["sites"] == "12"
    assert "serves 99.80\u00a0% of requests" in numbers["served_sentence"]
    assert numbers["first_checkpoint"] == "2\u202f560"
    met = sum(entry["one_objective"]["verdict"] == "met" for entry in numbers["claims"].values())
    assert ["none", "one", "two", "three", "four"][met] == numbers["outcome"]["met_count"]
    assert not re.search(r"\d\.\d{6}", json.dumps(numbers))


def test_latency_table_shows_the_tail_and_the_error_of_the_fluid_model(
    results: Path, episodes: pd.DataFrame
) -> None:
    table = load(results, "latency")
    assert [row[0] for row in table["rows"]] == [
        method_name(m) for m in order_methods(set(episodes["method"]))
    ]
    own = episodes[episodes["method"] == "nearest"]
    row = next(row for row in table["rows"] if row[0] == "Nearest")
    assert row[1] == number(own["ttft_s"].mean(), 3)
    assert row[3] == number(3 * own["ttft_s"].mean(), 3)
    assert row[6:] == ["90.0", "2.0", number(-10.0, 1), "1.0"]


def test_without_replay_there_is_no_latency_table(episodes: pd.DataFrame) -> None:
    assert tables.latency_table(episodes.drop(columns="ttft_p95_s")).rows == []


def test_variants_are_named_and_placed_after_their_method() -> None:
    assert method_name("nsga2_water") == "NSGA-II water"
    assert method_name("my_own_cost") == "my own cost"
    assert method_name("carbon_greedy") == "Carbon-greedy"
    assert parts_of("marlin_nash_ttft") == ("marlin_nash", "ttft")
    assert parts_of("mpc") == ("mpc", "")
    methods = {"marlin", "mpc_cost", "mpc_ttft", "slit", "mpc", "mine", "marlin_ttft"}
    assert order_methods(methods) == [
        "slit", "mpc", "mpc_ttft", "mpc_cost", "mine", "marlin", "marlin_ttft",
    ]  # fmt: skip


def test_scores_are_recomputed_and_ordered(results: Path, episodes: pd.DataFrame) -> None:
    table = load(results, "scores")
    shown = [as_number(row[1].split(" [")[0]) for row in table["rows"]]
    assert shown == sorted(shown)
    row = next(row for row in table["rows"] if row[0] == "Carbon-greedy")
    base = {o: cells(episodes, "weighted_round_robin", o) for o in OBJECTIVES}
    own = {o: cells(episodes, "carbon_greedy", o) for o in OBJECTIVES}
    score = np.prod([own[o] / base[o] for o in OBJECTIVES], axis=0) ** 0.25
    assert as_number(row[1]) == pytest.approx(trim_mean(score.ravel(), 0.25), abs=6e-4)
    gaps = [100 * (1 - own[o] / base[o]) / (1 - analysis_results.BOUND) for o in OBJECTIVES]
    for text, gap in zip(row[2:6], gaps, strict=True):
        assert as_number(text.split(" [")[0]) == pytest.approx(
            trim_mean(gap.to_numpy().ravel(), 0.25), abs=0.06
        )
    assert as_number(row[6]) == pytest.approx(
        np.mean([trim_mean(gap.to_numpy().ravel(), 0.25) for gap in gaps]), abs=0.06
    )


def test_plans_that_know_the_truth_are_compared_under_the_judge_of_schedulers(
    results: Path, episodes: pd.DataFrame
) -> None:
    # By replay (1 - 0.51) / (1 - 0.3) and (1 - 0.65) / (1 - 0.3) of the way.
    rows = [["MPC that knows the epoch", *["70.0"] * 5], ["Best static split", *["50.0"] * 5]]
    assert load(results, "references")["rows"] == rows
    bounds = tables.read_bounds(results)
    fluid = comparison.references(episodes.drop(columns="ttft_p95_s"), bounds)
    np.testing.assert_allclose(fluid["gap_balanced_percent"], [100 * 0.6 / 0.7, 100 * 0.5 / 0.7])
    old = bounds[(bounds["judge"] == "fluid") | (bounds["kind"] == "bound")]
    with pytest.raises(UserError, match="no mpc_perfect for ttft under replay"):
        comparison.references(episodes, old)


def test_a_score_below_its_bound_is_an_error(results: Path, episodes: pd.DataFrame) -> None:
    bounds = tables.read_bounds(results)
    bounds["value"] *= 2.5  # 0.75 of round robin, which several variants are below
    with pytest.raises(UserError, match=r"less .* than the bound of the day"):
        summary.scores(episodes, bounds)
    with pytest.raises(UserError, match="has no bound for"):
        summary.scores(episodes, bounds.iloc[:0])
    without = episodes[episodes["method"] != "weighted_round_robin"]
    assert summary.scores(without, bounds).empty


def test_fluid_table_has_the_range_of_errors_by_load(results: Path) -> None:
    assert load(results, "fluid")["rows"] == [
        ["0.20", "2.0 to 8.0", "1.0", "−30.0", "1.0"],
        ["0.85", "−24.0 to 1.5", "1.0", "−30.0", "1.0"],
    ]


def test_what_plans_on_the_truth_is_marked_and_leads_no_field(
    results: Path, episodes: pd.DataFrame
) -> None:
    frame, bounds = summary.main_runs(episodes), tables.read_bounds(results)
    better = frame[frame["method"] == "marlin"].assign(method="marlin_as_run")
    better[list(OBJECTIVES)] *= 0.9
    both = pd.concat([frame, better])
    pd.testing.assert_frame_equal(
        comparison.leaders(both, bounds), comparison.leaders(frame, bounds)
    )
    assert "knows" in method_name("marlin_as_run")
    assert "knows" in method_name("marlin_as_run_carbon")
