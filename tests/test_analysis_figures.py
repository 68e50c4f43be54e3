from __future__ import annotations

from pathlib import Path

import analysis_results
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from marlin import inputs
from marlin.analysis import ablations as ablations_by_hand
from marlin.analysis import behaviour, figures, summary
from marlin.analysis.collect import collect
from marlin.analysis.plots import ablations, calibration, day, learning, pareto, power
from marlin.analysis.plots import behaviour as behaviour_plot
from marlin.analysis.plots.style import COLUMN_IN, PAGE_IN, method_style, style
from marlin.analysis.schema import METHOD_NAMES, groups, order_methods
from marlin.errors import UserError

NAMES = ("pareto", "day", "learning", "calibration", "power")
DRAWN = (*NAMES, "ablations")


def ablated(episodes: pd.DataFrame) -> pd.DataFrame:
    """Episodes with two ablations of MARLIN: one that costs a tenth of carbon, one of no effect."""
    full = episodes[episodes["method"].isin(["marlin", "marlin_carbon"])]
    worse = full.assign(ablation="no_veto", carbon_kg=full["carbon_kg"] * 1.1)
    return pd.concat([episodes, worse, full.assign(ablation="no_her")], ignore_index=True)


def points(panel: Axes) -> list[tuple[float, ...]]:
    """Where a panel has points with intervals, x and y, to nine digits."""
    lines = [c.lines[0] for c in panel.containers if isinstance(c, ErrorbarContainer)]
    return [
        tuple(round(float(np.asarray(of())[0]), 9) for of in (line.get_xdata, line.get_ydata))
        for line in lines
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = analysis_results.write(tmp_path_factory.mktemp("figures") / "results", seeds=2, days=2)
    collect(folder)
    figures.build(folder)
    return folder


@pytest.fixture(scope="module")
def drawn(results: Path) -> dict[str, Figure]:
    episodes, epochs, curves = (
        pd.read_parquet(results / f"{name}.parquet") for name in ("episodes", "epochs", "learning")
    )
    with style():
        return {
            "pareto": pareto.draw(summary.main_runs(episodes)),
            "day": day.draw(epochs, "carbon_greedy"),
            "learning": learning.draw(curves),
            "calibration": calibration.draw(pd.read_parquet(results / "serving/silicon.parquet")),
            "power": power.draw(pd.read_csv(results / "serving/power.csv")),
            "ablations": ablations.draw(summary.ablations(ablated(episodes)), 2),
        }


def test_three_formats_with_equal_bytes_on_a_second_build(results: Path) -> None:
    paths = [results / "figures" / f"{n}.{kind}" for n in NAMES for kind in ("pdf", "svg", "png")]
    before = [path.read_bytes() for path in paths]
    figures.build(results)
    assert before == [path.read_bytes() for path in paths]
    for name in NAMES:
        assert b"CreationDate" not in (results / "figures" / f"{name}.pdf").read_bytes()
        assert b"<dc:date>" not in (results / "figures" / f"{name}.svg").read_bytes()


@pytest.mark.parametrize("name", DRAWN)
def test_text_is_readable_and_inside_the_figure(drawn: dict[str, Figure], name: str) -> None:
    figure = drawn[name]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    assert figure.get_figwidth() in (COLUMN_IN, PAGE_IN)
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert len(shown) > 20
    assert all(float(text.get_fontsize()) >= 7.0 for text in shown)
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [artist.get_window_extent() for artist in (*figure.findobj(Legend), *figure.texts)]
    for box in boxes:
        assert box is not None
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0.0


@pytest.mark.parametrize("name", DRAWN)
def test_the_legend_covers_neither_data_nor_labels(drawn: dict[str, Figure], name: str) -> None:
    figure = drawn[name]
    FigureCanvasAgg(figure).draw()
    legends = figure.findobj(Legend)
    assert legends
    for legend in legends:
        box = legend.get_window_extent()
        others = [axes.get_tightbbox() for axes in figure.axes]
        others += [text.get_window_extent() for text in figure.texts]
        assert not any(other is not None and box.overlaps(other) for other in others)


def test_no_two_schedulers_look_the_same() -> None:
    methods = order_methods(set(METHOD_NAMES))
    looks = [
        (colors.to_hex(colour), marker, name.startswith("marlin"))
        for name in methods
        for colour, marker in [method_style(name, methods)]
    ]
    assert len(set(looks)) == len(looks)


def test_points_of_the_pareto_figure_are_the_ratios(
    drawn: dict[str, Figure], results: Path
) -> None:
    table = summary.relative_to_reference(pd.read_parquet(results / "episodes.parquet"))
    expected = table.pivot(index="method", columns="objective", values="ratio")
    assert set(points(drawn["pareto"].axes[0])) == {
        (round(row["ttft_s"], 9), round(row["carbon_kg"], 9)) for _, row in expected.iterrows()
    }


def test_points_of_the_ablations_figure_are_the_changes(drawn: dict[str, Figure]) -> None:
    panels = drawn["ablations"].axes
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["no_her", "no_veto"]
    # Row no_veto: balanced above, the variant for carbon below.
    assert sorted(points(panels[1])) == [(0.0, -0.17), (0.0, 0.17), (10.0, 0.83), (10.0, 1.17)]
    assert max(points(panels[4]))[0] == pytest.approx(100.0 * (1.1**0.25 - 1.0))


def test_the_ablations_figure_is_drawn_where_a_suite_has_ablations(results: Path) -> None:
    assert not (results / "figures" / "ablations.pdf").exists()
    path = results / "episodes.parquet"
    before = path.read_bytes()
    ablated(pd.read_parquet(path)).to_parquet(path)
    figures.build(results)
    path.write_bytes(before)
    assert (results / "figures" / "ablations.pdf").is_file()


def test_ablations_by_hand(results: Path, tmp_path: Path) -> None:
    folders = []
    episodes = ablated(pd.read_parquet(results / "episodes.parquet"))
    for (ablation, seed), part in groups(episodes, ["ablation", "seed"]):
        folders.append(tmp_path / f"{ablation}-{seed}")
        folders[-1].mkdir()
        part[part["method"] == "marlin"].to_parquet(folders[-1] / "episodes.parquet")
    picture = ablations_by_hand.build(tmp_path / "out", folders)
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "out" / "ablations.csv").set_index(["ablation", "objective"])
    assert table.loc[("no_veto", "carbon_kg"), "change_percent"] == pytest.approx(10.0)
    with pytest.raises(UserError, match="same ablation and seed"):
        ablations_by_hand.build(tmp_path / "out", [*folders, folders[0]])
    alone = [folder for folder in folders if not folder.name.startswith("none")]
    with pytest.raises(UserError, match="add those of ablation=none"):
        ablations_by_hand.build(tmp_path / "out", alone)


def test_fleet_objectives_of_an_epoch_by_hand() -> None:
    time = pd.Timestamp("2024-01-01")
    frame = pd.DataFrame(
        {
            "seed": [0, 0, 1, 1],
            "time": [time] * 4,
            "site": ["a", "b", "a", "b"],
            "requests_per_s": [3.0, 1.0, 0.0, 2.0],
            "ttft_s": [0.2, 1.0, 0.0, 0.6],
            "carbon_kg": [10.0, 2.0, 0.0, 8.0],
        }
    )
    # Seed 0: (3 x 0.2 + 1 x 1.0) / 4 = 0.4; seed 1: 0.6.
    assert day.epoch_objective(frame, "ttft_s").to_list() == [pytest.approx(0.5)]
    assert day.epoch_objective(frame, "carbon_kg").to_list() == [10.0]


def test_learning_curves_start_at_one_for_the_balanced_variant() -> None:
    frame = analysis_results.learning(0)
    relative = learning.relative_to_start(frame)
    start = relative[(relative["variant"] == "balanced") & (relative["training_epochs"] == 2_560)]
    assert start["carbon_kg"].to_list() == [1.0]
    last = frame[(frame["variant"] == "water") & (frame["training_epochs"] == 40_960)]
    first = frame[(frame["variant"] == "balanced") & (frame["training_epochs"] == 2_560)]
    shown = relative[(relative["variant"] == "water") & (relative["training_epochs"] == 40_960)]
    expected = last["water_l"].item() / first["water_l"].item()
    assert shown["water_l"].item() == pytest.approx(expected)


def test_without_a_curve_of_marlin_the_user_is_told() -> None:
    with pytest.raises(UserError, match="no curve of marlin"):
        learning.draw(analysis_results.learning(0).iloc[:0])


def test_calibration_draws_its_points_beside_the_profiles(tmp_path: Path) -> None:
    results = analysis_results.write(tmp_path / "results", seeds=1, days=1)
    picture = inputs.draw_silicon(results / "serving" / "profiles.parquet")
    assert picture == results / "serving" / "silicon.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert inputs.silicon_path(Path("mine.parquet")) == Path("mine-silicon.parquet")


def test_behaviour_draws_every_method_and_no_variant(results: Path, tmp_path: Path) -> None:
    paths = behaviour.build(results, tmp_path)
    assert [path.stem for path in paths] == sorted(
        {name for name in analysis_results.METHODS if not name.startswith("marlin_")}
    )
    epochs = pd.read_parquet(results / "epochs.parquet")
    own = epochs[epochs["method"] == "nearest"].groupby("time")["requests_per_s"]
    with style():
        routed, on, ttft = behaviour_plot.draw(epochs, "nearest").axes
    top = np.asarray(routed.collections[-1].get_paths()[0].vertices)[:, 1].max()
    assert top == pytest.approx(1e-3 * own.sum().max() / epochs["seed"].nunique())
    assert on.get_title(loc="left") == "b  Nodes on"
    assert [line.get_label() for line in ttft.lines] == ["Round robin", "Nearest"]
