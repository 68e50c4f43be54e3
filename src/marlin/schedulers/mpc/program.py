"""The linear program of a horizon: who is served where, and which nodes are on, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array

from marlin.schedulers.transport import SLACK_COST


@dataclass(frozen=True)
class Program:
    """Coefficients. H epochs, O origins, D sites, G node types, I pieces of the delay.

    Load is in units of a whole site; costs are in units of the objective and may be negative.
    """

    load: np.ndarray  # [H, O, D] of all of an origin at a site
    nodes: np.ndarray  # [H, D, G] that can run
    nodes_on: np.ndarray  # [D, G] before the first epoch
    node_load: np.ndarray  # [D, G] load that fills a node
    ceiling: float  # highest utilisation of nodes that serve
    warm_ceiling: float  # utilisation of warm nodes above which load waits for boots
    spill_ceiling: float  # utilisation above which the dispatcher moves load to other sites
    late: np.ndarray  # [G] share of an epoch that a node takes to boot
    backlog: np.ndarray  # [D] load that waits before the first epoch
    share_cost: np.ndarray  # [H, O, D] of all of an origin at a site: round trips
    work_cost: np.ndarray  # [H, D, G] of a load of one: energy that grows with work
    ready_cost: np.ndarray  # [H, D, G] of a node that serves: energy that does not
    boot_cost: np.ndarray  # [H, D, G] of a node that boots
    off_cost: np.ndarray  # [H, D, G] of a node that is off
    delay_cost: np.ndarray  # [H, D] of a second for a load of one
    delay_slope: np.ndarray  # [I, D, G] seconds times load that a piece adds per load
    delay_offset: np.ndarray  # [I, D, G] the same per node that serves, zero or less
    cold_s: float  # mean wait of load that warm nodes cannot take


@dataclass(frozen=True)
class Course:
    """The best course of nodes and shares, and what it costs."""

    shares: np.ndarray  # [H, O, D]
    nodes_on: np.ndarray  # [H, D, G]
    cost: float  # of all epochs


@dataclass(frozen=True)
class _Variables:
    """Columns of the program."""

    share: np.ndarray  # [H, O, D]
    work: np.ndarray  # [H, D, G] load that a pool takes
    on: np.ndarray  # [H, D, G]
    warm: np.ndarray  # [H, D, G] on, and on in the epoch before
    delay: np.ndarray  # [H, D, G] seconds times load
    over: np.ndarray  # [H, D, G] load beyond the ceiling
    cold: np.ndarray  # [H, D] load that warm nodes cannot take

    @classmethod
    def of(cls, epochs: int, origins: int, sites: int, types: int) -> _Variables:
        """Numbered in the order of the fields."""
        pools = (epochs, sites, types)
        shapes = [(epochs, origins, sites), *[pools] * 5, (epochs, sites)]
        ends = np.cumsum([np.prod(shape) for shape in shapes])
        parts = np.split(np.arange(ends[-1]), ends[:-1])
        return cls(*(p.reshape(shape) for p, shape in zip(parts, shapes, strict=True)))


class _Rows:
    """Constraint rows, collected as coordinates."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._limits: list[np.ndarray] = []
        self._count = 0

    def add(self, limit: np.ndarray, *terms: tuple[np.ndarray, np.ndarray | float]) -> None:
        """A row for each entry of `limit` [...]: sums over the last axis of columns [..., n].

        Where a term has one column a row, columns are [...] and coefficients still [..., 1].
        """
        rows = self._count + np.arange(limit.size)
        for columns, coefficient in terms:
            columns = columns if columns.ndim > limit.ndim else columns[..., None]
            values = np.broadcast_to(coefficient, columns.shape)
            every = np.repeat(rows, columns.shape[-1])
            self._parts.append((every, columns.ravel(), values.ravel()))
        self._limits.append(limit.ravel())
        self._count += limit.size

    def matrix(self, width: int) -> tuple[csr_array, np.ndarray]:
        """The rows and their limits."""
        rows, columns, values = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        whole = coo_array((values, (rows, columns)), shape=(self._count, width))
        return csr_array(whole), np.concatenate(self._limits)


def solve(program: Program) -> Course:
    """The optimum, by HiGHS.

    Load beyond the ceiling has a price that no saving outweighs, so that a solution always exists.
    Delay is the largest of linear pieces in load and nodes: the perspective of a convex function
    of utilisation, and so convex in both. Raises RuntimeError if HiGHS finds no optimum.
    """
    epochs, origins, sites = program.load.shape
    variables = _Variables.of(epochs, origins, sites, len(program.late))
    width = int(variables.cold[-1, -1]) + 1
    equal, equal_limit = _balance(program, variables).matrix(width)
    upper, upper_limit = _limits(program, variables).matrix(width)
    most = _most(program, variables, width)
    result = linprog(
        _cost(program, variables, width),
        A_ub=upper,
        b_ub=upper_limit,
        A_eq=equal,
        b_eq=equal_limit,
        bounds=np.stack([np.zeros(width), most], axis=1),
        method="highs",
    )
    if not result.success:
        raise RuntimeError(f"the program of {epochs} epochs was not solved: {result.message}")
    shares = np.clip(result.x[variables.share], 0.0, None)
    all_off = float((program.off_cost * program.nodes).sum())
    return Course(
        shares=shares / shares.sum(axis=-1, keepdims=True),
        nodes_on=result.x[variables.on],
        cost=float(result.fun) + all_off,
    )


def _cost(program: Program, variables: _Variables, width: int) -> np.ndarray:
    """Cost of every variable; a node that is on is not off, and a new one boots for a while."""
    cost = np.zeros(width)
    started = program.late * (program.ready_cost - program.boot_cost)
    cost[variables.share] = program.share_cost
    cost[variables.work] = program.work_cost
    cost[variables.on] = program.ready_cost - started - program.off_cost
    cost[variables.warm] = started
    cost[variables.delay] = program.delay_cost[..., None]
    cost[variables.over] = SLACK_COST
    cost[variables.cold] = program.cold_s * program.delay_cost
    return cost


def _most(program: Program, variables: _Variables, width: int) -> np.ndarray:
    """Largest value of every variable; nothing goes to a site without nodes unless none has any."""
    most = np.full(width, np.inf)
    able = program.nodes.sum(axis=-1) > 0.0  # [H, D]
    able |= ~able.any(axis=1, keepdims=True)
    most[variables.share] = able[:, None, :]
    most[variables.on] = program.nodes
    most[variables.warm] = program.nodes
    most[variables.warm[0]] = np.minimum(program.nodes[0], program.nodes_on)
    return most


def _balance(program: Program, variables: _Variables) -> _Rows:
    """Shares of an origin sum to one; pools take what their site is sent and what waits there."""
    rows = _Rows()
    rows.add(np.ones(variables.share.shape[:2]), (variables.share, 1.0))
    sent = variables.share.transpose(0, 2, 1), program.load.transpose(0, 2, 1)
    rows.add(-_waiting(program), sent, (variables.work, -1.0))
    return rows


def _limits(program: Program, variables: _Variables) -> _Rows:
    """Room on nodes that serve, warm nodes, load that waits for boots, and pieces of the delay."""
    rows, pools = _Rows(), np.zeros(program.nodes.shape)

    def per_ready(value: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Terms of `value` [D, G] for each node that serves: all warm ones, new ones from boot."""
        value = value[..., None]
        late = program.late[:, None]
        return [(variables.on, (1.0 - late) * value), (variables.warm, late * value)]

    room = per_ready(-program.ceiling * program.node_load)
    rows.add(pools, (variables.work, 1.0), *room, (variables.over, -1.0))
    rows.add(pools, (variables.warm, 1.0), (variables.on, -1.0))
    rows.add(pools[1:], (variables.warm[1:], 1.0), (variables.on[:-1], -1.0))
    warm, cold = (variables.warm, -program.warm_ceiling * program.node_load), (variables.cold, -1.0)
    rows.add(_waiting(program), (variables.work, 1.0), warm, cold)
    # The dispatcher fills nodes that serve up to its ceiling if other sites are fuller than that.
    spill = program.spill_ceiling * program.node_load
    on, kept = (1.0 - program.late) * spill, program.late * spill
    rows.add(np.zeros(variables.cold.shape), (variables.on, on), (variables.warm, kept), warm, cold)
    for slope, offset in zip(program.delay_slope, program.delay_offset, strict=True):
        work = variables.work, slope[..., None]
        rows.add(pools, work, *per_ready(offset), (variables.delay, -1.0))
    return rows


def _waiting(program: Program) -> np.ndarray:
    """Load that waits when each epoch starts, [H, D]: what the first finds, then none."""
    waiting = np.zeros(program.delay_cost.shape)
    waiting[0] = program.backlog
    return waiting
