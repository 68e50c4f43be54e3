"""Sites under replay: the replicas that a plan keeps on, what they serve and the energy they take.

Nodes and replicas are whole here: a pool's level is rounded up to nodes, and the GPUs of a site are
shared out to models as their load asks. The split changes when it is a replica or more off.
Replicas that are new wait for boot and load (load alone when only the model changes); those that
are turned off finish what they hold. Of the replicas of a lane and node type a share may be
simulated for all: each then stands for several, in latencies and in energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from marlin.fleet.contract import Inputs, Plan
from marlin.fleet.simulator import dispatch, site_capacity
from marlin.fleet.world import World
from marlin.physics.carbon import operational_kg
from marlin.physics.power import gpu_power_w, node_power_w
from marlin.physics.price import energy_cost_usd
from marlin.physics.water import offsite_water_l, onsite_water_l, scarcity_water_l
from marlin.serving.profiles import ServingProfile
from marlin.serving.replay import kernel
from marlin.serving.replay.cluster import Cluster, Dispatch, Records, engine
from marlin.serving.replay.metrics import EACH_ITSELF, Tally
from marlin.serving.replay.requests import Requests

JOULES_PER_KWH = 3.6e6
ROUNDING = 1e-6  # of a node: a plan's level may carry the error of a division
LEAST_SHARE = 1e-3  # of a site's GPUs that a model without load is still given
ENERGY_LEVELS = ("prefill", "decode", "idle", "base", "off")
REFERENCE_GPU = "A100"  # of the service level that compares with an unloaded replica


@dataclass(frozen=True)
class Rules:
    """How requests are served beside what the plan says.

    `step_tokens` limits the prompt tokens of a step (None: 8,192, with chunks 2,048). `seed` draws
    the site of each request from the plan's shares. Of equal replicas a `share` is simulated for
    all, and `at_least` so many where there are as many: few replicas queue more than many.
    """

    dispatch: Dispatch = "jsq"
    chunked: bool = False
    step_tokens: int | None = None
    seed: int = 0
    share: float = 1.0
    at_least: int = 1


@dataclass(frozen=True)
class Placed:
    """What a plan makes of an epoch's demand: nodes, and where requests are sent."""

    nodes_on: NDArray[np.float64]  # [D, G] whole nodes
    flows: NDArray[np.float64]  # [O, M, S, D] requests per second after spill-over
    load: NDArray[np.float64]  # [D, M] utilisation of a site by model


def placed(
    world: World, plan: Plan, rate: NDArray, available: NDArray, before: NDArray, waiting: NDArray
) -> Placed:
    """Nodes and flows of one epoch, as the fluid model's dispatcher has them.

    Shapes: rate [O, M, S] requests per second, available [D, G], nodes on before [D, G], requests
    waiting per second of the epoch [D, M, S].
    """
    constants = world.constants
    nodes_on = np.ceil(plan.power[0] * constants.nodes * available - ROUNDING)
    warm = np.minimum(nodes_on, before)
    late = np.minimum(constants.cold_s / world.epoch_s, 1.0)
    capacity = site_capacity(constants, (warm + (nodes_on - warm) * (1.0 - late))[None])
    flows = dispatch(world, plan.routing, rate[None], capacity, waiting[None])[0]
    by_site = np.moveaxis(flows.sum(axis=0), -1, 0)  # [D, M, S]
    return Placed(nodes_on, flows, (by_site / np.maximum(capacity[0], 1e-12)).sum(axis=-1))


class Sites:
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
        self.rate = constants.node_rate_per_s.mean(axis=-1) / constants.replicas_per_node  # [G, M]
        speeds = (self.rate / self.rate.max(axis=0)).T  # [M, G]
        self.share, self.at_least = rules.share, rules.at_least
        self.speeds = np.tile(speeds, (sites, 1))  # [L, G]
        self.cluster = Cluster(
            self._simulated(sizes).reshape(-1, types),
            [engines[m] for _ in range(sites) for m in range(models)],
            self.speeds,
            rules.dispatch,
            world.patience_s,
        )
        self.stands_for = np.ones((sites * models, types))
        self.since_s, self.weights = [], []  # what a request stood for, by time of arrival
        start = self._share_out(constants.nodes.astype(int), constants.usual_share)
        self.counts: NDArray[np.int64] = start
        self._turn_on(start, np.zeros(start.shape))
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
        """Requests without a first token by site and class, [D, M, S]."""
        _, models, services = self.world.class_shape
        sites = len(self.world.sites)
        queued = self.cluster.open
        queued = queued[queued["first"] < 0]
        index = queued["lane"].astype(int) * services + queued["tag"] % services
        counts = np.bincount(index, minlength=sites * models * services)
        return counts.reshape(sites, models, services).astype(float)

    def _share_out(self, nodes_on: NDArray[np.int64], load: NDArray[np.float64]) -> NDArray:
        """Whole replicas [D, M, G] of the models on the GPUs that are on, by their load [D, M].

        Every model keeps a replica where one fits, asked for or not.
        """
        sites, types = nodes_on.shape
        models = load.shape[1]
        gpus = nodes_on * self.world.constants.gpus.astype(int)
        counts = np.zeros((sites, models, types), int)
        for d in range(sites):
            total = load[d].sum()
            share = np.maximum(load[d] / total, LEAST_SHARE) if total > 0 else np.ones(models)
            share = share / share.sum()
            counts[d] = whole_replicas(gpus[d], self.tp.T, self.rate.T, share)
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

    def _simulated(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of so many equal replicas are simulated."""
        some = np.ceil(self.share * counts - ROUNDING).astype(int)
        return np.maximum(some, np.minimum(counts, self.at_least))

    def _turn_on(self, counts: NDArray[np.int64], ready_s: NDArray[np.float64]) -> None:
        """Have replicas [D, M, G] on from now, new ones ready at `ready_s`, and say what a
        simulated one stands for.
        """
        types = counts.shape[-1]
        self._earlier, self.counts = self.counts.reshape(-1, types), counts
        now, self._ready_s = counts.reshape(-1, types), ready_s.reshape(-1, types)
        some = self._simulated(now)
        # Replicas that were turned off go on standing for as many while they finish.
        self.stands_for = np.where(some > 0, now / np.maximum(some, 1), self.stands_for)
        self.cluster.resize(some, self._ready_s)

    def settle(self, nodes_on: NDArray[np.float64], load: NDArray[np.float64]) -> None:
        """Have whole nodes [D, G] on and ready at once, shared out by model loads [D, M]."""
        counts = self._share_out(nodes_on.astype(int), load)
        self._turn_on(counts, np.zeros(counts.shape))

    def changes_s(self, start_s: float, end_s: float) -> list[float]:
        """When replicas become ready between two times, with both times."""
        new = self._earlier < self.counts.reshape(self._earlier.shape)
        ready_s = np.unique(self._ready_s[new])
        return [start_s, *ready_s[(ready_s > start_s) & (ready_s < end_s)], end_s]

    def _serving(self, time_s: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Replicas that are ready at a time, all of them and those simulated, [L, G] each."""
        ready = self._ready_s <= time_s
        before, now = self._earlier, self.counts.reshape(self._earlier.shape)
        some, taken = self._simulated(before), self._simulated(now)
        whole = np.where(ready, now, np.minimum(before, now))
        return whole, np.where(ready, taken, np.minimum(some, taken))

    def thinning(self, time_s: float) -> NDArray[np.float64]:
        """Share of each lane's requests [L] that its simulated replicas are to serve.

        It is that of the capacity which is ready, so that they are as busy as all are: while new
        replicas boot, the share of these must not fall on the others.
        """
        whole, some = ((of * self.speeds).sum(axis=1) for of in self._serving(time_s))
        now = self.counts.reshape(self.speeds.shape)
        on, taken = ((of * self.speeds).sum(axis=1) for of in (now, self._simulated(now)))
        of_all = np.where(on > 0, taken / np.maximum(on, ROUNDING), self.share)
        return np.where(whole > 0, some / np.maximum(whole, ROUNDING), of_all)

    def count_from(self, time_s: float, counted: bool = True) -> None:
        """Requests that arrive from `time_s` on count for those they stand for, or not at all."""
        whole, some = self._serving(time_s)
        each = np.where(some > 0, whole / np.maximum(some, 1), self.stands_for)
        lost = 1.0 / np.maximum(self.thinning(time_s), ROUNDING)  # of a lane without a replica
        self.since_s.append(time_s)
        self.weights.append(np.column_stack([each, lost]) * counted)

    def _weight(self, finished: Records) -> NDArray[np.float64]:
        """How many requests each finished one counts for, [N]."""
        if not self.since_s:
            return EACH_ITSELF
        types = self.stands_for.shape[1]
        period = np.searchsorted(self.since_s, finished["arrival"], side="right") - 1
        replica = finished["replica"]
        kind = np.where(replica >= 0, self.cluster.replicas["engine"][replica] % types, types)
        return np.array(self.weights)[period, finished["lane"], kind]

    def resize(
        self, nodes_on: NDArray[np.float64], before: NDArray, load: NDArray[np.float64]
    ) -> None:
        """Turn replicas on and off for whole nodes [D, G] and model loads [D, M]."""
        constants = self.world.constants
        counts = self._share_out(nodes_on.astype(int), load)
        for d in range(len(nodes_on)):
            same = (nodes_on[d] == before[d]).all()
            if same and np.abs(counts[d] - self.counts[d]).max() <= 1:
                counts[d] = self.counts[d]
        booting = (nodes_on > before)[:, None, :]
        wait_s = booting * constants.boot_s + constants.load_s.T  # [D, M, G]
        self._turn_on(counts, self.cluster.time_s + wait_s)

    def serve(
        self,
        given: Requests,
        lane: NDArray[np.int64],
        kind: NDArray[np.int64],
        until_s: float,
        index: NDArray[np.int64] | int = 0,
    ) -> Records:
        """Serve requests [N] at their lanes until a time; return what finished."""
        self._before, self._on = self.cluster.time_s, self.cluster.on()
        finished = self.cluster.serve(
            given.arrival_s,
            given.prompt_tokens,
            given.output_tokens,
            lane,
            kind,
            index,
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
            self.world.patience_s, self._weight(finished),
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
            simulated = np.bincount(lane, values, sites * models * types)
            return simulated.reshape(shape) * self.stands_for.reshape(shape)

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


def whole_replicas(
    gpus: NDArray[np.int64], tp: NDArray, rate: NDArray, share: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Replicas [M, G] on GPUs [G], so that the model that lacks most lacks least.

    `tp` [M, G] GPUs of a replica, `rate` [M, G] requests per second that fill it, `share` [M] of
    the GPUs that each model asks for. Whole parts are given first, then a replica at a time to the
    model with the least capacity for what it asks, until none fits.
    """
    wish = share[:, None] * gpus / tp
    counts = np.floor(wish + 1e-9).astype(int)
    left = gpus - (counts * tp).sum(axis=0)
    asked = (wish * rate).sum(axis=1)
    while True:
        # A model without a replica counts as if it had half of one: what asks for less can wait.
        pressure = asked / np.maximum((counts * rate).sum(axis=1), 0.5 * rate.max(axis=1))
        fits = left >= tp  # [M, G]
        if not fits.any():
            return counts
        m = int(np.argmax(np.where(fits.any(axis=1), pressure, -1.0)))
        g = int(np.argmax(np.where(fits[m], left, -1)))
        counts[m, g] += 1
        left[g] -= tp[m, g]


def _column(profiles: list[list[ServingProfile]], name: str) -> NDArray[np.float64]:
    """A field of the profiles as [G, M]."""
    return np.array([[getattr(p, name) for p in line] for line in profiles], dtype=float)


def _reference(profiles: tuple[ServingProfile, ...], max_batch: int) -> Records:
    """The unloaded replica that slowdowns of a model refer to: on A100, else the slowest."""
    on_a100 = [p for p in profiles if p.gpu == REFERENCE_GPU]
    slowest = max(on_a100 or profiles, key=lambda p: p.prefill_p1_s_per_token)
    return engine(slowest, max_batch)
