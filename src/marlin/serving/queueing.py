"""Closed forms of continuous batching: one replica's decode speed, queueing and busy time.

All functions broadcast over arrays of any library that follows the Python array API
(NumPy, torch). Rates are per replica; times are in seconds.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any


def tpot_s(decode_d0_s: Array, prefill_load: Array, decode_load: Array) -> Array:
    """Mean time per output token, prefill stalls included.

    A decode iteration takes ``t = d0 + sum_s B_s m_s`` with ``m_s = d1 + d2 context_s``; class s
    holds ``B_s = l_s O_s t / (1 - prefill_load)`` sequences. Solving for t gives
    ``tpot = t / (1 - prefill_load) = d0 / (1 - prefill_load - decode_load)`` with
    ``decode_load = sum_s l_s O_s m_s``.
    Source: fixed point of the linear decode step; Little's law for the batch.

    Shapes: all broadcast. Stable while ``prefill_load + decode_load < 1``.
    """
    return decode_d0_s / (1.0 - prefill_load - decode_load)


def sakasegawa_wait_s(
    service_s: Array, utilisation: Array, servers: Array, arrival_cv2: Array, service_cv2: Array
) -> Array:
    """Mean wait in a GI/G/c queue.

    ``W = (Ca2 + Cs2)/2 * rho^(sqrt(2(c+1)) - 1) / (c (1 - rho)) * E[S]``.
    Source: Sakasegawa (1977), Annals of the Institute of Statistical Mathematics 29, with the
    Allen-Cunneen variability factor. Exact for M/M/1.

    Shapes: all broadcast; ``utilisation`` in [0, 1), ``servers`` >= 1 (need not be whole).
    """
    xp = array_namespace(utilisation)
    exponent = xp.sqrt(2.0 * (servers + 1.0)) - 1.0
    # The base is kept above zero so that the power has a finite gradient at zero load.
    crowding = xp.clip(utilisation, 1e-9, None) ** exponent / (servers * (1.0 - utilisation))
    return 0.5 * (arrival_cv2 + service_cv2) * crowding * service_s


def thinned_cv2(arrival_cv2: Array, share: Array) -> Array:
    """Squared CV of inter-arrival times after keeping each arrival with probability `share`.

    ``1 + share (Ca2 - 1)``: random thinning of a renewal process, towards Poisson.
    Source: Whitt (1983), The Queueing Network Analyzer, equation for Markovian splitting.
    """
    return 1.0 + share * (arrival_cv2 - 1.0)


def decoding_probability(batch: Array) -> Array:
    """Chance that a replica has at least one sequence to decode, ``1 - exp(-B)``.

    Source: M/G/infinity occupancy is Poisson with mean B.
    """
    xp = array_namespace(batch)
    return 1.0 - xp.exp(-batch)
