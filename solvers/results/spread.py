"""Arrays of which each rank of a communicator holds a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.ensemble.particles import Particles


@dataclass(frozen=True, eq=False)
class Spread:
    """How an array is spread: this rank holds consecutive entries of one axis.

    Attributes
    ----------
    axis : int
        The axis.
    first, total : int
        The place of the first entry held, and how many there are on all ranks.
    communicator : mpi4py.MPI.Comm
        The ranks.
    """

    axis: int
    first: int
    total: int
    communicator: Any

    @staticmethod
    def of(ensemble: Particles, axis: int) -> Spread | None:
        """Return how arrays of particles along this axis are spread, or None where one process has them all."""
        if ensemble.communicator is None:
            return None
        return Spread(axis, ensemble.first, ensemble.particles, ensemble.communicator)

    def shape(self, held: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the whole of an array, of which this rank holds one of this shape."""
        return (*held[: self.axis], self.total, *held[self.axis + 1 :])
