"""The fluid model against replay at one site: mean TTFT and energy by load, bursts and lengths.

    python -m marlin.fluid_validation [SETTING=VALUE ...] [--profiles FILE] --output TABLE.csv

A site with four nodes of every type of the fleet serves all models for two epochs, with the same
plan and the same statistics in both; the second epoch is compared. Requests are drawn from lengths
and gaps that the package carries (`data.requests.modelled_samples`), so no measured data are
needed. docs/replay.md describes the columns.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from marlin import compose, files, inputs
from marlin.config import RunConfig
from marlin.data import requests as sampling
from marlin.data.derived import embedded
from marlin.data.requests import ServiceSample
from marlin.entry import guard
from marlin.fleet.contract import Inputs, Plan, row
from marlin.fleet.replay import Rules, replay
from marlin.fleet.simulator import site_capacity, step
from marlin.fleet.world import TRAIN, World, build_world, chosen_profiles
from marlin.serving import profiles
from marlin.serving.profiles import ServingProfile
from marlin.serving.replay.requests import Requests, requests

SERVICES = ("conversation", "code")
MIXES = {"conversation": (1.0, 0.0), "code": (0.0, 1.0), "both": (0.5, 0.5)}
UTILISATIONS = (0.2, 0.4, 0.6, 0.75, 0.85, 0.92)
ARRIVAL_CV2 = (1.0, 4.0, 16.0)
NODES = 4  # of every type
RTT_S = 0.03
LENGTHS = np.linspace(0.0, 1.0, 101)
DIGITS = 5


@dataclass(frozen=True)
class Case:
    """One comparison: load of the site in the second epoch, squared CV of a service's gaps, mix.

    In the first epoch the share `warm` of the nodes serves as much of the load; the others come on.
    """

    utilisation: float
    arrival_cv2: float
    mix: str
    warm: float = 1.0


CASES = (
    *(Case(load, cv2, mix) for mix in MIXES for cv2 in ARRIVAL_CV2 for load in UTILISATIONS),
    *(Case(load, 1.0, "both", 0.5) for load in UTILISATIONS),
)


@dataclass(frozen=True)
class Site:
    """The setting that all comparisons share."""

    run: RunConfig
    profiles: list[ServingProfile]
    samples: list[ServiceSample]  # lengths, [S]


def make_site(run: RunConfig, profiles_file: Path) -> Site:
    """The site of a run's node types and models, with the lengths that the package carries."""
    samples = sampling.modelled_samples(SERVICES, run.workload.token_year, embedded([]))
    return Site(run, profiles.load(profiles_file), samples)


def table(site: Site, cases: Iterable[Case] = CASES) -> pd.DataFrame:
    """One row a case; errors are those of the fluid model, as a share of what replay found."""
    rows = pd.DataFrame([compare(site, case) for case in cases])
    for name in ("ttft_s", "energy_kwh"):
        error = rows[f"fluid_{name}"] / rows[f"replay_{name}"] - 1.0
        rows[f"{name.rsplit('_', 1)[0]}_error"] = error
    return rows.round(DIGITS)


def compare(site: Site, case: Case, seed: int = 0) -> dict[str, float | str]:
    """Mean TTFT (s) and IT energy (kWh) of the second epoch by both models."""
    run = site.run
    world = build_world(one_site(run, site.samples, case.arrival_cv2), run, site.profiles)
    level = np.array([case.warm, 1.0])
    rate = level[:, None, None] * case.utilisation * _even_load(world, case.mix)
    plan = Plan(
        np.ones((2, *world.class_shape, 1)),
        np.broadcast_to(level[:, None, None], (2, 1, len(world.node_types))),
    )
    given = _signals(world, rate)
    gaps = sampling.gap_sample(case.arrival_cv2)
    samples = [replace(sample, gaps=gaps) for sample in site.samples]
    stream = sampling.requests(given.arrival_rate_per_s, world.epoch_s, samples, seed)
    found = _replayed(site, world, plan, given, (requests(*vars(b).values()) for b in stream))
    return asdict(case) | found | _fluid(world, plan, given)


def one_site(run: RunConfig, samples: Sequence[ServiceSample], arrival_cv2: float) -> xr.Dataset:
    """What `build_world` reads of a scenario, for one site whose requests are like `samples`."""
    tokens = [sample.tokens.astype(float) for sample in samples]  # [N, 2] each
    mean = np.array([rows.mean(axis=0) for rows in tokens])
    cv2 = np.array([rows.var(axis=0) for rows in tokens]) / mean**2
    prompts = np.array([np.quantile(rows[:, 0], LENGTHS) for rows in tokens])
    types, models = len(run.fleet.node_types), len(run.serving.models)
    return xr.Dataset(
        {
            "split": ("time", [TRAIN]),
            "arrival_rate_per_s": (
                ("time", "origin", "model", "service"), np.ones((1, 1, models, len(samples))),
            ),
            "nodes": (("site", "node_type"), np.full((1, types), NODES)),
            "rtt_s": (("origin", "site"), [[RTT_S]]),
            "prompt_tokens_mean": ("service", mean[:, 0]),
            "output_tokens_mean": ("service", mean[:, 1]),
            "output_tokens_cv2": ("service", cv2[:, 1]),
            "arrival_cv2": ("service", np.full(len(samples), arrival_cv2)),
            "prompt_tokens_quantile": (("service", "quantile"), prompts),
        },
        coords={"site": ["site"], "origin": ["users"], "service": list(SERVICES)},
    )  # fmt: skip


def _even_load(world: World, mix: str) -> np.ndarray:
    """Requests per second [M, S] that fill the site; every model takes as much of it.

    So the replicas of two models are whole numbers at every level, as the fluid model never asks.
    """
    capacity = site_capacity(world.constants, world.constants.nodes[None])[0, 0]  # [M, S]
    share = np.array(MIXES[mix])
    return share / (share / capacity).sum(axis=1, keepdims=True) / len(world.models)


def _signals(world: World, rate: np.ndarray) -> Inputs:
    """Inputs [T, ...] for rates [T, M, S]; energy is that of IT, and no other signal is used."""
    one = np.ones((len(rate), 1))
    return Inputs(
        arrival_rate_per_s=rate[:, None],
        carbon_g_per_kwh=one,
        price_usd_per_mwh=one,
        pue=one,
        wue_l_per_kwh=one,
        ewif_l_per_kwh=one,
        aware_m3_per_m3=one,
        available=np.ones((len(rate), *world.constants.nodes.shape)),
    )


def _replayed(
    site: Site, world: World, plan: Plan, given: Inputs, stream: Iterable[Requests]
) -> dict[str, float]:
    """What replay finds of the second epoch; a dropped request counts with the patience."""
    run, kept = site.run, []
    chosen = chosen_profiles(run.fleet, run.serving, site.profiles)
    found = replay(
        world, chosen, run.serving.max_batch, plan, given, stream, Rules(), keep=kept.append
    )
    asked = pd.concat(kept)
    asked = asked[asked.arrival_s >= world.epoch_s]
    energy_kwh = found.epochs.set_index("epoch").energy_kwh
    return {
        "requests": len(asked),
        "replay_ttft_s": float(asked.ttft_s.fillna(world.patience_s).astype(float).mean()),
        "replay_energy_kwh": float(energy_kwh.loc[1]),
    }


def _fluid(world: World, plan: Plan, given: Inputs) -> dict[str, float]:
    """The same from the fluid model."""
    first, second = slice(0, 1), slice(1, 2)
    state, _ = step(world, world.idle_state(1), row(plan, first), row(given, first))
    _, outcome = step(world, state, row(plan, second), row(given, second))
    return {
        "fluid_ttft_s": float(outcome.ttft_s[0]),
        "fluid_energy_kwh": float(outcome.energy_kwh[0]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the comparison."""
    parser = argparse.ArgumentParser(description="The fluid model against replay at one site.")
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE")
    parser.add_argument("--profiles", type=Path, help="profiles.parquet (default: the cache's)")
    parser.add_argument("--output", type=Path, default=Path("results/adhoc/fluid.csv"))
    given = parser.parse_args(arguments)
    with guard():
        run = compose.compose(given.overrides)
        made = table(make_site(run, given.profiles or inputs.ready(run).profiles))
        print(made.to_string(index=False))
        files.write_text(given.output, made.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
