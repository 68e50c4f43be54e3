"""Fluid model against replay, and what stationarity hides: two tables and two figures.

    python benchmarks/agreement.py CONVERSATION CODE FOLDER

CONVERSATION and CODE are the two files of the Azure LLM inference trace 2023. One site of the
default fleet with four nodes of each type, both models; the second of two epochs is compared.
Writes agreement.csv, bursts.csv and replay_agreement and replay_bursts as PDF, SVG and PNG.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from marlin import compose, inputs
from marlin.analysis.plots import style
from marlin.fleet.contract import Plan, row
from marlin.fleet.replay import replay
from marlin.fleet.simulator import site_capacity, step
from marlin.fleet.world import chosen_profiles
from marlin.serving import fit, profiles
from marlin.serving.replay.cluster import engine, single
from marlin.serving.replay.requests import requests
from marlin.task import load_task

SITE, NODES = 0, 4
LOADS = (0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97)
CV2 = (1.0, 4.0, 16.0)
MIXES = {"conversation": (1.0, 0.0), "code": (0.0, 1.0), "both": (0.5, 0.5)}


def gaps(count: int, cv2: float, rng: np.random.Generator) -> np.ndarray:
    """Times between arrivals of mean one: exponential, or two exponentials of balanced means."""
    short = 0.5 * (1 + np.sqrt((cv2 - 1) / (cv2 + 1)))
    first = rng.random(count) < short
    return rng.exponential(np.where(first, 0.5 / short, 0.5 / (1 - short)))


class Site:
    """The setting that all comparisons share."""

    def __init__(self, traces: list[pd.DataFrame]) -> None:
        run = compose.compose(["scenario=fortnight"])
        ready = inputs.ready(run)
        task = load_task(run, ready.scenario, ready.profiles)
        self.world, self.max_batch = task.world, run.serving.max_batch
        self.profiles = chosen_profiles(run.fleet, run.serving, profiles.load(ready.profiles))
        self.lengths = [t[["ContextTokens", "GeneratedTokens"]].to_numpy() for t in traces]
        self.inputs = task.truth(np.array([700, 701]))
        nodes = self.world.constants.nodes
        routing = np.zeros((2, *self.world.class_shape, len(nodes)))
        routing[..., SITE] = 1.0
        power = np.zeros((2, *nodes.shape))
        power[:, SITE] = NODES / nodes[SITE]
        self.plan = Plan(routing, power)
        self.capacity = site_capacity(self.world.constants, power[:1] * nodes)[0, SITE]

    def stream(self, rate: np.ndarray, cv2: float, rng: np.random.Generator):
        """Requests of two epochs for rates [2, M, S]; origins by chance."""
        parts = []
        for epoch, model, service in np.argwhere(rate > 0):
            mean = rate[epoch, model, service]
            count = int(mean * self.world.epoch_s * 1.3) + 2000
            arrival = np.cumsum(gaps(count, cv2, rng)) / mean
            arrival = arrival[arrival < self.world.epoch_s] + epoch * self.world.epoch_s
            lengths = self.lengths[service][
                rng.integers(len(self.lengths[service]), size=len(arrival))
            ]
            origin = rng.integers(len(self.world.origins), size=len(arrival))
            same = np.ones((len(arrival), 2), int) * [model, service]
            parts.append(np.column_stack([arrival, lengths, origin, same]))
        table = np.concatenate(parts)
        table = table[np.argsort(table[:, 0], kind="stable")]
        return requests(*table.T)

    def compare(self, load: float, cv2: float, mix: str, cold: bool) -> dict[str, float | str]:
        """Mean TTFT and energy of the second epoch by both models."""
        share = np.array([[0.8], [0.2]]) * MIXES[mix]  # most requests are for the small model
        rate = share / (share / self.capacity).sum() * load * np.ones((2, 1, 1))
        plan = self.plan
        if cold:  # half of the nodes come on as the load doubles
            power = plan.power.copy()
            power[0] *= 0.5
            rate[0] *= 0.5
            plan = replace(plan, power=power)
        given = self.stream(rate, cv2, np.random.default_rng([int(100 * load), int(cv2)]))
        kept: list[pd.DataFrame] = []
        found = replay(
            self.world, self.profiles, self.max_batch, plan, self.inputs, [given], keep=kept.append
        )
        table = pd.concat(kept)
        late = table[table.arrival_s >= self.world.epoch_s]
        ttft = late.ttft_s.fillna(self.world.patience_s).astype(float)
        energy = found.epochs.query("epoch == 1").energy_kwh.iloc[SITE]

        world = replace(
            self.world,
            constants=replace(self.world.constants, arrival_cv2=np.full(2, cv2)),
        )
        origins = len(world.origins)
        arrivals = np.repeat(rate[:, None], origins, axis=1) / origins
        state = world.idle_state(1)
        for epoch in (0, 1):
            now = row(self.inputs, slice(epoch, epoch + 1))
            now = replace(now, arrival_rate_per_s=arrivals[epoch][None])
            state, outcome = step(world, state, row(plan, slice(epoch, epoch + 1)), now)
        return {
            "load": load, "cv2": cv2, "mix": mix, "cold": cold, "requests": len(given),
            "replay_ttft_s": ttft.mean(), "fluid_ttft_s": float(outcome.site_ttft_s[0, SITE]),
            "replay_p99_s": ttft.quantile(0.99),
            "replay_kwh": energy, "fluid_kwh": float(outcome.site_energy_kwh[0, SITE]),
        }  # fmt: skip


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


def draw_agreement(table: pd.DataFrame, folder: Path) -> None:
    with style.style():
        figure, panels = plt.subplots(1, 2, figsize=(style.PAGE_IN, 2.6), constrained_layout=True)
        looks = zip(CV2, (style.BLUE, style.ORANGE, style.GREEN), ("o", "s", "^"), strict=True)
        warm = table[~table.cold & (table.mix == "both")]
        sets = [(warm[warm.cv2 == c], colour, m, f"gaps CV² {c:g}") for c, colour, m in looks]
        cold = table[table.cold & (table.mix == "both") & (table.cv2 == 1)]
        sets.append((cold, style.PURPLE, "D", "half the nodes cold"))
        for axes, quantity, band, label in (
            (panels[0], "ttft_s", 0.15, "Fluid TTFT / replay TTFT"),
            (panels[1], "kwh", 0.05, "Fluid energy / replay energy"),
        ):
            axes.axhspan(1 - band, 1 + band, color="#EAEAEA", zorder=0)
            axes.axhline(1, color=style.BLACK, linewidth=0.6)
            for part, colour, marker, name in sets:
                ratio = part[f"fluid_{quantity}"] / part[f"replay_{quantity}"]
                axes.plot(part.load, ratio, marker=marker, color=colour, label=name, markersize=4)
            axes.set_xlabel("Utilisation of the site")
            axes.set_ylabel(label)
        panels[0].set_yscale("log")
        panels[0].set_yticks(
            [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2], ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]
        )
        panels[0].minorticks_off()
        panels[0].legend(loc="lower left")
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
    site = Site(traces)
    cases = [(load, c, mix, False) for mix in MIXES for c in CV2 for load in LOADS]
    cases += [(load, 1.0, "both", True) for load in LOADS]
    table = pd.DataFrame([site.compare(*case) for case in cases])
    table["ttft_error"] = table.fluid_ttft_s / table.replay_ttft_s - 1
    table["energy_error"] = table.fluid_kwh / table.replay_kwh - 1
    burst = bursts(traces[1])
    given.folder.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(given.folder / "agreement.csv", index=False)
    burst.round(4).to_csv(given.folder / "bursts.csv", index=False)
    draw_agreement(table, given.folder)
    draw_bursts(burst, given.folder)
    print(table.drop(columns="requests").round(3).to_string(index=False))
    print(burst.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
