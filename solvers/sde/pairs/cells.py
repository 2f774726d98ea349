"""Cells: which particles may be near each other, found in a time proportional to their number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel

Matrix = NDArray[np.float64]
Places = NDArray[np.int64]

# Cells have three axes; where distances are looked at in fewer components, the first ones are one cell long.
AXES = 3
# Cells for each particle, at most.
_CELLS = 2.0
# Particles whose median is in the middle of the cells.
_SAMPLE = 1000


def periods(box: Matrix | None, dimension: int) -> Matrix:
    """Return the ends of the box, (2, D), infinite where there is none."""
    return np.array([[-np.inf] * dimension, [np.inf] * dimension]) if box is None else np.asarray(box, np.float64)


@kernel
def with_images(x: Any, box: Any, space: int, cutoff: float) -> Any:
    """Return particles, (D, N), brought into the box, and after them images of those near its ends; and of whom."""
    components, count = x.shape
    room = count
    points = np.empty((components, count))
    for i in range(components):
        low, high = box[0, i], box[1, i]
        periodic = high - low < np.inf
        for p in range(count):
            points[i, p] = x[i, p]
            if periodic:
                there = low + (x[i, p] - low) % (high - low)
                points[i, p] = low if there >= high else there
    index = np.arange(count)
    for i in range(space):
        low, high = box[0, i], box[1, i]
        if not high - low < np.inf:
            continue
        more = 0
        for p in range(room):
            more += (points[i, p] < low + cutoff) + (points[i, p] >= high - cutoff)
        grown, whose = np.empty((components, room + more)), np.empty(room + more, np.int64)
        grown[:, :room], whose[:room] = points, index
        place = room
        for p in range(room):
            for side in range(2):
                near = points[i, p] < low + cutoff if side == 0 else points[i, p] >= high - cutoff
                if near:
                    grown[:, place], whose[place] = points[:, p], index[p]
                    grown[i, place] += high - low if side == 0 else low - high
                    place += 1
        points, index, room = grown, whose, room + more
    return points, index


def grid_of(points: Matrix, space: int, cutoff: float) -> tuple[Matrix, float, Places]:
    """Return the lowest corner of the cells, (3,), one over their side, and how many there are along each axis.

    Particles beyond are counted to the last cells, so that one far away does not make cells large for all.
    """
    count = points.shape[1]
    low, high = points[:space].min(axis=1), points[:space].max(axis=1)
    most = max(1, math.floor((_CELLS * count) ** (1.0 / space)))
    middle = np.median(points[:space, :: max(1, count // _SAMPLE)], axis=1)
    reach = 0.5 * most * cutoff
    low, high = np.maximum(low, middle - reach), np.minimum(high, middle + reach)
    shape = np.clip(np.ceil((high - low) / cutoff), 1, most).astype(np.int64)
    missing = AXES - space
    return np.append(np.zeros(missing), low), 1.0 / cutoff, np.append(np.ones(missing, np.int64), shape)


@kernel
def sort_into_cells(points: Any, index: Any, space: int, low: Any, inverse: float, shape: Any) -> Any:
    """Return points and indices cell after cell, and where each cell begins, (cells + 1,)."""
    missing, count = AXES - space, points.shape[1]
    cells = np.empty(count, np.int64)
    total = shape[0] * shape[1] * shape[2]
    begin = np.zeros(total + 1, np.int64)
    for p in range(count):
        cell = 0
        for i in range(space):
            axis = missing + i
            here = math.floor(min(max((points[i, p] - low[axis]) * inverse, 0.0), shape[axis] - 1.0))
            cell = cell * shape[axis] + here
        cells[p] = cell
        begin[cell + 1] += 1
    for cell in range(total):
        begin[cell + 1] += begin[cell]
    place = begin[:-1].copy()
    ordered, whose = np.empty(points.shape), np.empty(count, np.int64)
    for p in range(count):
        there = place[cells[p]]
        place[cells[p]] += 1
        whose[there] = index[p]
        for i in range(points.shape[0]):
            ordered[i, there] = points[i, p]
    return ordered, whose, begin
