"""Pairs as lists, for functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel
from solvers.sde.pairs.cells import AXES
from solvers.sde.pairs.pairs import Pairs
from solvers.sde.pairs.partners import Partners

Array = NDArray[np.floating]
Places = NDArray[np.int64]
# Numbers of particles among the n, those of their partners among all, where these are, (D, pairs), and weights.
List = tuple[Places, Places, Array, Any]


def lists_of(pairs: Pairs, x: Array, first: int, partners: Partners, most: int) -> Iterator[List]:
    """Yield lists of about so many pairs at most, of n particles x, (D, n), the first of which has this number."""
    lists = _near if pairs.cutoff is not None else _batches if pairs.random_batch is not None else _all
    yield from lists(pairs, x, first, partners, most)


def _all(pairs: Pairs, x: Array, first: int, partners: Partners, most: int) -> Iterator[List]:
    n, size = x.shape[1], max(1, most // x.shape[1])
    for low in range(0, partners.particles, size):
        others = np.arange(low, min(low + size, partners.particles))
        i, j = np.repeat(np.arange(n), len(others)), np.tile(others, n)
        yield i, j, _image(x[:, i], partners.points[:, j], partners.box), 1.0


def _batches(pairs: Pairs, x: Array, first: int, partners: Partners, most: int) -> Iterator[List]:
    n, count = x.shape[1], partners.particles
    batch = partners.batch[first : first + n]
    begin, sizes = partners.begin[batch], partners.begin[batch + 1] - partners.begin[batch]
    for place in range(int(sizes.max(initial=0))):
        there = sizes > place
        k = begin[there] + place
        i, j = np.flatnonzero(there), partners.numbers[k]
        own = j == first + i
        y = np.where(own, x[:, i], _image(x[:, i], partners.points[:, k], partners.box))
        yield i, j, y, np.where(own, 1.0, (count - 1) / (sizes[there] - 1.0))


def _near(pairs: Pairs, x: Array, first: int, partners: Partners, most: int) -> Iterator[List]:
    low, period = partners.box[0][:, None], (partners.box[1] - partners.box[0])[:, None]
    with np.errstate(invalid="ignore"):
        inside = np.where(period < np.inf, low + (x - low) % period, x)
    space = pairs.components(len(x))
    counts = np.zeros(x.shape[1], np.int64)
    none = np.zeros(0, np.int64)
    rest = partners.points, partners.begin, partners.low, partners.inverse, partners.shape, float(pairs.cutoff or 0.0)
    find_near(inside, space, *rest, counts, none, none)
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        stop = max(start + 1, int(np.searchsorted(ends, (ends[start - 1] if start else 0) + most, "right")))
        i, k = (np.empty(int(counts[start:stop].sum()), np.int64) for _ in range(2))
        find_near(inside[:, start:stop], space, *rest, counts[start:stop], i, k)
        i += start
        y = _image(x[:, i], partners.points[:, k], partners.box)
        y[:space] = partners.points[:space, k] + (x - inside)[:space, i]
        yield i, partners.numbers[k], y, 1.0
        start = stop


@kernel
def find_near(
    x: Any, space: int, points: Any, begin: Any, low: Any, inverse: float, shape: Any, cutoff: float, counts: Any,
    i: Any, k: Any,
) -> None:  # fmt: skip
    """Count the points nearer than the cutoff to each of x, (D, n), or list pairs where there is room for them."""
    found, listed = 0, len(i) > 0
    around = np.empty((AXES, 2), np.int64)
    for p in range(x.shape[1]):
        for axis in range(AXES):
            component = axis - (AXES - space)
            at = (x[component, p] - low[axis]) * inverse if component >= 0 else 0.0
            middle = math.floor(min(max(at, 0.0), shape[axis] - 1.0))
            around[axis, 0], around[axis, 1] = max(middle - 1, 0), min(middle + 2, shape[axis])
        before = found
        for plane in range(around[0, 0], around[0, 1]):
            for row in range(around[1, 0], around[1, 1]):
                line = (plane * shape[1] + row) * shape[2]
                for other in range(begin[line + around[2, 0]], begin[line + around[2, 1]]):
                    distance = 0.0
                    for c in range(space):
                        distance += (points[c, other] - x[c, p]) ** 2
                    if distance < cutoff * cutoff:
                        if listed:
                            i[found], k[found] = p, other
                        found += 1
        if not listed:
            counts[p] = found - before


def _image(x: Array, y: Array, box: Array) -> Array:
    """Return the images of y that are nearest to x, (D, pairs)."""
    period = (box[1] - box[0])[:, None]
    if np.isinf(period).all():
        return y.copy()
    with np.errstate(invalid="ignore"):
        return np.where(period < np.inf, y - period * np.round((y - x) / period), y)
