"""Four agents, one per objective, as a PettingZoo environment; and its vector-reward view."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from pettingzoo import ParallelEnv

from marlin.envs.core import AGENTS, FEATURE_LIMIT, Core
from marlin.envs.episode import Episode
from marlin.envs.rules import RULES, Rule, rule
from marlin.errors import UserError


class FleetParallelEnv(ParallelEnv):
    """Each agent proposes an action, a rule makes one of four, every agent gets its own reward.

    Args:
        core: the fleet and its days.
        negotiation: `mean`, `vote`, `nash` (see `marlin.envs.rules`), or a function of proposals
            and values.

    Observations are alike for all agents. An episode is a day; it is truncated at its end and
    never terminates. `infos[agent]["objectives"]` holds all four objectives in their units.
    """

    def __init__(self, core: Core, negotiation: str | Rule = "mean") -> None:
        self.metadata = {"name": "marlin_fleet_v0", "render_modes": []}
        self.render_mode = None
        self.core = core
        self.rule = _rule(negotiation, core)
        self.episode = Episode(core)
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        self.rng = np.random.default_rng()
        limit = np.float32(FEATURE_LIMIT)
        self.observation_spaces = {
            agent: Box(-limit, limit, (core.observation_size,)) for agent in AGENTS
        }
        self.action_spaces = {agent: Box(-1.0, 1.0, (core.action_size,)) for agent in AGENTS}

    def observation_space(self, agent: str) -> Space:
        """The same space at every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space:
        """The same space at every call."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Start a day; `seed` decides this one and those after it."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents = list(AGENTS)
        self.episode.reset(self.rng)
        return self._observations(), {agent: {} for agent in AGENTS}

    def step(self, actions: dict[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        """Negotiate the proposals and carry out the result for an epoch."""
        if not self.agents:
            raise UserError("the episode is over: call reset before step")
        proposals = np.stack([np.asarray(actions[agent], dtype=float) for agent in AGENTS])
        rewards, costs, _ = self.episode.advance(self.rule(proposals, self.episode.values))
        over = self.episode.over
        if over:
            self.agents = []
        return (
            self._observations(),
            self._rewards(rewards),
            dict.fromkeys(AGENTS, False),
            dict.fromkeys(AGENTS, over),
            {agent: {"objectives": costs.copy()} for agent in AGENTS},
        )

    def render(self) -> None:
        """Nothing to see."""

    def close(self) -> None:
        """Nothing to free."""

    def _observations(self) -> dict[str, np.ndarray]:
        seen = self.episode.observation()
        return {agent: seen.copy() for agent in AGENTS}

    def _rewards(self, rewards: np.ndarray) -> dict[str, Any]:
        return dict(zip(AGENTS, rewards.tolist(), strict=True))


class FleetVectorRewardEnv(FleetParallelEnv):
    """The same with all four rewards for every agent, float32 [4], and a space of them.

    It has what MOMAland's wrappers ask of an environment; each agent has an array of its own.
    """

    def __init__(self, core: Core, negotiation: str | Rule = "mean") -> None:
        super().__init__(core, negotiation)
        self.reward_spaces = {agent: Box(-np.inf, np.inf, (len(AGENTS),)) for agent in AGENTS}

    def reward_space(self, agent: str) -> Box:
        """The same space at every call."""
        return self.reward_spaces[agent]

    def _rewards(self, rewards: np.ndarray) -> dict[str, Any]:
        return {agent: rewards.astype(np.float32) for agent in AGENTS}


def _rule(negotiation: str | Rule, core: Core) -> Rule:
    if not isinstance(negotiation, str):
        return negotiation
    if negotiation not in RULES:
        raise UserError(
            f"negotiation rule {negotiation} is unknown: choose one of {', '.join(RULES)}, or "
            "give a function of proposals and values"
        )
    return rule(negotiation, core.even_split)
