"""Values of one shape that come one after the other, kept in one array from the start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Rows:
    """The rows of an array, which is made when the first of them comes.

    A list that is stacked in the end holds everything twice. Pages that are never reached cost nothing.

    Parameters
    ----------
    most : int
        How many rows may come.
    """

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._array: NDArray[Any] = np.empty(0)

    @property
    def array(self) -> NDArray[Any]:
        """The rows that have come, (rows, …): own memory, not a copy."""
        return self._array[: self._count]

    def append(self, row: ArrayLike) -> NDArray[Any]:
        """Copy the next row, of the shape of the first, and return where it is kept."""
        values = np.asarray(row)
        if not self._count:
            self._array = np.empty((self._most, *values.shape), values.dtype)
        common = np.result_type(self._array, values)
        if common != self._array.dtype:
            self._array = self._array.astype(common)
        self._array[self._count] = values
        self._count += 1
        return np.asarray(self._array[self._count - 1])
