"""NSGA-III over plans, run afresh each epoch on the forecast.

Source: Deb and Jain (2014), An evolutionary many-objective optimization algorithm using
reference-point-based nondominated sorting approach, part I; through pymoo.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import OBJECTIVES
from marlin.schedulers.plan_search import PlanSearch, Trials, evolve


@dataclass
class Nsga3(PlanSearch):
    """Non-dominated sorting with niches around reference directions of the four objectives."""

    name: str = "nsga3"
    partitions: int = Field(3, ge=1, le=20, description="of an axis; 3 makes 20 directions")
    crossover: float = Field(1.0, ge=0, le=1, description="chance of a pair of parents")
    crossover_eta: float = Field(30.0, gt=0)
    mutation_eta: float = Field(20.0, gt=0)

    @model_validator(mode="after")
    def _has_a_plan_for_each_direction(self) -> Self:
        directions = math.comb(self.partitions + len(OBJECTIVES) - 1, len(OBJECTIVES) - 1)
        if directions > self.population:
            raise ValueError(
                f"population={self.population} is less than the {directions} directions that "
                f"partitions={self.partitions} makes"
            )
        return self

    def search(self, trials: Trials, start: np.ndarray) -> np.ndarray:
        """See `PlanSearch.search`."""
        from pymoo.algorithms.moo.nsga3 import NSGA3
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.util.ref_dirs import get_reference_directions

        algorithm = NSGA3(
            ref_dirs=get_reference_directions(
                "das-dennis", len(OBJECTIVES), n_partitions=self.partitions
            ),
            pop_size=len(start),
            sampling=start,
            crossover=SBX(prob=self.crossover, eta=self.crossover_eta),
            mutation=PM(eta=self.mutation_eta),
            eliminate_duplicates=False,
        )
        return evolve(algorithm, trials, start, int(self._rng.integers(2**31)))
