"""Means of products of functions of Gaussians, for many pairs at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

# Hermite functions that are used, and the grid on which coefficients are summed, midpoints that are symmetric about 0.
_TERMS, _STEP, _REACH = 160, 5e-3, 14.0
# Shares of a mean that are left out.
_NEGLIGIBLE = 1e-15


def product_means(phi: Activation, derivative: bool, covariance: Array) -> Array:
    """Return E f(h_a) f(h_b) with f = φ or φ', (m, m), for centred Gaussians of this covariance, (m, m).

    That of relu is exact. For others f(√q z) is expanded in Hermite polynomials of z, so that the mean is a power
    series in the correlation; what 160 terms leave out is below 1e-8 for the smooth activations that are built in.
    On the diagonal nothing is left out.

    References
    ----------
    Cho and Saul, "Kernel Methods for Deep Learning" (2009), for relu; Daniely, Frostig and Singer, "Toward Deeper
    Understanding of Neural Networks" (2016), for the expansion.
    """
    sizes = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    scales = np.outer(sizes, sizes)
    correlation = np.clip(np.divide(covariance, scales, out=np.zeros_like(covariance), where=scales > 0), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    if phi.name == "relu":
        return _relu(correlation, scales, derivative)
    nodes, functions, weights = _grid()
    function = phi.derivative if derivative else phi.value
    values = np.array([function(size * nodes) for size in sizes]) * weights
    coefficients = values @ functions.T  # (m, terms)
    total, power, squares = np.zeros_like(covariance), np.ones_like(covariance), np.sum(values**2, axis=1)
    left = squares.copy()
    for column in coefficients.T:
        if np.any(column**2 > _NEGLIGIBLE * squares):
            total += np.outer(column, column) * power
            left -= column**2
        if np.all(left <= _NEGLIGIBLE * squares):
            break
        power *= correlation
    np.fill_diagonal(total, squares)
    return total


@lru_cache(maxsize=1)
def _grid() -> tuple[Array, Array, Array]:
    """Return nodes, Hermite functions h_k √w there, (terms, nodes), and √w, with w the weights of E f(z)."""
    nodes = np.arange(-_REACH, _REACH, _STEP) + _STEP / 2
    root = np.exp(-0.25 * nodes**2) * math.sqrt(_STEP) / (2 * math.pi) ** 0.25
    functions = np.empty((_TERMS, len(nodes)))
    functions[0], functions[1] = root, nodes * root
    for k in range(1, _TERMS - 1):
        functions[k + 1] = (nodes * functions[k] - math.sqrt(k) * functions[k - 1]) / math.sqrt(k + 1)
    return nodes, functions, root


def _relu(correlation: Array, scales: Array, derivative: bool) -> Array:
    angle = np.arccos(correlation)
    if derivative:
        return np.asarray((math.pi - angle) / (2 * math.pi))
    return np.asarray(scales * (np.sin(angle) + (math.pi - angle) * correlation) / (2 * math.pi))
