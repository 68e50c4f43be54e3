import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marlin.physics import power
from marlin.serving import hardware

H100 = {"context_w": 122.0, "w_per_tb_per_s": 140.0, "w_per_tflop_per_s": 1.37, "tdp_w": 700.0}

rate = st.floats(0, 5, allow_subnormal=False)
flops = st.floats(0, 2000, allow_subnormal=False)


@pytest.mark.parametrize(
    ("name", "context_w", "deep_idle_w"), [("H100", 121.7, 71.8), ("A100", 80.0, 53.7)]
)
def test_idle_levels_are_the_measured_ones(name: str, context_w: float, deep_idle_w: float) -> None:
    gpu = hardware.GPUS[name]
    waiting_w = power.gpu_power_w(
        0.0,
        0.0,
        context_w=gpu.context_w,
        w_per_tb_per_s=gpu.w_per_tb_per_s,
        w_per_tflop_per_s=gpu.w_per_tflop_per_s,
        tdp_w=gpu.tdp_w,
    )
    assert waiting_w == pytest.approx(context_w, rel=0.05)
    resting_w = power.node_idle_power_w("deep_idle", 8, gpu.deep_idle_w, 1200.0)
    assert (resting_w - 1200) / 8 == pytest.approx(deep_idle_w, rel=0.05)


@pytest.mark.parametrize("name", hardware.GPUS)
def test_every_power_constant_has_a_range_around_it(name: str) -> None:
    ranges = hardware.POWER_RANGES[name]
    assert set(ranges) == {"context_w", "deep_idle_w", "w_per_tb_per_s", "w_per_tflop_per_s"}
    for constant, ends in ranges.items():
        assert ends.base == getattr(hardware.gpu(name), constant)
        assert ends.low < ends.base < ends.high
    assert ranges["deep_idle_w"].high <= ranges["context_w"].low


def test_gpu_power_by_hand_and_at_the_cap() -> None:
    # 122 + 140 x 2 + 1.37 x 100 = 539 W; half of peak arithmetic alone passes the cap with it.
    got = power.gpu_power_w(np.array([2.0, 2.0]), np.array([100.0, 494.5]), **H100)
    np.testing.assert_allclose(got, [539.0, 700.0])


def test_full_h100_node_draws_the_measured_peak() -> None:
    # Latif et al. 2025: 8.4 kW measured, 18 % under the rated 10.2 kW.
    got = power.node_power_w(700.0, 1.0, gpus=8, base_idle_w=1200.0, base_full_w=2800.0)
    assert got == pytest.approx(8400.0)
    assert 1 - got / 10200 == pytest.approx(0.18, abs=0.005)


def test_resting_node() -> None:
    assert power.node_idle_power_w("off", 8, 71.8, 1200.0) == power.OFF_NODE_W
    assert power.node_idle_power_w("deep_idle", 8, 71.8, 1200.0) == pytest.approx(1774.4)


def test_resting_node_keeps_the_shape_of_its_arguments() -> None:
    deep_idle_w = np.array([53.7, 71.8])
    np.testing.assert_array_equal(
        power.node_idle_power_w("off", 8, deep_idle_w, 1200.0), [power.OFF_NODE_W] * 2
    )


@given(rate, rate, flops, flops)
def test_gpu_power_rises_with_work_and_stays_in_range(
    bandwidth: float, more_bandwidth: float, compute: float, more_compute: float
) -> None:
    low = power.gpu_power_w(bandwidth, compute, **H100)
    high = power.gpu_power_w(bandwidth + more_bandwidth, compute + more_compute, **H100)
    assert H100["context_w"] <= low <= high <= H100["tdp_w"]


@given(st.floats(0, 1), st.floats(100, 700))
def test_node_power_lies_between_idle_and_full(utilisation: float, gpu_w: float) -> None:
    base = {"gpus": 8, "base_idle_w": 1200.0, "base_full_w": 2800.0}
    low, high = (power.node_power_w(gpu_w, share, **base) for share in (0.0, 1.0))
    assert low <= power.node_power_w(gpu_w, utilisation, **base) <= high + 1e-9


def test_torch_gives_the_numbers_of_numpy_and_a_gradient() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    bandwidth, compute = rng.uniform(0, 4, (3, 5)), rng.uniform(0, 900, (3, 5))
    tdp = np.full(5, 700.0)
    want = power.gpu_power_w(bandwidth, compute, **(H100 | {"tdp_w": tdp}))
    work = torch.tensor(bandwidth, requires_grad=True)
    got = power.gpu_power_w(work, torch.tensor(compute), **(H100 | {"tdp_w": torch.tensor(tdp)}))
    np.testing.assert_array_equal(got.detach().numpy(), want)
    got.sum().backward()
    np.testing.assert_allclose(work.grad.numpy(), np.where(want < 700, 140.0, 0.0))
    node = {"gpus": 8, "base_idle_w": 1200.0, "base_full_w": 2800.0}
    np.testing.assert_array_equal(
        power.node_power_w(got.detach(), torch.tensor(0.5, dtype=torch.float64), **node).numpy(),
        power.node_power_w(want, 0.5, **node),
    )
