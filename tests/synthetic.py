"""A small made-up world for tests that need no data: three sites, two node types, two services."""

from __future__ import annotations

import numpy as np
import xarray as xr

from marlin.config import RunConfig
from marlin.fleet.world import World
from marlin.judge import Services
from marlin.serving.profiles import ServingProfile

SITES = ("clean-far", "dirty-near", "dry-cheap")
ORIGINS = ("west", "east")
SERVICES = ("conversation", "code")
EPOCHS_PER_DAY = 96


def run_config(**changes: object) -> RunConfig:
    """A run on the made-up world; `changes` replace whole sections or the seed."""
    node_types = {
        "a100x8": {
            "gpu": "A100", "gpus": 8, "base_idle_w": 900, "base_full_w": 1800, "boot_s": 180,
        },
        "h100x8": {
            "gpu": "H100", "gpus": 8, "base_idle_w": 1200, "base_full_w": 2800, "boot_s": 180,
        },
    }  # fmt: skip
    sections = {
        "scenario": {
            "name": "made-up",
            "epoch_minutes": 15,
            "train": {"first": "2023-06-01", "last": "2023-06-12"},
            "test": {"first": "2023-06-13", "last": "2023-06-14"},
            "validation_days": 1,
            "test_days": 1,
        },
        "fleet": {
            "name": "three",
            "node_types": node_types,
            "sites": [
                {
                    "name": name, "zone": "GB", "cooling": "adiabatic", "network": "UK South",
                    "nodes": {"a100x8": 6, "h100x8": 4},
                }
                for name in SITES
            ],
        },
        "workload": {
            "name": "made-up",
            "services": list(SERVICES),
            "reference_timezone": "UTC",
            "last_mile_rtt_s": 0.02,
            "large_share": 0.3,
            "token_year": 2023,
            "peak_utilisation": 0.6,
            "noise_sd": 0.0,
            "noise_correlation": 0.0,
            "origins": {
                name: {"population_m": 10, "timezone": "UTC", "network": "UK South"}
                for name in ORIGINS
            },
        },
        "signals": {
            "name": "embedded", "source": "embedded", "carbon_family": "direct",
            "hydropower_l_per_kwh": 0, "forecast_noise": 0.0,
        },
        "physics": {
            "name": "default", "cooling": "weather", "cooling_factor": 1,
            "onsite_water": "balance", "setpoint_c": 25, "economiser_effectiveness": 0.85,
            "chiller_effectiveness": 0.55, "distribution_loss": 0.06, "fan_power": 0.03,
            "pump_power": 0.02, "cycles_of_concentration": 4, "water_supply_kwh_per_m3": 0,
            "wastewater_kwh_per_m3": 0, "price_pass_through": 1, "price_adder_usd_per_mwh": 0,
            "demand_charge_usd_per_kw_month": 12, "embodied_g_per_gpu_hour": 20,
            "network_kwh_per_gb": 0.01,
        },
        "serving": {
            "name": "vllm", "backend": "vllm", "max_batch": 256, "utilisation_ceiling": 0.85,
            "patience_s": 300, "off_state": "off",
            "models": [
                {"name": "small", "tp": {"A100": 1, "H100": 1}},
                {"name": "large", "tp": {"A100": 4, "H100": 4}},
            ],
        },
        "method": {"name": "round_robin", "_target_": "marlin.schedulers.round_robin.RoundRobin"},
        "budget": {
            "name": "tiny", "training_epochs": 384, "worlds": 8,
            "checkpoints": 1, "calls_per_decision": 32,
        },
        "ablation": "none",
        "tracking": {"name": "none"},
        "seed": 0,
    }  # fmt: skip
    return RunConfig.model_validate(sections | changes)


def profile(model: str, gpu: str) -> ServingProfile:
    """Round numbers of the right size."""
    slow = 2.0 if gpu == "A100" else 1.0
    large = model == "large"
    return ServingProfile(
        model=model, gpu=gpu, tp=4 if large else 1, backend="vllm", engine_version="0",
        source="made up", licence="none",
        prefill_p0_s=0.01, prefill_p1_s_per_token=slow * (5e-5 if large else 2e-5),
        prefill_p2_s_per_token2=1e-9,
        decode_d0_s=slow * (0.015 if large else 0.006), decode_d1_s_per_seq=3e-5,
        decode_d2_s_per_kv_token=3e-8,
        prefill_fit_error_median=0.0, prefill_fit_error_p90=0.0,
        decode_fit_error_median=0.0, decode_fit_error_p90=0.0,
        kv_bytes_per_token=327680.0 if large else 131072.0,
        kv_capacity_tokens=450_000.0, weights_bytes=141e9 if large else 16e9,
        parameters=70.6e9 if large else 8e9, load_s=80.0 if large else 10.0,
        gpu_tdp_w=400.0 if gpu == "A100" else 700.0,
        gpu_context_w=80.0 if gpu == "A100" else 122.0,
        gpu_deep_idle_w=54.0 if gpu == "A100" else 72.0,
        gpu_w_per_tb_per_s=140.0, gpu_w_per_tflop_per_s=1.4, gpu_flops_scale=1.0,
        power_source="made up",
    )  # fmt: skip


def profiles() -> list[ServingProfile]:
    """Both models on both GPUs."""
    return [profile(model, gpu) for model in ("small", "large") for gpu in ("A100", "H100")]


def scenario(days: int = 14, test_days: int = 2, validation_days: int = 1) -> xr.Dataset:
    """Signals with a daily shape; the clean site is far, the near one dirty, the third cheap."""
    time = np.datetime64("2023-06-01", "ns") + np.arange(days * EPOCHS_PER_DAY) * np.timedelta64(
        15, "m"
    )
    hour = np.arange(len(time)) % EPOCHS_PER_DAY / 4.0
    wave = np.sin(2 * np.pi * hour / 24.0)[:, None]
    shape = (len(time), len(SITES))
    split = np.zeros(len(time), dtype=np.int8)
    split[-test_days * EPOCHS_PER_DAY :] = 2
    split[-(test_days + validation_days) * EPOCHS_PER_DAY : -test_days * EPOCHS_PER_DAY] = 1
    arrivals = np.array([[[6.0, 3.0], [2.5, 1.0]], [[4.0, 2.0], [1.5, 0.5]]])
    arrivals = arrivals * (1.0 + 0.5 * wave[:, :, None, None])
    lengths = np.linspace(0.0, 1.0, 101)
    sites = ("time", "site")
    return xr.Dataset(
        {
            "split": ("time", split),
            "carbon_g_per_kwh": (sites, np.array([50.0, 500.0, 300.0]) + 20 * wave),
            "price_usd_per_mwh": (sites, np.array([80.0, 60.0, 15.0]) + 10 * wave),
            "drybulb_c": (sites, np.full(shape, [12.0, 20.0, 30.0]) + 4 * wave),
            "wetbulb_c": (sites, np.full(shape, [9.0, 15.0, 17.0]) + 2 * wave),
            "ewif_l_per_kwh": (sites, np.full(shape, [2.5, 1.5, 0.8])),
            "aware_m3_per_m3": (sites, np.full(shape, [1.0, 2.0, 30.0])),
            "rtt_s": (("origin", "site"), np.array([[0.2, 0.03, 0.1], [0.15, 0.05, 0.08]])),
            "arrival_rate_per_s": (("time", "origin", "model", "service"), arrivals),
            "prompt_tokens_mean": ("service", [1155.0, 2048.0]),
            "output_tokens_mean": ("service", [211.0, 28.0]),
            "prompt_tokens_cv2": ("service", [0.92, 0.93]),
            "output_tokens_cv2": ("service", [0.6, 5.0]),
            "arrival_cv2": ("service", [1.2, 174.0]),
            "prompt_tokens_quantile": (
                ("service", "quantile"), np.stack([2310 * lengths, 4096 * lengths]),
            ),
            "nodes": (("site", "node_type"), np.full((len(SITES), 2), [6.0, 4.0])),
            "tower": ("site", np.array([0, 0, 1], dtype=np.int8)),
        },
        coords={
            "time": time, "site": list(SITES), "origin": list(ORIGINS),
            "model": ["small", "large"], "service": list(SERVICES), "quantile": lengths,
        },
    )  # fmt: skip


def services(world: World, rng: np.random.Generator) -> Services:
    """Uniform prompts and output lengths of the world's mean and variability, Poisson arrivals."""
    constants = world.constants
    tokens = []
    for s in range(len(world.services)):
        prompt = rng.uniform(1, 2 * constants.prompt_tokens[s], 20_000)
        shape = 1 / constants.output_cv2[s]
        output = rng.gamma(shape, constants.output_tokens[s] / shape, 20_000)
        tokens.append(np.maximum(np.stack([prompt, output], axis=1).round(), 1).astype(np.int32))
    return Services(tokens, np.ones(len(world.services)))
