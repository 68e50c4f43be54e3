"""Environments: four agents that negotiate, the same with vector rewards, one controller.

`core` holds the batch of worlds that all of them and training rest on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from marlin.compose import compose
from marlin.envs.core import AGENTS, Core, make_core
from marlin.task import load_run

if TYPE_CHECKING:
    from marlin.envs.parallel import FleetParallelEnv, FleetVectorRewardEnv
    from marlin.envs.single import FleetEnv

__all__ = ["AGENTS", "Core", "batched_core", "parallel_env", "single_env", "vector_reward_env"]


def batched_core(
    scenario: str = "fortnight", overrides: Sequence[str] = (), split: str = "train"
) -> Core:
    """Batched core of a configuration: `overrides` are Hydra's, split train, validation or test.

    Raises UserError for an unknown setting or split.
    """
    return make_core(load_run(compose([f"scenario={scenario}", *overrides])), split)


def parallel_env(
    scenario: str = "fortnight", overrides: Sequence[str] = (), split: str = "train", **options: Any
) -> FleetParallelEnv:
    """PettingZoo environment; for arguments see `batched_core`, for options `FleetParallelEnv`."""
    from marlin.envs.parallel import FleetParallelEnv

    return FleetParallelEnv(batched_core(scenario, overrides, split), **options)


def vector_reward_env(
    scenario: str = "fortnight", overrides: Sequence[str] = (), split: str = "train", **options: Any
) -> FleetVectorRewardEnv:
    """The same with the rewards of all four objectives for every agent, as MOMAland has it."""
    from marlin.envs.parallel import FleetVectorRewardEnv

    return FleetVectorRewardEnv(batched_core(scenario, overrides, split), **options)


def single_env(
    scenario: str = "fortnight", overrides: Sequence[str] = (), split: str = "train", **options: Any
) -> FleetEnv:
    """Gymnasium environment of one controller; for options see `FleetEnv`."""
    from marlin.envs.single import FleetEnv

    return FleetEnv(batched_core(scenario, overrides, split), **options)
