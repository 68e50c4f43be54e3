"""What a kWh of computing takes at each site: `python -m marlin.site_factors FOLDER SETTINGS`.

Writes `sites.csv`, means over the test period, and the figure `sites` in FOLDER: which sites are
best by one objective and worst by another, before any scheduler chooses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from marlin import compose
from marlin.entry import folder_entry
from marlin.files import write_bytes
from marlin.fleet.world import TEST
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh
from marlin.task import Task, load_run


def site_factors(task: Task) -> pd.DataFrame:
    """One row a site: carbon, water and price of one kWh of IT energy, PUE and mean RTT."""
    truth = task.truth(np.flatnonzero(task.epochs.split == TEST))
    return pd.DataFrame(
        {
            "site": task.world.sites,
            "carbon_g_per_kwh": carbon_g_per_kwh(truth).mean(axis=0),
            "water_l_per_kwh": water_l_per_kwh(truth).mean(axis=0),
            "price_usd_per_mwh": price_usd_per_mwh(truth).mean(axis=0),
            "pue": truth.pue.mean(axis=0),
            "rtt_ms": 1000 * task.world.constants.rtt_s.mean(axis=0),
        }
    )


def build(folder: Path, settings: list[str]) -> None:
    """Write `sites.csv` and the figure `sites`."""
    from marlin.analysis.plots import sites
    from marlin.analysis.plots.style import save, style

    run = compose.compose(["method=round_robin", "scenario=fortnight", *settings])
    frame = site_factors(load_run(run))
    write_bytes(folder / "sites.csv", frame.to_csv(index=False, float_format="%.6g").encode())
    with style():
        save(sites.draw(frame), folder, "sites")
    print(f"{len(frame)} sites in {folder / 'sites.csv'}, figure sites beside it")


if __name__ == "__main__":
    folder_entry(build, __doc__)
