"""Checkers of libraries that need an environment of their own; run by `run.sh` beside it."""

from __future__ import annotations

import numpy as np
from momaland.utils.parallel_wrappers import LinearizeReward, NormalizeReward
from stable_baselines3.common.env_checker import check_env

from marlin.envs import single_env, vector_reward_env
from marlin.envs.core import AGENTS


def main() -> None:
    check_env(single_env(), warn=True)
    weights = {agent: np.eye(4)[i] for i, agent in enumerate(AGENTS)}
    plain, linear = vector_reward_env(), LinearizeReward(vector_reward_env(), weights)
    plain.reset(seed=0)
    linear.reset(seed=0)
    while plain.agents:
        actions = {agent: plain.action_space(agent).sample() for agent in plain.agents}
        vectors = plain.step(actions)[1]
        scalars = linear.step(actions)[1]
        for i, agent in enumerate(AGENTS):
            np.testing.assert_allclose(scalars[agent], vectors[agent][i], rtol=1e-6)
    normal = vector_reward_env()
    for i in range(4):
        for agent in AGENTS:
            normal = NormalizeReward(normal, agent, i)
    normal.reset(seed=0)
    for _ in range(5):
        rewards = normal.step({a: normal.action_space(a).sample() for a in normal.agents})[1]
        assert all(np.isfinite(rewards[agent]).all() for agent in AGENTS)
    print("Stable-Baselines3 and MOMAland are content")


if __name__ == "__main__":
    main()
