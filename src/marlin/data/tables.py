"""Tables that travel with the package: `reference/` (written by hand) and `embedded/` (derived)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import pandas as pd


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


def cautions(zones: Iterable[str]) -> dict[str, str]:
    """Return what to beware of in the data of those of `zones` that need a caution."""
    texts = table("reference/zone_cautions.csv").set_index("zone")["caution"]
    return {zone: str(texts[zone]) for zone in zones if zone in texts.index}


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ", nearest is 'X'" for an error message, or an empty string."""
    folded = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.4)
    return f", nearest is {folded[matches[0]]!r}" if matches else ""
