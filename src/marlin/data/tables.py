"""Tables that travel with the package: `reference/` (written by hand) and `embedded/` (derived)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd

from marlin.errors import UserError


def table_bytes(name: str) -> bytes:
    """Return the packaged file `name` as it is stored."""
    return files("marlin.data").joinpath(name).read_bytes()


@cache
def table(name: str) -> pd.DataFrame:
    """Return the packaged CSV `name`, for example "embedded/aware.csv"; do not write to it."""
    resource = files("marlin.data").joinpath(name)
    compression = "gzip" if name.endswith(".gz") else None
    with resource.open("rb") as stream:
        return pd.read_csv(
            stream, compression=compression, keep_default_na=False, na_values=["nan"]
        )


def measured_zones() -> list[str]:
    """Return the grid zones that have measured carbon, price, weather and water data."""
    return sorted(table("reference/price_series.csv")["zone"])


def embedded_zones() -> list[str]:
    """Return the grid zones that have embedded tables."""
    return sorted(table("embedded/sites.csv")["zone"])


def check_zones(zones: Iterable[str], known: Sequence[str], data: str) -> None:
    """Raise UserError for a zone without `data`; the message names the nearest of `known`.

    Nearest on the globe for a zone whose place is known (`reference/zone_places.csv`, the names of
    Electricity Maps), else in spelling.
    """
    for zone in zones:
        if zone not in known:
            near = nearest_place(zone, known) or nearest(zone, known)
            raise UserError(
                f"fleet: there are no {data} data of grid zone {zone!r}{near}; "
                f"known zones: {', '.join(known)}"
            )


def nearest_place(zone: str, known: Sequence[str]) -> str:
    """Return ", nearest is 'X' (1200 km)" of the sites of `known`, "" for a zone of no known place.

    Source: haversine formula, Earth radius 6371 km.
    """
    places = table("reference/zone_places.csv").set_index("zone")
    if zone not in places.index:
        return ""
    sites = table("embedded/sites.csv").set_index("zone").loc[list(known)]
    latitude, longitude = (np.radians(sites[name]) for name in ("latitude", "longitude"))
    here = np.radians(places.loc[zone, ["latitude", "longitude"]].to_numpy(float))
    chord = np.sin((latitude - here[0]) / 2) ** 2
    chord += np.cos(latitude) * np.cos(here[0]) * np.sin((longitude - here[1]) / 2) ** 2
    distance_km = 2 * 6371 * np.arcsin(np.sqrt(chord))
    return f", nearest is {str(distance_km.idxmin())!r} ({distance_km.min():.0f} km away)"


def cautions(zones: Iterable[str]) -> dict[str, str]:
    """Return what to beware of in the data of those of `zones` that need a caution."""
    texts = table("reference/zone_cautions.csv").set_index("zone")["caution"]
    return {zone: str(texts[zone]) for zone in zones if zone in texts.index}


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ", nearest is 'X'" for an error message, or an empty string."""
    folded = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.4)
    return f", nearest is {folded[matches[0]]!r}" if matches else ""
