"""Tables and figures of what is uncertain and of what the sites offer."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_faults import PEACE

from marlin import compose, sensitivity, site_factors
from marlin.analysis.plots import calibration, sites, tornado
from marlin.analysis.schema import OBJECTIVES
from marlin.serving import silicon

ROWS = [
    ("base", "", "base", "", 0.2, 100.0, 50.0, 10.0),
    ("path stretch", "", "low", 1.3, 0.15, 100.0, 50.0, 10.0),
    ("path stretch", "", "high", 2.5, 0.3, 100.0, 50.0, 10.0),
    ("node base power", "W", "low", 1200, 0.2, 80.0, 40.0, 8.0),
    ("node base power", "W", "high", 2800, 0.2, 105.0, 55.0, 11.0),
    ("hydropower water", "L/kWh", "low", 0, 0.2, 100.0, 50.0, 10.0),
    ("hydropower water", "L/kWh", "high", 17, 0.2, 100.0, 150.0, 10.0),
]
FRAME = pd.DataFrame(ROWS, columns=["parameter", "unit", "level", "value", *OBJECTIVES])


def texts(figure: Figure) -> str:
    return " ".join(
        text.get_text()
        for axes in figure.axes
        for text in (*axes.texts, *axes.get_yticklabels(), axes.xaxis.label)
    )


def test_changes_by_hand_widest_last() -> None:
    water = tornado.changes(FRAME, "water_l")
    assert list(water.index) == ["node base power", "hydropower water"]
    assert water.loc["hydropower water", "high"] == pytest.approx(200)
    assert water.loc["node base power"].to_dict() == pytest.approx({"high": 10, "low": -20})
    assert list(tornado.changes(FRAME, "ttft_s").index) == ["path stretch"]


def test_the_tornado_names_ranges_and_units() -> None:
    figure = tornado.draw(FRAME)
    assert len(figure.axes) == 4
    shown = texts(figure)
    assert "node base power\n(1200, 2800 W)" in shown
    assert "change from the base (%)" in shown
    assert "+50.0" in shown


def test_every_range_is_a_setting_a_profile_or_the_stretch() -> None:
    run = compose.compose([*sensitivity.BASE_SETTINGS, "method=round_robin"])
    found = sensitivity.ranges(run)
    assert len(found) == 10
    for parameter in found:
        extra = parameter.setting.format(parameter.high).split()
        changed = compose.compose([*sensitivity.BASE_SETTINGS, "method=round_robin", *extra])
        assert (changed == run) == (not extra)


def test_stretch_leaves_the_last_mile() -> None:
    import xarray as xr

    scenario = xr.Dataset({"rtt_s": ("site", [0.02, 0.02 + 0.177])})
    got = sensitivity._stretched(scenario, 2.5, 0.02)["rtt_s"].to_numpy()
    assert got == pytest.approx([0.02, 0.02 + 0.25])


def test_site_factors_are_per_kwh_of_it() -> None:
    frame = site_factors.site_factors(PEACE)
    assert list(frame["site"]) == list(PEACE.world.sites)
    row = frame.set_index("site").loc["clean-far"]
    # 50 g/kWh on average at PUE 1.09 of a site that cools for free.
    assert row["carbon_g_per_kwh"] == pytest.approx(54.5, rel=1e-3)
    figure = sites.draw(frame)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["dirty-near", "dry-cheap", "clean-far"]
    assert "USD per MWh of IT" in texts(figure)


def test_profiles_without_measured_points_still_have_a_figure() -> None:
    figure = calibration.draw(pd.DataFrame(columns=silicon.COLUMNS))
    assert "no measured points" in figure.texts[0].get_text()
