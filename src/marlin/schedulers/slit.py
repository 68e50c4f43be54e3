"""SLIT: local search from plans that a learned model picks, then decomposition-based evolution.

Sources: SLIT (GLSVLSI 2025) and SHIELD (2023), from public descriptions of both; decomposition
after Zhang and Li (2007), MOEA/D: A multiobjective evolutionary algorithm based on decomposition.
Axes: P plans, each held for a weight vector of its own; N genes; F facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from marlin.fleet.contract import Inputs
from marlin.fleet.simulator import step
from marlin.fleet.world import TRAIN, World
from marlin.schedulers.encoding import gene_count, single_sites
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh
from marlin.schedulers.greedy import relative
from marlin.schedulers.plan_search import PlanSearch, Trials

if TYPE_CHECKING:
    from sklearn.ensemble import GradientBoostingRegressor

    from marlin.task import Task

WEIGHT_STEPS = 10  # weights of a vector are multiples of a tenth
OVERSHOOT = 0.25  # of the way between two parents, at either end


@dataclass
class Held:
    """The plan that each weight vector holds."""

    genes: np.ndarray  # [P, N]
    costs: np.ndarray  # [P, 4] objectives over their scale
    vectors: np.ndarray  # [P, 4]

    def gains(self, index: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """How much less plans of `costs` [..., 4] are for the vectors at `index` [...]."""
        return ((self.costs[index] - costs) * self.vectors[index]).sum(axis=-1)

    def put(self, index: np.ndarray, genes: np.ndarray, costs: np.ndarray) -> None:
        """Let the vectors at `index` hold other plans."""
        self.genes[index], self.costs[index] = genes, costs


@checked
class Slit(PlanSearch):
    """Plans with a weight vector each: searched around where it should pay, then crossed.

    Training walks days of the past in order and searches around plans at random; what each search
    gained is what the model learns to predict from the plan and the forecast.
    """

    name: str = "slit"
    searched: int = Field(5, ge=1, description="plans that a round searches around")
    tries: int = Field(4, ge=1, description="changed copies of each of them")
    step_sd: float = Field(0.1, gt=0, le=1, description="of a change of a gene")
    changed_share: float = Field(0.2, gt=0, le=1, description="of genes, in a local search")
    neighbours: int = Field(5, ge=2, description="weight vectors that exchange plans")
    guided: bool = Field(True, description="a model picks where to search, not chance")
    training_days: int = Field(2, ge=0, description="last days of train to learn from, in order")

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`; a day starts with the model that was trained."""
        super().reset(world, seed, variant)
        self._vectors = spread_vectors(self._weights, self.population)
        gaps = ((self._vectors[:, None] - self._vectors) ** 2).sum(axis=-1)
        self._near = np.argsort(gaps, axis=1, kind="stable")[:, : self.neighbours]
        self._model = getattr(self, "_trained", None) if self.guided else None
        self._facts: list[np.ndarray] = []
        self._gains: list[np.ndarray] = []

    def newcomers(self, world: World) -> np.ndarray:
        """Everything at one site, for sites in random order, and random plans in turn."""
        extremes = self._rng.permutation(single_sites(world))
        pairs = np.stack([extremes, self._rng.random(extremes.shape)], axis=1)
        more = self._rng.random((self.population, gene_count(world)))
        return np.concatenate([pairs.reshape(-1, more.shape[1]), more])

    def search(self, trials: Trials, start: np.ndarray) -> np.ndarray:
        """See `PlanSearch.search`: rounds until the budget is spent."""
        costs = trials(start) / self.scale(trials)
        best = np.argmin(costs @ self._vectors.T, axis=0)
        held = Held(start[best], costs[best], self._vectors)
        budget = trials.observation.budget
        while budget.left >= self.tries:
            self._search_locally(trials, held, budget.left // self.tries)
            self._evolve(trials, held, budget.left)
        return held.genes

    def _search_locally(self, trials: Trials, held: Held, limit: int) -> None:
        """Try changed copies of some plans; each of these vectors keeps the best of its own."""
        facts = features(trials.observation.forecast, held)
        chosen = self._ranked(facts)[: min(self.searched, limit)]
        tried = np.repeat(held.genes[chosen], self.tries, axis=0)
        tried = self._changed(tried, self.changed_share)
        costs = (trials(tried) / self.scale(trials)).reshape(len(chosen), self.tries, -1)
        gains = held.gains(chosen[:, None], costs)
        best = gains.argmax(axis=1)
        rows = np.arange(len(chosen))
        gain = gains[rows, best]
        self._facts.append(facts[chosen])
        self._gains.append(np.clip(gain, 0.0, None))
        tried = tried.reshape(len(chosen), self.tries, -1)[rows, best]
        better = gain > 0.0
        held.put(chosen[better], tried[better], costs[rows, best][better])

    def _ranked(self, facts: np.ndarray) -> np.ndarray:
        """Indices [P] of plans to search around: most predicted gain first, or at random."""
        if self._model is None:
            return self._rng.permutation(len(facts))
        return np.argsort(-self._model.predict(facts), kind="stable")

    def _evolve(self, trials: Trials, held: Held, limit: int) -> None:
        """A child of two plans near each vector goes to every vector near it that it is better for.

        A child lies on the line through its parents, with one gene changed on average.
        """
        if not limit:
            return
        turns = self._rng.permutation(self._near)[:limit]
        parents = self._rng.permuted(turns, axis=1)[:, :2]
        first, second = held.genes[parents[:, 0]], held.genes[parents[:, 1]]
        place = self._rng.uniform(-OVERSHOOT, 1.0 + OVERSHOOT, (len(first), 1))
        children = np.clip(first + place * (second - first), 0.0, 1.0)
        children = self._changed(children, 1.0 / children.shape[1])
        costs = trials(children) / self.scale(trials)
        for near, child, cost in zip(turns, children, costs, strict=True):
            held.put(near[held.gains(near, cost) > 0.0], child, cost)

    def _changed(self, genes: np.ndarray, share: float) -> np.ndarray:
        """Genes [P, N] of which a share was moved at random."""
        moved = self._rng.random(genes.shape) < share
        return np.clip(genes + moved * self._rng.normal(0.0, self.step_sd, genes.shape), 0.0, 1.0)

    def train(self, task: Task) -> list[dict[str, Any]]:
        """Walk the last `training_days` of training; local searches start from random plans."""
        self.reset(task.world, task.run.seed)
        self._model = None
        days = task.days(TRAIN)
        for start in days[len(days) - self.training_days :]:
            state = task.world.idle_state(1)
            for epoch in range(start, start + task.world.epochs_per_day):
                plan = self.plan(task.observation(epoch, state))
                state, _ = step(task.world, state, plan, task.truth(np.array([epoch])))
        if self._facts:
            self._learn(np.concatenate(self._facts), np.concatenate(self._gains))
        return []

    def _learn(self, facts: np.ndarray, gains: np.ndarray) -> None:
        self._known = {"facts": facts, "gains": gains}
        self._trained = fitted(facts, gains)

    def weights(self) -> dict[str, np.ndarray]:
        """What the model was fitted to, which makes the model again."""
        return getattr(self, "_known", {})

    def load(self, path: Path) -> None:
        """See `Scheduler.load`."""
        with np.load(path) as stored:
            known = dict(stored)
        if known:
            self._learn(known["facts"], known["gains"])


def features(forecast: Inputs, held: Held) -> np.ndarray:
    """Facts [P, F] about each plan held: genes, objectives, weights, and what all of them face:
    carbon, water and price of each site over their mean, and demand.
    """
    factors = (carbon_g_per_kwh, water_l_per_kwh, price_usd_per_mwh)
    sites = [relative(factor(forecast)[0]) for factor in factors]
    shared = np.concatenate([*sites, [forecast.arrival_rate_per_s.sum()]])
    everyone = np.broadcast_to(shared, (len(held.genes), len(shared)))
    return np.column_stack([held.genes, held.costs, held.vectors, everyone])


def fitted(facts: np.ndarray, gains: np.ndarray) -> GradientBoostingRegressor:
    """A model of gains [R] by facts [R, F]. Source: Friedman (2001), through scikit-learn."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(n_estimators=100, subsample=0.5, random_state=0)
    return model.fit(facts, gains)


def spread_vectors(first: np.ndarray, count: int) -> np.ndarray:
    """Weight vectors [count, 4] in steps of a tenth, `first` [4] and then each farthest from all.

    Beyond the number of such vectors they repeat.
    """
    axis = np.arange(WEIGHT_STEPS + 1)
    grid = np.stack(np.meshgrid(*[axis] * len(first), indexing="ij"), axis=-1)
    grid = grid.reshape(-1, len(first))
    grid = grid[grid.sum(axis=1) == WEIGHT_STEPS] / WEIGHT_STEPS
    chosen = [first]
    gap = ((grid - first) ** 2).sum(axis=1)
    while len(chosen) < count:
        chosen.append(grid[gap.argmax()])
        gap = np.minimum(gap, ((grid - chosen[-1]) ** 2).sum(axis=1))
    return np.stack(chosen)
