"""Autoregressive processes of unit variance: autocorrelation, partial autocorrelation, spectrum.

Source: Box, Jenkins, Reinsel and Ljung, Time Series Analysis, chapters 3 and 6.
"""

from __future__ import annotations

import numpy as np

GRID = 4096


def autocorrelation(values: np.ndarray, order: int) -> np.ndarray:
    """Return the autocorrelation of `values` at lags 0..order (the biased, always valid form)."""
    x = values - values.mean()
    transform = np.fft.rfft(x, 2 * len(x))
    covariance = np.fft.irfft(np.abs(transform) ** 2)[: order + 1]
    return covariance / covariance[0]


def partial(rho: np.ndarray) -> np.ndarray:
    """Return partial autocorrelations [K, P] of autocorrelations [K, P + 1] (Durbin-Levinson)."""
    rho = np.atleast_2d(rho)
    order = rho.shape[1] - 1
    result = np.empty((len(rho), order))
    phi, variance = np.zeros((len(rho), 0)), np.ones(len(rho))
    for k in range(order):
        innovation = rho[:, k + 1] - (phi * rho[:, k:0:-1]).sum(axis=1)
        result[:, k] = innovation / variance
        phi = _longer(phi, result[:, k])
        variance = variance * (1 - result[:, k] ** 2)
    return result


def coefficients(partials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (coefficients [K, P], shock standard deviations [K]) of partial autocorrelations.

    Stable for every partial autocorrelation within -1..1, so that rounding cannot break a process.
    """
    phi = np.zeros((len(partials), 0))
    for k in range(partials.shape[1]):
        phi = _longer(phi, partials[:, k])
    return phi, np.sqrt((1 - partials**2).prod(axis=1))


def spectrum(rho: np.ndarray) -> np.ndarray:
    """Return the spectra [K, GRID / 2 + 1] of the processes with autocorrelations [K, P + 1]."""
    phi, shock_sd = coefficients(partial(rho))
    polynomial = np.concatenate([np.ones((len(phi), 1)), -phi], axis=1)
    return shock_sd[:, None] ** 2 / np.abs(np.fft.rfft(polynomial, GRID, axis=1)) ** 2


def of_spectrum(power: np.ndarray, order: int) -> np.ndarray:
    """Return the autocorrelations [K, order + 1] of spectra [K, GRID / 2 + 1]."""
    covariance = np.fft.irfft(power, axis=1)[:, : order + 1]
    return covariance / covariance[:, :1]


def _longer(phi: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return coefficients [K, P + 1] from those of order P and the next partial one [K]."""
    return np.concatenate([phi - last[:, None] * phi[:, ::-1], last[:, None]], axis=1)
