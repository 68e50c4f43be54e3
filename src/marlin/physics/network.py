"""Energy of moving data between users and sites. Pointwise; broadcasts."""

from __future__ import annotations

from marlin.physics.arrays import Array

BYTES_PER_TOKEN = 4.5
"""Text of one token in UTF-8: about four characters, some of several bytes."""
OVERHEAD_BYTES = 4000.0
"""Headers, encryption and framing of one request and its streamed reply."""


def request_bytes(prompt_tokens: Array | float, output_tokens: Array | float) -> Array:
    """Bytes that one text request moves over the network, both ways.

    Source: our estimate; a request of 2-8 kB and a reply of 1-4 kB are usual.
    """
    return BYTES_PER_TOKEN * (prompt_tokens + output_tokens) + OVERHEAD_BYTES


def transfer_energy_kwh(moved_bytes: Array | float, kwh_per_gb: Array | float) -> Array:
    """Energy of the network that moves `moved_bytes` [kWh].

    0.001 kWh/GB (Cloud Carbon Footprint, hyperscale) to 0.06 (Aslan et al. 2018, fixed lines of
    2015): an average allocation, not a marginal energy.
    """
    return moved_bytes / 1e9 * kwh_per_gb
