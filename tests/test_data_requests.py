"""Streams of requests: rates, variability, lengths, order, repeatability."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marlin.data import derived, requests
from marlin.data.tables import measured_zones
from marlin.errors import UserError

SERVICES = ["conversation", "code"]
SMALL = derived.embedded(["GB"])
SAMPLES = requests.modelled_samples(SERVICES, 2023, SMALL)
RATES = np.random.default_rng(0).random((6, 3, 2, 2)) * [20.0, 40.0]


def stream(rates: np.ndarray, seed: int = 1, first: int = 0) -> list[requests.RequestBatch]:
    return list(requests.requests(rates, 900, SAMPLES, seed, first))


def test_order_types_and_repeatability() -> None:
    batches = stream(RATES)
    assert len(batches) == 6
    for t, batch in enumerate(batches):
        assert (np.diff(batch.arrival_s) >= 0).all()
        assert t * 900 <= batch.arrival_s[0] <= batch.arrival_s[-1] < (t + 1) * 900
        assert (batch.arrival_s.dtype, batch.origin.dtype) == (np.float64, np.int16)
        assert (batch.prompt_tokens.dtype, batch.output_tokens.dtype) == (np.int32, np.int32)
        assert min(batch.prompt_tokens.min(), batch.output_tokens.min()) >= 1
    later = stream(RATES[4:], first=4)
    np.testing.assert_allclose(later[1].arrival_s + 4 * 900, batches[5].arrival_s)
    assert (later[1].model == batches[5].model).all()
    other = stream(RATES[:1], seed=2)[0]
    assert len(other.arrival_s) != len(batches[0].arrival_s)


def test_shares_of_classes_follow_the_rates() -> None:
    rate = np.repeat(RATES[:1], 20, axis=0)
    batches = stream(rate)
    for s in range(2):
        parts = [b.origin[b.service == s] * 2 + b.model[b.service == s] for b in batches]
        counts = np.bincount(np.concatenate(parts), minlength=6)
        share = rate[0, :, :, s].ravel() / rate[0, :, :, s].sum()
        assert counts / counts.sum() == pytest.approx(share, abs=0.005)
        expected = rate[0, :, :, s].sum() * 900 * 20
        cv2 = (1.094, 13.2)[s] ** 2
        assert abs(counts.sum() - expected) < 4 * np.sqrt(cv2 * expected)


def test_a_class_without_demand_gets_no_request() -> None:
    rates = np.zeros((2, 3, 2, 2))
    rates[0, 1, 0, 1] = 5.0
    first, second = stream(rates)
    assert set(first.origin) == {1}
    assert set(first.model) == {0}
    assert set(first.service) == {1}
    assert len(second.arrival_s) == 0


@pytest.mark.parametrize(("service", "cv"), [(0, 1.09), (1, 13.2)])
def test_variability_of_gaps(service: int, cv: float) -> None:
    points = requests.renewals(np.random.default_rng(3), SAMPLES[service].gaps, 1e6)
    gaps = np.diff(points)
    assert gaps.mean() == pytest.approx(1, rel=0.06)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 300))
def test_gap_laws_have_the_moments_asked_for(cv2: float) -> None:
    gaps = requests.gap_sample(cv2)
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(1)
    assert gaps.var() == pytest.approx(cv2, rel=0.05)


def test_expected_number_is_exact_for_a_bursty_process() -> None:
    gaps = requests.gap_sample(20.0)
    counts = [len(requests.renewals(np.random.default_rng(k), gaps, 30.0)) for k in range(2000)]
    assert np.mean(counts) == pytest.approx(30, abs=4 * np.std(counts) / np.sqrt(2000))


def test_modelled_lengths() -> None:
    moments = SMALL.token_moments
    for year in (2023, 2024):
        rows = moments[moments["token_year"] == year].set_index("service")
        for service, sample in zip(
            SERVICES, requests.modelled_samples(SERVICES, year, SMALL), strict=True
        ):
            want = rows.loc[service, ["prompt_tokens_mean", "output_tokens_mean"]].to_numpy(float)
            assert sample.tokens.mean(axis=0) == pytest.approx(want, rel=0.005)
    assert np.median(SAMPLES[0].tokens, axis=0).tolist() == [1020, 129]
    assert np.median(SAMPLES[1].tokens, axis=0).tolist() == [1469, 13]


def test_a_rate_that_is_not_a_number_is_named() -> None:
    rates = RATES.copy()
    rates[2, 1, 0, 1] = np.nan
    with pytest.raises(UserError, match="epoch 2, origin 1, model 0, service 1 is nan"):
        stream(rates)


@pytest.mark.mirror
def test_measured_rows_drive_the_stream(measured_cache: Path) -> None:
    small = derived.measured(measured_cache, measured_zones())
    samples = requests.measured_samples(measured_cache, SERVICES, 2023, small)
    assert [len(sample.tokens) for sample in samples] == [19_366, 8_819]
    cv = [sample.gaps.std() / sample.gaps.mean() for sample in samples]
    assert cv == pytest.approx([1.09, 13.2], rel=0.01)
    pairs = {tuple(pair) for pair in samples[1].tokens.tolist()}
    (batch,) = requests.requests(RATES[:1], 900, samples, 0)
    code = batch.service == 1
    drawn = zip(batch.prompt_tokens[code].tolist(), batch.output_tokens[code].tolist(), strict=True)
    assert set(drawn) <= pairs
    weighted = requests.measured_samples(measured_cache, SERVICES, 2024, small)
    assert np.median(weighted[0].tokens[:, 0]) == pytest.approx(900, rel=0.03)
