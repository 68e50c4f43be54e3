import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marlin.physics import carbon, price


def test_gemini_prompt_carbon() -> None:
    # Google 2025: 0.24 Wh at 94 g/kWh; the rest of the disclosed 0.03 g is embodied and scope 1, 3.
    operational_g = 1000 * carbon.operational_kg(0.24e-3, 94.0)
    assert operational_g == pytest.approx(0.0226, abs=5e-5)
    assert operational_g < 0.03


def test_hgx_h100_embodied_carbon() -> None:
    assert carbon.HGX_H100_EMBODIED_KG == 1312
    assert carbon.HGX_H100_EMBODIED_KG / 8 == 164


@pytest.mark.parametrize(
    ("embodied_kg", "life_years", "g_per_gpu_hour"),
    [(4000.0, 6.0, 9.5), (8 * 273.0 + 5700.0, 3.0, 37.5)],
)
def test_published_extremes_of_embodied_carbon(
    embodied_kg: float, life_years: float, g_per_gpu_hour: float
) -> None:
    got = carbon.embodied_g_per_gpu_hour(embodied_kg, 8, life_years)
    assert got == pytest.approx(g_per_gpu_hour, rel=0.005)


def test_hours_unused_are_charged_to_hours_used() -> None:
    full = carbon.embodied_g_per_gpu_hour(4000.0, 8, 6.0, 1.0)
    assert carbon.embodied_g_per_gpu_hour(4000.0, 8, 6.0, 0.5) == pytest.approx(2 * full)


def test_sci_by_hand() -> None:
    # 100 kWh x 392 g/kWh + 16 GPU-hours x 20 g = 39,520 g over 10,000 requests.
    embodied_g = 1000 * carbon.embodied_kg(16.0, 20.0)
    assert carbon.sci_g(100.0, 392.0, embodied_g, 10_000) == pytest.approx(3.952)


@given(st.floats(0, 1e6), st.floats(0, 1000))
def test_sci_is_operational_carbon_where_hardware_is_free(energy: float, intensity: float) -> None:
    got = carbon.sci_g(energy, intensity, 0.0, 1000.0)
    assert got == pytest.approx(carbon.operational_kg(energy, intensity))


def test_cost_follows_the_sign_of_the_price() -> None:
    got = price.energy_cost_usd(np.array([2000.0, 500.0]), np.array([36.2, -10.0]))
    np.testing.assert_allclose(got, [72.4, -5.0])


def test_tariff_and_demand_charge() -> None:
    assert price.tariff_usd_per_mwh(80.0, 40.0, 0.5) == 80.0
    assert price.tariff_usd_per_mwh(80.0, 0.0) == 80.0
    assert price.demand_charge_usd(1000.0, 12.0, 12) == 144_000


def test_torch_gives_the_numbers_of_numpy() -> None:
    torch = pytest.importorskip("torch")
    energy, intensity = np.array([1.0, 2.0]), np.array([321.0, 169.0])
    np.testing.assert_array_equal(
        carbon.operational_kg(torch.tensor(energy), torch.tensor(intensity)).numpy(),
        carbon.operational_kg(energy, intensity),
    )


def test_water_service_adds_a_thousandth_of_the_carbon() -> None:
    # 0.00115 kWh of pumps and treatment for each kWh of IT, over 1.25 kWh of facility energy.
    assert carbon.with_water_service(400.0, 0.00115, 1.25) == pytest.approx(400 * 1.00092)


def test_time_of_use_by_hour() -> None:
    prices = [100.0] * 16 + [250.0] * 2 + [100.0] * 6
    got = price.time_of_use_usd_per_mwh(np.array([[15, 16], [17, 18]]), prices)
    np.testing.assert_array_equal(got, [[100, 250], [250, 100]])
    with pytest.raises(ValueError, match="24"):
        price.time_of_use_usd_per_mwh(0, prices[1:])
