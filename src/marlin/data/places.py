"""Where zones and cloud regions lie, and which zone with data is nearest to one without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from marlin.data.tables import nearest, table
from marlin.errors import UserError

EARTH_RADIUS_KM = 6371.0


def check_zones(zones: Iterable[str], known: Sequence[str], data: str) -> None:
    """Raise UserError for a zone without `data`; the message names the nearest of `known`."""
    for zone in zones:
        if zone not in known:
            raise UserError(
                f"fleet: there are no {data} data of grid zone {zone!r}{nearest_zone(zone, known)};"
                f" known zones: {', '.join(known)}"
            )


def nearest_zone(zone: str, known: Sequence[str], region: str = "") -> str:
    """The end of a message: the nearest of `known` on the globe, else in spelling, else "".

    The place is that of `zone` (`reference/zone_places.csv`, the names of Electricity Maps) or, if
    it is not there, that of the Azure `region` of the site.
    """
    here = _place("zone_places", "zone", zone)
    if here is None:
        here = _place("azure_regions", "region", region)
    if here is None:
        return nearest(zone, known)
    sites = table("embedded/sites.csv").set_index("zone").loc[list(known)]
    km = distance_km(*here, sites["latitude"].to_numpy(float), sites["longitude"].to_numpy(float))
    return f", nearest is {str(sites.index[km.argmin()])!r} ({km.min():.0f} km away)"


def distance_km(
    latitude: float, longitude: float, latitudes: np.ndarray, longitudes: np.ndarray
) -> np.ndarray:
    """Great-circle distance from a point to points [N], all in degrees. Source: haversine."""
    a, b = np.radians(latitude), np.radians(latitudes)
    half = np.sin((b - a) / 2) ** 2
    half = half + np.cos(a) * np.cos(b) * np.sin(np.radians(longitudes - longitude) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(half))


def _place(name: str, column: str, value: str) -> tuple[float, float] | None:
    places = table(f"reference/{name}.csv").set_index(column)
    if value not in places.index:
        return None
    return float(places.loc[value, "latitude"]), float(places.loc[value, "longitude"])
