"""Tables of a suite: CSV with full precision, JSON and LaTeX with the same display strings.

Also `numbers.json`: every number and adaptive word that the paper's prose uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from marlin.analysis import comparison, summary
from marlin.analysis.display import NOTHING, Table, decimals, number, unit, with_interval
from marlin.analysis.numbers import prose_numbers
from marlin.analysis.schema import (
    AGREEMENT,
    BOUND_TARGETS,
    BOUNDS,
    EPISODES,
    LEARNING,
    NO_ABLATION,
    OBJECTIVE_NAMES,
    OBJECTIVES,
    REFERENCE_METHOD,
    REFERENCE_PLANS,
    check,
    engine_name,
    groups,
    method_name,
    model_name,
    parts_of,
    read,
)
from marlin.analysis.setting import data_sources, resolved
from marlin.analysis.statistics import Estimate
from marlin.entry import results_entry
from marlin.errors import UserError
from marlin.files import write_json, write_text

KEPT_TOGETHER = ["scenario", "method"]


def main_table(frame: pd.DataFrame) -> Table:
    """Each objective per day and scheduler, and its change against the best baseline."""
    values = summary.objectives(frame)
    totals = summary.service(frame)
    names = ["Scenario", "Scheduler"] if values["scenario"].nunique() > 1 else ["Scheduler"]
    scales = _scales(values)
    columns = [*names]
    for objective in OBJECTIVES:
        columns += [f"{OBJECTIVE_NAMES[objective]}, {scales[objective][0]}", "Δ, %"]
    columns += ["Served, %", "Seeds × days"]
    lowest = values.loc[values.groupby(["scenario", "objective"])["value"].idxmin()]
    best = set(lowest[["scenario", "method", "objective"]].itertuples(index=False, name=None))
    rows: list[list[str]] = []
    bold = []
    for (scenario, method), cells in groups(values, KEPT_TOGETHER):
        table = cells.set_index("objective")
        row = [str(scenario), method_name(method)][-len(names) :]
        for objective in OBJECTIVES:
            if (scenario, method, objective) in best:
                bold.append((len(rows), len(row)))
            cell = table.loc[objective]
            row.append(_scaled(summary.estimate_of(cell, "value"), scales[objective][1]))
            row.append(_change(summary.estimate_of(cell, "change_percent")))
        service = totals[(totals["scenario"] == scenario) & (totals["method"] == method)].iloc[0]
        row.append(number(service["served_percent"], 2))
        row.append(f"{cells['seeds'].iloc[0]} × {cells['days'].iloc[0]}")
        rows.append(row)
    merged = values.merge(totals, on=KEPT_TOGETHER, validate="many_to_one")
    return Table("main", columns, rows, merged, len(names), bold)


def _scales(values: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """Display unit of each objective by the reference method's largest value."""
    reference = values[values["method"] == REFERENCE_METHOD]
    typical = reference.groupby("objective")["value"].max()
    return {objective: unit(objective, typical[objective]) for objective in OBJECTIVES}


def _scaled(estimate: Estimate, factor: float) -> str:
    scaled = Estimate(estimate.point * factor, estimate.low * factor, estimate.high * factor)
    return with_interval(scaled, decimals(scaled.point))


def _change(estimate: Estimate) -> str:
    """A change in per cent; the baseline itself shows a dash."""
    if estimate.point == estimate.low == estimate.high == 0.0:
        return NOTHING
    return with_interval(estimate, 1)


def latency_table(frame: pd.DataFrame) -> Table:
    """What users feel by replay, and how far the fluid model is from it."""
    values = summary.latency(frame)
    names = ["Scenario", "Scheduler"] if values["scenario"].nunique() > 1 else ["Scheduler"]
    columns = [*names, "TTFT, s", "P50", "P95", "P99", "TPOT P95, ms", "Within SLO, %"]
    columns += ["Error, %", "Fluid TTFT, %", "Fluid carbon, %"]
    rows = [
        [str(cell["scenario"]), method_name(cell["method"])][-len(names) :]
        + [number(cell[f"ttft{part}_s"], 3) for part in ("", "_p50", "_p95", "_p99")]
        + [number(1e3 * cell["tpot_p95_s"], 1), number(cell["slo_percent"], 1)]
        + [number(cell["ttft_se_percent"], 1)]
        + [number(cell[f"fluid_{name}_percent"], 1) for name in ("ttft", "carbon")]
        for _, cell in values.iterrows()
    ]
    return Table("latency", columns, rows, values, len(names))


def scores_table(frame: pd.DataFrame, bounds: pd.DataFrame) -> Table:
    """Balanced score and gap to the bound closed, best score first."""
    values = summary.scores(frame, bounds).sort_values("score", kind="stable", ignore_index=True)
    columns = ["Scheduler", "Score", *(f"{OBJECTIVE_NAMES[o]}, %" for o in OBJECTIVES), "Mean, %"]
    rows = [
        [
            method_name(cell["method"]),
            with_interval(summary.estimate_of(cell, "score"), 3),
            *(with_interval(summary.estimate_of(cell, f"gap_{o}_percent"), 1) for o in OBJECTIVES),
            number(cell["gap_mean_percent"], 1),
        ]
        for _, cell in values.iterrows()
    ]
    return Table("scores", columns, rows, values)


def references_table(frame: pd.DataFrame, bounds: pd.DataFrame) -> Table:
    """Gap to the bound closed by plans that know the truth, each by its plan for that target."""
    values = comparison.references(frame, bounds)
    targets = {BOUND_TARGETS[o]: OBJECTIVE_NAMES[o] for o in OBJECTIVES} | {"balanced": "Balanced"}
    rows = [
        [
            REFERENCE_PLANS[cell["kind"]],
            *(number(cell[f"gap_{target}_percent"], 1) for target in targets),
        ]
        for _, cell in values.iterrows()
    ]
    return Table("references", ["Plan", *(f"{t}, %" for t in targets.values())], rows, values)


def claims_table(frame: pd.DataFrame) -> Table:
    """Claimed reductions against those measured, with the best published system of each objective.

    Where no published system ran, with the best baseline.
    """
    values = summary.reductions(frame, summary.claim_baselines(frame))
    columns = ["Objective", "Scheduler", "Best earlier system", "Claim, %", "One objective, %"]
    columns += ["Balanced, %", "Verdict"]
    rows = [
        [
            OBJECTIVE_NAMES[objective],
            method_name(contender),
            method_name(one["best_baseline"]),
            NOTHING if pd.isna(one["claimed_percent"]) else f"≥ {one['claimed_percent']:.0f}",
            *_both(one, balanced),
            one["verdict"] or NOTHING,
        ]
        for objective, contender, one, balanced in _pairs(values)
    ]
    return Table("claims", columns, rows, values, 3)


def reductions_table(frame: pd.DataFrame) -> Table:
    """What MARLIN and this project's own method bring against the best of all other schedulers."""
    values = summary.reductions(frame, summary.best_baselines(frame))
    columns = ["Objective", "Scheduler", "Best other", "One objective, %", "Balanced, %"]
    columns += ["P(better)"]
    rows = [
        [
            OBJECTIVE_NAMES[objective],
            method_name(contender),
            method_name(one["best_baseline"]),
            *_both(one, balanced),
            with_interval(summary.estimate_of(one, "improvement"), 2),
        ]
        for objective, contender, one, balanced in _pairs(values)
    ]
    return Table("reductions", columns, rows, values, 3)


def _both(one: pd.Series, balanced: pd.Series) -> tuple[str, str]:
    first, second = (summary.estimate_of(cell, "reduction_percent") for cell in (one, balanced))
    return with_interval(first, 1), with_interval(second, 1)


def _pairs(values: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series, pd.Series]]:
    """Of `summary.reductions`: objective, contender, and the rows of its two policies.

    Raises UserError for a contender that lacks one of them.
    """
    for (objective, contender), cells in groups(values, ["objective", "contender"]):
        rows = cells.set_index("policy")
        if len(rows) < 2:
            raise UserError(
                f"the comparison on {objective} needs {contender} and its one-objective variant, "
                f"and the episodes lack one of them: evaluate {contender} with all its variants"
            )
        yield objective, contender, rows.loc["one_objective"], rows.loc["balanced"]


def leaders_table(frame: pd.DataFrame, bounds: pd.DataFrame) -> Table:
    """The best on each objective among published systems and among all, and the next system."""
    values = comparison.leaders(frame, bounds)
    columns = ["Among", "Objective", "Best", "Next", "Margin, %", "P(better)"]
    columns += ["Under nearest, %", "Gap closed, %"]
    rows = [
        [
            cell["field"],
            OBJECTIVE_NAMES[cell["objective"]],
            method_name(cell["best"]),
            method_name(cell["next"]),
            with_interval(summary.estimate_of(cell, "margin_percent"), 1),
            with_interval(summary.estimate_of(cell, "improvement"), 2),
            *(
                NOTHING
                if pd.isna(cell[name])
                else with_interval(summary.estimate_of(cell, name), 1)
                for name in ("under_nearest_percent", "gap_percent")
            ),
        ]
        for _, cell in values.iterrows()
    ]
    return Table("leaders", columns, rows, values, 4)


def improvements_table(frame: pd.DataFrame) -> Table:
    """Probability that a balanced policy scores better than another; every pair is in the CSV."""
    pairs = comparison.improvements(frame)
    rows = [
        [
            method_name(cell["method"]),
            number(cell["improvement"], 2),
            number(cell["better"], 0),
            number(cell["worse"], 0),
        ]
        for _, cell in comparison.mean_improvement(pairs).iterrows()
    ]
    return Table("improvements", ["Scheduler", "P(better)", "Beats", "Loses to"], rows, pairs)


def fronts_table(frame: pd.DataFrame, bounds: pd.DataFrame) -> Table:
    """Hypervolume of each method's policies over what the bounds allow, best first.

    Beside it what a decision takes at the smaller of the two fleets that were timed.
    """
    values = comparison.fronts(frame, bounds)
    times = comparison.decision_times(list(values["method"]))
    times = times[times["sites"] == times["sites"].min()].drop(columns="sites")
    values = values.merge(times, on="method", how="left")
    values = values.sort_values("volume_percent", ascending=False, kind="stable", ignore_index=True)
    rows = [
        [
            method_name(cell["method"]),
            number(cell["policies"], 0),
            with_interval(summary.estimate_of(cell, "volume_percent"), 1),
            *_milliseconds(cell),
        ]
        for _, cell in values.iterrows()
    ]
    columns = ["Scheduler", "Policies", "Of the bound, %", "Decision, ms", "P95, ms"]
    return Table("fronts", columns, rows, values)


def decisions_table(methods: list[str]) -> Table:
    """Processor time of a decision by the number of sites, as measured once on one machine."""
    values = comparison.decision_times(methods)
    sites = sorted(values["sites"].unique())
    columns = ["Scheduler"]
    columns += [text for n in sites for text in (f"{n} sites: median, ms", "P95, ms")]
    by_sites = values.set_index(["method", "sites"])
    rows = [
        [
            method_name(method),
            *(text for n in sites for text in _milliseconds(by_sites.loc[method, n])),
        ]
        for method in dict.fromkeys(values["method"])
    ]
    return Table("decisions", columns, rows, values)


def _milliseconds(cell: pd.Series) -> list[str]:
    """Median and P95 of a decision, dashes where it was not timed."""
    return [
        NOTHING if pd.isna(cell[name]) else number(1e3 * cell[name], 1)
        for name in ("median_s", "p95_s")
    ]


def agreement_table(agents: pd.DataFrame) -> Table:
    """What the agents of marlin_nash agreed on and could save by leaving it, over seeds."""
    values = comparison.agreement(agents)
    rows = [
        [
            OBJECTIVE_NAMES[cell["objective"]],
            with_interval(summary.estimate_of(cell, "weight"), 3),
            with_interval(summary.estimate_of(cell, "cost_percent"), 1),
            with_interval(summary.estimate_of(cell, "claim_gain_percent"), 1),
        ]
        for _, cell in values.iterrows()
    ]
    columns = ["Agent", "Weight", "Cost, % of even split", "Saved by a false claim, %"]
    return Table("agreement", columns, rows, values)


def regimes_table(frame: pd.DataFrame) -> Table:
    """What changes from the form on everyone's terms to the form that authors ran."""
    values = comparison.regimes(frame)
    columns = ["Scheduler", *(f"{OBJECTIVE_NAMES[o]}, %" for o in OBJECTIVES)]
    columns += ["Dropped, %", "Dropped as run, %"]
    rows = []
    for (method,), cells in groups(values, ["method"]):
        table = cells.set_index("objective")
        changes = [_change(summary.estimate_of(table.loc[o], "change_percent")) for o in OBJECTIVES]
        shares = [table.iloc[0][name] for name in ("dropped_percent", "dropped_as_run_percent")]
        rows.append([method_name(method), *changes, *(number(share, 2) for share in shares)])
    return Table("regimes", columns, rows, values)


def ablations_table(episodes: pd.DataFrame) -> Table:
    """Change of each objective when a part of a method is switched off."""
    values = summary.ablations(episodes)
    names = {**OBJECTIVE_NAMES, summary.MEAN_OF_FOUR: "Mean of four"}
    columns = ["Method", "Ablation", *(f"{name}, %" for name in names.values())]
    rows = []
    for (method, ablation), cells in groups(values, ["method", "ablation"]):
        table = cells.set_index("objective")
        changes = [_change(summary.estimate_of(table.loc[o], "change_percent")) for o in names]
        rows.append([method_name(method), ablation, *changes])
    return Table("ablations", columns, rows, values, 2)


def calibration_table(silicon: pd.DataFrame) -> Table:
    """Errors of predicted TTFT and TPOT against measured points of held-out configurations."""
    values = summary.calibration(silicon)
    columns = ["Model", "GPU", "Engine", "TP", "Points"]
    columns += ["TTFT, %", "TTFT P90, %", "TPOT, %", "TPOT P90, %"]
    shown = ["ttft_median_percent", "ttft_p90_percent", "tpot_median_percent", "tpot_p90_percent"]
    rows = [
        [
            model_name(cell["model"]),
            cell["gpu"],
            engine_name(cell["backend"]),
            cell["tp"],
            number(cell["points"], 0),
            *(number(cell[name], 1) for name in shown),
        ]
        for _, cell in values.iterrows()
    ]
    return Table("calibration", columns, rows, values, 4)


def profiles_table(silicon: pd.DataFrame, profiles: pd.DataFrame) -> Table:
    """The fleet's serving profiles: errors of the fits, and measured points of the same layout."""
    values = summary.profile_fits(silicon, profiles)
    columns = ["Model", "GPU", "TP", "Engine", "Prefill, %", "Decode, %", "Points"]
    rows = [
        [
            model_name(cell["model"]),
            cell["gpu"],
            str(cell["tp"]),
            f"{engine_name(cell['backend'])} {cell['engine_version']}",
            *(_median_and_p90(cell, phase) for phase in ("prefill", "decode")),
            number(cell["points"], 0),
        ]
        for _, cell in values.iterrows()
    ]
    return Table("profiles", columns, rows, values, 4)


def _median_and_p90(cell: pd.Series, phase: str) -> str:
    values = (cell[f"{phase}_{statistic}_percent"] for statistic in ("median", "p90"))
    return " / ".join(number(value, 1) for value in values)


def power_table(power: pd.DataFrame) -> Table:
    """Errors of predicted GPU power and energy per token against measured configurations."""
    values = summary.power(power)
    columns = ["GPU", "Kind", "Configurations", "Runs"]
    columns += ["W, %", "W worst, %", "J per token, %", "J worst, %"]
    shown = ["w_median_percent", "w_worst_percent", "j_median_percent", "j_worst_percent"]
    rows = [
        [
            cell["gpu"],
            cell["kind"],
            number(cell["configurations"], 0),
            number(cell["runs"], 0),
            *(NOTHING if pd.isna(cell[name]) else number(cell[name], 1) for name in shown),
        ]
        for _, cell in values.iterrows()
    ]
    return Table("power", columns, rows, values, 2)


def fluid_table(cases: pd.DataFrame) -> Table:
    """Errors of the fluid model against replay by utilisation."""
    values = summary.fluid_agreement(cases)
    columns = ["Utilisation", "TTFT, %", "Energy, %", "TTFT, half cold, %", "Energy, half cold, %"]
    rows = [
        [number(cell["utilisation"], 2)]
        + [
            _range(cell[f"{name}_{quantity}_low_percent"], cell[f"{name}_{quantity}_high_percent"])
            for name in ("warm", "cold")
            for quantity in ("ttft", "energy")
        ]
        for _, cell in values.iterrows()
    ]
    return Table("fluid", columns, rows, values)


def _range(low: float, high: float) -> str:
    """`-3.1 to 4.0`, or one number where both print alike."""
    first, last = number(low, 1), number(high, 1)
    return first if first == last else f"{first} to {last}"


def sources_table(entries: list[dict[str, Any]]) -> Table:
    """Data sets of the scenarios with version, licence and attribution."""
    frame = pd.DataFrame(entries)
    shown = {
        "title": "Data set",
        "version": "Version",
        "origin": "From",
        "licence": "Licence",
        "attribution": "Attribution",
        "citation": "Cite",
    }
    missing = [key for key in shown if key not in frame]
    if missing:
        raise UserError(f"the scenarios' data sources lack {missing[0]!r}: prepare them again")
    rows = frame[list(shown)].astype(str).to_numpy().tolist()
    return Table("sources", list(shown.values()), rows, frame, len(shown))


def write(table: Table, folder: Path) -> None:
    """The three files of a table."""
    write_json(folder / f"{table.name}.json", table.as_json())
    write_text(folder / f"{table.name}.tex", table.as_tex())
    csv = table.frame.to_csv(index=False, lineterminator="\n")
    write_text(folder / f"{table.name}.csv", csv)


def build(results_dir: Path) -> None:
    """Write `tables/*.{json,csv,tex}` and `numbers.json` of a result tree.

    Raises UserError when an input file is missing or incomplete.
    """
    episodes = read(results_dir / "episodes.parquet", EPISODES)
    learning = read(results_dir / "learning.parquet", LEARNING)
    profiles, silicon = serving(results_dir)
    power = measured_power(results_dir)
    frame = summary.main_runs(episodes)
    bounds = read_bounds(results_dir)
    kind, entries = data_sources(results_dir)
    tables = [
        main_table(frame),
        latency_table(frame),
        scores_table(frame, bounds),
        references_table(frame, bounds),
        leaders_table(frame, bounds),
        claims_table(frame),
        reductions_table(frame),
        improvements_table(frame),
        fronts_table(frame, bounds),
        decisions_table(list(dict.fromkeys(parts_of(m)[0] for m in summary.methods_of(frame)))),
        regimes_table(frame),
        agreement_table(read(results_dir / "agreement.parquet", AGREEMENT)),
        ablations_table(episodes),
        calibration_table(silicon),
        profiles_table(silicon, profiles),
        power_table(power),
        fluid_table(read_fluid(results_dir)),
        sources_table(entries),
    ]
    for table in tables:
        write(table, results_dir / "tables")
    numbers = prose_numbers(
        frame, bounds, learning, silicon, profiles, power, resolved(results_dir), kind
    )
    write_json(results_dir / "numbers.json", numbers)


def serving(results_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Serving profiles and the points that validate them. Raises UserError when they are missing.

    Points that calibration excludes by rule keep their reason and are no part of any error.
    """
    frames = []
    for name in ("profiles", "silicon"):
        path = results_dir / "serving" / f"{name}.parquet"
        if not path.is_file():
            raise UserError(f"{path} does not exist: run the calibration of the suite")
        frames.append(pd.read_parquet(path))
    return frames[0], frames[1]


def read_fluid(results_dir: Path) -> pd.DataFrame:
    """The fluid model against replay, one row a case. Raises UserError when it is missing."""
    path = results_dir / "serving" / "fluid.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist: run `python -m marlin.fluid_validation`")
    return pd.read_csv(path)


def read_bounds(results_dir: Path) -> pd.DataFrame:
    """Bounds of all scenarios without ablation. Raises UserError when there are none."""
    paths = sorted((results_dir / "bounds").glob("*.parquet"))
    if not paths:
        raise UserError(f"{results_dir / 'bounds'} holds no bounds: run the suite's bounds first")
    frame = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
    frame = frame.loc[frame["ablation"] == NO_ABLATION, list(BOUNDS.columns)]
    return check(frame, BOUNDS, results_dir / "bounds")


def measured_power(results_dir: Path) -> pd.DataFrame:
    """Predicted and measured GPU power by configuration. Raises UserError when it is missing."""
    path = results_dir / "serving" / "power.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist: run `python -m marlin.serving.power_validation`")
    return pd.read_csv(path)


if __name__ == "__main__":
    results_entry(build)
