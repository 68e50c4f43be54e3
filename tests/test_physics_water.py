import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marlin.physics import water

FACTORS = {"gas": 0.75, "wind": 0.0}


def test_latent_heat_at_25_degc() -> None:
    assert water.evaporation_l_per_kwh(25.0) == pytest.approx(1.474, rel=0.01)


def test_blowdown_at_four_cycles_is_a_third_of_evaporation() -> None:
    assert water.blowdown_l(3.0, 4.0) == 1.0
    assert water.makeup_l(3.0, 4.0) == 4.0


@given(st.floats(0, 1e6), st.floats(1.5, 20))
def test_salt_is_conserved(evaporated_l: float, cycles: float) -> None:
    makeup = water.makeup_l(evaporated_l, cycles)
    assert makeup == pytest.approx(cycles * water.blowdown_l(evaporated_l, cycles))


@given(st.floats(-40, 50), st.floats(0, 40))
def test_latent_share_is_a_share_and_grows_with_dryness(drybulb_c: float, dryness: float) -> None:
    share = water.tower_latent_share(np.array(drybulb_c), np.array(drybulb_c - dryness))
    drier = water.tower_latent_share(np.array(drybulb_c), np.array(drybulb_c - dryness - 1))
    assert 0 <= share <= drier <= 1


@pytest.mark.parametrize(
    ("wetbulb_c", "six", "three"), [(0, 1.015, 1.269), (20, 4.447, 5.559), (28, 6.642, 8.303)]
)
def test_legacy_cubic_takes_fahrenheit(wetbulb_c: float, six: float, three: float) -> None:
    got = [float(water.legacy_wetbulb_wue_l_per_kwh(wetbulb_c, cycles)) for cycles in (6, 3)]
    assert got == pytest.approx([six, three], abs=0.001)


@pytest.mark.parametrize(("cycles", "ceiling"), [(6, 2.21), (3, 2.77)])
def test_legacy_cubic_passes_the_ceiling_near_4_5_degc(cycles: float, ceiling: float) -> None:
    limit = water.ceiling_l_per_kwh(1.25, 25.0, cycles)
    assert limit == pytest.approx(ceiling, abs=0.01)
    below, above = water.legacy_wetbulb_wue_l_per_kwh(np.array([4.0, 5.0]), cycles)
    assert below < limit < above


def test_hydropower_is_a_switch() -> None:
    shares = {"hydro": 0.75, "gas": 0.20, "wind": 0.05}
    assert water.grid_ewif_l_per_kwh(shares, FACTORS, 0) == pytest.approx(0.15)
    assert water.grid_ewif_l_per_kwh(shares, FACTORS, 17) == pytest.approx(12.9)


def test_fuel_without_a_factor_is_an_error() -> None:
    with pytest.raises(KeyError, match="peat"):
        water.grid_ewif_l_per_kwh({"peat": 1.0}, FACTORS, 0)


def test_gemini_prompt_water() -> None:
    # Google 2025: 0.14 + 0.06 + 0.02 + 0.02 = 0.24 Wh a prompt at PUE 1.09, 1.15 L/kWh, 0.26 mL.
    facility_wh = 0.14 + 0.06 + 0.02 + 0.02
    assert facility_wh == pytest.approx(0.24, abs=0.01)
    it_wh = facility_wh / 1.09
    assert facility_wh - it_wh == pytest.approx(0.02, abs=0.01)
    assert 1000 * water.onsite_water_l(it_wh / 1000, 1.15) == pytest.approx(0.26, rel=0.05)


def test_offsite_and_scarce_water() -> None:
    offsite = water.offsite_water_l(np.array([100.0, 50.0]), np.array([1.95, 0.33]))
    np.testing.assert_allclose(offsite, [195.0, 16.5])
    np.testing.assert_allclose(
        water.scarcity_water_l(offsite, np.array([2.09, 3.89])), [407.55, 64.185]
    )


def test_water_service_energy_is_a_thousandth_of_the_energy_cooled() -> None:
    # 1 kWh of IT at 2 L/kWh: 2 L supplied at 0.45 kWh/m3, 0.5 L treated at 0.5 kWh/m3.
    assert water.water_service_energy_kwh(2.0, 0.5, 0.45, 0.5) == pytest.approx(0.00115)
