"""Workload: token statistics, weekly shapes on local clocks, noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marlin.config import Origin, RunConfig, WorkloadConfig
from marlin.data import workload
from marlin.data.tables import table
from marlin.errors import UserError


def make(run: RunConfig, **changes: object) -> WorkloadConfig:
    return run.workload.model_copy(update={"noise_sd": 0.0, **changes})


WEEK = table("embedded/weekly_rates.csv")


def week(first: str) -> pd.DatetimeIndex:
    return pd.date_range(first, periods=672, freq="15min")


def test_weekly_total_is_that_of_the_measured_services(tiny_run: RunConfig) -> None:
    rates = workload.arrival_rate_per_s(week("2023-06-05"), 15, 2, make(tiny_run), WEEK, 0)
    assert rates.shape == (672, 12, 2, 2)
    total = rates.sum(axis=(1, 2)).mean(axis=0)
    assert total == pytest.approx([27_303_999 / 604_800, 16_803_695 / 604_800], rel=1e-3)


def test_population_and_model_shares(tiny_run: RunConfig) -> None:
    rates = workload.arrival_rate_per_s(week("2023-06-05"), 15, 2, make(tiny_run), WEEK, 0)
    by_origin = rates.sum(axis=(2, 3)).mean(axis=0)
    people = np.array([o.population_m for o in tiny_run.workload.origins.values()])
    assert by_origin / by_origin.sum() == pytest.approx(people / people.sum())
    large = rates[:, :, 1].sum() / rates.sum()
    assert large == pytest.approx(tiny_run.workload.large_share)
    assert workload.model_shares(1, 0.3).tolist() == [1.0]
    with pytest.raises(UserError, match="3 models"):
        workload.model_shares(3, 0.3)


def test_reference_origin_repeats_the_measured_week(tiny_run: RunConfig) -> None:
    origin = {"here": Origin(population_m=1, timezone="America/New_York", network="East US")}
    config = make(tiny_run, origins=origin)
    rates = workload.arrival_rate_per_s(week("2024-05-13"), 15, 1, config, WEEK, 0)
    measured = WEEK[["conversation_per_s", "code_per_s"]].to_numpy().T
    np.testing.assert_allclose(rates[:, 0, 0, :].T, measured)


def test_summer_time_moves_demand_by_an_hour_in_utc(tiny_run: RunConfig) -> None:
    origin = {"here": Origin(population_m=1, timezone="Europe/London", network="UK South")}
    config = make(tiny_run, origins=origin)
    winter = workload.arrival_rate_per_s(week("2024-01-15"), 15, 1, config, WEEK, 0)
    summer = workload.arrival_rate_per_s(week("2024-07-15"), 15, 1, config, WEEK, 0)
    np.testing.assert_allclose(np.roll(winter, -4, axis=0), summer)


def test_east_peaks_earlier_in_utc(tiny_run: RunConfig) -> None:
    rates = workload.arrival_rate_per_s(week("2023-06-05"), 15, 2, make(tiny_run), WEEK, 0)
    names = list(tiny_run.workload.origins)
    by_hour = rates.sum(axis=(2, 3)).reshape(7, 96, 12).mean(axis=0)
    peak = dict(zip(names, by_hour.argmax(axis=0) / 4, strict=True))
    assert peak["korea"] == pytest.approx((peak["us-mid-atlantic"] - 13) % 24)


def test_epoch_length_keeps_the_level(tiny_run: RunConfig) -> None:
    config = make(tiny_run)
    fine = workload.arrival_rate_per_s(week("2023-06-05"), 15, 2, config, WEEK, 0).mean(axis=0)
    hours = pd.date_range("2023-06-05", periods=168, freq="h")
    coarse = workload.arrival_rate_per_s(hours, 60, 2, config, WEEK, 0).mean(axis=0)
    assert coarse == pytest.approx(fine, rel=0.01)


def test_noise_moments_and_seed() -> None:
    draw = workload.noise((20_000, 8), 0.2, 0.9, 0)
    assert draw.mean() == pytest.approx(1, abs=0.01)
    assert draw.std() == pytest.approx(0.2, rel=0.05)
    z = np.log(draw)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    assert (z[1:] * z[:-1]).mean() == pytest.approx(0.9, abs=0.01)
    assert (draw == workload.noise((20_000, 8), 0.2, 0.9, 0)).all()
    assert (draw != workload.noise((20_000, 8), 0.2, 0.9, 1)).any()
    assert (workload.noise((5, 2), 0.0, 0.9, 0) == 1).all()


def test_unknown_time_zone(tiny_run: RunConfig) -> None:
    config = make(tiny_run, reference_timezone="Mars/Olympus")
    with pytest.raises(UserError, match="Mars/Olympus"):
        workload.arrival_rate_per_s(week("2023-06-05"), 15, 2, config, WEEK, 0)


@given(st.floats(0, 10_079.9))
def test_interpolation_stays_within_the_week(minute: float) -> None:
    shape = WEEK["code_per_s"].to_numpy()
    value = workload.at_minute(shape, np.array([minute]))[0]
    assert shape.min() <= value <= shape.max()
    wrapped = workload.at_minute(shape, np.array([minute + 10_080]))[0]
    assert wrapped == pytest.approx(value)


def test_lengths_are_ordered_quantiles() -> None:
    statistics = workload.lengths(
        ["conversation", "code"],
        2023,
        table("embedded/token_moments.csv"),
        table("embedded/token_quantiles.csv"),
    )
    assert (np.diff(statistics.prompt_quantile, axis=1) >= 0).all()
    assert statistics.prompt_quantile[:, 50] == pytest.approx([1020, 1469], abs=1)
    assert statistics.output_quantile[:, 50] == pytest.approx([129, 13], abs=1)
    assert statistics.moments["prompt_tokens_cv2"] == pytest.approx([0.92, 0.93], abs=0.01)
    assert np.sqrt(statistics.moments["arrival_cv2"]) == pytest.approx([1.09, 13.2], rel=0.01)


def test_token_statistics_by_hand() -> None:
    rows = pd.DataFrame(
        {
            "TIMESTAMP": ["2023-11-16 18:00:00", "2023-11-16 18:00:01", "2023-11-16 18:00:04"],
            "ContextTokens": [100, 200, 600],
            "GeneratedTokens": [10, 20, 30],
        }
    )
    moments, quantiles = workload.token_statistics(2023, "code", rows, np.full(3, 1 / 3))
    assert moments == pytest.approx(
        {
            "token_year": 2023,
            "service": "code",
            "requests": 3,
            "requests_per_s": 0.75,
            "rank_correlation": 1.0,
            "prompt_tokens_mean": 300.0,
            "output_tokens_mean": 20.0,
            "prompt_tokens_cv2": (200**2 + 100**2 + 300**2) / 3 / 300**2,
            "output_tokens_cv2": 1 / 6,
            "arrival_cv2": 1 / 2**2,
        }
    )
    picked = quantiles["prompt_tokens"].iloc[[0, 25, 50, 100]].tolist()
    assert picked == pytest.approx([100, 150, 200, 600])


def test_weekly_rates_keep_the_exact_number_of_requests() -> None:
    utc = pd.date_range("2024-05-12", periods=1440, freq="7min", tz="UTC").astype(str)
    rates, hourly = [], []
    for name, level in (("conv", 60.0), ("code", 30.0)):
        shape = np.where(np.arange(1440) < 720, level, 3 * level)
        rates.append(pd.DataFrame({"service": name, "utc": utc, "req_per_min": shape}))
        hourly.append(pd.DataFrame({"service": [name] * 2, "requests": [604_800, 604_800]}))
    week = workload.weekly_rates(pd.concat(rates), pd.concat(hourly))
    assert week["minute_of_week"].tolist() == list(range(0, 10_080, 15))
    assert week[["conversation_per_s", "code_per_s"]].mean().tolist() == pytest.approx([2.0, 2.0])
    # The shape begins on Sunday, the table on Monday 0 h: its high half is from Wednesday noon.
    assert week["code_per_s"].iloc[100] == pytest.approx(1.0, rel=0.01)
    assert week["code_per_s"].iloc[400] == pytest.approx(3.0, rel=0.01)


@pytest.mark.mirror
def test_rows_of_the_2023_trace(measured_cache: Path) -> None:
    both = workload.read_token_statistics(measured_cache, table("embedded/token_cdf.csv"))
    moments, quantiles = (workload.of_year(frame, 2023) for frame in both)
    assert np.sqrt(moments["arrival_cv2"]).tolist() == pytest.approx([1.09, 13.2], rel=0.05)
    assert moments["service"].tolist() == ["conversation", "code"]
    assert moments["requests"].tolist() == [19_366, 8_819]
    assert moments["requests_per_s"].tolist() == pytest.approx([5.53, 2.57], abs=0.005)
    medians = quantiles[quantiles["quantile"] == 0.5]
    assert medians["prompt_tokens"].tolist() == [1020, 1469]
    assert medians["output_tokens"].tolist() == [129, 13]


def test_lengths_of_2024_against_the_sum_of_tokens_of_that_week() -> None:
    """44.17e9 and 43.02e9 prompt tokens, 3.006e9 output tokens (conversation) read off plots."""
    moments = workload.of_year(table("embedded/token_moments.csv"), 2024).set_index("service")
    prompt = moments["prompt_tokens_mean"]
    assert prompt["conversation"] == pytest.approx(44.173e9 / 27_303_999, rel=0.04)
    assert prompt["code"] == pytest.approx(43.020e9 / 16_803_695, rel=0.04)
    assert moments.loc["conversation", "output_tokens_mean"] == pytest.approx(110.1, rel=0.06)


def test_weights_give_the_wanted_shares() -> None:
    generator = np.random.default_rng(0)
    tokens = generator.integers(40, 1000, (5000, 2))
    wanted = pd.DataFrame(
        {
            "prompt_tokens": np.interp(workload.QUANTILES, [0, 1], [40, 700]),
            "output_tokens": np.interp(workload.QUANTILES, [0, 1], [40, 500]),
        }
    )
    weight = workload.reweighted(tokens, wanted)
    assert weight.sum() == pytest.approx(1)
    for k, column in enumerate(wanted):
        for level in (25, 50, 75):
            below = weight[tokens[:, k] < wanted[column][level]].sum()
            assert below == pytest.approx(level / 100, abs=0.01)


@pytest.mark.mirror
def test_weekly_shape_against_exact_minutes(measured_cache: Path, mirror: str) -> None:
    """Ten-minute means of the full trace, published by a third party, agree within 8 %."""
    if mirror.startswith("http"):
        pytest.skip("reads a file that is not registered")
    folder = Path(mirror) / "traces/azure-llm-2024-week-digitized"
    points = pd.read_csv(folder / "validation_points.csv")
    starts = {"code": pd.Timestamp("2024-05-10"), "conv": pd.Timestamp("2024-05-12")}
    rates = dict(
        zip(["conv", "code"], WEEK[["conversation_per_s", "code_per_s"]].to_numpy().T, strict=True)
    )
    for row in points[points["metric"] == "requests_per_min"].itertuples():
        middle = starts[row.service] + pd.Timedelta(minutes=row.minute_start + 5)
        minute = workload.local_minute_of_week(pd.DatetimeIndex([middle]), "UTC")
        value = workload.at_minute(rates[row.service], minute)[0] * 60
        assert value == pytest.approx(row.exact_mean, rel=0.08)
