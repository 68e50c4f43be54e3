"""Bargaining over mixtures of outcomes: Nash, Kalai-Smorodinsky, egalitarian, utilitarian.

Axes: K candidates, J agents, any batch in front; B is that batch made flat. `gains` [..., K, J] are
what each agent gains under each candidate over the disagreement point, higher is better, any sign.
A mixture [..., K] is not negative and sums to one. NumPy or torch; worked in float64, and in NumPy
but for tensors on an accelerator.

One interior-point method serves all. With u = gains' mixture - t d, what each agent has beyond a
floor t d, and multipliers s of the candidates and y of the agents, the solutions satisfy

    sum mixture = 1,    gains y + s = nu,    mixture s = 0,    u y = target.

Nash (1950) has t = 0 and target the powers: then y are the slopes of sum_j powers_j log u_j. The
others raise the floor t as far as it goes along a direction d: target 0 and d'y = 1. Newton steps
follow mixture s = mu, and u y = mu where the target is 0, with mu going to zero (target following:
Roos, Terlaky and Vial, Interior Point Methods for Linear Optimization, 2006). A step solves a
system of J + 1 unknowns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from marlin.errors import UserError

Array = Any

ITERATIONS = 60
TOLERANCE = 1e-9  # of the objective, and the least common gain, of an agent's best, that counts
CENTRING = 0.05  # mu aims at this part of the mean product
TO_BOUNDARY = 0.99  # of the longest step that keeps every factor positive
ENOUGH = 0.1  # of the largest common gain: a start as good as that is worth no more steps
ROOM = 0.05  # above the first floor, where agents would have nothing
RIDGE = 1e-15  # keeps rounding from making a system singular


@dataclass(frozen=True)
class Bargain:
    """What is agreed.

    The mixture is a constant to torch's gradients; `gains` are not. As the mixture is optimal, the
    slope of the welfare of `gains` is right all the same (envelope theorem).
    """

    mixture: Array  # [..., K]
    gains: Array  # [..., J] each agent's gain under the mixture
    agrees: Array  # [...] whether some mixture is a gain for every agent that has power


def nash(gains: Array, powers: Array, iterations: int = ITERATIONS) -> Bargain:
    """The mixture with the largest sum_j powers_j log(gain of j).

    Args:
        gains: [..., K, J], finite.
        powers: bargaining powers [J] or [..., J], not negative; only their shares matter, and
            agents without power do not count.
        iterations: most Newton steps of each of the two phases; a dozen are usual.

    Where no mixture is a gain for all, the result is the mixture with the largest least gain, each
    agent's measured by its best candidate (by its worst if none is a gain). Source: Nash (1950);
    with powers Kalai (1977), nonsymmetric Nash solutions.
    Raises UserError for shapes that do not fit, and for powers or gains out of range.
    """
    game = _game(gains, powers, iterations)
    xp = array_namespace(game.gains)
    target = xp.where(game.powers > 0.0, game.powers, 1.0)
    found, _ = _climb(game.gains, game.start, xp.zeros_like(target), target, iterations)
    return _settled(game, found)


def kalai_smorodinsky(gains: Array, powers: Array, iterations: int = ITERATIONS) -> Bargain:
    """The mixture with the largest t such that every agent gains t times its power and its ideal.

    An ideal is the most that an agent can gain while no agent with power loses. Arguments, errors
    and what happens without agreement are those of `nash`. Source: Kalai and Smorodinsky (1975).
    """
    game = _game(gains, powers, iterations)
    return _furthest(game, game.powers * _ideals(game, iterations), iterations)


def egalitarian(gains: Array, powers: Array, iterations: int = ITERATIONS) -> Bargain:
    """The mixture with the largest t such that every agent gains t times its power.

    Gains are compared between agents, in the units given. Arguments, errors and what happens
    without agreement are those of `nash`. Source: Kalai (1977), proportional solutions.
    """
    game = _game(gains, powers, iterations)
    return _furthest(game, game.powers / game.scale, iterations)


def utilitarian(gains: Array, powers: Array, iterations: int = ITERATIONS) -> Bargain:
    """The candidate with the largest power-weighted sum of gains; equals share.

    Gains are compared between agents, in the units given, and an agent may lose even where all
    could gain. Arguments and errors are those of `nash`.
    """
    game = _game(gains, powers, iterations)
    xp = array_namespace(game.gains)
    welfare = xp.sum(game.raw * game.powers[:, None, :], axis=-1)  # [B, K]
    best = xp.astype(welfare == xp.max(welfare, axis=-1, keepdims=True), game.raw.dtype)
    return _bargain(game, best / xp.sum(best, axis=-1, keepdims=True))


@dataclass(frozen=True)
class _Game:
    """Gains in units of each agent's best, and a mixture to start from.

    Agents without power, and all agents of rows without agreement, gain one whatever happens.
    """

    given: Array  # [..., K, J] as they came
    raw: Array  # [B, K, J]
    gains: Array  # [B, K, J]
    scale: Array  # [B, J]
    powers: Array  # [B, J] shares
    agrees: Array  # [B]
    common: Array  # [B, K] mixture that (nearly) has the largest least gain
    start: Array  # [B, K] mixture under which all gain


def _game(given: Array, powers: Array, iterations: int) -> _Game:
    raw, shares = _checked(given, powers)
    xp = array_namespace(raw)
    best, size = xp.max(raw, axis=1), xp.max(xp.abs(raw), axis=1)
    scale = xp.where(best > 0.0, best, xp.where(size > 0.0, size, 1.0))
    heard = shares > 0.0
    gains = xp.where(heard[:, None, :], raw / scale[:, None, :], 1.0)
    even = xp.ones_like(raw[..., 0]) / raw.shape[1]
    direction = xp.astype(heard, raw.dtype)
    common, _ = _climb(gains, even, direction, None, iterations, enough=True)
    agrees = xp.min(_times(xp.matrix_transpose(gains), common), axis=-1) > TOLERANCE
    row = agrees[:, None]
    gains = xp.where(row[..., None], gains, 1.0)
    start = xp.where(row, common, even)
    return _Game(given, raw, gains, scale, shares, agrees, common, start)


def _checked(given: Array, powers: Array) -> tuple[Array, Array]:
    """Gains [B, K, J] and shares of power [B, J] in float64, without gradients."""
    xp = array_namespace(given)
    if given.ndim < 2 or 0 in given.shape[-2:]:
        raise UserError(
            f"gains have shape {tuple(given.shape)}: give candidates by agents, [..., K, J]"
        )
    *batch, candidates, agents = given.shape
    powers = xp.asarray(powers, device=device(given))
    if powers.ndim < 1 or powers.shape[-1] != agents or powers.ndim > len(batch) + 1:
        raise UserError(
            f"powers have shape {tuple(powers.shape)}, gains {tuple(given.shape)}: give one power "
            "for each agent, [J] or [..., J]"
        )
    gains, powers = _at_hand(given), _at_hand(powers)
    xp = array_namespace(gains)
    gains = xp.reshape(xp.astype(gains, xp.float64), (-1, candidates, agents))
    powers = xp.broadcast_to(xp.astype(powers, xp.float64), (*batch, agents))
    powers = xp.reshape(powers, (-1, agents))
    total = xp.sum(powers, axis=-1, keepdims=True)
    # Written so that NaN fails.
    if not (bool(xp.all(powers >= 0.0)) and bool(xp.all((total > 0.0) & xp.isfinite(total)))):
        raise UserError("powers must be finite, none negative and one of them positive")
    if not bool(xp.all(xp.isfinite(gains))):
        raise UserError("gains hold NaN or infinity: leave out candidates without a finite outcome")
    return gains, powers / total


def _at_hand(array: Array) -> Array:
    """Without gradients, and in NumPy unless on an accelerator: torch's calls take longer."""
    array = array.detach() if hasattr(array, "detach") else array
    return np.asarray(array) if str(device(array)) == "cpu" else array


def _furthest(game: _Game, direction: Array, iterations: int) -> Bargain:
    xp = array_namespace(direction)
    direction = direction / xp.max(direction, axis=-1, keepdims=True)
    found, _ = _climb(game.gains, game.start, direction, None, iterations)
    return _settled(game, found)


def _ideals(game: _Game, iterations: int) -> Array:
    """The most that each agent can gain [B, J] while no other agent loses."""
    xp = array_namespace(game.gains)
    batch, candidates, agents = game.gains.shape
    alone = xp.eye(agents, dtype=game.gains.dtype, device=device(game.gains))
    direction = xp.broadcast_to(alone, (batch, agents, agents))
    shape = (batch, agents, candidates)
    start = xp.broadcast_to(game.start[:, None, :], shape)
    gains = xp.broadcast_to(game.gains[:, None, ...], (*shape, agents))
    _, ideal = _climb(
        xp.reshape(gains, (-1, candidates, agents)), xp.reshape(start, (-1, candidates)),
        xp.reshape(direction, (-1, agents)), None, iterations,
    )  # fmt: skip
    return xp.reshape(ideal, (batch, agents))


def _settled(game: _Game, mixture: Array) -> Bargain:
    xp = array_namespace(mixture)
    return _bargain(game, xp.where(game.agrees[:, None], mixture, game.common))


def _bargain(game: _Game, mixture: Array) -> Bargain:
    """The result in the library, dtype and place of the gains as they came."""
    given = game.given
    xp, place = array_namespace(given), device(given)
    mixture = xp.reshape(xp.asarray(mixture, dtype=given.dtype, device=place), given.shape[:-1])
    agrees = xp.reshape(xp.asarray(game.agrees, device=place), given.shape[:-2])
    return Bargain(mixture, xp.sum(mixture[..., None] * given, axis=-2), agrees)


def _climb(
    gains: Array, mixture: Array, direction: Array, target: Array | None, iterations: int,
    enough: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """Solve the conditions above: the mixture [B, K] and the floor t [B].

    Args:
        gains: [B, K, J].
        mixture: [B, K], positive; gains beyond 0 for agents whose direction is zero.
        direction: d [B, J], not negative; zero if there is a target.
        target: of u y, [B, J]; None to raise the floor instead.
        iterations: most steps.
        enough: whether a floor of a good part of the highest will do.

    A row that has arrived stays as it is, so that no row's result depends on the others.
    """
    xp = array_namespace(gains)
    batch, candidates, agents = gains.shape
    upright = xp.matrix_transpose(gains)
    slack, floor = _above_floor(_times(upright, mixture), direction, target)
    # Multipliers that put all products u y, and mixture s about, on one level.
    level = 1.0 / xp.sum(direction / slack, axis=-1, keepdims=True) if target is None else target
    price = level / slack
    worth = _times(gains, price)
    margin = xp.sum(level * xp.ones_like(slack), axis=-1, keepdims=True)
    spare = xp.max(worth, axis=-1, keepdims=True) + margin - worth
    products = candidates + (agents if target is None else 0)

    one = xp.eye(agents, dtype=gains.dtype, device=device(gains))
    # Rows and columns of the system: the prices, then the floor.
    system = xp.zeros((batch, agents + 1, agents + 1), dtype=gains.dtype, device=device(gains))
    system[:, :agents, agents] = -direction
    system[:, agents, :agents] = -direction
    system[:, agents, agents] = 0.0 if target is None else 1.0
    nothing = xp.zeros_like(floor[:, None])
    for _ in range(iterations):
        gap = xp.sum(mixture * spare, axis=-1)
        if target is None:
            gap = gap + xp.sum(slack * price, axis=-1)
            there = gap <= TOLERANCE
        else:
            off = xp.max(xp.abs(slack * price - target), axis=-1)
            there = (gap <= TOLERANCE) & (off <= TOLERANCE)
        if enough:
            there = there | ((floor > ENOUGH * (floor + gap)) & (floor > TOLERANCE))
        if bool(xp.all(there)):
            break
        mu = CENTRING * gap[:, None] / products
        weight = mixture / spare
        total = xp.sum(weight, axis=-1, keepdims=True)
        # Gains about their weighted mean: this takes nu out of the system.
        centred = gains - (_times(upright, weight) / total)[:, None, :]
        across = xp.matrix_transpose(centred)
        square = across @ (weight[..., None] * centred)
        ridge = RIDGE * xp.linalg.diagonal(square)
        system[:, :agents, :agents] = square + (slack / price + ridge)[..., None] * one
        pull = mu / spare - mixture
        short = (mu if target is None else target) - slack * price
        right = xp.concat([short / price - _times(across, pull), nothing], axis=-1)
        step = xp.linalg.solve(system, right[..., None])[..., 0]
        d_price, d_floor = step[:, :agents], step[:, agents]
        d_spare = xp.sum(pull, axis=-1, keepdims=True) / total - _times(centred, d_price)
        d_mixture = pull - weight * d_spare
        d_slack = (short - slack * d_price) / price
        shrink = [d_mixture / mixture, d_spare / spare, d_slack / slack, d_price / price]
        fastest = -xp.min(xp.concat(shrink, axis=-1), axis=-1)
        length = xp.where(fastest > TO_BOUNDARY, TO_BOUNDARY / fastest, 1.0)
        length = xp.where(there, 0.0, length)[:, None]
        mixture = mixture + length * d_mixture
        spare = spare + length * d_spare
        slack = slack + length * d_slack
        price = price + length * d_price
        floor = floor + length[:, 0] * d_floor
    return mixture / xp.sum(mixture, axis=-1, keepdims=True), floor


def _above_floor(reached: Array, direction: Array, target: Array | None) -> tuple[Array, Array]:
    """What agents have above a floor [B, J] that leaves room, and the floor [B]."""
    xp = array_namespace(reached)
    if target is not None:
        return reached, xp.zeros_like(reached[:, 0])
    bound = direction > 0.0
    least = xp.min(xp.where(bound, reached / xp.where(bound, direction, 1.0), xp.inf), axis=-1)
    floor = least - 0.5 * xp.max(xp.abs(reached), axis=-1) - ROOM
    return reached - floor[:, None] * direction, floor


def _times(matrix: Array, vector: Array) -> Array:
    """Matrix [..., M, N] times vector [..., N]."""
    return (matrix @ vector[..., None])[..., 0]
