"""Replay of plans on requests: every request at a replica, every joule through the same physics.

Routing, spill-over and physics are those of the fluid model; what happens at a site is simulated
request by request (`marlin.serving.replay`). Nodes and replicas are whole here: a pool's level is
rounded up to nodes, and the GPUs of a site are shared out to models as their load asks. The split
changes when it is a replica or more off. Replicas that are new wait for boot and load (load alone
when only the model changes); those that are turned off finish what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

from marlin.errors import UserError
from marlin.fleet.contract import Inputs, Plan, State, row
from marlin.fleet.simulator import dispatch, site_capacity
from marlin.fleet.world import World
from marlin.physics.carbon import operational_kg
from marlin.physics.power import gpu_power_w, node_power_w
from marlin.physics.price import energy_cost_usd
from marlin.physics.water import offsite_water_l, onsite_water_l, scarcity_water_l
from marlin.serving.profiles import ServingProfile
from marlin.serving.replay import kernel, requests
from marlin.serving.replay.cluster import Cluster, Dispatch, Records, engine
from marlin.serving.replay.metrics import Tally
from marlin.serving.replay.requests import Requests
from marlin.serving.replay.sampling import uniform

JOULES_PER_KWH = 3.6e6
ROUNDING = 1e-6  # of a node: a plan's level may carry the error of a division
LEAST_SHARE = 1e-3  # of a site's GPUs that a model without load is still given
ENERGY_LEVELS = ("prefill", "decode", "idle", "base", "off")
REFERENCE_GPU = "A100"  # of the service level that compares with an unloaded replica


@dataclass(frozen=True)
class Rules:
    """How requests are served beside what the plan says.

    `step_tokens` limits the prompt tokens of a step (None: 8,192, with chunks 2,048). `seed` draws
    the site of each request from the plan's shares.
    """

    dispatch: Dispatch = "jsq"
    chunked: bool = False
    step_tokens: int | None = None
    seed: int = 0


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
    rules: Rules = Rules(),
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
    site = _Sites(world, profiles, max_batch, rules)
    constants = world.constants
    epochs = len(plans.routing)
    pieces = _by_epoch(stream, world.epoch_s, epochs, world.class_shape)
    books, arrived = [], 0
    state = world.idle_state(1)
    for epoch, given in enumerate(pieces):
        now, plan = row(inputs, slice(epoch, epoch + 1)), row(plans, slice(epoch, epoch + 1))
        nodes_on = plan.power * constants.nodes * now.available
        nodes_on = np.ceil(nodes_on - ROUNDING)
        kind = site.kind(given)
        rate = np.bincount(kind, minlength=site.kinds) / world.epoch_s
        rate = rate.reshape(1, *world.class_shape)
        warm = np.minimum(nodes_on, state.nodes_on)
        late = np.minimum(constants.cold_s / world.epoch_s, 1.0)
        capacity = site_capacity(constants, warm + (nodes_on - warm) * (1.0 - late))
        flows = dispatch(world, plan.routing, rate, capacity, site.waiting() / world.epoch_s)
        share = np.where(rate[..., None] > 0, flows, plan.routing)
        total = share.sum(axis=-1, keepdims=True)
        cumulative = np.cumsum(share / total, axis=-1).reshape(site.kinds, -1)
        where = draw_sites(kind, cumulative, rules.seed, arrived)
        load = np.moveaxis(flows.sum(axis=1), -1, 1) / np.maximum(capacity, 1e-12)
        site.resize(nodes_on[0].astype(int), state.nodes_on[0], load[0].sum(axis=-1))
        finished = site.serve(given, where, kind, arrived, (epoch + 1) * world.epoch_s)
        arrived += len(given)
        books.append(site.energy(epoch, nodes_on[0], now, world.epoch_s))
        state = State(backlog=state.backlog, nodes_on=nodes_on)
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


class _Sites:
    """All sites of a world as lanes of a cluster, one lane a site and model."""

    def __init__(
        self, world: World, profiles: list[list[ServingProfile]], max_batch: int, rules: Rules
    ) -> None:
        self.world = world
        constants = world.constants
        origins, models, services = world.class_shape
        sites, types = constants.nodes.shape
        self.kinds = origins * models * services
        self.tp = constants.gpus_per_replica  # [G, M]
        self.load_s = _column(profiles, "load_s")
        self.kv_bytes = _column(profiles, "kv_bytes_per_token")
        self.d0, self.d1, self.d2 = (
            _column(profiles, f"decode_{k}") for k in ("d0_s", "d1_s_per_seq", "d2_s_per_kv_token")
        )
        self.kv_capacity = _column(profiles, "kv_capacity_tokens")
        self.max_batch = max_batch
        engines = [
            [engine(p, max_batch, rules.chunked, rules.step_tokens) for p in column]
            for column in zip(*profiles, strict=True)
        ]  # [M][G]
        gpus = constants.nodes[:, None, :] * constants.gpus  # [D, 1, G]
        sizes = np.floor(gpus / self.tp.T).astype(int)  # [D, M, G]
        speeds = constants.node_rate_per_s.mean(axis=-1) / constants.replicas_per_node  # [G, M]
        speeds = (speeds / speeds.max(axis=0)).T  # [M, G]
        self.cluster = Cluster(
            sizes.reshape(-1, types),
            [engines[m] for _ in range(sites) for m in range(models)],
            np.tile(speeds, (sites, 1)),
            rules.dispatch,
            world.patience_s,
        )
        self.counts = self._share_out(constants.nodes.astype(int), np.ones((sites, models)))
        self.cluster.resize(self.counts.reshape(-1, types), np.zeros((sites * models, types)))
        lane_site, lane_model = np.divmod(np.arange(sites * models), models)
        origin = np.arange(self.kinds) // (models * services)
        self.lane_model = np.broadcast_to(lane_model[:, None], (len(lane_model), self.kinds)).copy()
        self.group = np.broadcast_to(lane_site[:, None], self.lane_model.shape).copy()
        self.rtt_s = constants.rtt_s[origin[None, :], lane_site[:, None]]
        self.reference = np.array(
            [_reference(column, max_batch) for column in zip(*profiles, strict=True)]
        )
        self.tally = Tally(sites)

    def kind(self, given: Requests) -> NDArray[np.int64]:
        """Class of each request as one number."""
        _, models, services = self.world.class_shape
        return (given.origin.astype(np.int64) * models + given.model) * services + given.service

    def waiting(self) -> NDArray[np.float64]:
        """Requests without a first token by site and class, [1, D, M, S]."""
        _, models, services = self.world.class_shape
        sites = len(self.world.sites)
        queued = self.cluster.open
        queued = queued[queued["first"] < 0]
        index = queued["lane"].astype(int) * services + queued["tag"] % services
        counts = np.bincount(index, minlength=sites * models * services)
        return counts.reshape(1, sites, models, services).astype(float)

    def _share_out(self, nodes_on: NDArray[np.int64], load: NDArray[np.float64]) -> NDArray:
        """Whole replicas [D, M, G] of the models on the GPUs that are on, by their load [D, M].

        Largest remainder; every model keeps a replica where one fits, asked for or not.
        """
        sites, types = nodes_on.shape
        models = load.shape[1]
        gpus = nodes_on * self.world.constants.gpus.astype(int)
        counts = np.zeros((sites, models, types), int)
        for d in range(sites):
            total = load[d].sum()
            share = np.maximum(load[d] / total, LEAST_SHARE) if total > 0 else np.ones(models)
            share = share / share.sum()
            for g in range(types):
                tp = self.tp[g].astype(int)
                wish = share * gpus[d, g] / tp
                whole = np.floor(wish + 1e-9).astype(int)
                for m in np.argsort(whole - wish, kind="stable"):
                    left = gpus[d, g] - int(whole @ tp)
                    if left >= tp[m] and wish[m] > whole[m]:
                        whole[m] += 1
                counts[d, :, g] = whole
            for m in np.flatnonzero(counts[d].sum(axis=1) == 0):
                for g in np.argsort(-gpus[d], kind="stable"):
                    tp = self.tp[g].astype(int)
                    rich = int(np.argmax(counts[d, :, g] * tp))
                    spare = gpus[d, g] - int(counts[d, :, g] @ tp)
                    given_up = -(-(tp[m] - spare) // tp[rich])
                    if gpus[d, g] >= tp[m] and counts[d, rich, g] > given_up:
                        counts[d, rich, g] -= max(given_up, 0)
                        counts[d, m, g] += 1
                        break
        return counts

    def resize(
        self, nodes_on: NDArray[np.int64], before: NDArray, load: NDArray[np.float64]
    ) -> None:
        """Turn replicas on and off for nodes [D, G] and model loads [D, M]."""
        constants = self.world.constants
        counts = self._share_out(nodes_on, load)
        types = nodes_on.shape[1]
        for d in range(len(nodes_on)):
            same = (nodes_on[d] == before[d]).all()
            if same and np.abs(counts[d] - self.counts[d]).max() <= 1:
                counts[d] = self.counts[d]
        booting = (nodes_on > before)[:, None, :]
        wait_s = np.where(booting, constants.cold_s, self.load_s.T[None])  # [D, M, G]
        ready_s = self.cluster.time_s + wait_s
        self.cluster.resize(counts.reshape(-1, types), ready_s.reshape(-1, types))
        self.counts = counts

    def serve(
        self,
        given: Requests,
        where: NDArray[np.int64],
        kind: NDArray[np.int64],
        first: int,
        until_s: float,
    ) -> Records:
        """Serve one epoch's requests at the sites `where`; return what finished."""
        self._before, self._on = self.cluster.time_s, self.cluster.on()
        finished = self.cluster.serve(
            given.arrival_s,
            given.prompt_tokens,
            given.output_tokens,
            where * len(self.world.models) + given.model,
            kind,
            first + np.arange(len(given)),
            until_s,
        )
        self._count(finished)
        return finished

    def drain(self) -> Records:
        """Serve what is open to its end."""
        none = np.empty(0, np.int32)
        self._on = np.zeros(len(self.cluster.replicas), bool)
        finished = self.cluster.serve(np.empty(0), none, none, 0)
        self._count(finished)
        return finished

    def _count(self, finished: Records) -> None:
        self.tally.add(
            finished, self.group, self.lane_model, self.rtt_s, self.reference,
            self.world.patience_s,
        )  # fmt: skip

    def _replica_on_s(self, epoch_s: float) -> NDArray[np.float64]:
        """Seconds for which each replica was on: the epoch, until empty, or while busy."""
        books = self.cluster.books
        if epoch_s == 0.0:
            return books[:, 0] + books[:, 1]
        draining_s = np.clip(self.cluster.held_s() - self._before, 0.0, epoch_s)
        return np.where(self._on, epoch_s, draining_s)

    def energy(
        self, epoch: int, nodes_on: NDArray[np.float64], now: Inputs, epoch_s: float
    ) -> pd.DataFrame:
        """Energy by level, utilisation and what they cost of the epoch just served, by site."""
        constants = self.world.constants
        sites, models = len(self.world.sites), len(self.world.models)
        types = len(self.world.node_types)
        shape = (sites, models, types)
        lane = np.repeat(np.arange(sites * models * types), self.cluster.sizes.ravel())

        def by_lane(values: NDArray) -> NDArray:
            return np.bincount(lane, values, sites * models * types).reshape(shape)

        book = {name: by_lane(self.cluster.books[:, i]) for i, name in enumerate(kernel.BOOKS)}
        on_s = by_lane(self._replica_on_s(epoch_s))
        tp = self.tp.T  # [M, G]
        level = {}
        for name in ("prefill", "decode"):
            seconds = book[f"{name}_s"]
            busy = np.maximum(seconds, 1e-9) * tp
            moved = (
                constants.weights_bytes[:, None] * book[f"{name}_passes"]
                + self.kv_bytes.T * book[f"{name}_kv"]
            )
            flop = constants.flop_per_token[:, None] * book[f"{name}_tokens"]
            gpu_w = gpu_power_w(
                moved / busy / 1e12,
                flop / busy / 1e12,
                context_w=constants.gpu_context_w,
                w_per_tb_per_s=constants.gpu_w_per_tb_per_s.T,
                w_per_tflop_per_s=constants.gpu_w_per_tflop_per_s.T,
                tdp_w=constants.gpu_tdp_w,
            )
            level[name] = (gpu_w * seconds * tp).sum(axis=(1, 2))
        gpu_s = (on_s * tp).sum(axis=1)  # [D, G]
        node_s = np.maximum(nodes_on * epoch_s, gpu_s / constants.gpus)
        busy_gpu_s = ((book["prefill_s"] + book["decode_s"]) * tp).sum(axis=1)
        idle_gpu_s = np.maximum(node_s * constants.gpus - busy_gpu_s, 0.0)
        level["idle"] = (idle_gpu_s * constants.gpu_context_w).sum(axis=1)

        kv_tokens = book["prefill_kv"] + book["decode_kv"]
        context = np.maximum(kv_tokens / np.maximum(book["output_tokens"], 1.0), 1.0)
        slots = np.minimum(self.kv_capacity.T / context, float(self.max_batch))
        step_s = self.d1.T + self.d0.T / slots
        work_s = book["alone_s"] + book["output_tokens"] * step_s + self.d2.T * kv_tokens
        work_gpu_s = (work_s * tp).sum(axis=1)
        pool_s = np.maximum(node_s * constants.gpus, 1e-9)
        base_w = node_power_w(
            0.0,
            np.clip(work_gpu_s / pool_s, 0.0, 1.0),
            gpus=constants.gpus,
            base_idle_w=constants.base_idle_w,
            base_full_w=constants.base_full_w,
        )
        level["base"] = (node_s * base_w).sum(axis=1)
        off_s = np.maximum(constants.nodes * now.available[0] * epoch_s - node_s, 0.0)
        level["off"] = (off_s * constants.off_w).sum(axis=1)

        it_kwh = sum(level.values()) / JOULES_PER_KWH
        energy_kwh = it_kwh * now.pue[0]
        water_l = onsite_water_l(it_kwh, now.wue_l_per_kwh[0]) + offsite_water_l(
            energy_kwh, now.ewif_l_per_kwh[0]
        )
        return pd.DataFrame(
            {
                "epoch": epoch,
                "site": self.world.sites,
                "energy_kwh": energy_kwh,
                "it_energy_kwh": it_kwh,
                **{f"{name}_kwh": level[name] / JOULES_PER_KWH for name in ENERGY_LEVELS},
                "carbon_kg": operational_kg(energy_kwh, now.carbon_g_per_kwh[0]),
                "water_l": water_l,
                "scarcity_water_l": scarcity_water_l(water_l, now.aware_m3_per_m3[0]),
                "cost_usd": energy_cost_usd(energy_kwh, now.price_usd_per_mwh[0]),
                "nodes_on": nodes_on.sum(axis=1),
                "work_gpu_s": work_gpu_s.sum(axis=1),
                "busy_gpu_s": busy_gpu_s.sum(axis=1),
                "on_gpu_s": (node_s * constants.gpus).sum(axis=1),
            }
        )


def _column(profiles: list[list[ServingProfile]], name: str) -> NDArray[np.float64]:
    """A field of the profiles as [G, M]."""
    return np.array([[getattr(p, name) for p in line] for line in profiles], dtype=float)


def _reference(profiles: tuple[ServingProfile, ...], max_batch: int) -> Records:
    """The unloaded replica that slowdowns of a model refer to: on A100, else the slowest."""
    on_a100 = [p for p in profiles if p.gpu == REFERENCE_GPU]
    slowest = max(on_a100 or profiles, key=lambda p: p.prefill_p1_s_per_token)
    return engine(slowest, max_batch)


def _report(
    site: _Sites,
    finished: Records,
    keep: Callable[[pd.DataFrame], None] | None,
    progress: Callable[[int], None] | None,
) -> None:
    """Hand on what an epoch finished."""
    if keep is not None:
        keep(request_table(site, finished))
    if progress is not None:
        progress(len(finished))


def request_table(site: _Sites, finished: Records) -> pd.DataFrame:
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


def _result(world: World, site: _Sites, epochs: pd.DataFrame, arrived: int, count: int) -> Result:
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
