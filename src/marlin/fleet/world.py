"""A fleet as constants of the fluid model, and a scenario's epochs as its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from marlin.config import FleetConfig, RunConfig, ServingConfig
from marlin.errors import UserError
from marlin.fleet.conditions import site_conditions
from marlin.fleet.contract import Inputs, State
from marlin.fleet.faults import with_faults
from marlin.fleet.terms import TINY, Terms, make_terms
from marlin.physics.power import node_idle_power_w
from marlin.serving.profiles import ServingProfile, select

if TYPE_CHECKING:
    import xarray as xr

Array = Any

HISTORY, TRAIN, VALIDATION, TEST = -1, 0, 1, 2  # what an epoch is for
STEP_TOKENS = 8192  # prompt tokens that a step takes, as in replay
SPILL_REACH_S = 0.05  # overflow prefers sites that cost users about this much more RTT, or less


@dataclass(frozen=True)
class Constants:
    """Arrays that do not change within a run. G node types, M models, S services, D sites.

    Where the fleets of a batch differ, every array has a leading axis B (`stack_worlds`).
    """

    nodes: Array  # [D, G]
    rtt_s: Array  # [O, D]
    site_pull: Array  # [D, D] how much a site's overflow prefers another, one for itself
    usual_share: Array  # [D, M] of a site's nodes that an even split of mean demand asks for
    node_rate_per_s: Array  # [G, M, S] requests per second that fill one node
    saturated_rate_per_s: Array  # [G, M, S] the same while requests queue: prompts share steps
    replicas_per_node: Array  # [G, M]
    gpus_per_replica: Array  # [G, M]
    work_s: Array  # [G, M, S] share of a replica's time that one request per second takes
    prefill_s: Array  # [G, M, S] mean over prompt lengths
    prefill_cv2: Array  # [G, M, S]
    decode_d0_s: Array  # [G, M]
    decode_slope_s: Array  # [G, M, S] d1 + d2 context
    slots: Array  # [G, M, S] sequences that fill a replica
    kv_bytes_read: Array  # [M, S] by one request's whole decode
    prompt_tokens: Array  # [S]
    output_tokens: Array  # [S]
    awaited_tokens: Array  # [S] of the output that a request waits for to count as begun
    arrival_cv2: Array  # [S]
    output_cv2: Array  # [S]
    weights_bytes: Array  # [M]
    flop_per_token: Array  # [M] 2 x active parameters
    boot_s: Array  # [G]
    load_s: Array  # [G, M] time that a running node takes to load a model
    gpus: Array  # [G]
    gpu_context_w: Array  # [G]
    gpu_w_per_tb_per_s: Array  # [G, M]
    gpu_w_per_tflop_per_s: Array  # [G, M]
    gpu_tdp_w: Array  # [G]
    base_idle_w: Array  # [G]
    base_full_w: Array  # [G]
    off_w: Array  # [G] a node that is not on

    @property
    def cold_s(self) -> Array:
        """Boot and load of the slowest model, [G] or [B, G]."""
        return self.boot_s + array_namespace(self.load_s).max(self.load_s, axis=-1)

    def to_torch(self, dtype: Any = None, device: str = "cpu") -> Constants:
        """The same constants as torch tensors."""
        import torch

        dtype = dtype or torch.float32
        return replace(
            self,
            **{
                f.name: torch.as_tensor(np.array(getattr(self, f.name)), dtype=dtype, device=device)
                for f in fields(self)
            },
        )


@dataclass(frozen=True)
class World:
    """A fleet, its models and users, and the rules of serving."""

    sites: tuple[str, ...]
    node_types: tuple[str, ...]
    models: tuple[str, ...]
    services: tuple[str, ...]
    origins: tuple[str, ...]
    constants: Constants
    epoch_s: float
    utilisation_ceiling: float
    patience_s: float
    own_sites: Array | None = None  # [B, D] zero where a site only fills up a batch of fleets

    @property
    def class_shape(self) -> tuple[int, int, int]:
        """Numbers of origins, models and services."""
        return len(self.origins), len(self.models), len(self.services)

    @property
    def epochs_per_day(self) -> int:
        """Number of epochs in 24 hours."""
        return round(86_400 / self.epoch_s)

    @cached_property
    def terms(self) -> Terms:
        """The constants as the fluid model takes them."""
        return make_terms(self.constants)

    def to_torch(self, dtype: Any = None, device: str = "cpu") -> World:
        """The same world with torch constants."""
        constants = self.constants.to_torch(dtype, device)
        own = self.own_sites
        if own is not None:
            own = constants.nodes.new_tensor(own)
        return replace(self, constants=constants, own_sites=own)

    def idle_state(self, batch: int) -> State:
        """No backlog, everything on: how every episode starts, in the library of the constants.

        Nodes hold models as an even split of the mean demand would need, so that a plan which is
        looked at by itself pays for what it moves, and not for a start that nobody would choose.
        """
        constants = self.constants
        xp = array_namespace(constants.nodes)
        nodes = xp.broadcast_to(constants.nodes, (batch, *constants.nodes.shape[-2:]))
        loaded = nodes[..., None] * constants.usual_share[..., None, :]
        backlog = xp.zeros_like(loaded[:, :, 0, :, None])
        shape = (*backlog.shape[:-1], len(self.services))
        return State(xp.broadcast_to(backlog, shape), nodes_on=nodes, loaded=loaded)


@dataclass(frozen=True)
class Epochs:
    """Every epoch of a scenario, NumPy, first axis T; `split` tells what each is for."""

    time: np.ndarray  # [T] datetime64
    split: np.ndarray  # [T] HISTORY, TRAIN, VALIDATION or TEST
    inputs: Inputs  # arrays [T, ...]
    last_seen: dict[str, np.ndarray] = field(default_factory=dict)  # [T, D] of missing signals


def build_world(scenario: xr.Dataset, run: RunConfig, profiles: list[ServingProfile]) -> World:
    """Constants of the fluid model from a scenario, the configuration and serving profiles."""
    fleet, serving = run.fleet, run.serving
    services = tuple(str(v) for v in scenario["service"].values)
    chosen = chosen_profiles(fleet, serving, profiles)
    return World(
        sites=tuple(str(v) for v in scenario["site"].values),
        node_types=tuple(fleet.node_types),
        models=tuple(m.name for m in serving.models),
        services=services,
        origins=tuple(str(v) for v in scenario["origin"].values),
        constants=_constants(scenario, fleet, serving, chosen),
        epoch_s=60.0 * run.scenario.epoch_minutes,
        utilisation_ceiling=serving.utilisation_ceiling,
        patience_s=serving.patience_s,
    )


def chosen_profiles(
    fleet: FleetConfig, serving: ServingConfig, profiles: list[ServingProfile]
) -> list[list[ServingProfile]]:
    """Profiles as [node type][model]; a layout that does not fit its node is the user's error."""
    table = []
    for type_name, node in fleet.node_types.items():
        row = []
        for model in serving.models:
            tp = model.tp.get(type_name, model.tp.get(node.gpu))
            if tp is None:
                raise UserError(
                    f"model {model.name} has no tensor parallelism for {node.gpu} "
                    f"(node type {type_name}): add it under serving.models in the configuration"
                )
            if tp > node.gpus:
                raise UserError(
                    f"model {model.name} needs {tp} GPUs but node type {type_name} has "
                    f"{node.gpus}: lower tp or choose a larger node"
                )
            row.append(select(profiles, model.name, node.gpu, tp, serving.backend))
        table.append(row)
    return table


def _constants(
    scenario: xr.Dataset,
    fleet: FleetConfig,
    serving: ServingConfig,
    chosen: list[list[ServingProfile]],
) -> Constants:
    """See `Constants`: sites and users, serving by node type and model, power by node type."""
    rtt_s, nodes = _variable(scenario, "rtt_s"), _variable(scenario, "nodes")
    served = _serving_constants(scenario, fleet, serving, chosen)
    return Constants(
        nodes=nodes,
        rtt_s=rtt_s,
        site_pull=np.exp(-site_detour_s(rtt_s) / SPILL_REACH_S),
        prompt_tokens=_variable(scenario, "prompt_tokens_mean"),
        output_tokens=_variable(scenario, "output_tokens_mean"),
        awaited_tokens=_variable(scenario, "output_tokens_mean")
        * (serving.first_token == "all_tokens"),
        arrival_cv2=_variable(scenario, "arrival_cv2"),
        output_cv2=_variable(scenario, "output_tokens_cv2"),
        usual_share=usual_share(_usual_mix(scenario), nodes, served["node_rate_per_s"]),
        **served,
        **_power_constants(fleet, serving, chosen),
    )


def _variable(scenario: xr.Dataset, name: str) -> np.ndarray:
    return scenario[name].to_numpy().astype(float)


def _usual_mix(scenario: xr.Dataset) -> np.ndarray:
    """Mean demand of the training epochs, [M, S]."""
    train = scenario["split"].to_numpy() == TRAIN
    return _variable(scenario, "arrival_rate_per_s")[train].mean(axis=0).sum(axis=0)


def usual_share(demand: np.ndarray, nodes: np.ndarray, node_rate_per_s: np.ndarray) -> np.ndarray:
    """See `Constants.usual_share`, [D, M], for a usual demand [M, S]."""
    capacity = np.einsum("dg,gms->dms", nodes, node_rate_per_s).clip(min=TINY)
    load = (demand / capacity).sum(axis=-1)
    return load / load.sum(axis=-1, keepdims=True)


def _column(chosen: list[list[ServingProfile]], name: str) -> np.ndarray:
    """A field of the profiles as [G, M]."""
    return np.array([[getattr(p, name) for p in row] for row in chosen], dtype=float)


def _serving_constants(
    scenario: xr.Dataset,
    fleet: FleetConfig,
    serving: ServingConfig,
    chosen: list[list[ServingProfile]],
) -> dict[str, np.ndarray]:
    """What a request takes of a replica. It is linear in rates, so it is computed once here."""
    output = _variable(scenario, "output_tokens_mean")
    # Mean context while decoding: each token of the output weighs alike, long outputs weigh more.
    longer = 1.0 + _variable(scenario, "output_tokens_cv2")
    context = _variable(scenario, "prompt_tokens_mean") + 0.5 * output * longer
    lengths = _variable(scenario, "prompt_tokens_quantile")  # [S, Q] evenly spaced probabilities
    lengths = _stretches(lengths, _variable(scenario, "prompt_tokens_mean"))
    p0, p1, p2 = (
        _column(chosen, f"prefill_{k}")[:, :, None, None]
        for k in ("p0_s", "p1_s_per_token", "p2_s_per_token2")
    )
    prefill = p0 + p1 * lengths + p2 * lengths**2  # [G, M, S, Q]
    prefill_s = prefill.mean(axis=-1)
    d0 = _column(chosen, "decode_d0_s")
    d1, d2 = _column(chosen, "decode_d1_s_per_seq"), _column(chosen, "decode_d2_s_per_kv_token")
    slope = d1[:, :, None] + d2[:, :, None] * context
    held = _column(chosen, "kv_capacity_tokens")[:, :, None] / context
    slots = np.minimum(held, float(serving.max_batch))
    # Rate l fills a replica when prefill, decode and slots are used up: the batch at full load is
    # l O tpot = slots with tpot = d0 / (1 - loads), hence loads + l O d0 / slots = 1.
    work_s = prefill_s + output * (slope + d0[:, :, None] / slots)
    # While requests queue, a step takes the prompts for which the last iteration made room.
    freed = slots / output
    prompts = np.minimum(
        freed / -np.expm1(-freed), STEP_TOKENS / _variable(scenario, "prompt_tokens_mean")
    )
    shared_s = p0[..., 0] * (1.0 - 1.0 / prompts.clip(min=1.0))
    tp = _column(chosen, "tp")
    gpus = np.array([n.gpus for n in fleet.node_types.values()], dtype=float)
    replicas = np.floor(gpus[:, None] / tp)
    return {
        "node_rate_per_s": replicas[:, :, None] / work_s,
        "saturated_rate_per_s": replicas[:, :, None] / (work_s - shared_s),
        "replicas_per_node": replicas,
        "gpus_per_replica": tp,
        "work_s": work_s,
        "prefill_s": prefill_s,
        "prefill_cv2": prefill.var(axis=-1) / prefill_s**2,
        "decode_d0_s": d0,
        "decode_slope_s": slope,
        "slots": slots,
        "kv_bytes_read": _column(chosen, "kv_bytes_per_token")[0][:, None] * (output * context),
        "weights_bytes": _column(chosen, "weights_bytes")[0],
        "flop_per_token": 2.0 * _column(chosen, "parameters")[0],
    }


def _stretches(quantiles: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Mean lengths [S, Q - 1] of the stretches between quantiles [S, Q].

    Midpoints, but for the longest, which are few and far: they are what the mean leaves for them.
    """
    middle = 0.5 * (quantiles[:, 1:] + quantiles[:, :-1])
    rest = mean * middle.shape[1] - middle[:, :-1].sum(axis=1)
    middle[:, -1] = np.clip(rest, quantiles[:, -2], quantiles[:, -1])
    return middle


def _power_constants(
    fleet: FleetConfig, serving: ServingConfig, chosen: list[list[ServingProfile]]
) -> dict[str, np.ndarray]:
    """What nodes draw, [G]; what work adds, [G, M]."""
    nodes = list(fleet.node_types.values())
    gpu_w = {name: _column(chosen, name)[:, 0] for name in ("gpu_context_w", "gpu_tdp_w")}
    gpu_w |= {
        name: _column(chosen, name) for name in ("gpu_w_per_tb_per_s", "gpu_w_per_tflop_per_s")
    }
    off_w = [
        node_idle_power_w(serving.off_state, n.gpus, row[0].gpu_deep_idle_w, n.base_idle_w)
        for n, row in zip(nodes, chosen, strict=True)
    ]
    return gpu_w | {
        "boot_s": np.array([float(n.boot_s) for n in nodes]),
        "load_s": _column(chosen, "load_s"),
        "gpus": np.array([float(n.gpus) for n in nodes]),
        "base_idle_w": np.array([n.base_idle_w for n in nodes]),
        "base_full_w": np.array([n.base_full_w for n in nodes]),
        "off_w": np.array(off_w, dtype=float),
    }


def site_detour_s(rtt_s: np.ndarray) -> np.ndarray:
    """RTT that users of one site gain by being served at another, [D, D], from RTTs [O, D].

    The mean over origins, near ones first: an origin counts for a site by how close it is.
    """
    closeness = np.exp(-rtt_s / SPILL_REACH_S)
    weight = closeness / closeness.sum(axis=0)
    gained = rtt_s[:, None, :] - rtt_s[:, :, None]  # [O, from, to]
    return np.clip((weight[:, :, None] * gained).sum(axis=0), 0.0, None)


def build_epochs(scenario: xr.Dataset, run: RunConfig, world: World) -> Epochs:
    """Inputs of every epoch, with demand scaled to the chosen peak utilisation of the fleet.

    The scale is set on the training epochs alone, without touching request sizes: the busiest
    one fills `workload.peak_utilisation` of what all nodes together can serve.
    """
    conditions = site_conditions(scenario, run.physics)
    arrivals = scenario["arrival_rate_per_s"].to_numpy().astype(float)
    split = scenario["split"].to_numpy().astype(int)
    load = fleet_utilisation(world, arrivals[split == TRAIN])
    scale = run.workload.peak_utilisation / load.max()
    available = np.ones((len(arrivals), *world.constants.nodes.shape))
    epochs = Epochs(
        time=scenario["time"].to_numpy(),
        split=split,
        inputs=Inputs(arrival_rate_per_s=arrivals * scale, available=available, **conditions),
    )
    return with_faults(epochs, run.faults, world, TEST)


def fleet_utilisation(world: World, arrival_rate_per_s: np.ndarray) -> np.ndarray:
    """Share of the whole fleet that demand [T, O, M, S] fills when every node is on, [T]."""
    constants = world.constants
    capacity = np.einsum("dg,gms->ms", constants.nodes, constants.node_rate_per_s)
    return (arrival_rate_per_s.sum(axis=1) / capacity).sum(axis=(1, 2))
