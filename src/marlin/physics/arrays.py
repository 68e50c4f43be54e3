"""The array library of the arguments, so that one formula serves NumPy and torch."""

from __future__ import annotations

from typing import Any

import array_api_compat
import array_api_compat.numpy as numpy_namespace

Array = Any
"""A NumPy array, a torch tensor or another array of the Python array API; floats broadcast."""


def namespace(*values: Array | float) -> Any:
    """Array-API namespace of the arrays among `values`; that of NumPy if all are plain numbers.

    Raises TypeError if arrays of two libraries are mixed.
    """
    arrays = [value for value in values if array_api_compat.is_array_api_obj(value)]
    return array_api_compat.array_namespace(*arrays) if arrays else numpy_namespace


def lesser(first: Array | float, second: Array | float) -> Array:
    """Element by element the smaller of the two, which broadcast."""
    xp = namespace(first, second)
    return xp.where(first < second, first, second)


def limit(
    value: Array | float, minimum: float | None = None, maximum: float | None = None
) -> Array:
    """`value` kept within `minimum` and `maximum`, where given."""
    xp = namespace(value)
    return xp.clip(xp.asarray(value), min=minimum, max=maximum)
