"""Fluid model against replay, and what stationarity hides: two tables and two figures.

    python benchmarks/agreement.py CONVERSATION CODE FOLDER

CONVERSATION and CODE are the two files of the Azure LLM inference trace 2023, whose lengths take
the place of those that `marlin.fluid_validation` draws; loads go up to 0.97, and cold starts from
more shares of warm nodes. Writes agreement.csv, bursts.csv and replay_agreement and replay_bursts
as PDF, SVG and PNG.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from marlin import compose, inputs
from marlin.analysis.plots import style
from marlin.data.requests import ServiceSample
from marlin.fluid_validation import ARRIVAL_CV2, CASES, MIXES, UTILISATIONS, Case, Site, table
from marlin.serving import fit, profiles
from marlin.serving.replay.cluster import engine, single

WARM = (0.25, 0.75)
FULL = 0.97


def cases() -> list[Case]:
    """Those of the package and more."""
    full = [Case(FULL, cv2, mix) for mix in MIXES for cv2 in ARRIVAL_CV2]
    cold = [Case(load, 1.0, "both", warm) for warm in WARM for load in UTILISATIONS]
    return [*CASES, *full, *cold]


def site(traces: list[pd.DataFrame]) -> Site:
    """The default run's node types and models, with the lengths of the traces."""
    run = compose.compose(["scenario=fortnight"])
    lengths = [trace[["ContextTokens", "GeneratedTokens"]].to_numpy() for trace in traces]
    samples = [ServiceSample(tokens, np.ones(1)) for tokens in lengths]
    return Site(run, profiles.load(inputs.ready(run).profiles), samples)


def bursts(code: pd.DataFrame) -> pd.DataFrame:
    """TTFT of the code trace as it came and with the same requests smoothed, by utilisation."""
    stamps = pd.to_datetime(code["TIMESTAMP"])
    arrival = (stamps - stamps.iloc[0]).dt.total_seconds().to_numpy()
    prompt, output = code["ContextTokens"].to_numpy(), code["GeneratedTokens"].to_numpy()
    profile = fit.profile("llama-3.1-70b", "H100", 4, "vllm")
    one = engine(profile, 256)
    alone = profile.prefill_s(prompt) + output * 1.5 * profile.decode_d1_s_per_seq
    rng = np.random.default_rng(0)
    smooth = np.sort(rng.random(len(arrival))) * arrival[-1]
    rows = []
    for load in np.arange(0.05, 0.9, 0.05):
        stretch = alone.sum() / (4 * load * arrival[-1])
        for name, times in (("as measured", arrival), ("smoothed", smooth)):
            found = single(one, 4).serve(times * stretch, prompt, output, 0)
            ttft = found["first"] - found["arrival"]
            rows.append(
                {"load": load, "arrivals": name, "mean_s": ttft.mean()}
                | {f"p{q}_s": np.quantile(ttft, q / 100) for q in (50, 95, 99)}
            )
    return pd.DataFrame(rows)


def draw_agreement(found: pd.DataFrame, folder: Path) -> None:
    with style.style():
        figure, panels = plt.subplots(1, 2, figsize=(style.PAGE_IN, 2.6), constrained_layout=True)
        shown = found[found.mix == "both"].sort_values("utilisation")
        warm = shown[shown.warm == 1.0]
        colours = (style.BLUE, style.ORANGE, style.GREEN)
        looks = zip(ARRIVAL_CV2, colours, ("o", "s", "^"), strict=True)
        sets = [(warm[warm.arrival_cv2 == c], col, m, f"gaps CV² {c:g}") for c, col, m in looks]
        cold = shown[shown.warm == 0.5]
        sets.append((cold, style.PURPLE, "D", "half the nodes cold"))
        for axes, quantity, band, label in (
            (panels[0], "ttft_s", 0.15, "Fluid TTFT / replay TTFT"),
            (panels[1], "energy_kwh", 0.05, "Fluid energy / replay energy"),
        ):
            axes.axhspan(1 - band, 1 + band, color="#EAEAEA", zorder=0)
            axes.axhline(1, color=style.BLACK, linewidth=0.6)
            for part, colour, marker, name in sets:
                ratio = part[f"fluid_{quantity}"] / part[f"replay_{quantity}"]
                axes.plot(
                    part.utilisation, ratio, marker=marker, color=colour, label=name, markersize=4
                )
            axes.set_xlabel("Utilisation of the site")
            axes.set_ylabel(label)
        panels[0].legend(loc="upper left")
        style.panel_label(panels[0], "a  mean TTFT, band ±15 %")
        style.panel_label(panels[1], "b  energy, band ±5 %")
        style.save(figure, folder, "replay_agreement")
        plt.close(figure)


def draw_bursts(table: pd.DataFrame, folder: Path) -> None:
    with style.style():
        figure, axes = plt.subplots(figsize=(style.COLUMN_IN, 2.6), constrained_layout=True)
        for name, colour in (("as measured", style.VERMILION), ("smoothed", style.BLUE)):
            part = table[table.arrivals == name]
            for column, line in (("p50_s", "-"), ("p99_s", "--")):
                label = f"{name}, {column[:-2].upper()}"
                axes.plot(part.load, part[column], line, color=colour, label=label)
        axes.set_yscale("log")
        axes.set_xlabel("Utilisation of the pool")
        axes.set_ylabel("TTFT at the site (s)")
        figure.legend(loc="outside upper center", ncols=2)
        style.save(figure, folder, "replay_bursts")
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("conversation", "code", "folder"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    traces = [pd.read_csv(path) for path in (given.conversation, given.code)]
    found = table(site(traces), cases())
    burst = bursts(traces[1])
    given.folder.mkdir(parents=True, exist_ok=True)
    found.to_csv(given.folder / "agreement.csv", index=False)
    burst.round(4).to_csv(given.folder / "bursts.csv", index=False)
    draw_agreement(found, given.folder)
    draw_bursts(burst, given.folder)
    print(found.drop(columns="requests").round(3).to_string(index=False))
    print(burst.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
