"""Compare the embedded draws with measured data: `python -m marlin.analysis.embedded`.

Writes docs/images/embedded.png, docs/data/agreement.csv and docs/data/correlation.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from marlin.analysis.plots.embedded import draw
from marlin.data import agreement, embed, latent
from marlin.data.fetch import fetch
from marlin.data.registry import sources
from marlin.files import write_text


def main() -> None:
    """Fetch what is needed from the mirror, compare, and write tables and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", required=True, help="folder or http base URL")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        fetch(sources(), "mirror", arguments.mirror, Path(folder))
        record = latent.series_of(embed.read_measured(Path(folder)))
    measured, drawn = agreement.with_wetbulb([record, agreement.drawn_series()])
    errors = agreement.agreement(measured, drawn)
    errors = errors.merge(agreement.spread_over_seeds(measured), "left")
    pairs = agreement.correlations(measured, drawn)
    for name, frame in (("agreement", errors), ("correlation", pairs)):
        write_text(
            arguments.docs / "data" / f"{name}.csv",
            frame.round(4).to_csv(index=False, lineterminator="\n"),
        )
    draw(measured, drawn, errors, pairs, arguments.docs / "images" / "embedded.png")


if __name__ == "__main__":
    main()
