"""A synthetic result tree with the columns and the rough sizes of a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from marlin.serving import power_validation

CONF = Path(__file__).parents[1] / "conf"
OBJECTIVES = ("ttft_s", "carbon_kg", "water_l", "cost_usd")
ROUND_ROBIN = {"ttft_s": 0.42, "carbon_kg": 21_300.0, "water_l": 148_000.0, "cost_usd": 4_150.0}
# Mean of each objective relative to round robin, and how much a seed moves it.
METHODS = {
    "round_robin": ((1.00, 1.00, 1.00, 1.00), 0.0),
    "weighted_round_robin": ((1.00, 1.00, 1.00, 1.00), 0.0),
    "nearest": ((0.71, 1.03, 0.99, 1.02), 0.0),
    "carbon_greedy": ((1.62, 0.58, 0.93, 0.95), 0.0),
    "weighted_greedy": ((1.08, 0.74, 0.84, 0.81), 0.0),
    "nsga2": ((0.93, 0.79, 0.80, 0.83), 0.01),
    "marlin": ((0.84, 0.66, 0.71, 0.78), 0.02),
    "marlin_ttft": ((0.66, 0.98, 0.95, 1.00), 0.02),
    "marlin_carbon": ((1.30, 0.49, 0.88, 0.93), 0.02),
    "marlin_water": ((1.21, 0.83, 0.44, 0.90), 0.03),
    "marlin_cost": ((1.12, 0.90, 0.86, 0.73), 0.02),
}
SITES = {
    "ontario": 47, "sao-paulo": 60, "london": 140, "california": 190, "new-york": 230,
    "frankfurt": 290, "texas": 310, "virginia": 330, "seoul": 360, "singapore": 369,
    "melbourne": 460, "sydney": 502,
}  # fmt: skip
VARIANTS = ("balanced", "ttft", "carbon", "water", "cost")
CHECKPOINTS = (2_560, 5_120, 10_240, 20_480, 40_960)


def episodes(method: str, seed: int, days: int, scenario: str = "year") -> pd.DataFrame:
    """Daily objectives: the method's ratios around a seasonal round robin."""
    means, spread = METHODS[method]
    rng = np.random.default_rng([seed, *method.encode()])
    rows = []
    for index in range(days):
        season = 1.0 + 0.15 * np.cos(2 * np.pi * index / days)
        noise = 1.0 + spread * rng.standard_normal(4)
        values = {
            name: ROUND_ROBIN[name] * season * mean * factor
            for name, mean, factor in zip(OBJECTIVES, means, noise, strict=True)
        }
        requests = 2.4e6 * season
        dropped = 0.002 * requests if method == "nearest" else 0.0
        rows.append(
            {
                "scenario": scenario, "method": method, "ablation": "none", "seed": seed,
                "day": f"2024-{1 + 12 * index // days:02d}-15", **values,
                "energy_kwh": 61_000 * season * means[3], "scarcity_water_l": 9 * values["water_l"],
                "requests": requests, "served": requests - dropped, "dropped": dropped,
                "utilisation_mean": 0.38, "utilisation_peak": 0.58, "embodied_kg": 40.0,
                "network_kwh": 0.4, "sci_g_per_request": 0.2, "demand_charge_usd": 700.0,
                "stale_share": 0.0,
            }
            | judged(values)
        )  # fmt: skip
    return pd.DataFrame(rows)


def judged(values: dict[str, float]) -> dict[str, float]:
    """What replay adds: a tail three times the mean, the fluid model a tenth below in TTFT."""
    return {
        "ttft_p50_s": 0.8 * values["ttft_s"], "ttft_p95_s": 3 * values["ttft_s"],
        "ttft_p99_s": 5 * values["ttft_s"], "tpot_p50_s": 0.02, "tpot_p95_s": 0.04,
        "slo_attainment": 0.9, "fluid_ttft_s": 0.9 * values["ttft_s"],
        "fluid_carbon_kg": 1.01 * values["carbon_kg"],
        **{f"{name}_se": 0.02 * value for name, value in values.items()},
    }  # fmt: skip


def epochs(method: str, seed: int, scenario: str = "year") -> pd.DataFrame:
    """The first test day by quarter hour and site; MARLIN prefers clean sites."""
    means, _ = METHODS[method]
    time = pd.date_range("2024-01-15", periods=96, freq="15min", tz="UTC")
    hours = np.arange(96) / 4
    intensity = np.array(list(SITES.values()), dtype=float)
    phase = np.linspace(0, 2 * np.pi, len(SITES))
    swing = 1 + 0.25 * np.cos(2 * np.pi * hours[:, None] / 24 + phase)
    carbon = intensity * swing
    preference = 1.0 if method == "round_robin" else np.exp(-carbon / (120 + 300 * means[1]))
    share = preference * np.ones_like(carbon)
    share = share / share.sum(axis=1, keepdims=True)
    demand = 7_800 * (1 + 0.35 * np.sin(2 * np.pi * (hours - 8) / 24))
    requests = demand[:, None] * share
    frame = pd.DataFrame(
        {
            "time": np.repeat(time, len(SITES)),
            "site": np.tile(list(SITES), 96),
            "requests_per_s": requests.ravel(),
            "energy_kwh": 0.08 * requests.ravel() + 3,
            "carbon_g_per_kwh": carbon.ravel(),
            "price_usd_per_mwh": 60 * np.roll(swing, 20, axis=0).ravel(),
            "ttft_s": 0.42 * means[0] * (1 + 0.1 * swing.ravel()),
            "nodes_on": np.ceil(requests.ravel() / 70),
        }
    )
    frame["carbon_kg"] = frame["energy_kwh"] * frame["carbon_g_per_kwh"] / 1000
    frame["water_l"] = 2.4 * frame["energy_kwh"] * means[2]
    frame["cost_usd"] = frame["energy_kwh"] * frame["price_usd_per_mwh"] / 1000
    return frame.assign(scenario=scenario, method=method, ablation="none", seed=seed)


def learning(seed: int, scenario: str = "year") -> pd.DataFrame:
    """Learning curves that fall towards each variant's level."""
    rng = np.random.default_rng(seed)
    rows = []
    for variant in VARIANTS:
        method = "marlin" if variant == "balanced" else f"marlin_{variant}"
        for step in CHECKPOINTS:
            progress = 1 - np.exp(-step / 9_000)
            noise = 1 + 0.03 * rng.standard_normal(4)
            values = {
                name: ROUND_ROBIN[name] * (1 + (mean - 1) * progress) * factor
                for name, mean, factor in zip(OBJECTIVES, METHODS[method][0], noise, strict=True)
            }
            rows.append(
                {
                    "scenario": scenario, "method": "marlin", "ablation": "none", "seed": seed,
                    "training_epochs": step, "variant": variant, **values,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def serving(results: Path) -> None:
    """Profiles and validation points of two models on two GPUs."""
    rng = np.random.default_rng(3)
    profiles, silicon = [], []
    for model, tp, scale in (("llama-3.1-8b", 1, 1.0), ("llama-3.1-70b", 4, 2.6)):
        for gpu, slow in (("A100", 1.9), ("H100", 1.0)):
            keys = {
                "model": model,
                "gpu": gpu,
                "tp": tp,
                "backend": "vllm",
                "precision": "bfloat16",
            }
            profiles.append(
                keys
                | {
                    "engine_version": "0.14.0", "source": "kernel tables", "licence": "Apache-2.0",
                    "prefill_fit_error_median": 0.031, "prefill_fit_error_p90": 0.08,
                    "decode_fit_error_median": 0.024, "decode_fit_error_p90": 0.06,
                }
            )  # fmt: skip
            if gpu == "A100" and tp == 4:
                continue
            for point in range(60):
                tpot = 0.006 * scale * slow * rng.uniform(1, 6)
                ttft = 0.02 * scale * slow * rng.lognormal(1.0, 2.0)
                silicon.append(
                    keys
                    | {
                        "engine_version": "0.14.0",
                        "split": "fitted" if point % 5 == 4 else "held out",
                        "input_tokens": 1024, "output_tokens": 256, "concurrency": 16,
                        "measured_ttft_s": ttft, "measured_tpot_s": tpot,
                        "predicted_ttft_s": ttft * rng.lognormal(0.05, 0.15),
                        "predicted_tpot_s": tpot * rng.lognormal(0.0, 0.07),
                        "excluded": "KV cache too small" if point == 58 else "",
                    }
                )  # fmt: skip
    (results / "serving").mkdir(parents=True)
    pd.DataFrame(profiles).to_parquet(results / "serving/profiles.parquet", index=False)
    pd.DataFrame(silicon).to_parquet(results / "serving/silicon.parquet", index=False)
    power_validation.table(None).to_csv(results / "serving/power.csv", index=False)


def fluid(results: Path) -> None:
    """The fluid model against replay: a little high at low load, low with cold nodes."""
    rows = [
        {
            "utilisation": load, "arrival_cv2": cv2, "mix": "both", "warm": warm,
            "ttft_error": 0.1 - 0.1 * load * cv2 if warm == 1 else -0.3, "energy_error": 0.01,
        }
        for load in (0.2, 0.85)
        for cv2, warm in ((1.0, 1.0), (4.0, 1.0), (1.0, 0.5))
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(results / "serving" / "fluid.csv", index=False)


BOUND = 0.3  # of round robin, of every objective
ENDS = {"bound": BOUND, "weighted_round_robin": 1.0}
KINDS = {  # of round robin, by judge; what can be reached is dearer under replay
    "fluid": {**ENDS, "mpc_perfect": 0.4, "best_static": 0.5},
    "replay": {**ENDS, "mpc_perfect": 0.51, "best_static": 0.65},
}
PAIR_BOUND = 0.6  # of the mean of carbon and water


def bounds(results: Path, days: int, scenario: str = "year") -> None:
    """Bounds of both judges, and reference points that are no bounds."""
    day = episodes("round_robin", 0, days, scenario)
    rows = [
        {
            "scenario": scenario, "ablation": "none", "day": cell["day"], "judge": judge,
            "target": target, "kind": kind, "value": factor * unit,
        }
        for _, cell in day.iterrows()
        for judge in ("fluid", "replay")
        for kind, factor in KINDS[judge].items()
        for target, unit in (*((o.split("_")[0], cell[o]) for o in OBJECTIVES), ("balanced", 1.0))
    ] + [
        {
            "scenario": scenario, "ablation": "none", "day": cell["day"], "judge": judge,
            "target": "carbon+water", "kind": "bound", "value": PAIR_BOUND,
        }
        for _, cell in day.iterrows()
        for judge in ("fluid", "replay")
    ]  # fmt: skip
    (results / "bounds").mkdir()
    pd.DataFrame(rows).to_parquet(results / "bounds" / f"{scenario}.parquet", index=False)


def agreement(results: Path, seeds: int, scenario: str = "year") -> None:
    """Agents that agreed: water weighs most, and TTFT would gain most by a false claim."""
    rows = [
        {
            "scenario": scenario, "method": "marlin_nash", "ablation": "none", "seed": seed,
            "objective": objective, "weight": (0.2, 0.25, 0.3, 0.25)[place],
            "cost_ratio": 0.5 + 0.01 * seed, "claim_gain": (0.3, 0.1, 0.1, 0.2)[place],
        }
        for seed in range(seeds)
        for place, objective in enumerate(OBJECTIVES)
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(results / "agreement.parquet", index=False)


def sources(results: Path, kind: str, scenario: str = "year") -> None:
    """Data sources of one scenario."""
    entries = [
        {
            "id": "carbon", "version": "2025-04-03", "licence": "ODbL-1.0",
            "attribution": "Electricity Maps", "sha256": "0" * 64, "origin": kind,
            "title": "Hourly carbon intensity", "citation": "electricitymaps2025",
        },
        {
            "id": "requests", "version": "2023", "licence": "CC-BY-4.0",
            "attribution": "Microsoft Azure", "sha256": "1" * 64, "origin": "embedded",
            "title": "Requests of one hour", "citation": "patel2024splitwise",
        },
    ]  # fmt: skip
    (results / "data").mkdir(parents=True, exist_ok=True)
    path = results / "data" / f"{scenario}.sources.json"
    path.write_text(json.dumps({"source": kind, "sources": entries}))


def resolved() -> str:
    """The default configuration, composed as a run would."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return yaml.safe_dump(OmegaConf.to_container(compose("config"), resolve=True))


def write(results: Path, *, seeds: int = 3, days: int = 6, kind: str = "embedded") -> Path:
    """A result tree before collection; returns its folder."""
    configuration = resolved()
    folders: dict[str, list[str]] = {method: [method] for method in METHODS}
    for method in list(folders):
        if method.startswith("marlin_"):
            folders["marlin"].append(method)
            del folders[method]
    for method, variants in folders.items():
        for seed in range(seeds):
            folder = results / "runs" / "year" / method / "none" / f"seed-{seed}"
            folder.mkdir(parents=True)
            scores = pd.concat([episodes(name, seed, days) for name in variants])
            scores.to_parquet(folder / "episodes.parquet", index=False)
            day = pd.concat([epochs(name, seed) for name in variants])
            day.to_parquet(folder / "epochs.parquet", index=False)
            curve = learning(seed)
            curve = curve if method == "marlin" else curve.iloc[:0]
            curve.to_parquet(folder / "learning.parquet", index=False)
            (folder / "evaluated.yaml").write_text(configuration)
    serving(results)
    fluid(results)
    bounds(results, days)
    agreement(results, seeds)
    sources(results, kind)
    return results
