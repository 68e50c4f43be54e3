"""One epoch of MARLIN as a picture: what is drawn is what was negotiated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_marlin import SMALL
from test_schedulers import TASK

from marlin import compose
from marlin.analysis.plots import walkthrough as picture
from marlin.analysis.plots.style import style
from marlin.errors import UserError
from marlin.files import write_text
from marlin.schedulers.marlin import Marlin
from marlin.walkthrough import build, walked


def test_a_walk_shows_the_negotiation_of_its_epoch() -> None:
    walk = walked(TASK, Marlin(**SMALL), "carbon", 2)
    sites = len(walk.sites)
    assert walk.proposals.shape == (4, sites)
    assert walk.sliders.shape == (7, sites)
    np.testing.assert_allclose(walk.proposals.sum(axis=1), 1.0, rtol=1e-5)
    # Carbon has all the power: its best proposal scores one, the consensus mixes by weight.
    np.testing.assert_array_equal(walk.power, [0, 1, 0, 0])
    np.testing.assert_allclose(walk.scores[1] / walk.scores[1].sum(), walk.shares, rtol=1e-5)
    np.testing.assert_allclose(walk.shares @ walk.proposals, walk.stages[0], rtol=1e-5)
    assert walk.requests.sum() == pytest.approx(1.0)
    with style():
        panels = picture.draw(walk).axes
    assert [panel.get_title("left")[0] for panel in panels] == list("abcde")


def test_only_a_run_of_marlin_can_be_walked_through(tmp_path: Path) -> None:
    run = compose.compose(["method=nearest", "scenario=fortnight"])
    write_text(tmp_path / "resolved.yaml", compose.to_yaml(run))
    with pytest.raises(UserError, match="give one of marlin"):
        build(tmp_path, tmp_path / "picture.png", "", 0)
