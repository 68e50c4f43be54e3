import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import read_section
from hypothesis import given
from hypothesis import strategies as st

from marlin.config import PhysicsConfig
from marlin.physics import cooling, power, water
from marlin.serving import hardware

CONFIG = PhysicsConfig.model_validate(read_section("physics", "default"))
BOTH = np.array([0, 1])

drybulb = st.floats(-30, 50)
depression = st.floats(0, 20)


def weather(drybulb_c: float, wetbulb_c: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([drybulb_c] * 2), np.array([wetbulb_c] * 2)


@pytest.mark.parametrize(("supply_c", "cop"), [(15, 2.00), (20, 3.19), (25, 4.73)])
def test_legacy_crac_cop(supply_c: float, cop: float) -> None:
    assert cooling.legacy_crac_cop(supply_c) == pytest.approx(cop, rel=0.005)


def test_chiller_cop_by_hand_and_its_limits() -> None:
    # 0.55 x 288.15 K / 25 K = 6.34; a lift of 15 K would give 10.6 and one of 60 K 2.64.
    got = cooling.chiller_cop(15.0, np.array([40.0, 30.0, 75.0, 10.0]), 0.55)
    np.testing.assert_allclose(got, [6.3393, 9.0, 3.0, 9.0], rtol=1e-4)


def test_cold_adiabatic_site_cools_for_free() -> None:
    got = cooling.facility(*weather(10.0, 8.0), BOTH, CONFIG)
    assert got.pue[0] == pytest.approx(1.09)
    assert got.wue_l_per_kwh[0] == 0
    assert got.pue[1] == pytest.approx(1.11)
    assert got.wue_l_per_kwh[1] > 1


def test_adiabatic_assist_by_hand() -> None:
    # 31 degC, wet bulb 20: reach 0.85 x 11 = 9.35 K, needed 6 K of the 12 K rise: half evaporates.
    got = cooling.facility(*weather(31.0, 20.0), BOTH, CONFIG)
    assert got.pue[0] == pytest.approx(1.09 + 0.02 / 2)
    evaporated = 0.5 * 1.09 * 3.6 / (2.501 - 0.00236 * 20)
    assert got.wue_l_per_kwh[0] == pytest.approx(evaporated * 4 / 3)


def test_mechanical_trim_by_hand() -> None:
    # 37 degC, wet bulb 33: supply 37 - 3.4 = 33.6, so 8.6 of 12 K are left; condenser at 49 degC.
    got = cooling.facility(*weather(37.0, 33.0), BOTH, CONFIG)
    cop = 0.55 * 288.15 / 34
    assert got.pue[0] == pytest.approx(1.09 + 0.02 + (8.6 / 12) * 1.09 / cop)
    assert got.wue_l_per_kwh[0] == pytest.approx(
        (3.4 / 12) * 1.09 * 3.6 / (2.501 - 0.00236 * 33) * 4 / 3
    )


def test_hot_tower_site_by_hand() -> None:
    # Wet bulb 25: no free cooling; condenser 36.6 degC, lift 21.6 K; heat leaves at 31.8 degC.
    got = cooling.facility(*weather(28.0, 25.0), BOTH, CONFIG)
    pue = 1.11 + 1.09 / (0.55 * 288.15 / 21.6)
    assert got.pue[1] == pytest.approx(pue)
    phi = 0.521 + 0.0081 * 25 + 0.044 * 3
    assert got.wue_l_per_kwh[1] == pytest.approx(pue * phi * 3.6 / (2.501 - 0.00236 * 31.8) * 4 / 3)


@given(drybulb, depression)
def test_facility_keeps_to_physical_limits(drybulb_c: float, depression_k: float) -> None:
    wetbulb_c = drybulb_c - depression_k
    got = cooling.facility(*weather(drybulb_c, wetbulb_c), BOTH, CONFIG)
    assert np.all(got.pue >= 1)
    assert np.all(got.pue <= 1.11 + 1.09 / cooling.COP_MIN)
    assert np.all(got.wue_l_per_kwh >= 0)
    warmest_water_c = wetbulb_c + cooling.TOWER_APPROACH_K + cooling.TOWER_RANGE_K
    ceiling = water.ceiling_l_per_kwh(got.pue, warmest_water_c, CONFIG.cycles_of_concentration)
    assert np.all(got.wue_l_per_kwh <= ceiling)


@given(drybulb, depression, st.floats(0, 10))
def test_pue_rises_with_dry_bulb_and_with_wet_bulb(
    drybulb_c: float, depression_k: float, more_k: float
) -> None:
    wetbulb_c = drybulb_c - depression_k
    base = cooling.facility(*weather(drybulb_c, wetbulb_c), BOTH, CONFIG)
    hotter = cooling.facility(*weather(drybulb_c + more_k, wetbulb_c), BOTH, CONFIG)
    wetter_c = wetbulb_c + min(more_k, depression_k)
    wetter = cooling.facility(*weather(drybulb_c, wetter_c), BOTH, CONFIG)
    assert np.all(hotter.pue >= base.pue - 1e-12)
    assert np.all(wetter.pue >= base.pue - 1e-12)
    assert np.all(hotter.wue_l_per_kwh >= base.wue_l_per_kwh - 1e-12)


@given(drybulb, depression)
def test_facility_is_continuous(drybulb_c: float, depression_k: float) -> None:
    wetbulb_c = drybulb_c - depression_k
    here = cooling.facility(*weather(drybulb_c, wetbulb_c), BOTH, CONFIG)
    near = cooling.facility(*weather(drybulb_c + 1e-6, wetbulb_c), BOTH, CONFIG)
    np.testing.assert_allclose(near.pue, here.pue, atol=1e-6)
    np.testing.assert_allclose(near.wue_l_per_kwh, here.wue_l_per_kwh, atol=1e-6)


def test_torch_gives_the_numbers_of_numpy() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    drybulb_c = rng.uniform(-20, 45, (50, 4))
    wetbulb_c = drybulb_c - rng.uniform(0, 15, (50, 4))
    tower = np.array([0, 1, 0, 1], dtype=np.int8)
    want = cooling.facility(drybulb_c, wetbulb_c, tower, CONFIG)
    got = cooling.facility(
        torch.tensor(drybulb_c), torch.tensor(wetbulb_c), torch.tensor(tower), CONFIG
    )
    np.testing.assert_allclose(got.pue.numpy(), want.pue, rtol=1e-14)
    np.testing.assert_allclose(got.wue_l_per_kwh.numpy(), want.wue_l_per_kwh, rtol=1e-14)


def test_weather_in_single_precision_stays_so() -> None:
    drybulb_c = np.full((3, 2), 30, dtype=np.float32)
    got = cooling.facility(drybulb_c, drybulb_c - 5, BOTH, CONFIG)
    assert got.pue.dtype == got.wue_l_per_kwh.dtype == np.float32


def stull_wetbulb_c(drybulb_c: np.ndarray, humidity: np.ndarray) -> np.ndarray:
    """Stull, Journal of Applied Meteorology and Climatology 50 (2011) 2267; humidity in percent."""
    return (
        drybulb_c * np.arctan(0.151977 * np.sqrt(humidity + 8.313659))
        + np.arctan(drybulb_c + humidity)
        - np.arctan(humidity - 1.676331)
        + 0.00391838 * humidity**1.5 * np.arctan(0.023101 * humidity)
        - 4.686035
    )


def annual_mean(mirror: Path, zone: str, tower: int) -> tuple[float, float]:
    path = Path(mirror) / "weather" / "open-meteo-era5" / f"{zone}_2023.json.gz"
    hourly = json.loads(gzip.decompress(path.read_bytes()))["hourly"]
    drybulb_c = np.array(hourly["temperature_2m"])
    humidity = np.clip(np.array(hourly["relative_humidity_2m"], dtype=float), 5, 99)
    wetbulb_c = np.minimum(stull_wetbulb_c(drybulb_c, humidity), drybulb_c)
    got = cooling.facility(drybulb_c, wetbulb_c, np.array(tower), CONFIG)
    return float(got.pue.mean()), float(got.wue_l_per_kwh.mean())


@pytest.mark.mirror
def test_singapore_tower_site_over_a_year(mirror: Path) -> None:
    pue, wue = annual_mean(mirror, "SG", tower=1)
    # Disclosed: 1.68 (AWS) to 2.06 L/kWh (Microsoft); PUE 1.16 (Google) to 1.32 (AWS).
    assert wue == pytest.approx(2.01, rel=0.25)
    assert 1.16 <= pue <= 1.32


@pytest.mark.mirror
@pytest.mark.parametrize("zone", ["DE-LU", "US-MIDA-PJM"])
def test_temperate_adiabatic_site_over_a_year(mirror: Path, zone: str) -> None:
    pue, wue = annual_mean(mirror, zone, tower=0)
    # Disclosed: Frankfurt 0.01, Virginia 0.12 L/kWh.
    assert 0 < wue < 0.2
    assert 1.08 <= pue <= 1.2


def choose(**changes: object) -> PhysicsConfig:
    return CONFIG.model_copy(update=changes)


def test_the_paper_s_pue_and_litres_by_hand() -> None:
    paper = PhysicsConfig.model_validate(read_section("physics", "paper"))
    got = cooling.facility(*weather(30.0, 20.0), BOTH, paper)
    # CoP 4.728 at 25 degC: 1 + 0.13 + 3 / 4.728; heat 1 + 1 / 4.728, all latent, five cycles.
    cop = 0.0068 * 625 + 0.0008 * 25 + 0.458
    np.testing.assert_allclose(got.pue, 1.13 + 3 / cop)
    np.testing.assert_allclose(got.wue_l_per_kwh, (1 + 1 / cop) / 0.66 * 5 / 4)


def test_the_authors_code_cools_by_the_hour() -> None:
    paper = PhysicsConfig.model_validate(read_section("physics", "paper"))
    code = paper.model_copy(update={"cooling": "hourly_cop", "cooling_factor": 1.0})
    hours = np.arange(24)[:, None]
    got = cooling.facility(*(np.full((24, 2), t) for t in (30.0, 20.0)), BOTH, code, hours)
    np.testing.assert_allclose(got.pue[7], 1.13 + 1 / (2.44 * 1.83))
    np.testing.assert_allclose(got.pue[[21, 22, 23]], 1.13 + 1 / (2.44 * 1.2))
    effective = 1 / (got.pue[:, 0] - 1.13)
    assert (effective.min(), effective.max()) == pytest.approx((2.93, 4.47), abs=0.005)


def test_legacy_options_by_hand() -> None:
    crac = cooling.facility(*weather(30.0, 20.0), BOTH, choose(cooling="crac", setpoint_c=20.0))
    np.testing.assert_allclose(crac.pue, 1.11 + 1 / 3.194)
    fitted = cooling.facility(*weather(20.0, 15.0), BOTH, choose(cooling="regression"))
    np.testing.assert_allclose(fitted.pue, 7.1705e-5 * 400 + 0.0041 * 20 + 1.0743)
    cubic = cooling.facility(*weather(30.0, 20.0), BOTH, choose(onsite_water="cubic"))
    np.testing.assert_allclose(cubic.wue_l_per_kwh, water.legacy_wetbulb_wue_l_per_kwh(20.0, 4.0))
    physical = cooling.facility(*weather(30.0, 20.0), BOTH, CONFIG)
    np.testing.assert_array_equal(cubic.pue, physical.pue)


@given(drybulb, depression)
def test_the_capped_cubic_keeps_to_the_ceiling_and_every_pue_is_above_one(
    drybulb_c: float, depression_k: float
) -> None:
    air = weather(drybulb_c, drybulb_c - depression_k)
    got = cooling.facility(*air, BOTH, choose(onsite_water="cubic_capped"))
    assert np.all(got.wue_l_per_kwh <= water.ceiling_l_per_kwh(got.pue, air[1], 4.0) + 1e-12)
    for name in ("crac", "regression", "hourly_cop"):
        assert np.all(cooling.facility(*air, BOTH, choose(cooling=name), 3).pue > 1)


def test_all_latent_without_a_cop_is_refused() -> None:
    with pytest.raises(ValueError, match="all_latent"):
        PhysicsConfig.model_validate(CONFIG.model_dump() | {"onsite_water": "all_latent"})


def test_a_long_answer_of_a_large_model_takes_the_published_energy() -> None:
    # Epoch AI (2025): about 0.3 Wh for a GPT-4o query of 500 output tokens, within a factor two.
    # Llama 3.1 70B stands for it: four H100 at batch 64 make 2511 tokens/s (ML.ENERGY), each step
    # reads 141 GB of weights and the cache of 64 times 700 tokens; prompts of 0.8 the output.
    gpu, tokens_per_s = hardware.GPUS["H100"], 2511
    read_bytes = 141e9 + 64 * 700 * 327_680
    gpu_w = power.gpu_power_w(
        read_bytes * tokens_per_s / 64 / 4 / 1e12,
        2 * 70.6e9 * tokens_per_s * 1.8 / 4 / 1e12,
        context_w=gpu.context_w,
        w_per_tb_per_s=gpu.w_per_tb_per_s,
        w_per_tflop_per_s=gpu.w_per_tflop_per_s,
        tdp_w=gpu.tdp_w,
    )
    node_w = power.node_power_w(gpu_w, 1.0, gpus=8, base_idle_w=1200.0, base_full_w=2800.0)
    pue = cooling.facility(*weather(15.0, 12.0), BOTH, CONFIG).pue.mean()
    facility_wh = node_w * pue / (2 * tokens_per_s) * 500 / 3600
    assert 0.15 < facility_wh < 0.6
