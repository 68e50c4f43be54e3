"""Who leads, by how much, and how much of what is possible: schedulers against each other.

All functions take the collected episodes without ablations and return data frames without rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import numpy as np
import pandas as pd

from marlin.analysis import summary
from marlin.analysis.schema import (
    AS_RUN,
    BOUND_TARGETS,
    OBJECTIVES,
    REFERENCE_METHOD,
    REFERENCE_PLANS,
    SCORE_BASELINE,
    is_published,
    parts_of,
    plans_on_truth,
    system_of,
)
from marlin.analysis.statistics import (
    HYPERVOLUME_REFERENCE,
    Array,
    attainable_share,
    estimate,
    gap_closed,
    hypervolume,
    paired_ratio,
    probability_of_improvement,
    reduction_percent,
)
from marlin.errors import UserError

PUBLISHED_SYSTEMS = "published systems"
ALL_SCHEDULERS = "all schedulers"
NEAREST = "nearest"
LEADER_COLUMNS = [
    "field", "objective", "best", "next", "margin_percent", "margin_percent_low",
    "margin_percent_high", "improvement", "improvement_low", "improvement_high",
    "under_nearest_percent", "under_nearest_percent_low", "under_nearest_percent_high",
    "gap_percent", "gap_percent_low", "gap_percent_high",
]  # fmt: skip

REGIME_COLUMNS = [
    "method", "as_run", "objective", "change_percent", "change_percent_low", "change_percent_high",
    "dropped_percent", "dropped_as_run_percent",
]  # fmt: skip


def leaders(frame: pd.DataFrame, bounds: pd.DataFrame) -> pd.DataFrame:
    """The best on each objective among published systems, and among all schedulers of the run.

    `next` is the best of another system: forms and variants of one system do not compete. Its
    margin over it is a reduction in per cent, with the probability of improvement;
    `under_nearest_percent` is the reduction against the scheduler `nearest`; `gap_percent` is the
    share of the way from weighted round robin to the bound that the best goes. The last two are not
    a number where the scheduler that they need did not run. A field with one system has no rows.
    What plans on the truth takes no part.
    """
    methods = summary.methods_of(frame)
    fields = {
        PUBLISHED_SYSTEMS: [method for method in methods if is_published(method)],
        ALL_SCHEDULERS: [method for method in methods if not plans_on_truth(method)],
    }
    rows = []
    for name, members in fields.items():
        if len({system_of(method) for method in members}) < 2:
            continue
        for objective in OBJECTIVES:
            reference = summary.strata(frame, REFERENCE_METHOD, objective)
            scores = {method: summary.strata(frame, method, objective) for method in members}
            level = {
                method: estimate(paired_ratio(own, reference), resamples=1).point
                for method, own in scores.items()
            }
            best = min(members, key=level.__getitem__)
            others = [method for method in members if system_of(method) != system_of(best)]
            following = min(others, key=level.__getitem__)
            margin = reduction_percent(scores[best], scores[following])
            better = probability_of_improvement(scores[best], scores[following])
            row: dict[str, str | float] = {
                "field": name, "objective": objective, "best": best, "next": following,
                **summary.columns("margin_percent", margin),
                **summary.columns("improvement", better),
            }  # fmt: skip
            if NEAREST in methods:
                under = reduction_percent(scores[best], summary.strata(frame, NEAREST, objective))
                row |= summary.columns("under_nearest_percent", under)
            if SCORE_BASELINE in methods:
                baseline = summary.strata(frame, SCORE_BASELINE, objective)
                least = summary.bound_strata(frame, bounds, objective)
                closed = gap_closed(scores[best], baseline, least)
                percent = estimate([100.0 * cells for cells in closed])
                row |= summary.columns("gap_percent", percent)
            rows.append(row)
    return pd.DataFrame(rows, columns=LEADER_COLUMNS)


def improvements(frame: pd.DataFrame) -> pd.DataFrame:
    """Probability that a balanced policy has a lower score than another, for every pair.

    Score: see `summary.scores`; policies of one objective alone take no part. One row an ordered
    pair: method, other, `improvement` and interval. Empty where weighted round robin did not run.
    """
    methods = [m for m in summary.methods_of(frame) if not parts_of(m)[1]]
    rows = []
    if SCORE_BASELINE in methods:
        scores = {method: summary.score_strata(frame, method) for method in methods}
        for method in methods:
            for other in methods:
                if other != method:
                    better = probability_of_improvement(scores[method], scores[other])
                    row = {"method": method, "other": other}
                    rows.append(row | summary.columns("improvement", better))
    names = ["method", "other", "improvement", "improvement_low", "improvement_high"]
    return pd.DataFrame(rows, columns=names)


def fronts(frame: pd.DataFrame, bounds: pd.DataFrame) -> pd.DataFrame:
    """Hypervolume of what each method's policies reach together, over what no policy can exceed.

    By seed and day, objectives relative to weighted round robin, in the box from zero to twice it.
    A front consists of a method's balanced policy and its variants. What can be dominated at all
    lies above every bound of the day, on one objective or on a sum of several
    (`statistics.attainable_share`), so that 100 % is beyond any scheduler. Columns: method,
    policies, `volume_percent` and interval. Empty where weighted round robin did not run.
    """
    methods = summary.methods_of(frame)
    names = ["method", "policies", "volume_percent", "volume_percent_low", "volume_percent_high"]
    if SCORE_BASELINE not in methods:
        return pd.DataFrame(columns=names)
    most = list(_attainable(frame, bounds))
    baseline = {o: summary.strata(frame, SCORE_BASELINE, o) for o in OBJECTIVES}
    bases: dict[str, list[str]] = {}
    for method in methods:
        bases.setdefault(parts_of(method)[0], []).append(method)
    rows = []
    for base, members in bases.items():
        points = [_ratios(frame, member, baseline) for member in members]
        shares = [
            100.0 * _volumes(np.stack(scenario, axis=2)) / volume
            for *scenario, volume in zip(*points, most, strict=True)
        ]
        row = {"method": base, "policies": len(members)}
        rows.append(row | summary.columns("volume_percent", estimate(shares)))
    return pd.DataFrame(rows, columns=names)


def references(frame: pd.DataFrame, bounds: pd.DataFrame) -> pd.DataFrame:
    """How far plans that know the truth get from weighted round robin to the bound, in per cent.

    One row a kind of plan: `gap_<target>_percent`, each of its plan for that target, under the
    judge of the schedulers; the balanced target is the mean of objectives over weighted round
    robin's under the fluid model. Raises UserError where the bounds hold no such plans under that
    judge.
    """
    judge = "replay" if summary.is_judged(frame) else "fluid"
    own = bounds[bounds["judge"] == judge]
    rows = []
    for kind in REFERENCE_PLANS:
        row: dict[str, str | float] = {"kind": kind}
        for target in (*BOUND_TARGETS.values(), "balanced"):
            cells = own[own["target"] == target].pivot(
                index=["scenario", "day"], columns="kind", values="value"
            )
            if not {kind, SCORE_BASELINE, "bound"} <= set(cells.dropna(axis=1).columns):
                raise UserError(
                    f"the bounds hold no {kind} for {target} under {judge}: run the suite's "
                    "bounds again"
                )
            by_scenario = [day for _, day in cells.groupby(level="scenario")]
            values = [
                [day[name].to_numpy(dtype=np.float64)[None] for day in by_scenario]
                for name in (kind, SCORE_BASELINE, "bound")
            ]
            percent = estimate([100.0 * closed for closed in gap_closed(*values)], resamples=1)
            row[f"gap_{target}_percent"] = percent.point
        rows.append(row)
    return pd.DataFrame(rows)


def regimes(frame: pd.DataFrame) -> pd.DataFrame:
    """What the forms that authors ran change, against the form that is held to everyone's terms.

    One row a policy of which both forms ran and an objective: method (of the common form),
    `change_percent` and interval, paired by seed and day, positive where the form as run is higher,
    and requests dropped by either, `dropped_percent` and `dropped_as_run_percent`.
    """
    methods = summary.methods_of(frame)
    totals = frame.groupby("method")[["dropped", "requests"]].sum()
    dropped = 100.0 * totals["dropped"] / totals["requests"]
    rows = []
    for method in methods:
        base, variant = parts_of(method)
        other = "_".join(filter(None, (f"{base}{AS_RUN}", variant)))
        if other not in methods:
            continue
        shares = {
            "dropped_percent": dropped[method], "dropped_as_run_percent": dropped[other],
        }  # fmt: skip
        for objective in OBJECTIVES:
            own, changed = (summary.strata(frame, m, objective) for m in (method, other))
            change = estimate([100.0 * (ratio - 1.0) for ratio in paired_ratio(changed, own)])
            row = {"method": method, "as_run": other, "objective": objective}
            rows.append(row | summary.columns("change_percent", change) | shares)
    return pd.DataFrame(rows, columns=REGIME_COLUMNS)


def agreement(agents: pd.DataFrame) -> pd.DataFrame:
    """The agreements of marlin_nash over seeds, one row an agent.

    `weight`, `cost_percent` of the even split's, `claim_gain_percent` of its cost that an agent
    would save by claiming another weight alone; each with an interval over seeds.
    """
    scales = {"weight": 1.0, "cost_ratio": 100.0, "claim_gain": 100.0}
    names = {"weight": "weight", "cost_ratio": "cost_percent", "claim_gain": "claim_gain_percent"}
    rows = []
    for objective in OBJECTIVES if len(agents) else ():
        own = agents[agents["objective"] == objective]
        row: dict[str, str | float] = {"objective": objective}
        for name, scale in scales.items():
            strata = [
                scale * part[name].to_numpy(dtype=np.float64)[:, None]
                for _, part in own.groupby("scenario")
            ]
            row |= summary.columns(names[name], estimate(strata))
        rows.append(row)
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["objective"])


def _ratios(frame: pd.DataFrame, method: str, baseline: dict[str, list[Array]]) -> list[Array]:
    """Objectives over the baseline's, per scenario an array [seeds, days, objectives].

    What earns money counts as free, since the box ends at zero.
    """
    by_objective = [
        paired_ratio(summary.strata(frame, method, objective), baseline[objective])
        for objective in OBJECTIVES
    ]
    return [
        np.maximum(np.stack(scenario, axis=-1), 0.0) for scenario in zip(*by_objective, strict=True)
    ]


def _volumes(points: Array) -> Array:
    """Hypervolume [S, T] of fronts [S, T, N, J]."""
    return np.array([[hypervolume(front) for front in days] for days in points])


def _attainable(frame: pd.DataFrame, bounds: pd.DataFrame) -> Iterator[Array]:
    """Share of the box that any plan could dominate: per scenario an array [1, days]."""
    judge = "replay" if summary.is_judged(frame) else "fluid"
    for scenario, cells in frame.groupby("scenario", sort=True):
        own = bounds[bounds["scenario"] == scenario]
        base = cells[cells["method"] == SCORE_BASELINE].groupby("day")[list(OBJECTIVES)].mean()
        shares = []
        for day, baseline in base.iterrows():
            today = own[own["day"] == day]
            values = today[(today["judge"] == judge) & (today["kind"] == "bound")]
            value = values.set_index("target")["value"]
            known = today[(today["judge"] == "fluid") & (today["kind"] == SCORE_BASELINE)]
            scale = known.set_index("target")["value"]
            weights = np.array([_weights(str(target), scale) for target in value.index])
            weights *= baseline.to_numpy(dtype=np.float64)
            shares.append(attainable_share(weights, value.to_numpy(), HYPERVOLUME_REFERENCE))
        yield np.array([shares])


def _weights(target: str, scale: pd.Series) -> Array:
    """What a bound's target makes of objectives [4]: one of them, or a mean of several.

    A mean is of objectives over `scale`, their values by the name of the target for one alone.
    """
    members = list(BOUND_TARGETS.values()) if target == "balanced" else target.split("+")
    chosen = np.array([name in members for name in BOUND_TARGETS.values()], dtype=np.float64)
    if len(members) == 1:
        return chosen
    return chosen / len(members) / np.abs(scale[list(BOUND_TARGETS.values())].to_numpy())


def decision_times(methods: list[str]) -> pd.DataFrame:
    """Measured decision times: method, sites, median_s, p95_s; in the order of `methods`.

    A method that was not measured has no rows.

    Processor seconds of `benchmarks/decisions.py`, whose table the package carries: a measurement
    on one machine (`measured_on`), and so no part of what a run makes.
    """
    table = pd.read_csv(str(files("marlin.analysis").joinpath("decisions.csv")))
    table = table[table["method"].isin(methods)]
    return table.sort_values(
        "method", key=lambda names: names.map(methods.index), kind="stable", ignore_index=True
    )


def mean_improvement(pairs: pd.DataFrame) -> pd.DataFrame:
    """Of `improvements`, by method: the mean over others, and how many it surely beats or loses to.

    Columns: method, improvement, better, worse (intervals that do not hold one half); best first.
    """
    rows = [
        {
            "method": method,
            "improvement": float(own["improvement"].mean()),
            "better": int((own["improvement_low"] > 0.5).sum()),
            "worse": int((own["improvement_high"] < 0.5).sum()),
        }
        for method, own in pairs.groupby("method", sort=False)
    ]
    table = pd.DataFrame(rows, columns=["method", "improvement", "better", "worse"])
    return table.sort_values("improvement", ascending=False, kind="stable", ignore_index=True)
