"""Sizes, memory, closed forms and selection of serving profiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marlin.errors import UserError
from marlin.files import write_parquet
from marlin.serving import fit, hardware, memory, models, profiles

PROFILE = profiles.ServingProfile(
    model="llama-3.1-70b",
    gpu="H100",
    tp=4,
    backend="vllm",
    engine_version="0",
    source="hand",
    licence="none",
    prefill_p0_s=0.01,
    prefill_p1_s_per_token=5e-5,
    prefill_p2_s_per_token2=2e-9,
    decode_d0_s=0.015,
    decode_d1_s_per_seq=3e-5,
    decode_d2_s_per_kv_token=3e-8,
    prefill_fit_error_median=0.0,
    prefill_fit_error_p90=0.0,
    decode_fit_error_median=0.0,
    decode_fit_error_p90=0.0,
    kv_bytes_per_token=327_680.0,
    kv_capacity_tokens=450_000.0,
    weights_bytes=1.41e11,
    parameters=7.06e10,
    load_s=86.0,
    gpu_tdp_w=700.0,
    gpu_context_w=122.0,
    gpu_deep_idle_w=71.8,
    gpu_w_per_tb_per_s=140.0,
    gpu_w_per_tflop_per_s=1.37,
    gpu_flops_scale=1.0,
    power_source="hand",
)


def test_parameters_and_kv_bytes_match_the_model_cards():
    # Llama 3.1: 8.03, 70.55 and 405.85 billion parameters; KV 2 x layers x 8 x 128 x 2 bytes.
    assert models.model("llama-3.1-8b").parameters == 8_030_261_248
    assert models.model("llama-3.1-70b").parameters == 70_553_706_496
    assert models.model("llama-3.1-405b").parameters == 405_853_388_800
    kib = {name: model.kv_bytes_per_token / 1024 for name, model in models.MODELS.items()}
    assert kib == {
        "llama-3.1-8b": 128,
        "llama-3.1-70b": 320,
        "llama-3.1-405b": 504,
        "qwen3-32b": 256,
        "mixtral-8x7b": 128,
    }
    # Mixtral-8x7B: 46.7 billion parameters, of which a token passes 12.9.
    mixtral = models.model("mixtral-8x7b")
    assert mixtral.parameters == 46_702_792_704
    assert mixtral.active_parameters == 12_879_925_248


def test_idle_power_keeps_the_published_levels():
    assert (hardware.gpu("H100").deep_idle_w, hardware.gpu("H100").context_w) == (71.8, 122.0)
    assert (hardware.gpu("A100").deep_idle_w, hardware.gpu("A100").context_w) == (53.7, 80.0)
    for gpu in hardware.GPUS.values():
        assert gpu.deep_idle_w < gpu.context_w < gpu.tdp_w


def test_kv_capacity_by_hand():
    # 70B on 4 x H100: (0.9 x 80 GiB - 4.5 GiB) x 4 = 270 GiB; minus 141.1 GB; over 320 KiB.
    model, gpu = models.model("llama-3.1-70b"), hardware.gpu("H100")
    by_hand = (270 * 2**30 - 2 * 70_553_706_496) // (320 * 1024)
    assert memory.kv_capacity_tokens(model, gpu, 4) == by_hand


@pytest.mark.parametrize(("name", "tp"), [("llama-3.1-8b", 1), ("llama-3.1-70b", 4)])
def test_kv_capacity_agrees_with_the_estimate_of_the_package(name, tp):
    from aiconfigurator_core.sdk.memory import estimate_kv_cache

    model, gpu = models.model(name), hardware.gpu("H100")
    estimate = estimate_kv_cache(
        model.path,
        gpu.system,
        "vllm",
        "0.24.0",
        max_num_tokens=8192,
        max_batch_size=256,
        memory_fraction_kind="of_total",
        memory_fraction_value=hardware.MEMORY_UTILISATION,
        tp_size=tp,
    )
    assert memory.kv_capacity_tokens(model, gpu, tp) == pytest.approx(
        estimate["total_kv_size_tokens"], rel=0.01
    )


def test_a_model_that_does_not_fit_says_how_many_gpus_it_needs():
    with pytest.raises(UserError, match=r"llama-3.1-70b .*does not fit on 1 x H100; it needs 2"):
        fit.profile("llama-3.1-70b", "H100", 1, "vllm")
    # 405B in FP8 fits on one node of eight, unquantised it needs two.
    with pytest.raises(UserError, match=r"812 GB .*not fit on 8 x H100; it needs 16"):
        fit.profile("llama-3.1-405b", "H100", 8, "vllm")
    assert fit.profile("llama-3.1-405b", "H100", 8, "vllm", "fp8").precision == "fp8"


def test_no_profile_where_the_tables_are_extrapolated():
    with pytest.raises(UserError, match="L40S over PCIe are extrapolated"):
        fit.profile("llama-3.1-8b", "L40S", 2, "vllm")
    assert fit.profile("llama-3.1-8b", "L40S", 1, "vllm").gpu == "L40S"


def test_closed_forms_by_hand():
    # 0.01 + 5e-5 x 1000 + 2e-9 x 1e6 = 0.062; 0.015 + 3e-5 x 64 + 3e-8 x 64 x 1000 = 0.01884.
    assert PROFILE.prefill_s(1000) == pytest.approx(0.062)
    assert PROFILE.decode_step_s(64, 1000) == pytest.approx(0.01884)
    steps = PROFILE.decode_step_s(np.array([[1.0], [2.0]]), np.array([10.0, 20.0, 30.0]))
    assert steps.shape == (2, 3)


@given(
    tokens=st.floats(0, 1e5),
    more=st.floats(0, 1e5),
    batch=st.floats(0, 1e3),
    extra=st.floats(0, 1e3),
)
def test_times_never_fall_with_work(tokens, more, batch, extra):
    assert PROFILE.prefill_s(tokens + more) >= PROFILE.prefill_s(tokens)
    base = PROFILE.decode_step_s(batch, tokens)
    assert PROFILE.decode_step_s(batch + extra, tokens) >= base
    assert PROFILE.decode_step_s(batch, tokens + more) >= base


@given(st.lists(st.floats(1e-6, 1e3), min_size=3, max_size=3))
def test_fit_recovers_exact_coefficients(coefficients):
    x = np.geomspace(1, 100, 20)
    terms = np.stack([np.ones_like(x), x, x**2], axis=1)
    found, error = fit.relative_nnls(terms, terms @ np.array(coefficients))
    assert error.max() < 1e-6
    assert np.allclose(terms @ found, terms @ np.array(coefficients), rtol=1e-6)


def test_fit_is_never_negative():
    x = np.linspace(1, 10, 10)
    found, _ = fit.relative_nnls(np.stack([np.ones_like(x), x], axis=1), 20 - x)
    assert found[1] == 0
    assert found[0] > 0


def test_round_trip(tmp_path: Path):
    table = profiles.to_frame([PROFILE, replace(PROFILE, gpu="A100")])
    write_parquet(tmp_path / "profiles.parquet", table)
    assert profiles.load(tmp_path / "profiles.parquet") == profiles.from_frame(table)
    assert profiles.from_frame(table)[0] == PROFILE


def test_select_finds_or_lists():
    assert profiles.select([PROFILE], "llama-3.1-70b", "H100", 4, "vllm") is PROFILE
    with pytest.raises(UserError, match=r"calibrated: llama-3.1-70b on 4 x H100"):
        profiles.select([PROFILE], "llama-3.1-70b", "H100", 8, "vllm")
    with pytest.raises(UserError, match="no profile of mistral"):
        profiles.select([PROFILE], "mistral", "H100", 4, "vllm")
    with pytest.raises(UserError, match="needs 2"):
        profiles.select([PROFILE], "llama-3.1-70b", "A100", 1, "vllm")


def test_loading_what_is_absent_or_old(tmp_path: Path):
    with pytest.raises(UserError, match="run `marlin calibrate`"):
        profiles.load(tmp_path / "profiles.parquet")
    with pytest.raises(UserError, match="column 'load_s' is missing"):
        profiles.from_frame(profiles.to_frame([PROFILE]).drop(columns="load_s"))


@pytest.mark.parametrize("name", ["gpt-4", ""])
def test_unknown_model_lists_the_known(name):
    with pytest.raises(UserError, match=r"known: llama-3.1-8b"):
        models.model(name)


def test_unknown_gpu_lists_the_known():
    with pytest.raises(UserError, match="known: A100, H100"):
        hardware.gpu("V100")
