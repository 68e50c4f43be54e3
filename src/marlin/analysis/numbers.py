"""Numbers and adaptive words for the paper's prose, as display strings.

The prose holds no digits of its own: it places these strings. A word that depends on a result
(a reduction or an increase, met or not) is chosen here, from the numbers.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from marlin.analysis import comparison, summary
from marlin.analysis.display import count_word, listing, number
from marlin.analysis.schema import (
    BALANCED,
    CLAIMED_REDUCTION_PERCENT,
    OBJECTIVE_NAMES,
    OBJECTIVES,
    engine_name,
    is_marlin,
    is_published,
    method_name,
    model_name,
    parts_of,
)
from marlin.analysis.setting import EMBEDDED, JOIN, ORIGIN_NAMES
from marlin.analysis.statistics import (
    CONFIDENCE,
    HYPERVOLUME_REFERENCE,
    RESAMPLES,
    Estimate,
    estimate,
)

PERCENT = "\u00a0%"  # not parted from its number at the end of a line
IN_SENTENCE = {
    "ttft_s": "time to first token",
    "carbon_kg": "carbon",
    "water_l": "water",
    "cost_usd": "energy cost",
}


def change_words(reduction: Estimate) -> dict[str, str]:
    """A reduction in per cent as words.

    `phrase` is "a reduction of 12.3 %" or "an increase of 3.4 %"; `interval_phrase` gives the
    interval in the same direction, and nothing where seeds agree.
    """
    falls = reduction.point >= 0.0
    sign = 1.0 if falls else -1.0
    low, high = sorted((sign * reduction.low, sign * reduction.high))
    wide = high - low > 1e-9
    return {
        "direction": "reduction" if falls else "increase",
        "phrase": f"{'a reduction' if falls else 'an increase'} of "
        f"{number(abs(reduction.point), 1)}{PERCENT}",
        "interval_phrase": f"({number(low, 1)} to {number(high, 1)}{PERCENT})" if wide else "",
        "percent": number(reduction.point, 1),
    }


def claims(frame: pd.DataFrame) -> dict[str, Any]:
    """The four claims with what was measured; empty mapping without MARLIN.

    `best_baseline` is the best earlier system (`summary.claim_baselines`), `best_of_all` the best
    of all baselines.
    """
    against = {
        name: _of_marlin(summary.reductions(frame, best))
        for name, best in (
            ("best", summary.claim_baselines(frame)),
            ("all", summary.best_baselines(frame)),
        )
    }
    result: dict[str, Any] = {}
    for key, row in against["best"].iterrows():
        objective, policy = cast("tuple[str, str]", key)
        of_all = against["all"].loc[(objective, policy)]
        entry = result.setdefault(
            objective,
            {
                "name": OBJECTIVE_NAMES[objective],
                "in_sentence": IN_SENTENCE[objective],
                "claimed": str(CLAIMED_REDUCTION_PERCENT[objective]),
                "best_baseline": method_name(row["best_baseline"]),
                "best_of_all": method_name(of_all["best_baseline"]),
            },
        )
        improvement = summary.estimate_of(row, "improvement")
        entry[policy] = {
            "method": method_name(row["method"]),
            "verdict": row["verdict"],
            "against_best": change_words(summary.estimate_of(row, "reduction_percent")),
            "against_all": change_words(summary.estimate_of(of_all, "reduction_percent")),
            "against_round_robin": change_words(summary.estimate_of(row, "reference_percent")),
            "improvement_percent": number(100.0 * improvement.point, 0),
        }
    return result


def _of_marlin(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the method whose claims are tested, by objective and policy."""
    return table[table["contender"] == BALANCED].set_index(["objective", "policy"])


def leaders_sentence(leaders: pd.DataFrame) -> str:
    """Which published system is best on what and by how much over the next; empty without any."""
    own = leaders[leaders["field"] == comparison.PUBLISHED_SYSTEMS]
    parts = [
        f"{method_name(row['best'])} on {IN_SENTENCE[row['objective']]} "
        f"({number(row['margin_percent'], 1)}{PERCENT} below {method_name(row['next'])})"
        for _, row in own.iterrows()
    ]
    return f"Of the published systems the best are {listing(parts)}." if parts else ""


def fronts_sentence(fronts: pd.DataFrame) -> str:
    """Whose policies together reach most of what the bounds allow, and how much MARLIN's do."""
    if fronts.empty:
        return ""
    shares = fronts.set_index("method")["volume_percent"]
    best = str(shares.idxmax())
    text = (
        f"The policies of {method_name(best)} together dominate {number(shares[best], 0)}{PERCENT} "
        "of the volume that the bounds leave possible"
    )
    if BALANCED in shares.index and best != BALANCED:
        text += f", those of {method_name(BALANCED)} {number(shares[BALANCED], 0)}{PERCENT}"
    return f"{text}."


def outcome(claimed: dict[str, Any]) -> dict[str, str]:
    """Which claims are met by the one-objective variants, as words for a sentence."""
    by_verdict: dict[str, list[str]] = {"met": [], "open": [], "not met": []}
    for objective in OBJECTIVES:
        if objective in claimed:
            entry = claimed[objective]
            by_verdict[entry["one_objective"]["verdict"]].append(entry["in_sentence"])
    sentences = []
    if claimed and len(by_verdict["met"]) == len(claimed):
        sentences.append("All claimed reductions are met.")
    elif claimed and len(by_verdict["not met"]) == len(claimed):
        sentences.append("None of the claimed reductions is reproduced.")
    elif by_verdict["met"]:
        sentences.append(f"The claimed reduction is met for {listing(by_verdict['met'])}.")
    if by_verdict["open"]:
        sentences.append(
            "The measured value is below the claim, with the claim inside the interval, for "
            f"{listing(by_verdict['open'])}."
        )
    if 0 < len(by_verdict["not met"]) < len(claimed):
        sentences.append(f"The claim is not reproduced for {listing(by_verdict['not met'])}.")
    return {
        "met_count": count_word(len(by_verdict["met"])),
        "claim_count": count_word(len(claimed)),
        "sentences": " ".join(sentences),
        "not_reproduced": listing(by_verdict["not met"] + by_verdict["open"]),
        "all_met": "no" if by_verdict["not met"] or by_verdict["open"] else "yes",
    }


def _balanced_sentence(claimed: dict[str, Any]) -> str:
    """How the balanced policy does against round robin, objective by objective."""
    parts = []
    for objective in OBJECTIVES:
        words = claimed[objective]["balanced"]["against_round_robin"]
        parts.append(f"{words['phrase']} in {claimed[objective]['in_sentence']}")
    return listing(parts)


def data_words(kind: str) -> dict[str, str]:
    """Where the data came from, and the abstract's warning when they are not measured years."""
    origins = kind.split(JOIN)
    embedded = EMBEDDED in origins
    return {
        "kind": kind,
        "name": listing([ORIGIN_NAMES[origin] for origin in origins]),
        "measured": "no" if embedded else "yes",
        "abstract_sentence": (
            "The signals of this build are years drawn from climatologies that the package embeds, "
            "not measured years, so its numbers illustrate the method and are not findings about "
            "real grids."
            if embedded
            else "Signals are measured hourly series of grids, markets and weather."
        ),
    }


def setting_words(configuration: dict[str, Any]) -> dict[str, Any]:
    """The setting of the runs from their resolved configuration, as display strings."""
    fleet, workload = configuration["fleet"], configuration["workload"]
    scenario, budget = configuration["scenario"], configuration["budget"]
    serving, signals = configuration["serving"], configuration["signals"]
    scoring = configuration["scoring"]
    nodes = [sum(site["nodes"].values()) for site in fleet["sites"]]
    gpus = [
        sum(count * fleet["node_types"][kind]["gpus"] for kind, count in site["nodes"].items())
        for site in fleet["sites"]
    ]
    return {
        "sites": number(len(fleet["sites"]), 0),
        "nodes": number(sum(nodes), 0),
        "gpus": number(sum(gpus), 0),
        "gpu_models": listing(sorted({kind["gpu"] for kind in fleet["node_types"].values()})),
        "origins": number(len(workload["origins"]), 0),
        "services": listing(list(workload["services"])),
        "models": listing([model_name(model["name"]) for model in serving["models"]]),
        "backend": engine_name(serving["backend"]),
        "large_share_percent": number(100.0 * workload["large_share"], 0),
        "peak_utilisation_percent": number(100.0 * workload["peak_utilisation"], 0),
        "epoch_minutes": number(scenario["epoch_minutes"], 0),
        "train": f"{scenario['train']['first']} to {scenario['train']['last']}",
        "test": f"{scenario['test']['first']} to {scenario['test']['last']}",
        "validation_days": number(scenario["validation_days"], 0),
        "calls_per_decision": number(budget["calls_per_decision"], 0),
        "training_epochs": number(budget["training_epochs"], 0),
        "budget": budget["name"],
        "hydropower_l_per_kwh": number(signals["hydropower_l_per_kwh"], 0),
        "carbon_family": {"direct": "direct", "lifecycle": "life-cycle"}.get(
            signals["carbon_family"], signals["carbon_family"]
        ),
        "utilisation_ceiling_percent": number(100.0 * serving["utilisation_ceiling"], 0),
        "patience_s": number(serving["patience_s"], 0),
        "max_batch": number(serving["max_batch"], 0),
        "last_mile_ms": number(1e3 * workload["last_mile_rtt_s"], 0),
        "judge": scoring["judge"],
        "replayed_epochs": number(scoring["epochs"], 0),
        "replayed_share_percent": number(100.0 * scoring["share"], 1),
        "replayed_at_least": number(scoring["at_least"], 0),
        "replay_warm_up_s": number(scoring["warm_up_s"], 0),
        "off_state": {"off": "off", "deep_idle": "in deep idle"}.get(
            serving["off_state"], serving["off_state"]
        ),
    }


def calibration_words(
    silicon: pd.DataFrame, profiles: pd.DataFrame, backend: str
) -> dict[str, Any]:
    """Errors of the serving models over all measured points and over the fleet's engine."""
    points_kept = summary.kept(silicon)
    own = points_kept[points_kept["backend"] == backend]
    words: dict[str, Any] = {"profiles": count_word(len(profiles))}
    left_out = summary.exclusions(silicon)
    words["excluded"] = "; ".join(f"{number(n, 0)} ({why})" for why, n in left_out.items())
    for name, points in (("all", points_kept), ("engine", own)):
        words[name] = {"points": number(len(points), 0)}
        if len(points):
            errors = summary.calibration_overall(points)
            words[name] |= {key: number(value, 1) for key, value in errors.items()}
    fits = summary.profile_fits(silicon, profiles)
    for phase in ("prefill", "decode"):
        worst = float(np.max(fits[f"{phase}_median_percent"]))
        words[f"{phase}_worst_median"] = number(worst, 1)
    untested = fits[fits["points"] == 0]
    words["untested"] = listing(
        [f"{model_name(row['model'])} on {row['gpu']}" for _, row in untested.iterrows()]
    )
    return words


def power_words(configurations: pd.DataFrame) -> dict[str, str]:
    """Errors of predicted GPU power over measured configurations of the models a fit left out."""
    dense = configurations[~configurations["moe"]]
    told = dense[dense["j_median"].notna()]
    return {
        "configurations": number(len(dense), 0),
        "runs": number(int(dense["runs"].sum()), 0),
        "batch_low": number(int(dense["batch_low"].min()), 0),
        "batch_high": number(int(dense["batch_high"].max()), 0),
        "w_median_percent": number(100.0 * dense["w_median"].median(), 1),
        "w_worst_percent": number(100.0 * dense["w_median"].max(), 1),
        "j_configurations": number(len(told), 0),
        "j_median_percent": number(100.0 * told["j_median"].median(), 1),
        "moe_median_percent": number(
            100.0 * configurations.loc[configurations["moe"], "w_median"].median(), 0
        ),
    }


def _served_sentence(lowest_percent: float) -> str:
    """How much the worst scheduler serves: a saving by refusal would show here."""
    shown = number(lowest_percent, 2)
    if float(shown) == 100.0:
        return "Every scheduler serves all requests, so that none saves by refusing work."
    return (
        f"The scheduler that drops most serves {shown}{PERCENT} of requests; the column of served "
        "requests shows who saves by refusing work."
    )


def _first_checkpoint(learning: pd.DataFrame) -> int:
    """Training epochs at the first point of the learning curves."""
    return int(learning["training_epochs"].min()) if len(learning) else 0


def prose_numbers(
    frame: pd.DataFrame,
    bounds: pd.DataFrame,
    learning: pd.DataFrame,
    silicon: pd.DataFrame,
    profiles: pd.DataFrame,
    power: pd.DataFrame,
    configuration: dict[str, Any],
    source: str,
) -> dict[str, Any]:
    """Everything that the paper's prose may quote; see the module's functions for its parts."""
    claimed = claims(frame)
    service = summary.service(frame)
    reference = summary.strata(frame, "round_robin", "utilisation_mean")
    parts = [parts_of(m) for m in summary.methods_of(frame) if not is_marlin(m)]
    baselines = [method for method, variant in parts if not variant]
    varied = [method for method in baselines if any(p[0] == method and p[1] for p in parts)]
    seeds = int((frame[frame["method"] == BALANCED] if claimed else frame)["seed"].nunique())
    times = comparison.decision_times(summary.methods_of(frame))
    numbers: dict[str, Any] = {
        "baselines": listing([method_name(m) for m in baselines]),
        "baseline_ids": baselines,
        "baseline_count": count_word(len(baselines)),
        "varied_baselines": listing([method_name(m) for m in varied]),
        "calibration": calibration_words(silicon, profiles, configuration["serving"]["backend"]),
        "claims": claimed,
        "confidence_percent": number(100.0 * CONFIDENCE, 0),
        "data": data_words(source),
        "days": number(int(frame.groupby("scenario")["day"].nunique().to_numpy().max()), 0),
        "first_checkpoint": number(_first_checkpoint(learning), 0),
        "decisions_on": listing(sorted(times["measured_on"].unique())),
        "earlier_systems": (
            "published systems" if any(map(is_published, baselines)) else "baselines"
        ),
        "fronts_sentence": fronts_sentence(comparison.fronts(frame, bounds)),
        "hypervolume_reference": number(HYPERVOLUME_REFERENCE, 0),
        "leaders_sentence": leaders_sentence(comparison.leaders(frame, bounds)),
        "outcome": outcome(claimed),
        "power": power_words(power),
        "resamples": number(RESAMPLES, 0),
        "scenarios": listing(sorted(frame["scenario"].unique())),
        "scenario_count": count_word(frame["scenario"].nunique()),
        "seeds": number(seeds, 0),
        "seeds_phrase": f"{number(seeds, 0)} {'seed' if seeds == 1 else 'seeds'}",
        "served_sentence": _served_sentence(float(service["served_percent"].to_numpy().min())),
        "setting": setting_words(configuration),
        "trained_epochs": number(learning["training_epochs"].max(), 0) if len(learning) else "0",
        "utilisation_percent": number(100.0 * estimate(reference).point, 0),
    }
    if claimed and all("balanced" in entry for entry in claimed.values()):
        numbers["balanced_sentence"] = _balanced_sentence(claimed)
    return numbers
