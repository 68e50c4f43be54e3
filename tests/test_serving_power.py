"""Fit and validation of GPU power, and the published facts that profiles and power must meet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from marlin.errors import UserError
from marlin.physics.power import gpu_power_w
from marlin.serving import (
    energy,
    fit,
    hardware,
    power_data,
    power_fit,
    power_validation,
    second_opinion,
)
from marlin.serving.profiles import ServingProfile

LLAMA_8B, LLAMA_70B, LLAMA_405B_FP8 = (
    f"meta-llama/Llama-3.1-{size}" for size in ("8B-Instruct", "70B-Instruct", "405B-Instruct-FP8")
)
# ML.ENERGY Leaderboard v3.0, chat: checkpoint, GPU, count, batch, reply tokens, output tokens/s,
# W per GPU, J per output token, median inter-token latency in ms.
FACTS = [
    (LLAMA_8B, "H100", 1, 64, 396, 5147, 610, 0.119, 11.5),
    (LLAMA_70B, "H100", 4, 8, 350, 470, 441, 3.76, 16.6),
    (LLAMA_70B, "H100", 4, 64, 352, 2511, 500, 0.797, 22.4),
    (LLAMA_70B, "H100", 4, 255, 349, 4915, 589, 0.479, 39.8),
    (LLAMA_405B_FP8, "H100", 8, 64, 360, 1350, 520, 3.08, 39.3),
    (LLAMA_70B, "B200", 2, 255, 361, 5372, 971, 0.361, 35.8),
]
IDS = ["8B", "70B-8", "70B-64", "70B-255", "405B", "70B-B200"]


def run_of(fact: tuple) -> pd.DataFrame:
    checkpoint, gpu, gpus, batch, output, rate, watts, *_ = fact
    model = power_data.CHECKPOINTS[checkpoint].model.name
    run = {
        "gpu": gpu, "model": model, "gpus": gpus, "task": "lm-arena-chat", "batch": float(batch),
        "checkpoint": checkpoint, "precision": "fp8" if "FP8" in checkpoint else "bfloat16",
        "output_tokens": float(output), "tokens_per_s": float(rate), "power_w": float(watts),
    }  # fmt: skip
    return power_data.work(pd.DataFrame([run]))


def power_of(run: pd.DataFrame) -> float:
    gpu = hardware.gpu(run.gpu.iloc[0])
    return power_fit.predict(run, gpu, gpu.w_per_tb_per_s, gpu.w_per_tflop_per_s)[0]


def profile_70b(gpu: str, tp: int) -> ServingProfile:
    return fit.profile("llama-3.1-70b", gpu, tp, "vllm")


def test_work_of_a_step_by_hand():
    # Llama 3.1 8B: 6,979,321,856 weights in layers and 525,336,576 in the head, BF16: 15.01 GB.
    checkpoint = power_data.CHECKPOINTS[LLAMA_8B]
    assert checkpoint.step_bytes(64) == 2 * (6_979_321_856 + 525_336_576)
    assert checkpoint.flop_per_token() == 2 * (6_979_321_856 + 525_336_576)
    run = run_of(FACTS[0])
    # 5,147 / 64 = 80.42 steps/s, each over 64 x (634 + 396 x 1.95 / 2) tokens of 131,072 bytes.
    step_bytes = 15_009_316_864 + 64 * (634 + 386.1) * 131_072
    assert run.bandwidth_tb_per_s[0] == pytest.approx(step_bytes * 80.421875 / 1e12)
    tokens_per_s = 5147 * (1 + 634 / 396)
    assert run.compute_tflop_per_s[0] == pytest.approx(15_009_316_864 * tokens_per_s / 1e12)


def test_a_mixture_reads_the_experts_that_its_tokens_pick():
    scout = power_data.CHECKPOINTS["meta-llama/Llama-4-Scout-17B-16E-Instruct"]
    one, many = scout.step_bytes(1), scout.step_bytes(10_000)
    expert = 2 * 3 * 48 * 5120 * 8192
    assert many - one == pytest.approx(15 * expert)
    assert scout.step_bytes(8) == pytest.approx(one + (16 * (1 - (15 / 16) ** 8) - 1) * expert)


def test_the_fit_finds_the_constants_of_made_up_runs():
    gpu = hardware.gpu("H100")
    rng = np.random.default_rng(0)
    runs = pd.DataFrame(
        {
            "bandwidth_tb_per_s": rng.uniform(0.5, 2.5, 40),
            "compute_tflop_per_s": rng.uniform(0, 300, 40),
        }
    )
    runs["power_w"] = power_fit.predict(runs, gpu, 111.0, 0.9, 140.0)
    assert power_fit.fit_with_intercept(runs, gpu) == pytest.approx((140.0, 111.0, 0.9), rel=1e-3)
    runs["power_w"] = power_fit.predict(runs, gpu, 111.0, 0.9)
    assert power_fit.fit(runs, gpu) == pytest.approx((111.0, 0.9), rel=1e-3)


def test_no_run_is_predicted_by_a_fit_that_saw_its_model():
    facts = pd.concat([run_of(fact) for fact in FACTS[:5]], ignore_index=True)
    runs = facts.assign(moe=False)
    before = power_fit.held_out(runs)
    other = runs.model == "Llama 3.1 8B"
    after = power_fit.held_out(runs.assign(power_w=runs.power_w.where(~other, 300.0)))
    np.testing.assert_array_equal(after[other], before[other])
    assert (after[~other] < before[~other]).all()


def test_the_table_of_the_package_meets_the_target():
    table = power_validation.table(None)
    dense = table[~table.moe]
    assert len(dense) == 25
    assert dense.w_median.median() <= 0.08
    assert dense.groupby("gpu").w_median.median().max() <= 0.08
    assert dense.w_median.max() <= 0.11
    told = dense[dense.j_median.notna()]
    assert len(told) == 12
    assert told[told.gpu == "H100"].j_median.median() <= 0.08


def test_a_mirror_without_the_data_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="give --mirror the folder or URL"):
        power_data.read(str(tmp_path))


@pytest.mark.mirror
def test_constants_and_table_follow_from_the_measurements(mirror):
    runs = power_validation.predict(power_data.read(mirror))
    for _, row in power_validation.constants(runs).iterrows():
        gpu = hardware.gpu(row.gpu)
        assert [row.a, row.b] == pytest.approx(
            [gpu.w_per_tb_per_s, gpu.w_per_tflop_per_s], rel=0.01
        )
        # Left free, the intercept comes to the idle level of a GPU with a context.
        assert row.free_intercept_w == pytest.approx(gpu.context_w, rel=0.13)
        ends = hardware.POWER_RANGES[gpu.name]["w_per_tflop_per_s"]
        assert (ends.low, ends.high) == pytest.approx(
            (row.b_prompts_of_900, row.b_prompts_of_300), abs=0.01
        )
        assert row.w_median <= 0.08
    made = power_validation.rounded(power_validation.by_configuration(runs))
    stored = power_validation.table(None)
    pd.testing.assert_frame_equal(made[stored.columns], stored, rtol=1e-3)


@pytest.mark.mirror
def test_second_opinion_reads_the_three_sources(mirror):
    table = second_opinion.compare(mirror)
    times = table.set_index(["source", "gpu", "tp", "model", "phase", "size"]).theirs_ms
    prefill = times.xs(("70B", second_opinion.PREFILL), level=("model", "phase"))
    assert prefill["Splitwise", "A100", 8, 2048] == pytest.approx(274, abs=1)
    assert prefill["Splitwise", "H100", 8, 2048] == pytest.approx(137, abs=1)
    # Linear 63 ms and 160 all-reduces of 16 MB at 0.094 ms.
    assert prefill["Vidur, no attention", "H100", 4, 1024] == pytest.approx(63 + 15, rel=0.03)
    assert table.ours_ms.gt(0).all()


# Facts of models and machines. The tolerance of ML.ENERGY's is 10 %. At batch 255 our profiles
# serve 17 to 21 % fewer tokens a second than was measured, and a token takes as much more energy.
@pytest.mark.parametrize("fact", FACTS, ids=IDS)
def test_power_and_energy_at_the_measured_rate(fact):
    *_, watts, joules, _ = fact
    run, tolerance = run_of(fact), 0.11 if fact[:4] == (LLAMA_70B, "H100", 4, 255) else 0.10
    assert power_of(run) == pytest.approx(watts, rel=tolerance)
    joule = power_of(run) * run.gpus[0] / run.tokens_per_s[0]
    assert joule == pytest.approx(joules, rel=tolerance)


@pytest.mark.parametrize("fact", FACTS, ids=IDS)
def test_energy_and_step_without_a_measured_rate(fact):
    *_, joules, latency_ms = fact
    run = run_of(fact)
    rate = power_validation.predicted_rate(run)
    joule = power_of(power_data.work(run.assign(tokens_per_s=rate))) * run.gpus[0] / rate[0]
    assert joule == pytest.approx(joules, rel=0.22 if fact[3] == 255 else 0.10)
    # The median gap between tokens lies between a step without prefill and the mean with it.
    tpot_ms = 1e3 * run.batch[0] / rate[0]
    profile = fit.profile(
        power_validation.PROFILED[run.model[0]], fact[1], fact[2], "vllm", run.precision[0]
    )
    step_ms = 1e3 * profile.decode_step_s(run.batch[0], 634 + fact[4])
    # Ours of 8B is 15 % longer: its engine overhead was fitted to FP8 runs of another client.
    low = 0.85 if fact[0] == LLAMA_8B else 0.9
    assert low * step_ms < latency_ms < 1.1 * tpot_ms


def test_newer_engines_take_less_energy():
    # vLLM 0.5.4 to 0.11.1, Llama 3.1 8B at batch 64: 0.20 to 0.12 J per token. Ours is 0.24.
    run = run_of(FACTS[0])
    rate = power_validation.predicted_rate(run)
    joule = power_of(power_data.work(run.assign(tokens_per_s=rate))) / rate[0]
    assert 0.59 * 0.20 * 0.85 < joule < 0.12


def test_splitwise_is_slower_than_us_by_the_years_between():
    # Llama-2-70B on eight GPUs, engine of 2023: 274 and 137 ms for 2,048 tokens, 71.6 and 50.2 ms a
    # token at batch 64, 44.9 and 29.8 at batch 1. Its decode step is as long on four GPUs (45.0 and
    # 29.7 ms) as on eight, hence bound by the host, not by the GPU, and is no target.
    for gpu, prefill_ms, first_ms, full_ms in (
        ("A100", 274, 44.9, 71.6),
        ("H100", 137, 29.8, 50.2),
    ):
        profile = profile_70b(gpu, 8)
        assert 1.1 < prefill_ms / (1e3 * profile.prefill_s(2048)) < 1.8
        assert 2.2 < first_ms / (1e3 * profile.decode_step_s(1, 576)) < 3.3
        growth = profile.decode_step_s(64, 576) / profile.decode_step_s(1, 576)
        assert growth < 2
        assert full_ms / first_ms < 2
        wait_free = profile_70b(gpu, 4).decode_step_s(1, 576) / profile.decode_step_s(1, 576)
        assert wait_free > 1.4


def test_splitwise_energy_is_nameplate_times_duration():
    # Printed Wh of unbatched requests: 1.37 and 1.37 (coding), 7.9 and 9.4 (conversation).
    for seconds, kilowatts, watt_hours in (
        (0.856, 5.75, 1.37), (0.493, 10.0, 1.37), (4.957, 5.75, 7.9), (3.387, 10.0, 9.4),
    ):  # fmt: skip
        assert seconds * kilowatts / 3.6 == pytest.approx(watt_hours, rel=0.10)


def decode_power_w(gpu: str, gpus: int, batch: float, step_s: float, tdp_w: float | None = None):
    """Llama-2-70B in pure decode at a context of 576 tokens."""
    card = hardware.gpu(gpu)
    return gpu_power_w(
        (138e9 + batch * 576 * 327_680) / gpus / step_s / 1e12,
        2 * 69e9 * batch / gpus / step_s / 1e12,
        context_w=card.context_w,
        w_per_tb_per_s=card.w_per_tb_per_s,
        w_per_tflop_per_s=card.w_per_tflop_per_s,
        tdp_w=card.tdp_w if tdp_w is None else tdp_w,
    )


@pytest.mark.parametrize(("batch", "step_s"), [(1, 0.0298), (64, 0.0502)])
def test_half_the_power_never_binds_decode_of_that_time(batch, step_s):
    # Splitwise: a cap of 350 W on an H100 leaves decode as fast as it was.
    assert decode_power_w("H100", 8, batch, step_s) < 350
    # H200, decode alone: 137 to 300 W (Ma et al., 2026), at the bandwidth use of such engines.
    assert 137 < decode_power_w("H200", 8, batch, step_s) < 300


def test_a_cap_saves_energy_and_costs_time():
    # From 250 to 175 W: 6.7 % more time, 23.2 % less energy (From Words to Watts, 2023).
    powers = [decode_power_w("H100", 2, 64, 0.01, tdp_w) for tdp_w in (250, 175)]
    assert 1 - 1.067 * powers[1] / powers[0] == pytest.approx(0.232, abs=0.03)


def test_energy_of_a_token_by_hand():
    # 10 ms and 16 GB on one GPU: 1.6 TB/s. Of a prompt of 100 tokens: 160 TFLOP/s of 8e9 weights.
    profile = replace(
        profile_70b("H100", 4), tp=1, weights_bytes=16e9, parameters=8e9, kv_bytes_per_token=0.0,
        prefill_p0_s=0.01, prefill_p1_s_per_token=0.0, prefill_p2_s_per_token2=0.0,
        decode_d0_s=0.01, decode_d1_s_per_seq=0.0, decode_d2_s_per_kv_token=0.0,
        gpu_context_w=100.0, gpu_w_per_tb_per_s=100.0, gpu_w_per_tflop_per_s=1.0, gpu_tdp_w=400.0,
        gpu_flops_scale=1.0,
    )  # fmt: skip
    assert energy.prompt_token_j(profile, 50) == pytest.approx((100 + 160 + 80) * 0.01 / 50)
    assert energy.prompt_token_j(profile, 100) == pytest.approx(400 * 0.01 / 100)  # at the cap
    got = energy.output_token_j(profile, np.array([1.0, 50.0]), 1000.0)
    np.testing.assert_allclose(got, [(100 + 160 + 1.6) * 0.01, (100 + 160 + 80) * 0.01 / 50])
