"""What the tables say, as numbers: estimates per method, reductions, hypervolume, ablations.

All functions take the collected episodes and return data frames without rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from marlin.analysis.schema import (
    BALANCED,
    BOUND_TARGETS,
    CLAIMED_REDUCTION_PERCENT,
    CONTENDERS,
    JUDGED,
    NO_ABLATION,
    OBJECTIVES,
    REFERENCE_METHOD,
    SCORE_BASELINE,
    groups,
    is_marlin,
    is_published,
    method_name,
    order_methods,
)
from marlin.analysis.statistics import (
    Array,
    Estimate,
    estimate,
    gap_closed,
    paired_ratio,
    probability_of_improvement,
    reduction_percent,
)
from marlin.errors import UserError

MEAN_OF_FOUR = "mean"
LEAST_RATIO = 0.01  # in a geometric mean: where prices are negative a cost may be too
SAMPLING_ERRORS = 4.0  # standard errors that a sampled score may lie below its bound


def main_runs(episodes: pd.DataFrame) -> pd.DataFrame:
    """Episodes without ablations. Raises UserError when the reference method is not among them."""
    frame = episodes[episodes["ablation"] == NO_ABLATION]
    if REFERENCE_METHOD not in set(frame["method"]):
        raise UserError(
            f"the episodes hold no {REFERENCE_METHOD}, to which results are compared: "
            "add it to the suite's methods"
        )
    return frame


def strata(
    frame: pd.DataFrame, method: str, column: str, ablation: str = NO_ABLATION
) -> list[Array]:
    """Scores of a method as one array [seeds, days] per scenario, scenarios in sorted order.

    Raises UserError when a scenario lacks the method or a seed lacks a day.
    """
    arrays = []
    for scenario, cells in frame.groupby("scenario", sort=True):
        own = cells[(cells["method"] == method) & (cells["ablation"] == ablation)]
        table = own.pivot(index="seed", columns="day", values=column)
        if table.empty or table.isna().to_numpy().any():
            raise UserError(
                f"method {method!r} (ablation {ablation!r}) is not complete in scenario "
                f"{scenario!r}: every seed needs every test day; evaluate the missing runs"
            )
        arrays.append(table.to_numpy(dtype=np.float64))
    return arrays


def _names(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"]


def columns(name: str, value: Estimate) -> dict[str, float]:
    """An estimate as three columns: `name`, `name_low`, `name_high`."""
    return dict(zip(_names(name), (value.point, value.low, value.high), strict=True))


def methods_of(frame: pd.DataFrame) -> list[str]:
    """Methods in the order in which tables show them."""
    return order_methods(set(frame["method"]))


def relative_to_reference(frame: pd.DataFrame) -> pd.DataFrame:
    """Each objective relative to round robin, paired by seed and day and pooled over scenarios.

    One row per method and objective: `ratio`, `ratio_low`, `ratio_high`.
    """
    rows = []
    for objective in OBJECTIVES:
        reference = strata(frame, REFERENCE_METHOD, objective)
        for method in methods_of(frame):
            ratio = estimate(paired_ratio(strata(frame, method, objective), reference))
            rows.append({"method": method, "objective": objective, **columns("ratio", ratio)})
    return pd.DataFrame(rows)


def best_baselines(
    frame: pd.DataFrame, counts: Callable[[str], bool] = lambda method: True
) -> dict[str, str]:
    """The baseline with the lowest value of each objective (relative to round robin).

    Of baselines those that `counts` takes; an empty mapping where it takes none.
    """
    table = relative_to_reference(frame)
    baselines = table[[not is_marlin(m) and counts(m) for m in table["method"]]]
    best = baselines.loc[baselines.groupby("objective")["ratio"].idxmin()]
    return dict(zip(best["objective"], best["method"], strict=True))


def claim_baselines(frame: pd.DataFrame) -> dict[str, str]:
    """What claims are held against: the best published system of each objective.

    Its forms, as published and as run, and its variants all count; the best baseline of any kind
    where no published system ran.
    """
    return best_baselines(frame, is_published) or best_baselines(frame)


def objectives(frame: pd.DataFrame) -> pd.DataFrame:
    """Each objective per day, by scenario and method, with its change against the best baseline.

    Columns: scenario, method, objective, value and interval, best_baseline, change_percent and
    interval (negative is better), seeds, days.
    """
    rows = []
    for scenario, cells in frame.groupby("scenario", sort=True):
        best = best_baselines(cells)
        for objective in OBJECTIVES:
            baseline = strata(cells, best[objective], objective)
            for method in methods_of(cells):
                scores = strata(cells, method, objective)
                change = reduction_percent(scores, baseline)
                change = Estimate(-change.point, -change.high, -change.low)
                rows.append(
                    {
                        "scenario": scenario,
                        "method": method,
                        "objective": objective,
                        **columns("value", estimate(scores)),
                        "best_baseline": best[objective],
                        **columns("change_percent", change),
                        "seeds": scores[0].shape[0],
                        "days": scores[0].shape[1],
                    }
                )
    return pd.DataFrame(rows)


def service(frame: pd.DataFrame) -> pd.DataFrame:
    """Totals by scenario and method: share of requests served, energy and utilisation.

    `served_percent` is served over all requests; `energy_kwh` per day and `utilisation_percent`
    (mean over the day) are means over seeds and days.
    """
    rows = []
    for scenario, cells in frame.groupby("scenario", sort=True):
        for method in methods_of(cells):
            own = cells[cells["method"] == method]
            rows.append(
                {
                    "scenario": scenario,
                    "method": method,
                    "served_percent": 100.0 * own["served"].sum() / own["requests"].sum(),
                    "energy_kwh": own["energy_kwh"].mean(),
                    "utilisation_percent": 100.0 * own["utilisation_mean"].mean(),
                    "utilisation_peak_percent": 100.0 * own["utilisation_peak"].max(),
                    "scarcity_water_l": own["scarcity_water_l"].mean(),
                }
            )
    return pd.DataFrame(rows)


LATENCY_COLUMNS = [
    "scenario", "method", "ttft_s", "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "tpot_p95_s",
    "slo_percent", "ttft_se_percent", "fluid_ttft_percent", "fluid_carbon_percent",
]  # fmt: skip


def is_judged(frame: pd.DataFrame) -> bool:
    """Whether replay scored these episodes."""
    return set(JUDGED) <= set(frame.columns)


def latency(frame: pd.DataFrame) -> pd.DataFrame:
    """What users feel, by scenario and method: means over seeds and days of what replay finds.

    TTFT (mean and percentiles) and TPOT in seconds; `slo_percent` of requests within DynamoLLM's
    limits; `ttft_se_percent` the standard error of a day's mean TTFT from sampling;
    `fluid_*_percent` how far the fluid model's day is from it. Empty where replay did not score.
    """
    rows = []
    if is_judged(frame):
        for scenario, cells in frame.groupby("scenario", sort=True):
            for method in methods_of(cells):
                own = cells[cells["method"] == method]
                mean = own[["ttft_s", *JUDGED]].mean()
                rows.append(
                    {"scenario": scenario, "method": method}
                    | {name: mean[name] for name in LATENCY_COLUMNS[2:7]}
                    | {
                        "slo_percent": 100.0 * mean["slo_attainment"],
                        "ttft_se_percent": 100.0 * (own["ttft_s_se"] / own["ttft_s"]).mean(),
                    }
                    | {
                        f"fluid_{short}_percent": 100.0
                        * (own[f"fluid_{name}"] / own[name] - 1.0).mean()
                        for short, name in (("ttft", "ttft_s"), ("carbon", "carbon_kg"))
                    }
                )
    return pd.DataFrame(rows, columns=LATENCY_COLUMNS)


def scores(frame: pd.DataFrame, bounds: pd.DataFrame) -> pd.DataFrame:
    """One number for four objectives, and how near each objective is to what nothing can beat.

    By method, pooled over scenarios: `score`, the geometric mean of the four ratios to weighted
    round robin (below one is better than it in the balance), and `gap_<objective>_percent`, the
    share of the way from weighted round robin to the bound, each with interval; `gap_mean_percent`
    over objectives. Empty where weighted round robin did not run. Raises UserError for a score
    below its bound by more than sampling explains: one of the two is wrong.
    """
    methods = methods_of(frame)
    names = [*_names("score"), *(n for o in OBJECTIVES for n in _names(f"gap_{o}_percent"))]
    if SCORE_BASELINE not in methods:
        return pd.DataFrame(columns=["method", *names, "gap_mean_percent"])
    baseline = {o: strata(frame, SCORE_BASELINE, o) for o in OBJECTIVES}
    least = {o: bound_strata(frame, bounds, o) for o in OBJECTIVES}
    rows = []
    for method in methods:
        own = {o: strata(frame, method, o) for o in OBJECTIVES}
        row = {"method": method, **columns("score", estimate(score_strata(frame, method)))}
        for objective in OBJECTIVES:
            _check_bound(frame, method, objective, own[objective], least[objective])
            closed = gap_closed(own[objective], baseline[objective], least[objective])
            percent = estimate([100.0 * cells for cells in closed])
            row |= columns(f"gap_{objective}_percent", percent)
        row["gap_mean_percent"] = np.mean([row[f"gap_{o}_percent"] for o in OBJECTIVES])
        rows.append(row)
    return pd.DataFrame(rows)


def score_strata(frame: pd.DataFrame, method: str) -> list[Array]:
    """Balanced scores of a method as one array [seeds, days] per scenario; see `scores`."""
    return _geometric_mean(
        [
            paired_ratio(strata(frame, method, o), strata(frame, SCORE_BASELINE, o))
            for o in OBJECTIVES
        ]
    )


def _geometric_mean(ratios: list[list[Array]]) -> list[Array]:
    """Of several ratios in the same cells, by scenario."""
    return [
        np.exp(np.mean(np.log(np.maximum(cells, LEAST_RATIO)), axis=0))
        for cells in zip(*ratios, strict=True)
    ]


def bound_strata(frame: pd.DataFrame, bounds: pd.DataFrame, objective: str) -> list[Array]:
    """Bounds of an objective as an array [1, days] per scenario, days as in `strata`."""
    judge = "replay" if is_judged(frame) else "fluid"
    own = bounds[
        (bounds["judge"] == judge)
        & (bounds["target"] == BOUND_TARGETS[objective])
        & (bounds["kind"] == "bound")
    ]
    arrays = []
    for scenario, cells in frame.groupby("scenario", sort=True):
        days = sorted(cells["day"].unique())
        by_day = own[own["scenario"] == scenario].set_index("day")["value"]
        missing = set(days) - set(by_day.index)
        if missing:
            raise UserError(
                f"scenario {scenario} has no bound for {min(missing)}: run the suite's bounds again"
            )
        arrays.append(by_day.loc[days].to_numpy(dtype=np.float64)[None])
    return arrays


def _check_bound(
    frame: pd.DataFrame, method: str, objective: str, own: list[Array], least: list[Array]
) -> None:
    """Nothing beats a bound but by the error of sampling."""
    error = [np.zeros_like(cells) for cells in own]
    if is_judged(frame):
        error = strata(frame, method, f"{objective}_se")
    for cells, bound, sampling in zip(own, least, error, strict=True):
        if np.any(cells < bound - SAMPLING_ERRORS * sampling - 1e-9 * np.abs(bound)):
            raise UserError(
                f"{method_name(method)} has less {objective} than the bound of the day: one of the "
                "two is wrong; please report it with the settings of the suite"
            )


def verdict(claimed_percent: float, measured: Estimate) -> str:
    """`met` at or above the claim, `open` if the interval reaches it, else `not met`."""
    if measured.point >= claimed_percent:
        return "met"
    return "open" if measured.high >= claimed_percent else "not met"


REDUCTION_COLUMNS = [
    "objective", "contender", "policy", "method", "best_baseline", "claimed_percent",
    *_names("reduction_percent"), *_names("reference_percent"), *_names("improvement"), "verdict",
]  # fmt: skip
ABLATION_COLUMNS = ["method", "ablation", "objective", *_names("change_percent")]


def reductions(frame: pd.DataFrame, best: dict[str, str]) -> pd.DataFrame:
    """What the contenders bring against one baseline an objective, `best`; pooled over scenarios.

    One row per objective, contender and policy (`one_objective`: the variant for it; `balanced`)
    that ran, with the reduction in per cent against the baseline and against round robin, and the
    probability of improvement over that baseline. MARLIN's rows have what is claimed for it and a
    verdict.
    """
    methods = set(frame["method"])
    rows = []
    for objective in filter(best.__contains__, OBJECTIVES):
        baseline = strata(frame, best[objective], objective)
        reference = strata(frame, REFERENCE_METHOD, objective)
        for contender in CONTENDERS:
            one = f"{contender}_{BOUND_TARGETS[objective]}"
            for policy, method in (("one_objective", one), ("balanced", contender)):
                if method not in methods:
                    continue
                scores = strata(frame, method, objective)
                measured = reduction_percent(scores, baseline)
                claimed = CLAIMED_REDUCTION_PERCENT[objective] if contender == BALANCED else None
                rows.append(
                    {
                        "objective": objective,
                        "contender": contender,
                        "policy": policy,
                        "method": method,
                        "best_baseline": best[objective],
                        "claimed_percent": claimed,
                        **columns("reduction_percent", measured),
                        **columns("reference_percent", reduction_percent(scores, reference)),
                        **columns("improvement", probability_of_improvement(scores, baseline)),
                        "verdict": verdict(claimed, measured) if claimed else "",
                    }
                )
    return pd.DataFrame(rows, columns=REDUCTION_COLUMNS)


def ablations(episodes: pd.DataFrame) -> pd.DataFrame:
    """Change of each objective when a part of a method is switched off, in per cent.

    Against the same method without ablation, paired by seed and day; only scenarios that hold
    both. Positive means that the part was useful. `objective` is `MEAN_OF_FOUR` for the geometric
    mean of the four ratios. Empty when nothing was ablated.
    """
    rows = []
    names = episodes[["method", "ablation"]].drop_duplicates().sort_values(["method", "ablation"])
    for method, ablation in names.itertuples(index=False):
        if ablation == NO_ABLATION:
            continue
        own = episodes[(episodes["method"] == method) & (episodes["ablation"] == ablation)]
        frame = episodes[episodes["scenario"].isin(own["scenario"].unique())]
        ratios = {
            objective: paired_ratio(
                strata(frame, method, objective, ablation), strata(frame, method, objective)
            )
            for objective in OBJECTIVES
        }
        ratios[MEAN_OF_FOUR] = _geometric_mean(list(ratios.values()))
        for objective, cells in ratios.items():
            change = estimate([100.0 * (ratio - 1.0) for ratio in cells])
            row = {"method": method, "ablation": ablation, "objective": objective}
            rows.append(row | columns("change_percent", change))
    return pd.DataFrame(rows, columns=ABLATION_COLUMNS)


def kept(silicon: pd.DataFrame) -> pd.DataFrame:
    """Points of configurations that took no part in a fit and that no rule excludes."""
    return silicon[(silicon["excluded"] == "") & (silicon["split"] == "held out")]


def exclusions(silicon: pd.DataFrame) -> dict[str, int]:
    """Number of held-out points left out, by the rule that leaves them out, most first."""
    judges = silicon[silicon["split"] == "held out"]
    counts = judges.loc[judges["excluded"] != "", "excluded"].value_counts()
    return {str(rule): int(count) for rule, count in counts.items()}


def _relative_errors(silicon: pd.DataFrame) -> pd.DataFrame:
    """Points kept, with the relative errors `ttft_percent` and `tpot_percent`."""
    errors = kept(silicon).copy()
    for quantity in ("ttft", "tpot"):
        measured, predicted = errors[f"measured_{quantity}_s"], errors[f"predicted_{quantity}_s"]
        errors[f"{quantity}_percent"] = 100.0 * (predicted - measured).abs() / measured
    return errors


def calibration(silicon: pd.DataFrame) -> pd.DataFrame:
    """Error of the serving models against measured points, by model, GPU and engine.

    Columns: model, gpu, backend, tp (all layouts measured), points, and median and 90th
    percentile of the relative error of TTFT and TPOT in per cent.
    """
    rows = []
    keys = ["model", "gpu", "backend"]
    errors = _relative_errors(silicon).sort_values(keys, kind="stable")
    for (model, gpu, backend), cells in groups(errors, keys):
        layouts = ", ".join(str(tp) for tp in sorted(cells["tp"].unique()))
        row = {"model": model, "gpu": gpu, "backend": backend, "tp": layouts, "points": len(cells)}
        rows.append(row | _quantiles(cells))
    return pd.DataFrame(rows)


def _quantiles(errors: pd.DataFrame) -> dict[str, float]:
    return {
        f"{quantity}_{name}_percent": float(errors[f"{quantity}_percent"].quantile(level))
        for quantity in ("ttft", "tpot")
        for name, level in (("median", 0.5), ("p90", 0.9))
    }


def calibration_overall(silicon: pd.DataFrame) -> dict[str, float]:
    """Median and 90th percentile of the relative errors over all given points, in per cent."""
    return _quantiles(_relative_errors(silicon))


def profile_fits(silicon: pd.DataFrame, profiles: pd.DataFrame) -> pd.DataFrame:
    """The profiles that the fleet uses: errors of their fits and how many points test them.

    Columns: model, gpu, tp, backend, engine_version, median and 90th percentile of the relative
    error of the fitted prefill and decode times in per cent, and `points`, the measured points of
    the very same model, GPU, layout, engine and precision.
    """
    keys = ["model", "gpu", "tp", "backend", "precision"]
    table = profiles[[*keys, "engine_version"]].copy()
    for phase in ("prefill", "decode"):
        for statistic in ("median", "p90"):
            error = profiles[f"{phase}_fit_error_{statistic}"]
            table[f"{phase}_{statistic}_percent"] = 100.0 * error
    points = kept(silicon).groupby(keys).size().to_frame("points")
    table = table.join(points, on=keys).sort_values(keys, kind="stable")
    return table.assign(points=table["points"].fillna(0).astype(int)).reset_index(drop=True)


def power(configurations: pd.DataFrame) -> pd.DataFrame:
    """Errors of predicted GPU power and energy per token, by GPU and kind of model.

    Columns: gpu, kind, configurations, runs, and median and largest over configurations of the
    median relative error of W and of J per token in per cent. J has a value only where a serving
    profile predicts the token rate; else it is not a number.
    """
    rows = []
    for (gpu, moe), cells in groups(configurations.sort_values(["moe", "gpu"]), ["gpu", "moe"]):
        row = {"gpu": gpu, "kind": "mixture of experts, not fitted" if moe else "dense, held out"}
        row |= {"configurations": len(cells), "runs": int(cells["runs"].sum())}
        for name in ("w", "j"):
            row[f"{name}_median_percent"] = 100.0 * cells[f"{name}_median"].median()
            row[f"{name}_worst_percent"] = 100.0 * cells[f"{name}_median"].max()
        rows.append(row)
    return pd.DataFrame(rows)


def fluid_agreement(cases: pd.DataFrame) -> pd.DataFrame:
    """How far the fluid model is from replay, by utilisation of the site.

    Columns: utilisation, and the lowest and highest error of mean TTFT and of energy in per cent,
    over mixes of lengths and burstiness with warm nodes (`warm_*`) and with half the nodes cold
    (`cold_*`).
    """
    rows = []
    for utilisation, cells in cases.groupby("utilisation", sort=True):
        row: dict[str, float] = {"utilisation": float(str(utilisation))}
        for name, part in (("warm", cells["warm"] == 1.0), ("cold", cells["warm"] < 1.0)):
            for quantity in ("ttft", "energy"):
                errors = 100.0 * cells.loc[part, f"{quantity}_error"]
                row |= {
                    f"{name}_{quantity}_low_percent": float(errors.min()),
                    f"{name}_{quantity}_high_percent": float(errors.max()),
                }
        rows.append(row)
    return pd.DataFrame(rows)


def estimate_of(row: pd.Series, name: str) -> Estimate:
    """The estimate that `_columns` spread over a row."""
    return Estimate(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]))
