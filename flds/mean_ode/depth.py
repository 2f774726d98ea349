"""Integration over depth: one evaluation of the field at each node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Adams–Bashforth and Adams–Moulton weights of order 1, 2, 3, newest value first.
_PREDICT = {1: (1.0,), 2: (3 / 2, -1 / 2)}
_CORRECT = {2: (1 / 2, 1 / 2), 3: (5 / 12, 8 / 12, -1 / 12)}


def integrate(start: Array, field: Callable[[int, Array], Array], depth: int) -> Array:
    """Integrate dx/ds = field over [0, 1] in `depth` steps by Adams' predictor–corrector of order three.

    The field is evaluated once at each of the depth + 1 nodes, at the predicted state; the first step is of order
    two, which costs no order because it is one step only.

    Parameters
    ----------
    start : array
        x at the first node.
    field : callable
        field(node, x) with node = 0 … depth, called in this order.
    depth : int
        Number of steps.

    Returns
    -------
    array
        x at the last node.
    """
    step, x = 1.0 / depth, start
    latest = [field(0, x)]
    for node in range(1, depth + 1):
        predicted = x + step * _combine(_PREDICT[min(2, node)], latest)
        latest = [field(node, predicted), *latest[:1], *latest[1:2]]
        x = x + step * _combine(_CORRECT[min(3, node + 1)], latest)
    return x


def _combine(weights: tuple[float, ...], values: list[Array]) -> Array:
    return np.asarray(sum(w * value for w, value in zip(weights, values, strict=False)))
