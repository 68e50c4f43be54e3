"""`marlin validate FILE`: check a trace (CSV, Parquet) or a fleet (YAML) and show what was read."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marlin.entry import guard
from marlin.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

YAML = (".yaml", ".yml")


def main() -> None:
    """Command line of `marlin validate`; exit status 1 if anything in the file is wrong."""
    parser = argparse.ArgumentParser(prog="marlin validate", description=__doc__)
    parser.add_argument("file", type=Path, help="trace.csv, trace.parquet or fleet.yaml")
    parser.add_argument("--output", type=Path, help="folder of the picture (default: the file's)")
    given = parser.parse_args()
    with guard():
        folder = given.output or given.file.parent
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--output {folder} is not a folder")
        picture = folder / f"{given.file.stem}.summary.png"
        if given.file.suffix.lower() in YAML:
            fleet(given.file, picture)
        else:
            trace(given.file, picture)


def trace(path: Path, picture: Path) -> None:
    """Print the summary of a trace and draw it; raise UserError if rows are bad."""
    from marlin.analysis.plots import own as plots
    from marlin.data import own_trace

    found = own_trace.read(path)
    rate = (found.good - 1) / found.span_s if found.span_s else float("nan")
    lines = [
        f"{path}: {found.rows} rows, {found.good} usable",
        f"from {_utc(found.first_us)} to {_utc(found.last_us)} UTC: {found.span_s / 86_400:.4g} "
        f"days, {rate:.4g} requests per second",
    ]
    for kind, table in (("prompt", found.prompt), ("output", found.output)):
        for service in found.names("service"):
            values = own_trace.quantile(table, service, np.array([0.5, 0.9, 0.99, 1.0]))
            shown = ", ".join(f"{v:.0f}" for v in values)
            lines.append(f"{kind} tokens of service {service} (P50, P90, P99, most): {shown}")
    for column in own_trace.NAMES:
        if column in found.columns:
            lines.append(f"{column}s: {', '.join(found.names(column)[:40])}")
        else:
            lines.append(f"no column {column}")
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"line {bad.line}: {bad.reason}" for bad in found.bad]
    lines += [f"bad: {number} x {reason}" for reason, number in found.bad_counts.items()]
    print("\n".join(lines))
    column = next((c for c in own_trace.NAMES if c in found.columns), "service")
    counts: dict[str, int] = {}
    for name, requests in found.counts.select(column, "requests").iter_rows():
        counts[name] = counts.get(name, 0) + requests
    lengths = {
        kind: {s: own_trace.quantile(table, s, plots.LENGTHS) for s in found.names("service")}
        for kind, table in (("prompt", found.prompt), ("output", found.output))
    }
    figure = plots.trace_figure(found.stamps_us, lengths, counts, f"requests by {column}")
    _save(figure, picture)
    wrong = found.rows - found.good
    if wrong:
        raise UserError(f"{path} has {wrong} bad rows of {found.rows}: they are named above")


def fleet(path: Path, picture: Path) -> None:
    """Print the summary of a fleet and draw it; raise UserError if fields are wrong."""
    from marlin.analysis.plots import own as plots
    from marlin.data import network, own_fleet
    from marlin.data.tables import cautions, table

    found, bad = own_fleet.check(path)
    for field in bad:
        print(f"line {field.line}: {field.reason}")
    if found is None or bad:
        raise UserError(f"{path} has {len(bad)} wrong fields: they are named above")
    names = [site.name for site in found.sites]
    zones = [site.zone for site in found.sites]
    nodes = {kind: [s.nodes.get(kind, 0) for s in found.sites] for kind in found.node_types}
    print(f"{path}: fleet {found.name}, {len(names)} sites in {len(set(zones))} zones")
    for kind, counts in nodes.items():
        node = found.node_types[kind]
        print(f"{kind}: {sum(counts)} nodes of {node.gpus} {node.gpu}")
    for zone, text in cautions(dict.fromkeys(zones)).items():
        print(f"note: zone {zone}: {text}")
    places = table("embedded/sites.csv").set_index("zone").loc[zones]
    regions = [site.network for site in found.sites]
    own = found.round_trips
    if own is None:
        rtt = network.known_rtt_s(regions, regions, table("embedded/rtt.csv")) * 1e3
    else:
        rtt = network.own_rtt_s(regions, regions, 0.0, own.rtt_ms, own.path) * 1e3
    coordinates = places[["latitude", "longitude"]].to_numpy(float)
    _save(plots.fleet_figure(names, zones, nodes, coordinates, rtt), picture)


def _utc(stamp_us: int) -> str:
    return str(np.datetime64(stamp_us, "us").astype("datetime64[s]")).replace("T", " ")


def _save(figure: Figure, picture: Path) -> None:
    from marlin.analysis.plots.style import METADATA
    from marlin.files import write_bytes

    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=200, metadata=METADATA["png"])
    try:
        write_bytes(picture, stream.getvalue())
    except OSError as error:
        raise UserError(f"{picture} cannot be written ({error.strerror}): give --output") from None
    print(f"picture: {picture}")


if __name__ == "__main__":
    main()
