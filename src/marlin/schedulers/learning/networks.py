"""Small networks, the Gaussian that acts, and how parameters are stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

WIDTH = 64  # of the hidden layers


class Mlps(nn.Module):
    """`count` networks of one shape side by side, each with parameters of its own.

    `hidden` layers of `width`; `last` scales the initial weights of the output layer.
    """

    def __init__(
        self, count: int, inputs: int, outputs: int, generator: torch.Generator,
        bend: Callable[[Tensor], Tensor] = torch.relu, last: float = 1.0,
        width: int = WIDTH, hidden: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.count, self.bend = count, bend
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise((inputs, *[width] * hidden, outputs)):
            bound = 1.0 / math.sqrt(fan_in)
            drawn = torch.rand((count, fan_in, fan_out), generator=generator)
            self.weights.append(nn.Parameter((2.0 * drawn - 1.0) * bound))
            self.biases.append(nn.Parameter(torch.zeros(count, 1, fan_out)))
        with torch.no_grad():
            self.weights[-1].mul_(last)

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs [count, R, outputs] for rows [R, inputs], or [count, R, inputs] of their own."""
        hidden = rows.expand(self.count, *rows.shape[-2:])
        *inner, final = zip(self.weights, self.biases, strict=True)
        for weight, bias in inner:
            hidden = self.bend(torch.baddbmm(bias, hidden, weight))
        return torch.baddbmm(final[1], hidden, final[0])


def tensor(values: np.ndarray) -> Tensor:
    """What the networks take: single precision."""
    return torch.as_tensor(values, dtype=torch.float32)


def joined(seen: np.ndarray, weights: np.ndarray) -> Tensor:
    """States [B, F] and scheme weights [B, N] as rows of a network, [B, F + N]."""
    return tensor(np.concatenate([seen, weights], axis=-1))


def log_density(latent: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian, summed over the last axis."""
    z = (latent - mean) / log_std.exp()
    return (-0.5 * z**2 - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1)


def log_squash(latent: Tensor) -> Tensor:
    """Log of the slope of tanh, summed over the last axis, written so that it cannot overflow."""
    return (2.0 * (math.log(2.0) - latent - nn.functional.softplus(-2.0 * latent))).sum(-1)


def descend(step: torch.optim.Optimizer, loss: Tensor, limit: float) -> None:
    """One step down the slope of `loss`, the norm of which is cut at `limit`."""
    step.zero_grad()
    loss.backward()
    for group in step.param_groups:
        nn.utils.clip_grad_norm_(group["params"], limit)
    step.step()


def set_rate(steps: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Learn at `rate` from here on."""
    for step in steps:
        for group in step.param_groups:
            group["lr"] = rate


def follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """Move parameters of `slow` towards those of `fast` by a share `rate` of the way."""
    with torch.no_grad():
        for mine, goal in zip(slow.parameters(), fast.parameters(), strict=True):
            mine.lerp_(goal, rate)


def pack(parts: dict[str, nn.Module]) -> dict[str, np.ndarray]:
    """Parameters of modules as arrays, by module and name."""
    return {
        f"{part}.{name}": value.detach().numpy().copy()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


def unpack(parts: dict[str, nn.Module], named: dict[str, np.ndarray]) -> None:
    """Load what `pack` gave."""
    for part, module in parts.items():
        own = {k.removeprefix(f"{part}."): v for k, v in named.items() if k.startswith(f"{part}.")}
        module.load_state_dict({name: torch.as_tensor(value) for name, value in own.items()})


def seeded(seed: int) -> torch.Generator:
    """Generator of a learner; one thread, so that sums are always taken in the same order."""
    torch.set_num_threads(1)
    return torch.Generator().manual_seed(seed)


def mixed(heads: Tensor, weights: Tensor) -> Tensor:
    """Outputs [R, A] of one head an objective [R, N x A], mixed by scheme weights [R, N].

    A scheme of one objective has a head of its own, so that schemes with large rewards do not
    drag the others along.
    """
    rows, count = weights.shape
    return (heads.reshape(rows, count, -1) * weights[..., None]).sum(1)
