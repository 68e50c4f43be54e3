"""The linear program of one epoch: which pools serve whom, for latency and energy together.

C classes of requests (origin, model, service), P pools (site, node type), M models, Q tangents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, eye_array, hstack, kron, vstack

from marlin.bounds.programs import Day, solved
from marlin.bounds.work import Latency, fluid_latency
from marlin.fleet.contract import Inputs
from marlin.fleet.world import World


@dataclass(frozen=True)
class Epoch:
    """The least routes of an epoch."""

    shares: np.ndarray  # [C, P]; what is left of a class is not served in the epoch
    ttft_s: float  # of all requests together
    drawn_w: np.ndarray  # [D] above the floor


@dataclass(frozen=True)
class Routes:
    """Requests of a day, how far they have to go, and how soon they can begin there."""

    day: Day
    amount: np.ndarray  # [T, C] requests of an epoch
    rtt_s: np.ndarray  # [C, P]
    model: np.ndarray  # [C] of each class
    latency: Latency
    outside_s: float  # what a request counts with, at least, that its epoch does not serve

    @property
    def requests(self) -> float:
        """Of the whole day."""
        return float(self.amount.sum())

    @staticmethod
    def of(world: World, day: Day, truth: Inputs) -> Routes:
        """Of a `day` of the fluid model at `truth` [T, ...]."""
        origins, models, services = world.class_shape
        of_pair = np.repeat(world.constants.rtt_s, len(world.node_types), axis=1)  # [O, P]
        rate = truth.arrival_rate_per_s
        return Routes(
            day=day,
            amount=rate.reshape(len(rate), -1) * world.epoch_s,
            rtt_s=np.repeat(of_pair, models * services, axis=0),
            model=np.tile(np.repeat(np.arange(models), services), origins),
            latency=fluid_latency(world),
            outside_s=min(world.patience_s, 0.5 * world.epoch_s),
        )

    def by_class(self, of_type: np.ndarray) -> np.ndarray:
        """Values [G, K] as [C, P]."""
        origins = len(self.model) // of_type.shape[1]
        return np.tile(of_type.T, (origins, self.day.nodes.shape[1]))

    def least(
        self, t: int, per_s: float, factor: np.ndarray, outside: float, filled: float = 1.0
    ) -> Epoch:
        """Routes of epoch t at the least `per_s` x mean TTFT + `factor` [D] x IT energy.

        A request that is not served in the epoch costs `outside`. Nodes that are kept ready work
        for at most `filled` of the time.
        """
        work, amount = self.day.work, self.amount[t]
        sites, types = self.day.nodes.shape[1:]
        load = amount[:, None] / self.day.epoch_s / self.by_class(work.per_node_s)
        rise_w = load * self.by_class(work.work_w - work.kept_w[:, None])
        of_watt = np.repeat(factor.clip(min=0.0), types) * self.day.kwh_per_w  # [P]
        of_second = per_s / self.requests
        cost = of_second * amount[:, None] * self.rtt_s + rise_w * of_watt
        gain = cost - outside * amount[:, None]
        of_node = of_watt * np.tile(work.kept_w, sites)
        rows, limits = self._constraints(t, load, filled)
        models = self.latency.relief.shape[2]
        objective = np.concatenate(
            [
                gain.ravel(),
                np.repeat(of_node, models),
                np.full(len(of_node) * models, of_second * self.day.epoch_s),
            ]
        )
        found = solved(objective / (np.abs(gain).mean() or 1.0), A_ub=rows, b_ub=limits)
        shares, kept, taken_s = np.split(found.x, [gain.size, gain.size + len(of_node) * models])
        shares, kept = shares.reshape(gain.shape), kept.reshape(-1, models).sum(axis=1)
        unserved = amount @ (1.0 - shares.sum(axis=1))
        away_s = amount @ (shares * self.rtt_s).sum(axis=1)
        drawn_w = (shares * rise_w).sum(axis=0) + kept * np.tile(work.kept_w, sites)
        return Epoch(
            shares=shares,
            ttft_s=float(taken_s.sum() * self.day.epoch_s + away_s + unserved * self.outside_s),
            drawn_w=drawn_w.reshape(sites, types).sum(axis=1),
        )

    def _constraints(self, t: int, load: np.ndarray, filled: float) -> tuple[coo_array, np.ndarray]:
        """Rows and limits over shares [C, P], nodes kept for a model [P, M], and the seconds [P, M]
        that its requests take of those that arrive in one.

        A class has no more than it has; a pool keeps no more than its nodes; they do their work;
        and every tangent lies below the seconds. `load` [C, P] is of the whole of a class.
        """
        classes, pools = load.shape
        relief, sites = self.latency.relief, self.day.nodes.shape[1]
        tangents, models = len(relief), relief.shape[2]
        whole = kron(eye_array(classes), np.ones((1, pools)))
        kept = kron(eye_array(pools), np.ones((1, models)))
        each, none = eye_array(pools * models), coo_array((pools * models, pools * models))
        rows = [
            hstack([whole, coo_array((classes, 2 * pools * models))]),
            hstack([coo_array((pools, classes * pools)), kept, coo_array(kept.shape)]),
            hstack([self._by_model(load / filled), -each, none]),
        ]
        for q in range(tangents):
            seconds = self._by_model(load * self.by_class(self.latency.slope[q]))
            less = each * -np.tile(relief[q], (sites, 1)).ravel()
            rows.append(hstack([seconds, less, -each]))
        limits = np.zeros(classes + pools + (1 + tangents) * pools * models)
        limits[:classes] = 1.0
        limits[classes : classes + pools] = self.day.nodes[t].ravel()
        return vstack(rows), limits

    def _by_model(self, values: np.ndarray) -> coo_array:
        """Rows [P M] that add `values` [C, P] of the shares of each model in each pool."""
        classes, pools = values.shape
        models = self.latency.relief.shape[2]
        row = np.arange(pools) * models + self.model[:, None]
        column = np.arange(classes * pools)
        shape = (pools * models, classes * pools)
        return coo_array((values.ravel(), (row.ravel(), column)), shape=shape)
