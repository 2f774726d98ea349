"""The algebra of N particles: all that solvers and weight matrices do with them, wherever they live.

A home of particles holds arrays (rows, N) and implements `Particles`. Nothing else allocates, slices or sums along the
axis of the particles; rows may be picked anywhere. Inner products and Gram matrices are small float64 matrices on the
host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.random import Address, Noise
from solvers.ranks import Spread

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

T = TypeVar("T")


class Everywhere(Exception):
    """An error that all processes that hold particles meet at the same place, since it follows from their sums."""


class Cut(NamedTuple):
    """So many particles, in groups of `group_size` that are summed one after another."""

    particles: int
    group_size: int
    groups: int


class Particles(ABC):
    """N particles in one home, and inner products ⟨a,b⟩ = (1/N) Σ a b.

    Arrays are (rows, N), in float64 or float32.

    Attributes
    ----------
    particles : int
        Number of particles N.
    held : int
        How many of them this process holds, the length of the last axis of its arrays.
    first : int
        The first of these.
    cut : Cut or None
        How to sum over them where they are so few that a kernel should do many operations in one call, else None.
    speaks : bool
        Whether this process, of those that hold them, is the one to show and write what they found together.
    communicator : mpi4py.MPI.Comm or None
        The processes that hold them, if there are several.
    """

    particles: int
    held: int
    first: int = 0
    cut: Cut | None = None
    speaks: bool = True
    communicator: Any = None

    def spread(self, axis: int) -> Spread | None:
        """Return how arrays with the particles along this axis are spread, or None where one process has them all."""
        return None if self.communicator is None else Spread(axis, self.first, self.particles, self.communicator)

    @abstractmethod
    def beside(self, particles: int) -> Particles:
        """Return a home of so many other particles in the same processes, which runs while this one does."""

    @abstractmethod
    def allocate(self, rows: int, dtype: Any = np.float64) -> Array:
        """Return a new array of this dtype, (rows, N), whatever it holds."""

    @abstractmethod
    def stack(self, parts: Sequence[Array]) -> Array:
        """Return a new array (rows, N) with the rows of all parts, of which there is at least one."""

    @abstractmethod
    def to_host(self, vectors: Array) -> NDArray[Any]:
        """Return `vectors`, (rows, N), as a NumPy array, which may be the same memory."""

    @abstractmethod
    def from_host(self, vectors: NDArray[Any]) -> Array:
        """Return `vectors`, a NumPy array (rows, N) that all processes have, as one of particles, perhaps in place."""

    def precision(self, vectors: Array) -> np.dtype[Any]:
        """Return the type of the numbers of `vectors`."""
        return vectors.dtype

    def from_state(self, values: NDArray[Any]) -> Array:
        """Return as particles, perhaps in place, `values`, (rows, N), which `to_host` returned of those held here."""
        return values

    def put(self, out: Array, values: NDArray[Any]) -> None:
        """Set `out`, (rows, N), to `values`, which `to_host` returned of the particles that are held here."""
        out[...] = values

    def as_coordinates(self, vectors: Array) -> NDArray[Any]:
        """Return `vectors`, (rows, N), as an array that NumPy's functions take, perhaps in place."""
        return self.to_host(vectors)

    @abstractmethod
    def fill(self, out: Array, noise: Noise, address: Address, layer: int = 0) -> None:
        """Fill `out`, (positions, N), with the noise of an address at a layer."""

    @abstractmethod
    def inner(self, left: Array | Sequence[Array], right: Array) -> Matrix:
        """Return ⟨left_i, right_j⟩, (rows, rows) float64; `left` may be several arrays, whose rows are stacked."""

    @abstractmethod
    def mean_squares(self, vectors: Array) -> Matrix:
        """Return ⟨v_i, v_i⟩ of the rows of `vectors`, (rows,) float64, computed in float64."""

    @abstractmethod
    def means(self, *factors: Array) -> Matrix:
        """Return ⟨u_i v_i …⟩ of the rows of all factors, (rows, N) each, (rows,) float64; of one factor ⟨u_i⟩."""

    @abstractmethod
    def gram(self, vectors: Array) -> Matrix:
        """Return ⟨v_i, v_j⟩ of the rows of `vectors`, (rows, rows) float64.

        All of it is computed in float64, because pivots may lie below float32 rounding.
        """

    @abstractmethod
    def project(self, vectors: Array, coordinates: Matrix, directions: Array) -> tuple[Array, Matrix, Matrix]:
        """Return what is left of `vectors`, (b, N), without coordinates @ directions, and what it meets.

        Parameters
        ----------
        vectors : (b, N) array
        coordinates : (b, r) float64
            On `directions`, (r, N).

        Returns
        -------
        rest : (b, N) array
            In new memory.
        overlap, gram : (b, r) and (b, b) float64
            Inner products of the rest with the directions and with itself; the latter all in float64.
        """

    @abstractmethod
    def combine(self, out: Array, terms: Sequence[tuple[NDArray[Any], Array]], add: bool = False) -> None:
        """Set `out`, (rows, N), to Σ coefficients @ vectors over the terms, or add it to `out` with `add=True`.

        A term is a pair of arrays, (rows, k) on the host and (k, N).
        """

    @abstractmethod
    def apply(
        self, work: Callable[..., object], out: Array, *arrays: Array, rows: Sequence[NDArray[np.float64]] = ()
    ) -> None:
        """Call work(out, *arrays, *columns) on parts of the particles; it writes elementwise into its first argument.

        `rows` are numbers for each row of `out`, (rows,), which `work` takes as columns (rows, 1) of the dtype of out.
        """

    @abstractmethod
    def total(self, sums: Sequence[NDArray[np.floating]] | Matrix) -> Matrix:
        """Return the sum of partial `sums` over particles, each of one shape, (…), in float64 and in their order."""

    @abstractmethod
    def multiply(self, vectors: Array, matrix: Array, transposed: bool = False) -> Array:
        """Return vectors @ matrix, or `transposed` vectors @ matrixᵀ, for a matrix (M, N) that is held whole."""

    @abstractmethod
    def add_product(self, left: NDArray[Any], right: NDArray[Any], *matrices: Array) -> None:
        """Add `left`ᵀ @ `right`, of (k, M) and (k, N), to `matrices` (M, N) that are held whole."""

    def map(self, function: Callable[..., Array], *arrays: Array, rows: Sequence[NDArray[np.float64]] = ()) -> Array:
        """Return the values of an elementwise function, (rows, N), in a new array like the first of `arrays`.

        The function takes parts of the arrays, and what else are numbers for each row, `rows`, as for `apply`.
        """
        out = self.allocate(len(arrays[0]), arrays[0].dtype)

        def work(out: Array, *parts: Array) -> None:
            out[...] = function(*parts)

        self.apply(work, out, *arrays, rows=rows)
        return out

    def copy(self, vectors: Array) -> Array:
        """Return a copy of `vectors`, (rows, N)."""
        return self.stack([vectors])

    def scale(self, vectors: Array, factor: float) -> None:
        """Multiply `vectors`, (rows, N), by a factor, in place."""

        def work(part: Array) -> None:
            part *= factor

        self.apply(work, vectors)

    def each(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Call work(item) for every item, in any order and perhaps at the same time; items know no particles."""
        for item in items:
            work(item)

    def running(self) -> AbstractContextManager[Particles]:
        """Hold what a solve needs, such as threads, for its duration."""
        return _nothing(self)

    def whole(self) -> AbstractContextManager[Any]:
        """Let no interrupt come in between: what is half done could not go on."""
        return _nothing(self)


@contextmanager
def _nothing(particles: Particles) -> Iterator[Particles]:
    yield particles
