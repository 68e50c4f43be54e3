"""Fleets of different size in one batch: smaller ones are filled up with sites, node types,
models, services and origins that have no nodes and no demand, and so no flow, energy or cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TypeVar

import numpy as np

from marlin.errors import UserError
from marlin.fleet.contract import Inputs, Plan, State
from marlin.fleet.terms import AXES
from marlin.fleet.world import Constants, World

Rows = TypeVar("Rows", Inputs, Plan, State)

LABELS = {"D": "sites", "G": "node_types", "M": "models", "S": "services", "O": "origins"}
ROW_AXES = {
    "arrival_rate_per_s": "OMS",
    "routing": "OMSD",
    "power": "DG",
    "backlog": "DMS",
    "nodes_on": "DG",
    "loaded": "DGM",
    "available": "DG",
}  # of an input, plan or state after B; [D] for all others
# What is divided by is filled up with ones, the rest with zeros.
DIVISORS = {
    "replicas_per_node", "gpus_per_replica", "work_s", "decode_d0_s", "slots", "gpus", "gpu_tdp_w",
}  # fmt: skip
SAME = ("epoch_s", "utilisation_ceiling", "patience_s")


def stack_worlds(worlds: Sequence[World]) -> World:
    """One NumPy world whose row b is `worlds[b]`, filled up to the largest of each axis.

    Raises UserError if the worlds differ in epoch length, utilisation ceiling or patience.
    """
    for name in SAME:
        values = sorted({getattr(world, name) for world in worlds})
        if len(values) > 1:
            raise UserError(
                f"worlds of one batch must share {name} but have {values}: set it alike in all"
            )
    labels = {
        field: tuple(f"{field} {i}" for i in range(max(len(getattr(w, field)) for w in worlds)))
        for field in LABELS.values()
    }
    whole = replace(worlds[0], **labels)
    constants = {}
    for field in fields(Constants):
        shape = _shape(whole, AXES[field.name])
        filled = [
            _filled(getattr(w.constants, field.name), shape, float(field.name in DIVISORS))
            for w in worlds
        ]
        constants[field.name] = np.stack(filled)
    sites = len(whole.sites)
    own = [np.arange(sites) < len(world.sites) for world in worlds]
    return replace(whole, constants=Constants(**constants), own_sites=np.stack(own).astype(float))


def stack_rows(world: World, rows: Sequence[Rows]) -> Rows:
    """Inputs, plans or states of single worlds as one batch of the stacked `world`, in order."""
    stacked = {}
    for field in fields(rows[0]):
        shape = _shape(world, ROW_AXES.get(field.name, "D"))
        filled = [
            _filled(values, (len(values), *shape), 0.0)
            for values in (getattr(row, field.name) for row in rows)
        ]
        stacked[field.name] = np.concatenate(filled)
    return replace(rows[0], **stacked)


def _shape(world: World, axes: str) -> tuple[int, ...]:
    return tuple(len(getattr(world, LABELS[axis.replace("E", "D")])) for axis in axes)


def _filled(values: np.ndarray, shape: tuple[int, ...], value: float) -> np.ndarray:
    width = [(0, wanted - have) for wanted, have in zip(shape, values.shape, strict=True)]
    return np.pad(values, width, constant_values=value)
