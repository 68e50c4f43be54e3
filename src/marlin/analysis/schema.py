"""Columns of the result files, their keys, and the names and units that readers see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from marlin.errors import UserError
from marlin.fleet.contract import OBJECTIVES

REFERENCE_METHOD = "round_robin"
NO_ABLATION = "none"
RUN_KEYS = ("scenario", "method", "ablation", "seed")


@dataclass(frozen=True)
class FileSchema:
    """A parquet file of the result tree: its columns, and those that together are unique."""

    name: str
    keys: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, keys first."""
        return self.keys + self.values


EPISODES = FileSchema(
    "episodes.parquet",
    (*RUN_KEYS, "day"),
    (
        *OBJECTIVES,
        "energy_kwh",
        "scarcity_water_l",
        "requests",
        "served",
        "dropped",
        "utilisation_mean",
        "utilisation_peak",
        "embodied_kg",
        "network_kwh",
        "sci_g_per_request",
        "demand_charge_usd",
        "stale_share",
    ),
)
# What replay adds to an episode; absent where the fluid model alone scores (`scoring=fluid`).
JUDGED = (
    "ttft_p50_s",
    "ttft_p95_s",
    "ttft_p99_s",
    "tpot_p95_s",
    "slo_attainment",
    "fluid_ttft_s",
    "fluid_carbon_kg",
    *(f"{objective}_se" for objective in OBJECTIVES),
)
EPOCHS = FileSchema(
    "epochs.parquet",
    (*RUN_KEYS, "time", "site"),
    (
        "requests_per_s",
        "energy_kwh",
        "carbon_kg",
        "water_l",
        "cost_usd",
        "ttft_s",
        "nodes_on",
        "carbon_g_per_kwh",
        "price_usd_per_mwh",
    ),
)
LEARNING = FileSchema("learning.parquet", (*RUN_KEYS, "training_epochs", "variant"), OBJECTIVES)

AGREEMENT = FileSchema(
    "agreement.parquet", (*RUN_KEYS, "objective"), ("weight", "cost_ratio", "claim_gain")
)

# What balanced scores and gaps are measured against.
SCORE_BASELINE = "weighted_round_robin"
BOUND_TARGETS = {"ttft_s": "ttft", "carbon_kg": "carbon", "water_l": "water", "cost_usd": "cost"}
BOUNDS = FileSchema("bounds", ("scenario", "day", "judge", "target", "kind"), ("value",))
# Plans that know the truth and can be carried out (`marlin.bounds.references`).
REFERENCE_PLANS = {"mpc_perfect": "MPC that knows the epoch", "best_static": "Best static split"}

# What is held against the rest: the method of the paper of 2026 and this project's own.
BALANCED = "marlin"
CONTENDERS = (BALANCED, "marlin_nash")
# What that paper claims against the best earlier system, in per cent, for each objective
# (abstract of arXiv:2605.13496).
CLAIMED_REDUCTION_PERCENT = {"ttft_s": 18, "carbon_kg": 33, "water_l": 43, "cost_usd": 11}
# Systems that it is, or could have been, compared with: as published and, with `AS_RUN`, as its
# authors ran them.
PUBLISHED = (
    "helix", "splitwise", "perllm", "dynamollm", "slit", "nsga2", "q_learning", "ddqn",
    "actor_critic",
)  # fmt: skip
AS_RUN = "_as_run"

OBJECTIVE_NAMES = {
    "ttft_s": "TTFT",
    "carbon_kg": "Carbon",
    "water_l": "Water",
    "cost_usd": "Energy cost",
}
METHOD_NAMES = {
    "round_robin": "Round robin",
    "weighted_round_robin": "Weighted round robin",
    "jsq": "Shortest queue",
    "nearest": "Nearest",
    "ttft_greedy": "TTFT-greedy",
    "carbon_greedy": "Carbon-greedy",
    "water_greedy": "Water-greedy",
    "cost_greedy": "Cost-greedy",
    "weighted_greedy": "Weighted greedy",
    "splitwise": "Splitwise",
    "splitwise_as_run": "Splitwise as run",
    "helix": "Helix",
    "helix_as_run": "Helix as run",
    "perllm": "PerLLM",
    "perllm_as_run": "PerLLM as run",
    "dynamollm": "DynamoLLM",
    "casper": "CASPER",
    "waterwise": "WaterWise",
    "slit": "SLIT",
    "nsga2": "NSGA-II",
    "nsga2_as_run": "NSGA-II as run",
    "nsga3": "NSGA-III",
    "q_learning": "Q-learning",
    "q_learning_as_run": "Q-learning as run",
    "ddqn": "DDQN",
    "ddqn_as_run": "DDQN as run",
    "actor_critic": "Actor-critic",
    "actor_critic_as_run": "Actor-critic as run",
    "sac_scalar": "Scalar SAC",
    "ippo": "IPPO",
    "mappo": "MAPPO",
    "mpc": "MPC",
    "marlin": "MARLIN",
    "marlin_nash": "MARLIN Nash",
    "marlin_as_run": "MARLIN as run (knows the epoch)",
}
# What plans on the truth is shown, marked by its name, and takes part in no comparison.
ON_TRUTH = ("marlin_as_run",)


VARIANT_NAMES = {"ttft": "TTFT", "carbon": "carbon", "water": "water", "cost": "cost"}


def method_name(method: str) -> str:
    """Name of a method for readers; a user's own method shows its identifier."""
    base, variant = parts_of(method)
    name = METHOD_NAMES.get(base, base.replace("_", " "))
    return f"{name} {VARIANT_NAMES[variant]}" if variant else name


def parts_of(method: str) -> tuple[str, str]:
    """A method and the objective that its variant is for: `nsga2_carbon` is (nsga2, carbon).

    A method that is known by its whole name has no variant.
    """
    base, _, last = method.rpartition("_")
    if method in METHOD_NAMES or last not in VARIANT_NAMES:
        return method, ""
    return base, last


ENGINE_NAMES = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"}


def engine_name(backend: str) -> str:
    """Name of a serving engine for readers."""
    return ENGINE_NAMES.get(backend, backend)


def model_name(model: str) -> str:
    """Name of a language model for readers: `llama-3.1-8b` to `Llama 3.1 8B`."""
    parts = model.split("-")
    return " ".join(
        part.upper() if part[:-1].isdigit() and part[-1] == "b" else part.capitalize()
        for part in parts
    )


def system_of(method: str) -> str:
    """The system behind a policy: `nsga2_as_run` and `nsga2_carbon` are both `nsga2`."""
    return parts_of(method)[0].removesuffix(AS_RUN)


def is_marlin(method: str) -> bool:
    """Whether a method belongs to the MARLIN family; all others are baselines."""
    return system_of(method) in CONTENDERS


def is_published(method: str) -> bool:
    """Whether a method is a form or a variant of a published system."""
    return system_of(method) in PUBLISHED


def plans_on_truth(method: str) -> bool:
    """Whether a method, or the one that it is a variant of, is shown what will come true."""
    return parts_of(method)[0] in ON_TRUTH


def order_methods(methods: set[str]) -> list[str]:
    """Reference first, then baselines, then the MARLIN family, each in a fixed order."""
    known = list(METHOD_NAMES)

    def rank(method: str) -> tuple[bool, int, str, int]:
        base, variant = parts_of(method)
        place = known.index(base) if base in METHOD_NAMES else len(known)
        return is_marlin(method), place, base, ["", *VARIANT_NAMES].index(variant)

    return sorted(methods, key=rank)


def groups(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Rows by the values of several `keys`: (tuple of values, rows), in order of appearance."""
    for key, cells in frame.groupby(list(keys), sort=False):
        yield cast("tuple[Any, ...]", key), cells


def check(frame: pd.DataFrame, schema: FileSchema, source: Path) -> pd.DataFrame:
    """`frame` sorted by its keys, after checks of columns, missing values and uniqueness.

    Raises UserError naming `source`. A site that receives no request has no time to first token:
    there alone `ttft_s` of epochs may be missing.
    """
    missing = [column for column in schema.columns if column not in frame.columns]
    if missing:
        raise UserError(
            f"{source}: column {missing[0]!r} is missing; evaluate the run again with this version"
        )
    gaps = frame.isna()
    if schema is EPOCHS:
        gaps["ttft_s"] &= frame["requests_per_s"] > 0
    bad = gaps.columns[gaps.any()]
    if len(bad):
        row = int(gaps[bad[0]].to_numpy().argmax())
        raise UserError(
            f"{source}: column {bad[0]!r} has no value in row {row}; evaluate the run again"
        )
    keys = list(schema.keys)
    if frame.duplicated(keys).any():
        raise UserError(
            f"{source}: rows repeat the key {', '.join(keys)}; remove stale run folders"
        )
    return frame.sort_values(keys, kind="stable").reset_index(drop=True)


def read(path: Path, schema: FileSchema) -> pd.DataFrame:
    """A checked parquet file of the result tree. Raises UserError when it is not there."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: run the stage of the suite that writes it")
    return check(pd.read_parquet(path), schema, path)
