"""Modelled PUE and WUE beside disclosed ones: `python -m marlin.anchors FOLDER SETTINGS`.

Writes `anchors.csv` in FOLDER: for each site of the fleet the annual means that its weather gives
with a tower and with adiabatic cooling, and what operators disclose for regions of its grid zone.
The disclosures are those of Real Time Cloud, to be fetched (`marlin fetch
gsf-cloud-region-metadata`); they enter no simulation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from marlin import compose, inputs
from marlin.config import PhysicsConfig
from marlin.data import fetch, prepare
from marlin.data.water import ELECTRICITYMAPS_ZONE
from marlin.entry import folder_entry
from marlin.files import write_bytes
from marlin.physics.cooling import facility

SOURCE, FILE = "gsf-cloud-region-metadata", "Cloud_Region_Metadata.csv"
DISCLOSED = {"power-usage-effectiveness": "pue", "water-usage-effectiveness": "wue_l_per_kwh"}
SHORT = {
    "Amazon Web Services": "AWS",
    "Google Cloud": "Google",
    "Microsoft Azure": "Microsoft",
}


def read_disclosed(cache: Path) -> pd.DataFrame:
    """One row a grid zone, operator and year that disclose PUE or WUE: means over its regions."""
    (path,) = fetch.cached(cache, SOURCE, [FILE])
    rows = pd.read_csv(path).rename(columns={"em-zone-id": "zone", "cloud-provider": "operator"})
    rows = rows.rename(columns=DISCLOSED)
    rows["operator"] = rows["operator"].replace(SHORT)
    known = rows[rows[list(DISCLOSED.values())].notna().any(axis=1) & rows["zone"].notna()]
    return known.groupby(["zone", "operator", "year"], as_index=False)[
        list(DISCLOSED.values())
    ].mean()


def modelled(scenario: xr.Dataset, physics: PhysicsConfig) -> pd.DataFrame:
    """Mean PUE and WUE of every site over the scenario's epochs, with either way of cooling."""
    drybulb, wetbulb = (scenario[n].to_numpy().astype(float) for n in ("drybulb_c", "wetbulb_c"))
    utc_hour = scenario["time"].dt.hour.to_numpy()
    columns = {}
    for name, tower in (("tower", 1.0), ("adiabatic", 0.0)):
        cooled = facility(drybulb, wetbulb, np.array([tower]), physics, utc_hour[:, None])
        columns |= {
            f"{name}_pue": cooled.pue.mean(axis=0),
            f"{name}_wue_l_per_kwh": cooled.wue_l_per_kwh.mean(axis=0),
        }
    return pd.DataFrame({"site": scenario["site"].to_numpy()} | columns)


def beside(model: pd.DataFrame, zones: list[str], disclosed: pd.DataFrame) -> pd.DataFrame:
    """The modelled rows with the disclosures of their zone's latest year as text."""
    texts = []
    for zone in zones:
        place = ELECTRICITYMAPS_ZONE.get(zone, zone)
        part = disclosed[disclosed["zone"] == place].sort_values("year").groupby("operator").last()
        texts.append(
            "; ".join(
                f"{operator} {row['year']:.0f}: PUE {row['pue']:.2f}, "
                f"WUE {row['wue_l_per_kwh']:.2f}".replace("nan", "-")
                for operator, row in part.iterrows()
            )
        )
    return model.assign(zone=zones, disclosed=texts)


def build(folder: Path, settings: list[str]) -> None:
    """Write and print `anchors.csv`."""
    run = compose.compose(["method=round_robin", *settings])
    disclosed = read_disclosed(inputs.raw_dir())
    scenario = prepare.read(inputs.ready(run).scenario)
    table = beside(
        modelled(scenario, run.physics), [site.zone for site in run.fleet.sites], disclosed
    )
    write_bytes(folder / "anchors.csv", table.to_csv(index=False, float_format="%.3g").encode())
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    folder_entry(build, __doc__)
