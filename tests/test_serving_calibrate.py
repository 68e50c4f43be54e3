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
from marlin.serving import calibrate, engine, fit, hardware, models, profiles, silicon

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
def calibrated() -> tuple[list[profiles.ServingProfile], pd.DataFrame]:
    table, points = calibrate.calibrate(SERVING, ["H100", "A100", "H100"])
    return profiles.from_frame(table), points


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
    for p in calibrated[0]:
        step = engine.compile_engine(
            models.model(p.model), hardware.gpu(p.gpu), p.tp, p.backend, "bfloat16"
        )
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


def test_h100_70b_predicts_measured_vllm_runs(calibrated):
    table = silicon.errors(calibrated[1], silicon.KEYS)
    vllm = table[(table.gpu == "H100") & (table.backend == "vllm")].set_index("tp")
    assert vllm.points.to_dict() == {2: 11, 4: 15, 8: 15}
    assert vllm.tpot_median[2] <= 0.02
    assert vllm.tpot_median[4] <= 0.045
    assert vllm.tpot_median[8] <= 0.10
    assert vllm.ttft_median.max() <= 0.14


def test_8b_predicts_measured_trtllm_runs(calibrated):
    table = silicon.errors(calibrated[1], silicon.KEYS)
    one = table[(table.model == "llama-3.1-8b") & (table.gpu == "H100") & (table.tp == 1)].iloc[0]
    assert (one.backend, one.precision, one.points) == ("trtllm", "bfloat16", 42)
    assert one.tpot_median <= 0.035


def test_exclusions_follow_the_rules(calibrated):
    points = calibrated[1]
    assert list(points.columns) == silicon.COLUMNS
    counts = points.excluded.value_counts().to_dict()
    assert counts == {"": 622, silicon.KV_EXCEEDED: 42, silicon.NOT_PREFILLED: 21}
    assert points.predicted_tpot_s.gt(0).all()
    # 70B in FP8 on two H100 holds 220,638 tokens: 64 requests of 9,216 do not fit.
    two = points[(points.gpu == "H100") & (points.tp == 2) & (points.concurrency == 64)]
    long = two[two.input_tokens + two.output_tokens == 9216]
    assert set(long.excluded) == {silicon.KV_EXCEEDED}


def test_coverage_says_what_is_untested(calibrated):
    table = silicon.coverage(profiles.to_frame(calibrated[0]), calibrated[1]).set_index(
        ["model", "gpu"]
    )
    assert table.points.sum() == 0
    assert table.other_precision["llama-3.1-70b", "H100"] == 15
    assert table.other_engine["llama-3.1-8b", "H100"] == 177
    assert table.loc[pd.IndexSlice[:, "A100"], ["other_precision", "other_engine"]].sum().sum() == 0


def test_closed_loop_limits(calibrated):
    p = calibrated[0][3]
    one = np.ones(1)
    # A single client decodes alone: no queue; only its own prefill takes part of its cycle.
    ttft, tpot = silicon.closed_loop(p, one, 1000 * one, 1000 * one, np.inf * one)
    assert tpot[0] == pytest.approx(p.decode_step_s(1, 1500) * 1.003, rel=0.005)
    assert ttft[0] == pytest.approx(p.prefill_s(1000) + tpot[0] / 2, rel=0.01)
    clients = np.array([1.0, 2, 4, 8, 16, 32, 64, 128])
    ttft, tpot = silicon.closed_loop(
        p, clients, np.full(8, 1000.0), np.full(8, 300.0), np.full(8, np.inf)
    )
    assert (np.diff(ttft) > 0).all()
    assert (np.diff(tpot) > 0).all()


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
def test_power_at_the_measured_rate(calibrated, index, batch, output, rate, watts):
    p, prompt = calibrated[0][index], 300  # the prompt length assumed by the power fit
    kv = batch * (prompt + output / 2) * p.kv_bytes_per_token
    traffic = (p.weights_bytes + kv) * rate / batch / p.tp / 1e12
    compute = 2 * p.parameters * rate * (1 + prompt / output) / p.tp / 1e12
    power = gpu_power_w(
        traffic,
        compute,
        context_w=p.gpu_context_w,
        w_per_tb_per_s=p.gpu_w_per_tb_per_s,
        w_per_tflop_per_s=p.gpu_w_per_tflop_per_s,
        tdp_w=p.gpu_tdp_w,
    )
    assert power == pytest.approx(watts, rel=0.17)


@pytest.mark.parametrize(("index", "batch", "output", "rate", "watts"), ANCHORS)
def test_throughput_with_one_prompt_length_for_all(calibrated, index, batch, output, rate, watts):
    # The dataset omits prompt lengths; 750 tokens explain both models at every batch.
    one = np.ones(1)
    ttft, tpot = silicon.closed_loop(
        calibrated[0][index], batch * one, 750 * one, output * one, np.inf * one
    )
    predicted = batch * output / (ttft[0] + (output - 1) * tpot[0])
    assert predicted == pytest.approx(rate, rel=0.13)


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
