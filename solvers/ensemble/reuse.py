"""Memory of arrays that are gone, for new ones of the same size.

A pass makes arrays of all particles and drops them soon. Large ones come from the system, page by page as they are
first written to, which takes several times as long as the work that fills them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Below so many bytes the library that hands out memory keeps it itself.
_LARGE = 1 << 20


class Reuse:
    """Memory that waits for arrays of its size, as long as it is open.

    Memory of other sizes is given up for an array that finds none, so that what waits does not add to the peak.
    """

    def __init__(self) -> None:
        self._open = False
        self._idle: dict[int, list[NDArray[np.uint8]]] = {}

    def open(self) -> None:
        """Let memory wait from now on."""
        self._open = True

    def close(self) -> None:
        """Give up what waits."""
        self._open = False
        self._idle.clear()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array whose numbers are not set."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if not self._open or size < _LARGE:
            return np.empty(shape, dtype)
        waiting = self._idle.get(size)
        memory = waiting.pop() if waiting else self._new(size)
        return np.asarray(_Lease(memory, self)).view(dtype).reshape(shape)

    def take_back(self, memory: NDArray[np.uint8]) -> None:
        """Keep memory that no array uses any more."""
        if self._open:
            self._idle.setdefault(memory.size, []).append(memory)

    def _new(self, size: int) -> NDArray[np.uint8]:
        freed = 0
        for other, waiting in self._idle.items():
            while waiting and freed < size:
                waiting.pop()
                freed += other
        return np.empty(size, np.uint8)


class _Lease:
    """What an array and its views hold, and let go of when the last of them is gone."""

    def __init__(self, memory: NDArray[np.uint8], home: Reuse) -> None:
        self._memory, self._home = memory, home
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._home.take_back(self._memory)
