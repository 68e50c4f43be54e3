"""NSGA-II over plans, run afresh each epoch on the forecast.

Source: Deb et al. (2002), A fast and elitist multiobjective genetic algorithm: NSGA-II; through
pymoo. `Nsga2AsRun` is the form that MARLIN was compared with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.fleet.terms import TINY
from marlin.schedulers.base import Observation
from marlin.schedulers.plan_search import PlanSearch, Trials, evolve

if TYPE_CHECKING:
    from pymoo.core.mutation import Mutation


@dataclass
class Nsga2(PlanSearch):
    """Non-dominated sorting with crowding; as many generations as the call budget allows."""

    name: str = "nsga2"
    population: int = Field(16, ge=13, le=1000)
    crossover: float = Field(0.9, ge=0, le=1, description="chance of a pair of parents")
    crossover_eta: float = Field(15.0, gt=0)
    mutation_eta: float = Field(20.0, gt=0)

    def search(self, trials: Trials, start: np.ndarray) -> np.ndarray:
        """See `PlanSearch.search`."""
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM

        algorithm = NSGA2(
            pop_size=len(start),
            sampling=start,
            crossover=SBX(prob=self.crossover, eta=self.crossover_eta),
            mutation=PM(eta=self.mutation_eta),
            eliminate_duplicates=False,
        )
        return evolve(algorithm, trials, start, int(self._rng.integers(2**31)))


@dataclass
class Nsga2AsRun(PlanSearch):
    """As published with MARLIN: random plans each epoch, every node kept ready.

    Genes are routing shares for each origin and model. The common call budget may end a search
    before its generations are over. The first of the random plans is the even split.
    """

    name: str = "nsga2_as_run"
    population: int = Field(16, ge=4, le=1000)
    generations: int = Field(8, ge=1)
    crossover: float = Field(0.9, ge=0, le=1)
    mutation: float = Field(0.1, ge=0, le=1, description="chance of a gene")
    mutation_sd: float = Field(0.1, gt=0, le=1)

    def start(self, observation: Observation) -> np.ndarray:
        """See `PlanSearch.start`: nothing is known, and nothing is kept from the last epoch."""
        world = observation.world
        genes = len(world.origins) * len(world.models) * len(world.sites)
        start = self._rng.random((self.population, genes))
        start[0] = 0.5
        return start

    def search(self, trials: Trials, start: np.ndarray) -> np.ndarray:
        """See `PlanSearch.search`."""
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.operators.crossover.sbx import SBX

        algorithm = NSGA2(
            pop_size=len(start),
            sampling=start,
            crossover=SBX(prob=self.crossover),
            mutation=gaussian_mutation(self.mutation, self.mutation_sd),
            eliminate_duplicates=False,
        )
        seed = int(self._rng.integers(2**31))
        return evolve(algorithm, trials, start, seed, self.generations)

    def decode(self, observation: Observation, genes: np.ndarray) -> Plan:
        """Plans whose routing is the genes [P, O M D] over their sum, with every node on."""
        world = observation.world
        origins, models, services = world.class_shape
        shares = genes.reshape(len(genes), origins, models, 1, len(world.sites))
        total = shares.sum(axis=-1, keepdims=True)
        shares = np.where(total > 0.0, shares / np.clip(total, TINY, None), 1.0 / len(world.sites))
        power = np.ones((len(genes), *world.constants.nodes.shape))
        return Plan(np.repeat(shares, services, axis=3), power)


def gaussian_mutation(chance: float, sd: float) -> Mutation:
    """A pymoo operator that moves each gene by the chance and keeps it in [0, 1].

    pymoo's own repairs genes beyond their bounds from a generator that nothing seeds.
    """
    from pymoo.core.mutation import Mutation

    class Gaussian(Mutation):
        def _do(
            self, problem: object, X: np.ndarray, *, random_state: np.random.Generator, **kw: object
        ) -> np.ndarray:
            moved = random_state.random(X.shape) < chance
            return np.clip(X + moved * random_state.normal(0.0, sd, X.shape), 0.0, 1.0)

    return Gaussian()
