"""The partners that particles meet in a stage, in lists that say who meets whom."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.random import Draw
from solvers.sde.pairs.batches import partition_of
from solvers.sde.pairs.cells import grid_of, periods, sort_into_cells, with_images
from solvers.sde.pairs.pairs import Pairs

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]
Places = NDArray[np.int64]


class Partners(NamedTuple):
    """All particles, and with a cutoff their images across the ends of a periodic box, as kernels take them.

    Parameters
    ----------
    points : (D, P) float64
        Positions: by number, by cell, or by batch.
    numbers : (P,) int64
        The number of each among the N particles.
    begin : (lists + 1,) int64
        Where each cell or batch begins.
    batch : (N,) int64
        The batch of each particle; empty without batches.
    low, inverse, shape : (3,) float64, float, (3,) int64
        The lowest corner of the cells, one over their side, and how many there are along each axis.
    fields : (N or 1, F) float64
        The external field of each particle, or of all.
    box : (2, D) float64
        The ends of the periodic box, infinite where there is none.
    particles : int
        N.
    """

    points: Matrix
    numbers: Places
    begin: Places
    batch: Places
    low: Matrix
    inverse: float
    shape: Places
    fields: Array
    box: Matrix
    particles: int


def partners_of(pairs: Pairs, x: Array, fields: Array, box: Matrix | None, draw: Draw) -> Partners:
    """Return the partners among all particles x, (D, N), where a stage starts."""
    dimension, count = x.shape
    ends, none = periods(box, dimension), np.zeros(0, np.int64)
    points, index = np.asarray(x, np.float64), np.arange(count)
    begin, batch, low, inverse, shape = none, none, np.zeros(3), 0.0, np.ones(3, np.int64)
    if pairs.cutoff is not None:
        space = pairs.components(dimension)
        points, index = with_images(points, ends, space, pairs.cutoff)
        low, inverse, shape = grid_of(points, space, pairs.cutoff)
        points, index, begin = sort_into_cells(points, index, space, low, inverse, shape)
    elif pairs.random_batch is not None:
        index, begin, batch = partition_of(count, pairs.random_batch, draw)
        points = np.ascontiguousarray(points[:, index])
    return Partners(points, index, begin, batch, low, inverse, shape, np.asarray(fields), ends, count)


def none_of(dimension: int, fields: Array) -> Any:
    """Return partners of the same types that are nobody, to compile with."""
    none = np.zeros(0, np.int64)
    empty = np.zeros((dimension, 0)), none, none, none, np.zeros(3), 0.0, np.ones(3, np.int64)
    return Partners(*empty, np.asarray(fields), periods(None, dimension), 1)
