"""Replay against measured end-to-end runs, by simulating their closed-loop client.

    python benchmarks/closed_loop.py

Every measured point of Llama-3.1-70B on H100 under vLLM: C clients that never pause, ten requests
each, lengths uniform in 0.8 to 1 of nominal, chunks of 8,192 tokens (InferenceMAX's client). A
client sends its next request within half a decode step after the last one finished.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from tqdm import tqdm

from marlin.serving import fit, silicon
from marlin.serving.replay.cluster import Records, engine, single

WAVES, STEP_TOKENS, MAX_BATCH = 10, 8192, 512


def closed_loop(
    replica: Records, clients: int, prompt: np.ndarray, output: np.ndarray
) -> tuple[float, float]:
    """Mean TTFT and TPOT in seconds of requests [N] sent by `clients` that never pause."""
    cluster, finished = single(replica), []
    now, sent, pace = 0.0, 0, 0.5 * float(replica["d0"])
    free, done = clients, 0
    while done < len(prompt):
        part = slice(sent, min(sent + free, len(prompt)))
        arrival = np.full(part.stop - part.start, now)
        now += pace
        rows = cluster.serve(arrival, prompt[part], output[part], 0, until_s=now)
        sent, free, done = part.stop, len(rows), done + len(rows)
        if len(rows):
            finished.append(rows)
    rows = np.concatenate(finished)
    gaps = np.maximum(rows["output"] - 1, 1)
    return (
        float((rows["first"] - rows["arrival"]).mean()),
        float(((rows["finish"] - rows["first"]) / gaps).mean()),
    )


def main() -> None:
    points = silicon.compare()
    points = points[
        (points.model == "llama-3.1-70b")
        & (points.gpu == "H100")
        & (points.backend == "vllm")
        & (points.excluded == "")
    ].reset_index(drop=True)
    rng = np.random.default_rng(0)
    found = []
    for point in tqdm(points.itertuples(), total=len(points), unit="point"):
        profile = fit.profile(point.model, point.gpu, int(point.tp), point.backend, point.precision)
        replica = engine(profile, MAX_BATCH, chunked=True, step_tokens=STEP_TOKENS)
        count = WAVES * point.concurrency
        lengths = [
            np.maximum(np.round(n * rng.uniform(0.8, 1.0, count)), 1).astype(np.int32)
            for n in (point.input_tokens, point.output_tokens)
        ]
        found.append(closed_loop(replica, point.concurrency, *lengths))
    points["replay_ttft_s"], points["replay_tpot_s"] = np.array(found).T
    rows = []
    for tp, part in [*points.groupby("tp"), ("all", points)]:
        row: dict[str, object] = {"tp": tp, "points": len(part)}
        for name in ("tpot", "ttft"):
            for model in ("predicted", "replay"):
                error = part[f"{model}_{name}_s"] / part[f"measured_{name}_s"] - 1
                text = f"{100 * error.abs().median():.1f} / {100 * error.abs().quantile(0.9):.1f} %"
                row[f"{model} {name}"] = f"{text} ({100 * error.median():+.0f})"
        rows.append(row)
    print("absolute relative error, median / P90 (signed median); predicted: the closed form")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
