"""The judge: a day's plans scored by replay of a sample of its epochs and replicas.

A day of a large fleet has a billion requests, so replay serves a sample of them and the fluid model
carries the rest. Of a total, the judge gives what the fluid model says plus the mean difference
between the two over the sampled epochs, times the number of all epochs: right in the mean however
wrong the fluid model is. Of TTFT, which cold starts make uneven and which cannot be negative, it
gives what the fluid model says times the ratio of the two over the sampled epochs.
Source: difference and ratio estimators, Cochran, Sampling Techniques (1977), chapters 6 and 7.

Sampled epochs are spread over the day. Each begins with a warm-up under the plan before, so that
nodes boot and models load in it as the plans have them; what the fluid model has waiting then waits
at its start. The requests of a site arrive with the variability that is left when chance has picked
them out of their service's stream. Of equal replicas a share is simulated: they take every k-th
request, because the shortest queue of all deals requests out as evenly as that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marlin.config import RunConfig, ScoringConfig
from marlin.data.requests import (
    gap_sample,
    renewals,
    scenario_lengths,
    token_pairs,
)
from marlin.fleet.contract import Inputs, Outcome, Plan, State, row
from marlin.fleet.replay_sites import Placed, Rules, Sites, placed
from marlin.fleet.world import World, chosen_profiles
from marlin.serving import profiles as serving
from marlin.serving.profiles import ServingProfile
from marlin.serving.queueing import thinned_cv2
from marlin.serving.replay.metrics import Tally
from marlin.serving.replay.requests import Requests, requests

TOTALS = ("carbon_kg", "water_l", "cost_usd", "energy_kwh", "scarcity_water_l")
LATENCIES = {
    "ttft_p50_s": "ttft_p50_s",
    "ttft_p95_s": "ttft_p95_s",
    "ttft_p99_s": "ttft_p99_s",
    "tpot_p50_s": "tpot_p50_s",
    "tpot_p95_s": "tpot_p95_s",
    "slo_attainment": "dynamollm_attainment",
}
"""Columns of a score, and what `Tally.summary` calls them."""
GAPS = 1 << 13
SHORTLY_BEFORE_S = 1e-3


@dataclass(frozen=True)
class Played:
    """A day as the fluid model played it.

    `plans`, `states` (before each epoch) and `inputs` (what came true) have arrays [T, ...].
    """

    plans: Plan
    states: State
    inputs: Inputs
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class Services:
    """Token lengths of requests, [N, 2] a service, and the variability of their arrivals [S]."""

    tokens: Sequence[NDArray[np.int32]]
    arrival_cv2: NDArray[np.float64]


class Judge:
    """Scores days of one world by replay; equal days have equal scores."""

    def __init__(
        self,
        world: World,
        profiles: list[list[ServingProfile]],
        max_batch: int,
        services: Services,
        scoring: ScoringConfig,
    ) -> None:
        self.world, self.services, self.scoring = world, services, scoring
        self.profiles, self.max_batch = profiles, max_batch
        self._scored: dict[str, dict[str, float]] = {}

    def score(self, day: Played, first_epoch: int) -> dict[str, float]:
        """Objectives, energy and latencies of a day; `_se` is a standard error of sampling.

        `first_epoch` numbers the day's first epoch in the scenario. It seeds the requests: methods
        are judged on the same ones, as far as their plans send the same to a site. A day that was
        scored before, as of a method without chance under another seed, is not played again.
        """
        played = (day.plans.routing, day.plans.power, day.states.backlog)
        key = f"{first_epoch} {sha256(b''.join(of.tobytes() for of in played)).hexdigest()}"
        if key not in self._scored:
            self._scored[key] = self._score(day, first_epoch)
        return self._scored[key]

    def _score(self, day: Played, first_epoch: int) -> dict[str, float]:
        """See `score`."""
        count = len(day.outcomes)
        chosen = stratified(count, self.scoring.epochs, first_epoch)
        tally = Tally(len(self.world.sites))
        found = [self._epoch(day, int(t), first_epoch, tally) for t in chosen]
        fluid = [_fluid_totals(outcome) for outcome in day.outcomes]
        arrived = sum(float(outcome.arrived[0]) for outcome in day.outcomes)
        score = {}
        for name in ("ttft_s", *TOTALS):
            whole = sum(part[name] for part in fluid)
            judged = np.array([part[name] for part in found])
            known = np.array([fluid[t][name] for t in chosen])
            estimate = ratio_estimate if name == "ttft_s" else difference_estimate
            value, error = estimate(whole, judged, known, count)
            per = arrived if name == "ttft_s" else 1.0
            score |= {name: value / per, f"{name}_se": error / per}
        latency = tally.summary(slice(None), len(chosen) * self.world.epoch_s)
        ended = latency["served"] + latency["dropped"] + latency["rejected"]
        return (
            score
            | {name: latency[known] for name, known in LATENCIES.items()}
            | {"replay_lost_share": 1.0 - latency["served"] / ended}
        )

    def _epoch(self, day: Played, epoch: int, first_epoch: int, tally: Tally) -> dict[str, float]:
        """Totals of one epoch by replay; its requests are counted in `tally`."""
        world, warm_s = self.world, self.scoring.warm_up_s
        rules = Rules(share=self.scoring.share, at_least=self.scoring.at_least)
        site = Sites(world, self.profiles, self.max_batch, rules)
        earlier, now = (_at(day, max(epoch - 1, 0)), _at(day, epoch))
        chance = [np.random.default_rng([first_epoch + epoch, part]) for part in (0, 1)]

        steady = self._placed(earlier, world.constants.nodes)
        before = steady.nodes_on if epoch else world.constants.nodes  # a day begins all on
        site.settle(before, steady.load)
        site.count_from(0.0, counted=False)
        arrivals = self._arrivals(site, steady, 0.0, warm_s, chance[0])
        site.serve(*_sorted(arrivals + self._waiting(site, now, warm_s, chance[0])), warm_s)

        here = self._placed(now, before)
        site.resize(here.nodes_on, before, here.load)
        end_s = warm_s + world.epoch_s
        arrivals = []
        for start_s, stop_s in pairwise(site.changes_s(warm_s, end_s)):
            site.count_from(start_s)
            arrivals += self._arrivals(site, here, start_s, stop_s, chance[1])
        site.serve(*_sorted(arrivals), end_s)
        bill = site.energy(epoch, here.nodes_on, now.inputs, world.epoch_s)
        site.drain()
        tally.join(site.tally)
        mean_ttft_s = site.tally.mean_ttft_s()
        return {name: float(bill[name].sum()) for name in TOTALS} | {
            "ttft_s": mean_ttft_s * float(day.outcomes[epoch].arrived[0])
        }

    def _placed(self, at: Played, before: NDArray[np.float64]) -> Placed:
        """Nodes and flows of an epoch's plan when nodes [D, G] were on before."""
        return placed(
            self.world,
            at.plans,
            at.inputs.arrival_rate_per_s[0],
            at.inputs.available[0],
            before,
            at.states.backlog[0] / self.world.epoch_s,
        )

    def _arrivals(
        self, site: Sites, here: Placed, start_s: float, end_s: float, chance: np.random.Generator
    ) -> list[tuple[NDArray, ...]]:
        """Requests of every site, model and service over a time: `_request` columns of each."""
        models = len(self.world.models)
        rates = here.flows.sum(axis=0)  # [M, S, D]
        whole = rates.sum(axis=(0, 2))
        kept = site.thinning(start_s).reshape(-1, models)
        parts = []
        for d, m, s in np.argwhere(np.moveaxis(rates, -1, 0) > 0):
            rate = rates[m, s, d] * kept[d, m]
            cv2 = thinned_cv2(self.services.arrival_cv2[s], rates[m, s, d] / whole[s]) * kept[d, m]
            points = renewals(chance, _gaps(round(100 * cv2)), rate * (end_s - start_s))
            origin = _draw(here.flows[:, m, s, d], len(points), chance)
            arrival_s = start_s + points / rate
            parts.append(self._request(arrival_s, int(d), int(m), int(s), origin, chance))
        return parts

    def _waiting(
        self, site: Sites, now: Played, at_s: float, chance: np.random.Generator
    ) -> list[tuple[NDArray, ...]]:
        """What waits at the start of an epoch, as requests that arrive shortly before it."""
        origins, models, _ = self.world.class_shape
        kept = site.thinning(at_s).reshape(-1, models, 1)
        expected = now.states.backlog[0] * kept  # [D, M, S]
        counts = np.floor(expected + chance.random(expected.shape)).astype(int)
        arrival_s = at_s - SHORTLY_BEFORE_S
        return [
            self._request(
                np.full(counts[d, m, s], arrival_s),
                int(d), int(m), int(s),
                chance.integers(origins, size=counts[d, m, s]),
                chance,
            )
            for d, m, s in np.argwhere(counts > 0)
        ]  # fmt: skip

    def _request(
        self, arrival_s: NDArray, d: int, m: int, s: int, origin: NDArray,
        chance: np.random.Generator,
    ) -> tuple[NDArray, ...]:  # fmt: skip
        """Columns of requests: arrival, prompt, output, origin, model, service, lane, class."""
        count = len(arrival_s)
        _, models, services = self.world.class_shape
        tokens = self.services.tokens[s]
        tokens = tokens[chance.integers(len(tokens), size=count)]
        kind = (origin * models + m) * services + s
        same = np.ones(count, np.int64)
        lane = same * (d * models + m)
        return arrival_s, tokens[:, 0], tokens[:, 1], origin, same * m, same * s, lane, kind


def load_judge(run: RunConfig, world: World, scenario: Path, profiles: Path) -> Judge | None:
    """The judge of a run; none when its scores are the fluid model's."""
    if run.scoring.judge == "fluid":
        return None
    from marlin.data.prepare import read

    known = scenario_lengths(read(scenario))
    tokens = [token_pairs(known, s) for s in range(len(world.services))]
    chosen = chosen_profiles(run.fleet, run.serving, serving.load(profiles))
    services = Services(tokens, known.moments["arrival_cv2"])
    return Judge(world, chosen, run.serving.max_batch, services, run.scoring)


def stratified(count: int, some: int, seed: int) -> NDArray[np.int64]:
    """`some` of `count` epochs, or all: one by chance of each of so many equal stretches.

    Chance and not midpoints: signals change with the hour, and a fixed step would meet the hour's
    first epoch, in which nodes boot, always or never.
    """
    edges = np.arange(min(some, count) + 1) * count // min(some, count)
    return np.random.default_rng([seed, some]).integers(edges[:-1], edges[1:])


def difference_estimate(
    whole: float, judged: NDArray[np.float64], known: NDArray[np.float64], count: int
) -> tuple[float, float]:
    """A total over `count` epochs, and its standard error, from n of them [n] by two models.

    `whole` is the total of the model that is known for all epochs.
    """
    gaps = judged - known
    return float(whole + count * gaps.mean()), _standard_error(gaps, count)


def ratio_estimate(
    whole: float, judged: NDArray[np.float64], known: NDArray[np.float64], count: int
) -> tuple[float, float]:
    """The same by the ratio of the two models; `known` must not sum to zero."""
    ratio = judged.sum() / known.sum()
    return float(whole * ratio), _standard_error(judged - ratio * known, count)


def _standard_error(residuals: NDArray[np.float64], count: int) -> float:
    """Of a total over `count` epochs from the residuals [n] of n; all epochs leave none."""
    some = len(residuals)
    if some == count:
        return 0.0
    return float(count * np.sqrt(residuals.var(ddof=1) / some * (1 - some / count)))


def _fluid_totals(outcome: Outcome) -> dict[str, float]:
    """Totals of an epoch; of TTFT the seconds of all who arrived."""
    totals = {name: float(getattr(outcome, name)[0]) for name in TOTALS}
    return totals | {"ttft_s": float(outcome.ttft_s[0] * outcome.arrived[0])}


def _at(day: Played, epoch: int) -> Played:
    """One epoch of a day."""
    here = slice(epoch, epoch + 1)
    return Played(
        row(day.plans, here), row(day.states, here), row(day.inputs, here), day.outcomes[here]
    )


@lru_cache(maxsize=1024)
def _gaps(cv2_percent: int) -> NDArray[np.float64]:
    """Gaps of mean one whose squared coefficient of variation is that many hundredths."""
    return gap_sample(cv2_percent / 100.0, GAPS)


def _draw(weight: NDArray[np.float64], count: int, chance: np.random.Generator) -> NDArray:
    """Positions [count] drawn in proportion to weights."""
    share = np.cumsum(weight)
    drawn = np.searchsorted(share, chance.random(count) * share[-1], side="right")
    return np.minimum(drawn, np.flatnonzero(weight)[-1])


def _sorted(parts: list[tuple[NDArray, ...]]) -> tuple[Requests, NDArray, NDArray]:
    """Requests in order of arrival, their lanes and their classes."""
    if not parts:
        none = np.empty(0, np.int64)
        return requests(np.empty(0), none, none), none, none
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    *given, lane, kind = (column[order] for column in columns)
    return requests(*given), lane, kind
