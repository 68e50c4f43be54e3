"""The fluid model against replay: the table, and the agreement that the docs state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import synthetic

from marlin import fluid_validation
from marlin.data.derived import embedded
from marlin.data.requests import modelled_samples
from marlin.fleet.world import build_world
from marlin.fluid_validation import CASES, Case, Site, compare, one_site, table

SITE = Site(
    synthetic.run_config(),
    synthetic.profiles(),
    modelled_samples(fluid_validation.SERVICES, 2023, embedded([])),
)


def test_both_models_get_the_same_statistics() -> None:
    world = build_world(one_site(SITE.run, SITE.samples, 4.0), SITE.run, SITE.profiles)
    constants = world.constants
    for service, sample in enumerate(SITE.samples):
        prompt, output = sample.tokens.astype(float).T
        assert constants.prompt_tokens[service] == pytest.approx(prompt.mean())
        assert constants.output_cv2[service] == pytest.approx(output.var() / output.mean() ** 2)
        profile = SITE.profiles[0]
        mean_s = profile.prefill_s(prompt).mean()
        assert constants.prefill_s[0, 0, service] == pytest.approx(mean_s, rel=0.01)
    assert (constants.arrival_cv2 == 4.0).all()


@pytest.mark.parametrize(
    "case",
    [
        Case(0.4, 1.0, "conversation"),
        Case(0.85, 4.0, "code"),
        Case(0.75, 16.0, "both"),
        Case(0.4, 1.0, "both", 0.25),
        Case(0.6, 1.0, "both", 0.5),
        Case(0.85, 1.0, "conversation", 0.5),
    ],
)
def test_mean_ttft_and_energy_agree_with_replay(case: Case) -> None:
    found = compare(SITE, case)
    assert found["fluid_ttft_s"] == pytest.approx(found["replay_ttft_s"], rel=0.2)
    assert found["fluid_energy_kwh"] == pytest.approx(found["replay_energy_kwh"], rel=0.05)


def test_the_table_has_a_row_a_case_and_the_same_numbers_each_time() -> None:
    cases = [Case(0.2, 1.0, "both"), Case(0.2, 1.0, "both", 0.5)]
    made = table(SITE, cases)
    pd.testing.assert_frame_equal(made, table(SITE, cases))
    assert made.columns.tolist() == [
        "utilisation", "arrival_cv2", "mix", "warm", "requests",
        "replay_ttft_s", "replay_energy_kwh", "fluid_ttft_s", "fluid_energy_kwh",
        "ttft_error", "energy_error",
    ]  # fmt: skip
    error = made.fluid_energy_kwh / made.replay_energy_kwh - 1
    np.testing.assert_allclose(made.energy_error, error, atol=1e-4)
    assert len(set(CASES)) == len(CASES) == 60


def test_the_command_writes_the_table(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "fluid.csv"
    monkeypatch.setattr(fluid_validation, "make_site", lambda run, path: SITE)
    monkeypatch.setattr(fluid_validation, "table", lambda site: table(site, CASES[:1]))
    fluid_validation.main(["--profiles", "profiles.parquet", "--output", str(output)])
    assert len(pd.read_csv(output)) == 1


def test_a_share_of_bursts_is_what_chance_leaves_of_them() -> None:
    """The gaps of one model of a service vary less than the service's: both models must know."""
    calm, bursty = (compare(SITE, replace(CASES[0], arrival_cv2=c)) for c in (1.0, 16.0))
    assert float(bursty["replay_ttft_s"]) > float(calm["replay_ttft_s"])
