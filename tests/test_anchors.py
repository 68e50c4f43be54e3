"""Disclosed PUE and WUE beside the modelled ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from marlin import anchors, compose


def test_the_latest_year_of_each_operator_is_named_and_no_gap_is_filled() -> None:
    disclosed = pd.DataFrame(
        {
            "zone": ["DE", "DE", "DE", "GB"],
            "operator": ["AWS", "AWS", "Google", "AWS"],
            "year": [2023, 2024, 2022, 2024],
            "pue": [1.4, 1.35, 1.1, np.nan],
            "wue_l_per_kwh": [0.02, 0.01, np.nan, 0.18],
        }
    )
    model = pd.DataFrame({"site": ["a", "b", "c"]})
    got = anchors.beside(model, ["DE-LU", "GB", "KR"], disclosed)["disclosed"].tolist()
    assert got == [
        "AWS 2024: PUE 1.35, WUE 0.01; Google 2022: PUE 1.10, WUE -",
        "AWS 2024: PUE -, WUE 0.18",
        "",
    ]


def test_a_tower_evaporates_what_a_dry_cooler_does_not() -> None:
    time = np.datetime64("2023-01-01") + np.arange(4) * np.timedelta64(6, "h")
    weather = {"drybulb_c": 18.0, "wetbulb_c": 14.0}
    scenario = xr.Dataset(
        {name: (("time", "site"), np.full((4, 1), value)) for name, value in weather.items()},
        {"time": time.astype("datetime64[ns]"), "site": ["a"]},
    )
    row = anchors.modelled(scenario, compose.compose().physics).iloc[0]
    assert row["adiabatic_wue_l_per_kwh"] == 0.0
    assert 1.0 < row["tower_wue_l_per_kwh"] < 2.5
    assert 1.0 < row["adiabatic_pue"] < row["tower_pue"] < 1.3


@pytest.mark.mirror
def test_disclosures_of_the_mirror(measured_cache: Path) -> None:
    table = anchors.read_disclosed(measured_cache).set_index(["zone", "operator", "year"])
    assert table.loc[("SG", "AWS", 2024), "wue_l_per_kwh"] == pytest.approx(1.68)
    assert table.loc[("DE", "AWS", 2024), "pue"] == pytest.approx(1.35)
