"""The scenario file: contents, split, exactness, and refusal of what is not one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from marlin.config import RunConfig, ScenarioConfig
from marlin.data import network, signals, water, workload
from marlin.data.fetch import cached, use_package
from marlin.data.prepare import UNITS, between_hours, prepare, read, time_blocks, write
from marlin.data.registry import scenario_sources
from marlin.data.tables import measured_zones
from marlin.errors import UserError


@pytest.fixture(scope="module")
def dataset(tiny_run: RunConfig) -> xr.Dataset:
    return prepare(tiny_run)


@pytest.fixture(scope="module")
def path(dataset: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("scenario") / "fortnight.nc"
    write(dataset, target)
    return target


def with_scenario(run: RunConfig, **changes: object) -> RunConfig:
    scenario = ScenarioConfig.model_validate({**run.scenario.model_dump(), **changes})
    return run.model_copy(update={"scenario": scenario})


def measured_run(run: RunConfig) -> RunConfig:
    section = run.signals.model_copy(update={"source": "measured"})
    return run.model_copy(update={"signals": section})


def with_sites(run: RunConfig, **changes: list[str]) -> RunConfig:
    """The run on one site for each value of `changes`: field of a site -> values."""
    first = run.fleet.sites[0]
    rows = [
        dict(zip(changes, values, strict=True)) for values in zip(*changes.values(), strict=True)
    ]
    sites = [first.model_copy(update={"name": f"site-{k}", **row}) for k, row in enumerate(rows)]
    return run.model_copy(update={"fleet": run.fleet.model_copy(update={"sites": sites})})


def test_variables_dimensions_and_units(dataset: xr.Dataset) -> None:
    sizes = {"site": 12, "origin": 12, "model": 2, "service": 2, "node_type": 2, "quantile": 101}
    assert {k: v for k, v in dataset.sizes.items() if k != "time"} == sizes
    assert dataset["arrival_rate_per_s"].dims == ("time", "origin", "model", "service")
    for name in ("carbon_g_per_kwh", "price_usd_per_mwh", "drybulb_c", "wetbulb_c"):
        assert dataset[name].dims == ("time", "site")
        assert dataset[name].dtype == np.float32
    for name in UNITS:
        assert dataset[name].attrs["units"]
        assert dataset[name].attrs["long_name"]
        assert not np.isnan(dataset[name].to_numpy().astype(float)).any()
    assert (dataset["wetbulb_c"] <= dataset["drybulb_c"] + 1e-4).all()
    assert (dataset["carbon_g_per_kwh"] >= 0).all()
    assert (dataset["arrival_rate_per_s"] > 0).all()
    assert dataset["tower"].sel(site="singapore") == 1


def test_split_and_history(tiny_run: RunConfig) -> None:
    dataset = prepare(with_scenario(tiny_run, validation_days=2))
    time = pd.DatetimeIndex(dataset["time"].to_numpy())
    split = dataset["split"].to_numpy()
    assert time.is_unique
    assert time.is_monotonic_increasing
    days = {label: time[split == label].floor("D").unique() for label in (-1, 0, 1, 2)}
    assert [len(days[k]) for k in (-1, 0, 1, 2)] == [14, 19, 2, 14]
    assert str(days[1][0].date()) == "2023-06-20"
    assert str(days[-1][0].date()) == "2023-05-25"
    assert str(days[-1][7].date()) == "2024-05-25"


def test_no_history_is_repeated_or_invented(tiny_run: RunConfig) -> None:
    run = with_scenario(
        tiny_run,
        train={"first": "2023-01-01", "last": "2023-12-31"},
        test={"first": "2024-01-03", "last": "2024-01-05"},
    )
    train, test = time_blocks(run)
    assert train.time[0] == pd.Timestamp("2023-01-01")
    assert test.time[0] == pd.Timestamp("2024-01-01")
    assert (train.split >= 0).all()
    assert (test.split == -1).sum() == 2 * 96


def test_weather_is_interpolated_and_prices_hold() -> None:
    hours = pd.DatetimeIndex(["2023-01-01 00:00", "2023-01-01 01:00", "2023-02-01 00:00"])
    time = pd.DatetimeIndex(["2023-01-01 00:15", "2023-01-01 01:45", "2023-02-01 00:30"])
    values = between_hours(np.array([[0.0], [4.0], [9.0]]), hours, time)
    assert values[:, 0].tolist() == [1.0, 4.0, 9.0]


def test_prices_hold_for_their_hour(dataset: xr.Dataset) -> None:
    by_hour = dataset["price_usd_per_mwh"].to_numpy().reshape(-1, 4, 12)
    assert (by_hour == by_hour[:, :1]).all()


def test_two_writes_give_equal_bytes(tiny_run: RunConfig, path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.nc"
    write(prepare(tiny_run), again)
    assert again.read_bytes() == path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.nc"]


def test_round_trip(dataset: xr.Dataset, path: Path) -> None:
    loaded = read(path)
    xr.testing.assert_equal(loaded, dataset)
    assert loaded.attrs == dataset.attrs
    assert loaded["time"].dtype == dataset["time"].dtype
    assert list(loaded["site"].to_numpy())[:2] == ["california", "texas"]


def test_attributes_name_every_source(dataset: xr.Dataset) -> None:
    entries = json.loads(dataset.attrs["sources"])
    assert dataset.attrs["source"] == "embedded"
    assert {entry["origin"] for entry in entries} == {"embedded"}
    assert all(entry["licence"] and entry["attribution"] for entry in entries)
    assert json.loads(dataset.attrs["config"])["scenario"]["name"] == "fortnight"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.95, 0.9999])
def test_truncated_file_is_refused(path: Path, tmp_path: Path, share: float) -> None:
    data = path.read_bytes()
    cut = tmp_path / "cut.nc"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"cut\.nc"):
        read(cut)


def test_foreign_and_missing_files_are_refused(dataset: xr.Dataset, tmp_path: Path) -> None:
    text = tmp_path / "text.nc"
    text.write_text("not a scenario\n")
    other = tmp_path / "other.nc"
    write(dataset.drop_vars("rtt_s"), other)
    for file, words in (
        (text, "not a readable"),
        (other, "lacks rtt_s"),
        (tmp_path / "no.nc", "no"),
    ):
        with pytest.raises(UserError, match=words):
            read(file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch_minutes": 7}, "divisor of 60"),
        ({"train": {"first": "2021-06-01", "last": "2021-06-21"}}, "2021-06-01 .* 2023 and 2024"),
        ({"test": {"first": "2023-03-01", "last": "2023-03-20"}}, "after the train days"),
        ({"validation_days": 21}, "no day to train"),
    ],
)
def test_periods_out_of_order(tiny_run: RunConfig, changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        prepare(with_scenario(tiny_run, **changes))


def test_measured_without_a_cache(tiny_run: RunConfig, tmp_path: Path) -> None:
    run = measured_run(tiny_run)
    with pytest.raises(UserError, match="MARLIN_MIRROR"):
        prepare(run)
    with pytest.raises(UserError, match=r"open-meteo-era5.*run `marlin fetch` first"):
        prepare(run, tmp_path)


def test_unknown_node_type(tiny_run: RunConfig) -> None:
    sites = list(tiny_run.fleet.sites)
    sites[0] = sites[0].model_copy(update={"nodes": {"h100x9": 4}})
    run = tiny_run.model_copy(update={"fleet": tiny_run.fleet.model_copy(update={"sites": sites})})
    with pytest.raises(UserError, match="'h100x9'"):
        prepare(run)


@pytest.mark.mirror
def test_measured_and_embedded_have_one_structure(
    tiny_run: RunConfig, measured_cache: Path, dataset: xr.Dataset
) -> None:
    measured = prepare(measured_run(tiny_run), measured_cache)
    assert measured.sizes == dataset.sizes
    assert {n: v.dtype for n, v in measured.items()} == {n: v.dtype for n, v in dataset.items()}
    assert measured.attrs["source"] == "mirror"
    origins = {entry["id"]: entry["origin"] for entry in json.loads(measured.attrs["sources"])}
    assert origins.pop("operational-water-factors") == "package"
    assert set(origins.values()) == {"mirror"}
    assert not measured["carbon_g_per_kwh"].equals(dataset["carbon_g_per_kwh"])


@pytest.mark.mirror
def test_measured_and_embedded_differ_by_rounding_only(
    tiny_run: RunConfig, measured_cache: Path, dataset: xr.Dataset
) -> None:
    measured = prepare(measured_run(tiny_run), measured_cache)
    drawn = {"carbon_g_per_kwh", "price_usd_per_mwh", "drybulb_c", "wetbulb_c"}
    for name in set(UNITS) - drawn:
        tolerance = 0.06 if name.endswith("_quantile") else 3e-4
        xr.testing.assert_allclose(measured[name], dataset[name], rtol=1e-6, atol=tolerance)
    # Numbers of the package have fewer digits: the measured run does not read them.
    for name in ("arrival_rate_per_s", "prompt_tokens_cv2", "ewif_l_per_kwh", "latitude"):
        assert not measured[name].equals(dataset[name]), name


@pytest.mark.mirror
def test_every_zone_can_be_used_and_four_print_a_caution(
    tiny_run: RunConfig, measured_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    year = {
        "train": {"first": "2023-02-01", "last": "2023-02-04"},
        "test": {"first": "2023-03-01", "last": "2023-03-02"},
    }
    zones = measured_zones()
    run = with_scenario(measured_run(tiny_run), **year)
    result = prepare(with_sites(run, zone=zones), measured_cache)
    assert result.sizes["site"] == 16
    assert not any(np.isnan(result[name].to_numpy().astype(float)).any() for name in UNITS)
    lines = [line for line in capsys.readouterr().err.splitlines() if "caution" in line]
    assert [line.split()[3].rstrip(":") for line in lines] == ["CL-SIC", "IN-WE", "JP-TK", "ZA"]
    assert set(json.loads(result.attrs["cautions"])) == {"CL-SIC", "IN-WE", "JP-TK", "ZA"}
    later = with_sites(measured_run(tiny_run), zone=["GB", "CL-SIC"])
    with pytest.raises(UserError, match="price_usd_per_mwh of zone CL-SIC"):
        prepare(later, measured_cache)
    with pytest.raises(UserError, match="no measured data of grid zone 'GBR', nearest is 'GB'"):
        prepare(with_sites(run, zone=["GBR"]), measured_cache)


@pytest.mark.mirror
def test_any_measured_azure_region_can_be_named(tiny_run: RunConfig, measured_cache: Path) -> None:
    run = with_sites(
        measured_run(tiny_run),
        zone=["GB"] * 3,
        network=["Indonesia Central", "West India", "Poland Central"],
    )
    origins = {"here": next(iter(run.workload.origins.values()))}
    origins["here"] = origins["here"].model_copy(update={"network": "Japan East"})
    run = run.model_copy(update={"workload": run.workload.model_copy(update={"origins": origins})})
    (path,) = cached(measured_cache, "azure-rtt-p50", ["latency.csv"])
    matrix = pd.read_csv(path, index_col=0)
    last_mile = run.workload.last_mile_rtt_s
    result = prepare(run, measured_cache)["rtt_s"].to_numpy()[0]
    assert result[0] == pytest.approx(
        matrix.loc["Indonesia Central", "Japan East"] / 1e3 + last_mile
    )
    assert result[1] == pytest.approx(matrix.loc["Japan East", "West India"] / 1e3 + last_mile)
    both = [
        matrix.loc["Poland Central", "Japan East"],
        matrix.loc["Japan East", "Poland Central"],
    ]
    assert result[2] == pytest.approx(np.mean(both) / 1e3 + last_mile)
    empty = with_sites(run, zone=["GB"], network=["Jio India West"])
    with pytest.raises(UserError, match="between Japan East and Jio India West"):
        prepare(empty, measured_cache)
    with pytest.raises(UserError, match="nearest is 'Poland Central'"):
        prepare(with_sites(run, zone=["GB"], network=["Poland"]), measured_cache)


@pytest.fixture
def loose_cache(measured_cache: Path, tmp_path: Path) -> Path:
    """A cache whose files can be replaced without harm to the shared one."""
    for path in measured_cache.rglob("*"):
        if path.is_file():
            link = tmp_path / "cache" / path.relative_to(measured_cache)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return tmp_path / "cache"


def small(run: RunConfig) -> RunConfig:
    return with_sites(measured_run(run), zone=["GB"], network=["UK South"])


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("source_id", "name"),
    [
        ("azure-llm-2023", "AzureLLMInferenceTrace_code.csv"),
        ("azure-llm-2024-week", "azure2024_request_rate_7min.csv"),
        ("azure-rtt-p50", "latency.csv"),
        ("aware20", "aware20_nonagri_by_zone.csv"),
        ("electricitymaps-config", "power_origin_ratios.csv"),
        ("open-meteo-era5", "GB/2023.json"),
    ],
)
def test_truncated_or_missing_file_is_refused(
    tiny_run: RunConfig, loose_cache: Path, source_id: str, name: str
) -> None:
    (path,) = cached(loose_cache, source_id, [name])
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name} is missing: run `marlin fetch`"):
        prepare(small(tiny_run), loose_cache)
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError, match=rf"{path.name} does not have the registered checksum"):
        prepare(small(tiny_run), loose_cache)


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("module", "name", "column", "words"),
    [
        (workload, "read_weekly_rates", "code_per_s", "azure-llm-2024-week: code_per_s"),
        (water, "read_scarcity", "mar", "aware20: mar"),
        (network, "read_round_trips", "rtt_ms", "azure-rtt-p50: rtt_ms"),
        (signals, "read_sites", "elevation_m", "open-meteo-era5: elevation_m"),
    ],
)
def test_value_that_is_not_a_number_is_refused(
    tiny_run: RunConfig,
    measured_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    name: str,
    column: str,
    words: str,
) -> None:
    read = getattr(module, name)

    def with_hole(*arguments: object) -> pd.DataFrame:
        frame = read(*arguments)
        frame.loc[0, column] = np.nan
        return frame

    monkeypatch.setattr(module, name, with_hole)
    with pytest.raises(UserError, match=f"{words} has no value"):
        prepare(small(tiny_run), measured_cache)


@pytest.mark.mirror
def test_package_stands_for_what_the_internet_has_not(
    tiny_run: RunConfig, loose_cache: Path, dataset: xr.Dataset
) -> None:
    """As after `marlin fetch --source primary`, and every source says so."""
    for item in scenario_sources().values():
        folder = loose_cache / item.id / item.version
        if not item.files:
            continue
        if item.has_primary:
            (folder / "origin.txt").unlink()
            (folder / "origin.txt").write_text("primary\n")
        else:
            shutil.rmtree(folder)
    with pytest.raises(UserError, match="run `marlin fetch` first"):
        prepare(measured_run(tiny_run), loose_cache)
    derived_ids = {item.id for item in scenario_sources().values() if not item.has_primary}
    use_package(derived_ids - {"operational-water-factors"}, loose_cache)
    result = prepare(measured_run(tiny_run), loose_cache)
    entries = {entry["id"]: entry for entry in json.loads(result.attrs["sources"])}
    assert {name for name, e in entries.items() if e["origin"] == "package"} == derived_ids
    assert {e["origin"] for e in entries.values()} == {"package", "primary"}
    assert result.attrs["source"] == "primary"
    for name in ("arrival_rate_per_s", "rtt_s", "aware_m3_per_m3"):
        xr.testing.assert_identical(result[name], dataset[name])
    xr.testing.assert_allclose(result["ewif_l_per_kwh"], dataset["ewif_l_per_kwh"], atol=3e-4)
    assert not result["prompt_tokens_cv2"].equals(dataset["prompt_tokens_cv2"])
    embedded = {entry["id"]: entry for entry in json.loads(dataset.attrs["sources"])}
    assert entries["azure-rtt-p50"]["sha256"] == embedded["azure-rtt-p50"]["sha256"]
    assert entries["azure-llm-2023"]["sha256"] != embedded["azure-llm-2023"]["sha256"]
