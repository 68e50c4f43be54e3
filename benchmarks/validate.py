"""Ten million rows read as `marlin validate` reads them: rows per second and peak memory.

    python benchmarks/validate.py FOLDER [ROWS]

Files are generated in FOLDER (0.6 GB for ten million rows). Limits: a minute and 2 GB, each
format in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from marlin.data import own_trace

LIMIT_S, LIMIT_GB = 60.0, 2.0


def generate(folder: Path, rows: int) -> None:
    generator = np.random.default_rng(0)
    stamps = np.sort(generator.integers(0, 14 * 86_400_000_000, rows)) + 1_700_000_000_000_000
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(stamps).cast(pl.Datetime("us")),
            "prompt_tokens": generator.lognormal(6.5, 1.0, rows).astype(int) + 1,
            "output_tokens": generator.lognormal(5.0, 0.8, rows).astype(int) + 1,
            "origin": generator.choice(["britain", "canada", "korea"], rows),
            "model": generator.choice(["small", "large"], rows),
            "service": generator.choice(["chat", "code"], rows),
        }
    )
    frame.write_parquet(folder / "trace.parquet")
    frame.write_csv(folder / "trace.csv")


def measure(path: Path) -> None:
    began = time.perf_counter()
    trace = own_trace.read(path)
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    limit = trace.rows / 10_000_000 * LIMIT_S
    print(
        f"{path.name:14} {trace.rows} rows in {took:.1f} s: {trace.rows / took:.3g} rows/s "
        f"({took / limit:.2f} of the limit), peak {peak:.2f} GiB ({peak / LIMIT_GB:.2f})"
    )


def main() -> None:
    if len(sys.argv) == 2 and Path(sys.argv[1]).is_file():
        measure(Path(sys.argv[1]))
        return
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    generate(folder, int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000)
    for name in ("trace.csv", "trace.parquet"):
        subprocess.run([sys.executable, __file__, str(folder / name)], check=True)


if __name__ == "__main__":
    main()
