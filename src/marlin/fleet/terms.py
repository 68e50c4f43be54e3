"""Constants of the fluid model as its equations take them: worlds last, sums as matrices.

The fluid model keeps the batch on the last axis, so that every inner loop runs over sites and
worlds however few models, services or node types there are. Sums with constant weights are matrix
products, and what does not change from epoch to epoch is worked out here, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from array_api_compat import array_namespace

if TYPE_CHECKING:
    from marlin.fleet.world import Constants

Array = Any

TINY = 1e-12

AXES = {
    "nodes": "DG",
    "rtt_s": "OD",
    "site_pull": "DE",
    "usual_share": "DM",
    "node_rate_per_s": "GMS",
    "saturated_rate_per_s": "GMS",
    "replicas_per_node": "GM",
    "gpus_per_replica": "GM",
    "work_s": "GMS",
    "prefill_s": "GMS",
    "prefill_cv2": "GMS",
    "decode_d0_s": "GM",
    "decode_slope_s": "GMS",
    "slots": "GMS",
    "kv_bytes_read": "MS",
    "prompt_tokens": "S",
    "output_tokens": "S",
    "awaited_tokens": "S",
    "arrival_cv2": "S",
    "output_cv2": "S",
    "weights_bytes": "M",
    "flop_per_token": "M",
    "boot_s": "G",
    "load_s": "GM",
    "gpus": "G",
    "gpu_context_w": "G",
    "gpu_w_per_tb_per_s": "GM",
    "gpu_w_per_tflop_per_s": "GM",
    "gpu_tdp_w": "G",
    "base_idle_w": "G",
    "base_full_w": "G",
    "off_w": "G",
}
"""Axes of each field of `Constants`; a leading B more if the fleets of a batch differ. E is a site
again, as a destination."""

PER_NODE_TYPE = tuple(name for name, axes in AXES.items() if axes == "G")

LOADS = (
    "prefill_load", "decode_load", "tokens",
    "prefill_tb", "prefill_tflop", "decode_tb", "decode_tflop",
    "prefill_cv2", "output_cv2", "slots",
)  # fmt: skip
"""Rows of `Terms.pool_loads`; the last three become means over services when divided by the
requests."""


@dataclass(frozen=True)
class Terms:
    """Last axis b: 1, or B where fleets differ. Weights of `weighted_sums` have it only then."""

    nodes: Array  # [G, D, b]
    fleet_nodes: Array  # [b]
    rtt_s: Array  # [O, D, b]
    rtt_to_s: Array  # weights [E, O]
    pull: Array  # [D, E] or [B, D, E], see `Constants.site_pull`
    pull_to: Array  # the same from the side of the destination, [E, D] or [B, E, D]
    pull_pairs: Array  # the same again, [E, D, b]
    arrival_cv2: Array  # [S, 1, b]
    decode_d0_s: Array  # [M, G, 1, b]
    replicas_per_node: Array  # [M, G, 1, b]
    load_s: Array  # [M, G, 1, b]
    cold_s: Array  # [G, 1, b]
    iteration_tb: Array  # [M, G, 1, b] weights that a GPU reads in one decode iteration
    w_per_tb_per_s: Array  # [M, G, 1, b]
    w_per_tflop_per_s: Array  # [M, G, 1, b]
    node_type: dict[str, Array]  # each of `PER_NODE_TYPE` as [G, 1, b]
    capacity: Array  # weights [M S, G]: nodes -> requests per second
    saturated: Array  # weights [M, S, G]: nodes that hold a model -> the same while requests queue
    requests: Array  # weights [M, G, S]: mix of services -> requests per second, full replica
    loads: Array  # weights [M, LOADS G, S]: mix of services -> what a full replica does
    latency: Array  # weights [M, 3 G, S]: load -> requests of a node, their prefill time, tokens
    switched: Array  # weights [R, G]: row r picks the node type that is switched on r-th
    switched_back: Array  # weights [G, R], its inverse
    switched_work: Array  # weights [R, M S]: requests per second -> nodes, in that order


def make_terms(constants: Constants) -> Terms:
    """Terms of one fleet, or of a batch of fleets whose constants carry a leading axis."""
    xp = array_namespace(constants.nodes)
    shared = constants.nodes.ndim == len(AXES["nodes"])

    def field(name: str, order: str) -> Array:
        """A field with its axes in `order`, 1 for those it has not, and worlds last."""
        value, have = getattr(constants, name), AXES[name]
        value = value[None] if shared else value
        present = [a for a in order if a in have]
        value = xp.permute_dims(value, (*(1 + have.index(a) for a in present), 0))
        sizes = dict(zip(present, value.shape, strict=False))
        return xp.reshape(value, (*(sizes.get(a, 1) for a in order), -1))

    def weights(*values: Array) -> Array:
        """Arrays [M, G, S, b] as weights [M, values x G, S]."""
        whole = xp.zeros_like(work)
        stacked = xp.concat([value + whole for value in values], axis=1)
        return stacked[..., 0] if shared else stacked

    work = field("work_s", "MGS")
    rate = field("node_rate_per_s", "MGS")
    output = field("output_tokens", "MGS")
    tera = 1e-12 / field("gpus_per_replica", "MGS")
    tokens = output / work
    flop = field("flop_per_token", "MGS")
    loads = {
        "prefill_load": field("prefill_s", "MGS") / work,
        "decode_load": field("decode_slope_s", "MGS") * tokens,
        "tokens": tokens,
        "prefill_tb": field("weights_bytes", "MGS") / work * tera,
        "prefill_tflop": flop * field("prompt_tokens", "MGS") / work * tera,
        "decode_tb": field("kv_bytes_read", "MGS") / work * tera,
        "decode_tflop": flop * tokens * tera,
        "prefill_cv2": field("prefill_cv2", "MGS") / work,
        "output_cv2": field("output_cv2", "MGS") / work,
        "slots": field("slots", "MGS") / work,
    }
    nodes = field("nodes", "GD")
    by_type = field("node_rate_per_s", "GMS")
    by_type = xp.reshape(by_type, (by_type.shape[0], -1, by_type.shape[-1]))  # [G, M S, b]
    switched = _switch_on_order(constants)
    ordered = xp.sum(switched[:, :, None] * by_type, axis=1)
    capacity = xp.permute_dims(by_type, (1, 0, 2))
    return Terms(
        nodes=nodes,
        fleet_nodes=xp.sum(nodes, axis=(0, 1)),
        rtt_s=field("rtt_s", "OD"),
        rtt_to_s=field("rtt_s", "DO")[..., 0 if shared else slice(None)],
        pull=constants.site_pull,
        pull_to=contiguous(xp.matrix_transpose(constants.site_pull)),
        pull_pairs=field("site_pull", "ED"),
        arrival_cv2=field("arrival_cv2", "SD"),
        decode_d0_s=field("decode_d0_s", "MGD"),
        replicas_per_node=field("replicas_per_node", "MGD"),
        load_s=field("load_s", "MGD"),
        cold_s=field("boot_s", "GD") + xp.max(field("load_s", "MGD"), axis=0),
        iteration_tb=field("weights_bytes", "MGD") * 1e-12 / field("gpus_per_replica", "MGD"),
        w_per_tb_per_s=field("gpu_w_per_tb_per_s", "MGD"),
        w_per_tflop_per_s=field("gpu_w_per_tflop_per_s", "MGD"),
        node_type={name: field(name, "GD") for name in PER_NODE_TYPE},
        capacity=contiguous(capacity[..., 0] if shared else capacity),
        saturated=field("saturated_rate_per_s", "MSG")[..., 0 if shared else slice(None)],
        requests=weights(1.0 / work),
        loads=weights(*(loads[name] for name in LOADS)),
        latency=weights(
            rate, rate * field("prefill_s", "MGS"), rate * field("awaited_tokens", "MGS")
        ),
        switched=switched[..., 0] if shared else switched,
        switched_back=xp.permute_dims(switched, (1, 0, 2))[..., 0 if shared else slice(None)],
        switched_work=(1.0 / ordered.clip(min=TINY))[..., 0 if shared else slice(None)],
    )


def _switch_on_order(constants: Constants) -> Array:
    """Node types by requests served per watt of a warm node, best first: ones in [R, G, b]."""
    xp = array_namespace(constants.nodes)
    warm_w = constants.base_full_w + constants.gpus * constants.gpu_tdp_w
    per_watt = xp.mean(constants.node_rate_per_s, axis=(-2, -1)) / warm_w  # [G] or [B, G]
    order = xp.argsort(per_watt, axis=-1, descending=True)
    types = xp.argsort(order, axis=-1)  # rank of each type
    ranks = xp.astype(types[..., None, :] == xp.sort(types, axis=-1)[..., :, None], warm_w.dtype)
    return xp.moveaxis(xp.reshape(ranks, (-1, *ranks.shape[-2:])), 0, -1)


def contiguous(value: Array) -> Array:
    """The same values in the memory order of their axes."""
    if hasattr(value, "contiguous"):  # torch
        return value.contiguous()
    return array_namespace(value).asarray(value, order="C")


def worlds_last(value: Array) -> Array:
    """`[B, ...]` as `[..., B]`, in that memory order; the same for two axes or more."""
    xp = array_namespace(value)
    return contiguous(xp.moveaxis(value, 0, -1))


def weighted_sums(weights: Array, values: Array) -> Array:
    """``out[..., i, d, b] = sum_j weights[..., i, j(, b)] values[..., j, d, b]``.

    Shapes: weights [..., I, J], or [..., I, J, B] where worlds differ; values [..., J, D, B].
    """
    xp = array_namespace(values)
    *_, sites, batch = values.shape
    if weights.ndim == values.ndim:
        return xp.sum(weights[..., None, :] * values[..., None, :, :, :], axis=-3)
    flat = xp.reshape(values, (*values.shape[:-2], sites * batch))
    out = weights @ flat
    return xp.reshape(out, (*out.shape[:-1], sites, batch))


def between_sites(matrix: Array, values: Array) -> Array:
    """``out[..., e, b] = sum_d matrix[(b,) e, d] values[..., d, b]``."""
    if matrix.ndim == 2:
        return matrix @ values
    xp = array_namespace(values)
    rows = xp.moveaxis(xp.reshape(values, (-1, *values.shape[-2:])), -1, 0)  # [B, ..., D]
    out = xp.moveaxis(rows @ xp.matrix_transpose(matrix), 0, -1)
    return xp.reshape(out, (*values.shape[:-2], *out.shape[-2:]))
