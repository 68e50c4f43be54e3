"""Calibrated profiles against the tables they come from, and against measured runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

from marlin.config import ServingConfig, ServingModel
from marlin.errors import UserError
from marlin.files import write_parquet
from marlin.physics.power import gpu_power_w
from marlin.serving import (
    calibrate,
    closed_loop,
    energy,
    engine,
    engine_fit,
    fit,
    hardware,
    models,
    profiles,
    setups,
    silicon,
    tables,
)  # fmt: skip

SERVING = ServingConfig(
    name="test",
    backend="vllm",
    models=[
        ServingModel(name="llama-3.1-8b", tp={"A100": 1, "H100": 1}),
        ServingModel(name="llama-3.1-70b", tp={"A100": 4, "H100": 4}),
    ],
    max_batch=256,
    utilisation_ceiling=0.85,
    patience_s=300,
    off_state="off",
)


@pytest.fixture(scope="module")
def calibrated() -> tuple[list[profiles.ServingProfile], pd.DataFrame, pd.DataFrame]:
    table, points = calibrate.calibrate(SERVING, ["H100", "A100", "H100"])
    return profiles.from_frame(table), points, table


def test_one_profile_per_model_and_gpu(calibrated):
    keys = [(p.model, p.gpu, p.tp) for p in calibrated[0]]
    assert keys == [
        ("llama-3.1-8b", "A100", 1),
        ("llama-3.1-8b", "H100", 1),
        ("llama-3.1-70b", "A100", 4),
        ("llama-3.1-70b", "H100", 4),
    ]
    assert {p.gpu: p.engine_version for p in calibrated[0]} == {"A100": "0.14.0", "H100": "0.24.0"}


def test_fits_reproduce_the_tables_within_the_stated_errors(calibrated):
    frame = calibrated[2]
    for p, (_, row) in zip(calibrated[0], frame.iterrows(), strict=True):
        step = tables.from_row(row)
        tokens, seconds = fit.prefill_grid(step)
        error = np.abs(p.prefill_s(tokens) / seconds - 1)
        assert np.median(error) == pytest.approx(p.prefill_fit_error_median)
        assert np.quantile(error, 0.9) == pytest.approx(p.prefill_fit_error_p90)
        batch, context, seconds = fit.decode_grid(step, p.kv_capacity_tokens, 256)
        error = np.abs(p.decode_step_s(batch, context) / seconds - 1)
        assert np.median(error) == pytest.approx(p.decode_fit_error_median)
        assert np.quantile(error, 0.9) == pytest.approx(p.decode_fit_error_p90)
        assert (batch * context).max() <= p.kv_capacity_tokens
        assert p.prefill_fit_error_median < 0.04
        assert p.prefill_fit_error_p90 < 0.11
        assert p.decode_fit_error_median < 0.02
        assert p.decode_fit_error_p90 < 0.09


def test_tables_without_overhead_are_those_of_the_package(calibrated):
    handle = engine.compile_engine(
        models.model("llama-3.1-70b"), hardware.gpu("H100"), 4, "vllm", "bfloat16"
    )
    step = handle.tables()
    tokens = np.array([32, 256, 1024, 4096])
    assert step.prefill_s(tokens) == pytest.approx(handle.prefill_s(tokens), rel=0.02)
    batch, context = np.array([1, 16, 64, 128]), np.array([500, 1152, 2000, 3000])
    assert step.decode_s(batch, context) == pytest.approx(handle.decode_s(batch, context), rel=0.02)
    # A cached prefix spares its own work and adds the attention to it.
    assert step.prefill_s(1024) < step.prefill_s(1024, 4096) < step.prefill_s(5120)
    # A mixed step shares the weight pass: dearer than either part, cheaper than both.
    mixed = step.mixed_s(1024, 0, 64, 1000)
    assert step.prefill_s(1024) < mixed < step.prefill_s(1024) + step.decode_s(64, 1000)


def test_static_latency_of_the_tables(calibrated):
    # aiconfigurator 0.12.0, BF16, vLLM: prefill of 1,024 tokens 64.7, 22.1, 182.3, 67.4 ms; decode
    # step of 64 sequences with 1,152 tokens of context 18.5, 10.6, 36.8, 19.3 ms.
    prefill_ms = [64.7, 22.1, 182.3, 67.4]
    decode_ms = [18.5, 10.6, 36.8, 19.3]
    for p, prefill, decode in zip(calibrated[0], prefill_ms, decode_ms, strict=True):
        step = engine.compile_engine(
            models.model(p.model), hardware.gpu(p.gpu), p.tp, p.backend, "bfloat16"
        )
        assert step.prefill_s(np.array([1024]))[0] * 1e3 == pytest.approx(prefill, abs=0.06)
        one = step.decode_s(np.array([64]), np.array([1152]))[0]
        assert one * 1e3 == pytest.approx(decode, abs=0.06)


def test_loading_takes_the_time_of_the_bytes(calibrated):
    # ServerlessLLM: 84 s for the 138 GB of Llama-2-70B, hence 86 s for 141 GB.
    assert calibrated[0][3].load_s == pytest.approx(84 * 141.107 / 138, rel=1e-4)


def error(points: pd.DataFrame, name: str) -> pd.Series:
    return (points[f"predicted_{name}_s"] / points[f"measured_{name}_s"] - 1).abs()


def test_held_out_runs_are_predicted(calibrated):
    # Half of the configurations fitted 35 numbers; the other half is as well predicted.
    judged = silicon.judged(calibrated[1])
    assert len(judged) == 464
    for backend in engine.BACKENDS:
        own = judged[judged.backend == backend]
        assert error(own, "tpot").median() <= 0.05
        assert error(own, "tpot").quantile(0.9) <= 0.15
        assert error(own, "ttft").median() <= 0.16
    assert error(judged, "ttft").median() <= 0.12


def test_no_configuration_is_on_both_sides(calibrated):
    points = calibrated[1]
    assert points.groupby(silicon.CONFIGURATION).split.nunique().max() == 1
    assert set(points.split) == {"fitted", "held out"}
    assert 0.4 < (points.split == "fitted").mean() < 0.6


def test_the_stored_numbers_are_those_of_the_fit():
    # The smallest setup: the search finds what `setups` holds.
    key = ("sweep", "sglang", "llama-3.1-8b")
    points = silicon.measured()
    own = points[(silicon.setup_keys(points) == "/".join(key)) & (points.split == "fitted")]
    found = engine_fit.fit(own, setups.SETUPS[key])
    assert engine_fit.loss(own, found) == pytest.approx(
        engine_fit.loss(own, setups.SETUPS[key]), rel=0.01
    )


def test_exclusions_follow_the_rules(calibrated):
    points = calibrated[1]
    assert list(points.columns) == silicon.COLUMNS
    counts = points.excluded.value_counts().to_dict()
    assert counts == {
        "": 984, silicon.KV_EXCEEDED: 30, silicon.NOT_PREFILLED: 21, silicon.NO_SETUP: 8
    }  # fmt: skip
    assert points[points.excluded == ""].predicted_tpot_s.gt(0).all()
    # 8B on one H100 holds 430,427 tokens in BF16; 128 requests of 4,096 + 128 do not fit.
    alone = points[(points.model == "qwen3-32b") & (points.gpu == "H100") & (points.tp == 2)]
    long = alone[(alone.backend == "vllm") & (alone.concurrency == 128)]
    assert set(long[long.input_tokens == 4096].excluded) == {silicon.KV_EXCEEDED}


def steady(p_tables, clients, prompt, output, **changes):
    return closed_loop.closed_loop(
        p_tables, 1e9, closed_loop.Scheduler(**changes), closed_loop.Client(), clients, prompt,
        output,
    )  # fmt: skip


def test_closed_loop_limits(calibrated):
    step = tables.from_row(calibrated[2].iloc[3])
    # A single client decodes alone: nobody waits, and nothing interferes.
    ttft, tpot = steady(step, 1, 1000, 1000)
    assert tpot == pytest.approx(float(step.decode_s(1, 1500)), rel=0.005)
    assert ttft == pytest.approx(float(step.prefill_s(1000)), rel=1e-6)
    more = np.array([steady(step, c, 1000, 300) for c in (1, 2, 4, 8, 16, 32, 64, 128)])
    # Two clients move in step; from four on their prompts interfere, the more the more there are.
    assert (np.diff(more[2:, 1]) > 0).all()
    assert more[1:, 1].min() > more[0, 1]
    # Decodes that wait for prompts let all clients fall into step: first tokens come late.
    apart = steady(step, 64, 4000, 100, mode="exclusive")
    mixed = steady(step, 64, 4000, 100)
    assert apart[0] > 2 * mixed[0]
    assert apart[1] < mixed[1]
    # With half of the slots, half of the clients queue for a whole request.
    queued = steady(step, 64, 1000, 300, slots=32)
    assert queued[0] > 300 * queued[1] * 0.8


def test_two_clients_by_hand():
    # Linear layers 10 ms a step, 1 ms a prompt token, no attention: 2 clients, 3 prompt tokens and
    # 3 output tokens, one wave. One step prefills both: 10 + 5 ms; two decode steps of 10 ms + 1.
    tokens = np.array([1.0, 16384.0])
    none = np.zeros((2, 2))
    step = tables.StepTables(
        tokens, 0.010 + 0.001 * (tokens - 1), tokens, tokens - 1, none, tokens, tokens, none
    )
    seen = closed_loop.closed_loop(
        step, 1e9, closed_loop.Scheduler(), closed_loop.Client(waves=1), 2, 3, 3
    )
    assert seen == pytest.approx((0.015, 0.011))


def test_equal_tables_give_equal_bytes(calibrated, tmp_path: Path):
    table = profiles.to_frame(calibrated[0])
    again = profiles.to_frame([fit.profile(p.model, p.gpu, p.tp, p.backend) for p in calibrated[0]])
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    write_parquet(first, table)
    write_parquet(second, again)
    assert first.read_bytes() == second.read_bytes()
    assert profiles.load(first) == calibrated[0]


def test_a_gpu_without_layout_and_one_without_tables():
    with pytest.raises(UserError, match=r"llama-3.1-8b has no tp for GPU B200"):
        calibrate.calibrate(SERVING, ["B200"])
    with pytest.raises(UserError, match="unknown GPU 'TPU'"):
        calibrate.calibrate(SERVING, ["TPU"])
    with pytest.raises(UserError, match=r"no tables for llama-3.1-8b"):
        fit.profile("llama-3.1-8b", "A100", 1, "vllm", "nvfp4")


# ML.ENERGY Leaderboard v3.0 (vLLM 0.11.1, lm-arena-chat, BF16): profile index, batch, mean output
# tokens, tokens per second, W per GPU.
ANCHORS = [
    (1, 8, 389, 1070, 486),
    (1, 64, 396, 5147, 610),
    (1, 255, 404, 9010, 691),
    (3, 8, 350, 470, 441),
    (3, 64, 352, 2511, 500),
    (3, 255, 349, 4915, 589),
]


@pytest.mark.parametrize(("index", "batch", "output", "rate", "watts"), ANCHORS)
def test_throughput_with_one_prompt_length_for_all(calibrated, index, batch, output, rate, watts):
    # The dataset omits prompt lengths; one explains both models at every batch.
    step = tables.from_row(calibrated[2].iloc[index])
    ttft, tpot = steady(step, batch, 300, output)
    predicted = batch * output / (ttft + (output - 1) * tpot)
    assert predicted == pytest.approx(rate, rel=0.10)


@pytest.mark.parametrize("index", [1, 3])
def test_energy_per_token_falls_with_the_batch(calibrated, index):
    p = calibrated[0][index]
    prompt_j = energy.prompt_token_j(p, 500)
    alone_j, crowd_j = energy.output_token_j(p, np.array([8, 64]), 650)
    assert crowd_j < alone_j / 4
    assert prompt_j < alone_j
    # All GPUs at their limit for one decode step is the most that its tokens can cost.
    assert alone_j <= p.tp * p.gpu_tdp_w * float(p.decode_step_s(8, 650)) / 8 + 1e-9


@pytest.mark.mirror
def test_a100_power_fit_follows_from_splitwise(mirror):
    table = pd.read_csv(Path(mirror) / "serving" / "splitwise-perf-model" / "perf_model.csv")
    table = table[
        (table.model == "llama2-70b")
        & (table.hardware == "a100-80gb")
        & (table.average_power > 0)
        & (table.prompt_size <= 512)
        & table.tensor_parallel.isin([2, 4])
    ]
    keys = ["tensor_parallel", "prompt_size", "batch_size"]
    runs = table.groupby(keys)[["average_power", "prompt_time", "token_time"]].median()
    runs = runs.reset_index()
    assert len(runs) == 14
    tp, batch = runs.tensor_parallel.to_numpy(), runs.batch_size.to_numpy()
    prefill_s, step_s = runs.prompt_time.to_numpy() / 1e3, runs.token_time.to_numpy() / 1e3
    weights, parameters, kv = 138e9, 69e9, 327_680
    rates = {
        "prefill": (weights, 2 * parameters * batch * runs.prompt_size, prefill_s, prefill_s),
        "decode": (
            weights + batch * kv * (runs.prompt_size + 64),
            2 * parameters * batch,
            step_s,
            128 * step_s,
        ),
    }

    def mean_power(a: float, b: float) -> np.ndarray:
        energy = sum(
            gpu_power_w(
                np.asarray(moved) / tp / step / 1e12,
                np.asarray(work) / tp / step / 1e12,
                context_w=80,
                w_per_tb_per_s=a,
                w_per_tflop_per_s=b,
                tdp_w=400,
            )
            * time
            for moved, work, step, time in rates.values()
        )
        return energy / (prefill_s + 128 * step_s)

    watts = 400 * runs.average_power.to_numpy()
    found = least_squares(lambda x: mean_power(*x) / watts - 1, [150, 1.5], bounds=(0, [1e3, 10]))
    gpu = hardware.gpu("A100")
    assert found.x == pytest.approx([gpu.w_per_tb_per_s, gpu.w_per_tflop_per_s], rel=0.01)
    assert np.abs(found.fun).mean() < 0.045
