"""Look-ups in serving profiles, one core: the closed forms and the dense tables.

    python benchmarks/profiles.py

The limit is 10 million look-ups a second; the ratio is the rate over it.
"""

from __future__ import annotations

import time

import numpy as np

from marlin.serving import fit, hardware, models

LIMIT = 10e6
COUNT = 2_000_000


def main() -> None:
    profile, tables = fit.build(models.model("llama-3.1-70b"), hardware.gpu("H100"), 4, "vllm")
    rng = np.random.default_rng(0)
    batch, context = rng.uniform(1, 256, COUNT), rng.uniform(128, 8192, COUNT)
    prompt = rng.uniform(64, 8192, COUNT)
    calls = {
        "closed form, prefill": lambda: profile.prefill_s(prompt),
        "closed form, decode": lambda: profile.decode_step_s(batch, context),
        "tables, prefill": lambda: tables.prefill_s(prompt),
        "tables, decode": lambda: tables.decode_s(batch, context),
        "tables, mixed step": lambda: tables.mixed_s(prompt, 0.0, batch, context),
    }
    print(f"{'look-up':>22} {'million/s':>10}   rate / limit")
    for name, call in calls.items():
        call()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        rate = COUNT / min(times)
        print(f"{name:>22} {rate / 1e6:10.1f}   {rate / LIMIT:.1f}x")


if __name__ == "__main__":
    main()
