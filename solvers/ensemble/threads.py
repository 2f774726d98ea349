"""Particles in the memory of one process, for several threads, with results that do not depend on how many.

Particles are cut into stretches that noise is drawn in, and consecutive stretches into groups, in a way that depends on
N only. Each group is summed by one thread, stretch after stretch, with single-threaded BLAS, and the groups are added
in order in float64, so the same bits come out for any number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble import products
from solvers.ensemble.blas import single_threaded_blas
from solvers.ensemble.particles import Array, Cut, Matrix, Particles
from solvers.ensemble.random import Address, Noise, Stream
from solvers.ensemble.reuse import Reuse
from solvers.ensemble.workers import Workers
from solvers.interrupts import Interrupts
from solvers.partition import STRETCH, group_size, partition

T = TypeVar("T")

# Threads share elementwise work evenly to so many particles.
_EVEN = 256
# Particles that elementwise work takes at a time, so that temporaries stay in cache.
SHARE = 16 * STRETCH
# So few particles that operations take longer to call than to do.
FEW = 2048
# Rows of a matrix (N, N) that one thread takes at a time.
_ROWS = 256
# A thread takes this part of its share of the groups that are left, so that threads end together.
_TURN = 2
# Waking a thread takes about as long as this many multiply–adds.
_SMALL_WORK = 300_000
# Likewise handing on what another thread has just written.
_SMALL_STEP = 30_000


def compile_kernels(dtype: np.dtype) -> float:
    """Compile, or load from the cache, every kernel for this precision; return the seconds it took."""
    start = time.perf_counter()
    one, vectors = ThreadParticles(1), np.ones((1, 1), dtype)
    one.fill(vectors, Noise(0), Address(Stream.FORWARD))
    one.gram(vectors)
    one.combine(vectors, [(one.inner(vectors, vectors), vectors.copy())])
    one.mean_squares(vectors)
    one.project(vectors, np.ones((1, 1)), vectors.copy())
    return time.perf_counter() - start


class _Team:
    """The threads of homes that run together, while they run."""

    workers: Workers | None = None


class ThreadParticles(Particles):
    """N particles in NumPy arrays, C-contiguous, and the threads that work on them.

    A home that spreads them over processes holds some consecutive groups in each: `held` particles from `first` on.

    Parameters
    ----------
    particles : int
        Number of particles N.
    threads : int
        Number of threads, at least 1. They are started when there is work for them, and only as many as there are
        pieces of it; where the system allows fewer, these do it all.
    """

    # whether its threads can do many steps of an equation without word from other processes
    marches = True
    ranks = 1

    def __init__(self, particles: int, threads: int = 1) -> None:
        self.particles, self.threads = particles, threads
        self.group_size = group_size(particles)
        self._hold(0, particles)
        if particles <= FEW:
            self.cut = Cut(particles, self.group_size, len(self.groups))
        self._team, self._interrupts, self._memory = _Team(), Interrupts(), Reuse()

    def beside(self, particles: int) -> ThreadParticles:
        other = self._another(particles)
        other._team, other._interrupts, other._memory = self._team, self._interrupts, self._memory
        return other

    def _another(self, particles: int) -> ThreadParticles:
        return ThreadParticles(particles, self.threads)

    def _hold(self, first: int, held: int) -> None:
        """Hold so many particles, the first of a group and those that follow."""
        self.first, self.held = first, held
        self.groups = partition(held, self.group_size)
        share = _EVEN * -(-held // (_EVEN * self.threads))
        self.shares = partition(held, min(share, SHARE))

    def whole(self) -> AbstractContextManager[None]:
        return self._interrupts.put_off()

    @contextmanager
    def running(self) -> Iterator[Particles]:
        """Hold the threads for the duration of a solve, with BLAS limited to one thread each.

        Overflow and NaN raise no warnings: the solve looks for them and ends with a status. Ctrl-C, and other signals
        that Python handles, are dealt with when the threads have ended what they are at.
        """
        quiet = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}
        with self._interrupts.deferred(), single_threaded_blas, np.errstate(**quiet):  # type: ignore[arg-type]
            self._memory.open()
            if self.threads > 1:
                self._team.workers = Workers(self.threads - 1, lambda: np.seterr(**quiet))  # type: ignore[arg-type]
            try:
                yield self
            finally:
                self._memory.close()
                if self._team.workers is not None:
                    self._team.workers.close()
                    self._team.workers = None

    def allocate(self, rows: int, dtype: Any = np.float64) -> Array:
        return self._memory.empty((rows, self.held), dtype)

    def stack(self, parts: Sequence[Array]) -> Array:
        return np.concatenate(parts, out=self.allocate(sum(map(len, parts)), parts[0].dtype))

    def to_host(self, vectors: Array) -> NDArray[Any]:
        return vectors

    def from_host(self, vectors: NDArray[Any]) -> Array:
        return vectors[:, self.first : self.first + self.held]

    def fill(self, out: Array, noise: Noise, address: Address, layer: int = 0) -> None:
        def work(piece: tuple[slice, slice]) -> None:
            rows, share = piece
            noise.fill(out[rows], share, address.rows(rows), layer)

        self._run(work, list(product(partition(len(out), _ROWS), self.shares)), 8 * out.size)

    def inner(self, left: Array | Sequence[Array], right: Array) -> Matrix:
        return self._products([left] if isinstance(left, np.ndarray) else left, right, right.dtype.type(0))

    def gram(self, vectors: Array) -> Matrix:
        return self._products([vectors], vectors, 0.0)

    def _products(self, parts: Sequence[Array], right: Array, zero: Any) -> Matrix:
        """Return the inner products of the rows of all parts with `right`, computed in the type of `zero`."""
        rows = sum(map(len, parts))
        sums = np.zeros((len(self.groups), rows, len(right)))

        def work(groups: slice) -> None:
            first = 0
            for part in parts:
                if len(part):
                    products.inner(part, right, zero, groups.start, groups.stop, self.group_size, first, sums)
                first += len(part)

        if sums.size:
            self.on_groups(work, rows * right.size)
        return self.total(sums) / self.particles

    def mean_squares(self, vectors: Array) -> Matrix:
        sums = np.zeros((len(self.groups), len(vectors), 1))
        self.on_groups(
            lambda groups: products.squares(vectors, groups.start, groups.stop, self.group_size, sums), vectors.size
        )
        return self.total(sums)[:, 0] / self.particles

    def means(self, *factors: Array) -> Matrix:
        def summed(part: slice) -> Matrix:
            product = factors[0][:, part]
            for factor in factors[1:]:
                product = np.multiply(product, factor[:, part], dtype=np.float64)
            return np.asarray(product.sum(axis=1, dtype=np.float64))

        return self.average(summed, (len(factors[0]),), sum(factor.size for factor in factors))

    def project(self, vectors: Array, coordinates: Matrix, directions: Array) -> tuple[Array, Matrix, Matrix]:
        rest, count = self.allocate(len(vectors), vectors.dtype), len(directions)
        zero = vectors.dtype.type(0)
        sums = np.zeros((len(self.groups), count + len(vectors), len(vectors)))
        coefficients = np.ascontiguousarray(-coordinates, vectors.dtype)
        self.on_groups(
            lambda groups: products.project(
                vectors, coefficients, directions, zero, groups.start, groups.stop, self.group_size, rest, sums
            ),
            vectors.size * (2 * count + len(vectors)),
        )
        met = self.total(sums) / self.particles
        return rest, met[:count].T, met[count:]

    def combine(self, out: Array, terms: Sequence[tuple[NDArray[Any], Array]], add: bool = False) -> None:
        terms = [(np.ascontiguousarray(c, out.dtype), v) for c, v in terms if c.size]
        if not terms or not out.size:
            if not add:
                out[...] = 0.0
            return

        def work(groups: slice) -> None:
            start, stop = groups.start * self.group_size, min(groups.stop * self.group_size, self.held)
            for index, (coefficients, vectors) in enumerate(terms):
                products.combine(coefficients, vectors, start, stop, float(add or index > 0), out)

        self.on_groups(work, self.held * sum(c.size for c, _ in terms))

    def apply(
        self, work: Callable[..., object], out: Array, *arrays: Array, rows: Sequence[NDArray[np.float64]] = ()
    ) -> None:
        columns = [row[:, None].astype(out.dtype) for row in rows]
        if self.cut is not None:
            work(out, *arrays, *columns)
            self.check()
            return

        def on(share: slice) -> None:
            work(*(array[:, share] for array in (out, *arrays)), *columns)

        self.each(on, self.shares)

    def total(self, sums: Sequence[NDArray[np.floating]] | Matrix) -> Matrix:
        total = sums[0].astype(np.float64)
        for part in sums[1:]:
            total += part
        return total

    def multiply(self, vectors: Array, matrix: Array, transposed: bool = False) -> Array:
        matrix = matrix.T if transposed else matrix
        out = np.empty((len(vectors), matrix.shape[1]), vectors.dtype)

        def work(columns: slice) -> None:
            out[:, columns] = vectors @ matrix[:, columns]

        self.each(work, partition(matrix.shape[1], _ROWS))
        return out

    def add_product(self, left: NDArray[Any], right: NDArray[Any], *matrices: Array) -> None:
        dtype = matrices[0].dtype
        first, second = np.ascontiguousarray(left.T, dtype), right.astype(dtype)

        def work(rows: slice) -> None:
            change = first[rows] @ second
            for matrix in matrices:
                matrix[rows] += change

        self.each(work, partition(len(first), _ROWS))

    def each(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        self._run(work, items)

    def on_groups(self, work: Callable[[slice], None], size: float = np.inf) -> None:
        """Call `work` on consecutive groups, some stretches of them for each thread.

        Where `size`, the number of multiply–adds, is small, this thread does it all.
        """
        count = len(self.groups)
        alone = self._team.workers is None or size < _SMALL_WORK or self.cut is not None
        self._run(work, [slice(0, count)] if alone else _turns(count, self.threads), size)

    def average(self, summed: Callable[[slice], NDArray[Any]], shape: tuple[int, ...], size: float = np.inf) -> Matrix:
        """Return 1/N of the sum over all particles, (shape) float64, of which summed(part) is that over a slice.

        `size` is the number of multiply–adds.
        """
        sums = np.zeros((len(self.groups), *shape))

        def work(groups: slice) -> None:
            for index in range(groups.start, groups.stop):
                sums[index] = summed(self.groups[index])

        self.on_groups(work, size)
        return self.total(sums) / self.particles

    def of_all_groups(self, sums: Matrix) -> Matrix:
        """Return `sums` of each group, (groups, numbers), of the groups of all processes."""
        return sums

    def gather(self, vectors: Array, to_all: bool = True) -> Array:
        """Return the vectors of all particles, (rows, N), of which `vectors` are those that are held.

        Without `to_all`, processes that do not speak have those that they hold.
        """
        return vectors

    def pick(self, vectors: Array, places: NDArray[np.integer]) -> Array:
        """Return the vectors of the particles at these places among all N, (rows, places), on all processes."""
        return vectors[:, places]

    def extremes(self, vectors: Array) -> NDArray[np.intp]:
        """Return the places among all N, (2 rows,), where each row of `vectors` is first least, and first largest."""
        return np.concatenate([vectors.argmin(axis=1), vectors.argmax(axis=1)])

    def together(self, work: Callable[[], None], size: float, shares: int) -> None:
        """Call work() on as many threads as there are shares of it, at the same time.

        It is done when the call of this thread has ended, and does not wait for calls that have not begun. Where
        `size`, the multiply–adds between two times at which threads wait for each other, is small, this thread calls
        it alone.
        """
        helpers = min(self.threads, shares) - 1
        workers = self._team.workers
        if workers is None or helpers < 1 or size < _SMALL_STEP:
            work()
        else:
            workers.share(work, helpers)

    def check(self) -> None:
        """Let an interrupt come that was put off."""
        self._interrupts.check()

    def _run(self, work: Callable[[T], None], items: Sequence[T], size: float = np.inf) -> None:
        """Call work(item) for every item: here if there is little to do, else on all threads, who take turns."""
        workers = self._team.workers
        if workers is None or len(items) <= 1 or size < _SMALL_WORK:
            for item in items:
                work(item)
            self.check()
            return
        turns = iter(items)

        def take_turns() -> None:
            for item in turns:
                work(item)

        workers.share(take_turns, len(items) - 1)
        self.check()


def _turns(groups: int, threads: int) -> list[slice]:
    """Cut groups into runs of consecutive ones, shorter and shorter, for threads that take turns."""
    turns: list[slice] = []
    first = 0
    while first < groups:
        last = first + -(-(groups - first) // (_TURN * threads))
        turns.append(slice(first, last))
        first = last
    return turns


Blocks = ThreadParticles
