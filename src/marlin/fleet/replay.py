"""Replay of plans on requests: every request at a replica, every joule through the same physics.

Routing, spill-over and physics are those of the fluid model; what happens at a site is simulated
request by request (`marlin.fleet.replay_sites`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

from marlin.errors import UserError
from marlin.fleet.contract import Inputs, Plan, row
from marlin.fleet.replay_sites import ENERGY_LEVELS, Rules, Sites, placed
from marlin.fleet.world import World
from marlin.serving.profiles import ServingProfile
from marlin.serving.replay import kernel, requests
from marlin.serving.replay.cluster import Records
from marlin.serving.replay.requests import Requests
from marlin.serving.replay.sampling import uniform

USUAL = Rules()


@dataclass(frozen=True)
class Result:
    """What a replay found; see docs/replay.md for the columns.

    `summary` is of the whole run, `sites` one row a site, `epochs` one row an epoch and site (the
    last epoch number is the time after the horizon in which open requests finish).
    """

    summary: dict[str, float]
    sites: pd.DataFrame
    epochs: pd.DataFrame


@njit(cache=True)
def draw_sites(kind, cumulative, seed, first):
    """Site of each request [N] from cumulative shares [K, D] of its class; `first` numbers them."""
    sites = np.empty(len(kind), np.int64)
    last = cumulative.shape[1] - 1
    for n in range(len(kind)):
        u = uniform(seed, first + n)
        site = 0
        while site < last and u >= cumulative[kind[n], site]:
            site += 1
        sites[n] = site
    return sites


def replay(
    world: World,
    profiles: list[list[ServingProfile]],
    max_batch: int,
    plans: Plan,
    inputs: Inputs,
    stream: Iterable[Requests],
    rules: Rules = USUAL,
    keep: Callable[[pd.DataFrame], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Serve `stream` as `plans` say and bill it with `inputs`; both have arrays [T, ...].

    `profiles` [G][M] is `fleet.world.chosen_profiles`. Arrivals count from the start of the first
    epoch; the stream comes in pieces of any size, and none may lie beyond the last epoch. `keep`
    gets the finished requests of each epoch as a table, `progress` their number. Memory is that of
    one epoch's requests. What is open at the end is served to its end with the last epoch's
    signals. Raises `UserError` for a plan or a request that cannot be replayed.
    """
    check_plans(world, plans)
    site = Sites(world, profiles, max_batch, rules)
    constants = world.constants
    epochs = len(plans.routing)
    pieces = _by_epoch(stream, world.epoch_s, epochs, world.class_shape)
    books, arrived = [], 0
    nodes_on = constants.nodes
    for epoch, given in enumerate(pieces):
        now, plan = row(inputs, slice(epoch, epoch + 1)), row(plans, slice(epoch, epoch + 1))
        kind = site.kind(given)
        rate = np.bincount(kind, minlength=site.kinds) / world.epoch_s
        rate = rate.reshape(world.class_shape)
        waiting = site.waiting() / world.epoch_s
        here = placed(world, plan, rate, now.available[0], nodes_on, waiting)
        share = np.where(rate[..., None] > 0, here.flows, plan.routing[0])
        cumulative = np.cumsum(share / share.sum(axis=-1, keepdims=True), axis=-1)
        where = draw_sites(kind, cumulative.reshape(site.kinds, -1), rules.seed, arrived)
        site.resize(here.nodes_on, nodes_on, here.load)
        lane = where * len(world.models) + given.model
        end_s = (epoch + 1) * world.epoch_s
        finished = site.serve(given, lane, kind, end_s, arrived + np.arange(len(given)))
        arrived += len(given)
        books.append(site.energy(epoch, here.nodes_on, now, world.epoch_s))
        nodes_on = here.nodes_on
        _report(site, finished, keep, progress)
    finished = site.drain()
    books.append(site.energy(epochs, np.zeros_like(constants.nodes), now, 0.0))
    _report(site, finished, keep, progress)
    return _result(world, site, pd.concat(books, ignore_index=True), arrived, epochs)


def check_plans(world: World, plans: Plan) -> None:
    """Raise `UserError` unless shares sum to one and levels lie in 0 to 1, everywhere."""
    sites, types = world.constants.nodes.shape
    wanted = (*world.class_shape, sites), (sites, types)
    if plans.routing.shape[1:] != wanted[0] or plans.power.shape[1:] != wanted[1]:
        raise UserError(
            f"plan: routing {plans.routing.shape} and power {plans.power.shape} must end in "
            f"{wanted[0]} (origin, model, service, site) and {wanted[1]} (site, node type)"
        )
    if not len(plans.routing) or len(plans.routing) != len(plans.power):
        raise UserError("plan: routing and power must have the same number of epochs, one or more")
    good = np.isfinite(plans.routing) & (plans.routing >= 0)
    sums = np.where(good, plans.routing, np.nan).sum(axis=-1)
    wrong = ~(np.abs(sums - 1.0) <= 1e-6)
    if wrong.any():
        epoch, o, m, s = (int(i) for i in np.argwhere(wrong)[0])
        raise UserError(
            f"plan: in epoch {epoch} the shares of {world.origins[o]}, {world.models[m]}, "
            f"{world.services[s]} are not numbers of 0 or more that sum to one "
            f"(sum {sums[epoch, o, m, s]:.6g}); normalise them over sites"
        )
    wrong = ~((plans.power >= 0) & (plans.power <= 1 + 1e-9))
    if wrong.any():
        epoch, d, g = (int(i) for i in np.argwhere(wrong)[0])
        raise UserError(
            f"plan: in epoch {epoch} the level of {world.node_types[g]} at {world.sites[d]} is "
            f"{plans.power[epoch, d, g]:.6g}; give the share of nodes that are on, 0 to 1"
        )


def _by_epoch(
    stream: Iterable[Requests], epoch_s: float, epochs: int, shape: tuple[int, int, int]
) -> Iterator[Requests]:
    """The requests of each epoch, from a stream of checked pieces."""
    held: list[Requests] = []
    source, last_s, seen, ended = iter(stream), 0.0, 0, False
    for epoch in range(epochs):
        end = (epoch + 1) * epoch_s
        while not ended and last_s < end:
            piece = next(source, None)
            if piece is None:
                ended = True
                break
            requests.check(piece, last_s, seen)
            for name, names in zip(("origin", "model", "service"), shape, strict=True):
                index = getattr(piece, name)
                bad = (index < 0) | (index >= names)
                if bad.any():
                    n = int(np.argmax(bad))
                    raise UserError(
                        f"requests: number {seen + n} has {name} {index[n]}; "
                        f"the world has {names}, counted from 0"
                    )
            seen += len(piece)
            if len(piece):
                last_s = float(piece.arrival_s[-1])
                held.append(piece)
        part = _joined(held)
        cut = int(np.searchsorted(part.arrival_s, end))
        held = [part[cut:]]
        yield part[:cut]
    if len(held[0]) or next(source, None) is not None:
        raise UserError(
            f"requests: number {seen - len(held[0])} arrives after the {epochs} epochs of the plan "
            f"({epochs * epoch_s:g} s); cut the trace or plan further"
        )


def _joined(pieces: list[Requests]) -> Requests:
    """Pieces of a stream as one."""
    if not pieces:
        return requests.requests(np.empty(0), np.empty(0, int), np.empty(0, int))
    if len(pieces) == 1:
        return pieces[0]
    columns = {
        f.name: np.concatenate([getattr(p, f.name) for p in pieces]) for f in fields(Requests)
    }
    return replace(pieces[0], **columns)


def _report(
    site: Sites,
    finished: Records,
    keep: Callable[[pd.DataFrame], None] | None,
    progress: Callable[[int], None] | None,
) -> None:
    """Hand on what an epoch finished."""
    if keep is not None:
        keep(request_table(site, finished))
    if progress is not None:
        progress(len(finished))


def request_table(site: Sites, finished: Records) -> pd.DataFrame:
    """One row a finished request, in order of the trace; times in seconds, client side.

    A request that was dropped or rejected has no TTFT, TPOT and E2E (null).
    """
    finished = finished[np.argsort(finished["index"], kind="stable")]
    world = site.world
    lane, kind = finished["lane"], finished["tag"]
    _, models, services = world.class_shape
    served = finished["status"] == kernel.SERVED
    network = site.rtt_s[lane, kind]
    gaps = np.maximum(finished["output"] - 1, 1)

    def of_served(seconds: NDArray, among: NDArray = served) -> pd.arrays.FloatingArray:
        return pd.arrays.FloatingArray(np.where(among, seconds, 0.0), ~among)

    def named(index: NDArray, names: tuple[str, ...]) -> pd.Categorical:
        return pd.Categorical.from_codes(index.astype(int), categories=list(names))

    return pd.DataFrame(
        {
            "request": finished["index"],
            "arrival_s": finished["arrival"],
            "origin": named(kind // (models * services), world.origins),
            "model": named(kind // services % models, world.models),
            "service": named(kind % services, world.services),
            "site": named(lane // models, world.sites),
            "prompt_tokens": finished["prompt"],
            "output_tokens": finished["output"],
            "ttft_s": of_served(finished["first"] - finished["arrival"] + network),
            "tpot_s": of_served(
                (finished["finish"] - finished["first"]) / gaps, served & (finished["output"] > 1)
            ),
            "e2e_s": of_served(finished["finish"] - finished["arrival"] + network),
            "status": named(finished["status"] - 1, ("served", "dropped", "rejected")),
            "preemptions": finished["preempted"],
        }
    )


TOTALS = (
    "energy_kwh", "it_energy_kwh", *(f"{name}_kwh" for name in ENERGY_LEVELS),
    "carbon_kg", "water_l", "scarcity_water_l", "cost_usd",
)  # fmt: skip


def _result(world: World, site: Sites, epochs: pd.DataFrame, arrived: int, count: int) -> Result:
    """Totals over epochs beside the latencies."""
    duration_s = count * world.epoch_s
    gpu_columns = ["work_gpu_s", "busy_gpu_s", "on_gpu_s"]
    sums = epochs.groupby("site", sort=False)[[*TOTALS, *gpu_columns]].sum()
    fleet_gpu_s = float((world.constants.nodes * world.constants.gpus).sum()) * duration_s

    def shares(part: pd.DataFrame | pd.Series) -> dict:
        on = np.maximum(part["on_gpu_s"], 1e-9)
        return {"utilisation": part["work_gpu_s"] / on, "busy_share": part["busy_gpu_s"] / on}

    rows = [
        {"site": name} | site.tally.summary(slice(d, d + 1), duration_s)
        for d, name in enumerate(world.sites)
    ]
    sites = pd.DataFrame(rows).join(sums[list(TOTALS)].assign(**shares(sums)), on="site")
    whole = sums.sum()
    summary = (
        {"arrived": arrived}
        | site.tally.summary(slice(None), duration_s)
        | {name: float(whole[name]) for name in TOTALS}
        | {name: float(value) for name, value in shares(whole).items()}
        | {"fleet_utilisation": float(whole["work_gpu_s"] / fleet_gpu_s)}
    )
    return Result(summary, sites, epochs.drop(columns=gpu_columns))
