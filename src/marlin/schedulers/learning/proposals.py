"""Four proposing agents, one an objective, that learn by proximal policy optimisation.

Each agent proposes an action; the proposals' mean, weighted by the scheme, is carried out. An agent
without a weight has no say, and so learns nothing, in that world. What they share whatever their
critics is here; the networks are in `learning.ppo`, so that settings are known without the learning
stack.
Source: Schulman et al. (2017), Proximal Policy Optimization Algorithms. Axes: T epochs, B worlds,
R = T x B rows, N agents and objectives, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.schedulers.learning.practice import Practice
from marlin.schedulers.learning.scheduler import LearnedScheduler

if TYPE_CHECKING:
    from marlin.schedulers.learning.ppo import Learner


@dataclass
class Ppo(LearnedScheduler):
    """What independent and centralised learners share; see `Ippo` and `Mappo` for the rest."""

    rate: float = Field(3e-3, gt=0, le=1, description="at first; falls to zero")
    discount: float = Field(0.8, ge=0, lt=1)
    trace: float = Field(0.9, ge=0, le=1, description="lambda of the advantages")
    rollout: int = Field(8, ge=1, le=96, description="epochs of all worlds between updates")
    rounds: int = Field(6, ge=1, le=100, description="passes over a rollout")
    minibatches: int = Field(4, ge=1, le=64)
    clip: float = Field(0.2, gt=0, lt=1)
    entropy: float = Field(0.0, ge=0)
    value_weight: float = Field(0.5, ge=0)
    gradient_limit: float = Field(0.5, gt=0)
    drop_penalty: float = Field(5.0, ge=0)

    @property
    def stride(self) -> int:
        """See `LearnedScheduler.stride`."""
        return self.rollout

    def practise(
        self, learner: Learner, practice: Practice, rng: np.random.Generator
    ) -> Iterator[None]:
        """Walk `rollout` epochs, then learn from them in shuffled parts."""
        while practice.affords(self.stride):
            latent, walked = [], []
            for _ in range(self.stride):
                latent.append(learner.propose(practice.seen, practice.weights))
                action = agreed(latent[-1], practice.weights)
                walked.append(practice.step(action))
            learner.set_rate(practice.left * self.rate)
            batch = learner.judged(np.concatenate(latent, axis=1), walked)
            for _ in range(self.rounds):
                for part in np.array_split(rng.permutation(len(batch.rows)), self.minibatches):
                    learner.update(batch.only(part))
            yield


def agreed(latent: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Actions [B, A]: the mean of the proposals [N, B, A], squashed, weighted by [B, N]."""
    return np.einsum("nba,bn->ba", np.tanh(latent), weights)
