"""How fresh noise vectors are conditioned before they become images of a weight matrix.

By law nothing is done: N particles are then a network of width N, fluctuations included. `solvers.matrices.matched`
makes second moments exact instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Context:
    """What surrounds fresh vectors z that are to become images of new directions.

    Attributes
    ----------
    families : sequence of (rank, N) arrays
        Bases and images of the operator. They come in the same order and only grow from call to call.
    grows : int
        Index of the family that the new directions join.
    directions : (m, N) array
        The new directions.
    lasting : bool
        Whether they do join it.
    states : (b, N) array
        Further vectors of this depth, for this call alone.
    """

    families: Sequence[Array]
    grows: int
    directions: Array
    lasting: bool
    states: Array


class Sampling:
    """Fresh vectors by law: independent standard normals, left as they are."""

    unmatched = False  # whether some vectors were left as they were for lack of room

    def condition(self, z: Array, context: Context) -> None:
        """Condition the fresh vectors z, (m, N), in place."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what later draws depend on, as arrays by name."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` returned."""

    def mark(self) -> Any:
        """Return what `forget` needs to come back to here."""

    def forget(self, mark: Any) -> None:
        """Undo what was conditioned since a mark."""
