"""Work on N particles by several threads, with results that do not depend on how many.

Particles are cut into blocks, and consecutive blocks into groups, in a way that depends on N only. Each
group is summed by one thread, block after block, with single-threaded BLAS, and the groups are added in
order in float64, so the same bits come out for any number of threads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from solvers import products
from solvers.random import NOISE_BLOCK, Address, Noise, Stream

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

T = TypeVar("T")

# Groups to share among threads; also the number of partial sums held at once.
_MOST_GROUPS = 16
# Particles that elementwise work takes at a time, so that temporaries stay in cache.
_SHARE = 16 * NOISE_BLOCK
# Waking a thread takes about as long as this many multiply–adds.
_SMALL_WORK = 300_000


def available_threads() -> int:
    """Return the number of CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def partition(count: int, size: int) -> list[slice]:
    """Cut range(count) into slices of `size`, the last one shorter."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def compile_kernels(dtype: np.dtype) -> float:
    """Compile, or load from the cache, every kernel for this precision; return the seconds it took."""
    start = time.perf_counter()
    blocks, vectors = Blocks(1), np.ones((1, 1), dtype)
    blocks.fill(vectors, Noise(0), Address(Stream.FORWARD))
    blocks.gram(vectors)
    blocks.combine(vectors, [(blocks.inner(vectors, vectors), vectors.copy())])
    blocks.mean_squares(vectors)
    return time.perf_counter() - start


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


class Blocks:
    """N particles cut into blocks, the threads that work on them, and inner products ⟨a,b⟩ = (1/N) Σ a b.

    Arrays are (rows, N), C-contiguous, in float64 or float32.

    Parameters
    ----------
    particles : int
        Number of particles N.
    threads : int
        Number of threads, at least 1.
    """

    def __init__(self, particles: int, threads: int = 1) -> None:
        self.particles, self.threads = particles, threads
        blocks = -(-particles // NOISE_BLOCK)
        self.group_size = NOISE_BLOCK * -(-blocks // _MOST_GROUPS)
        self.groups = partition(particles, self.group_size)
        share = NOISE_BLOCK * -(-blocks // threads)
        self.shares = partition(particles, min(share, _SHARE))
        self._workers: _Workers | None = None

    @contextmanager
    def running(self) -> Iterator[Blocks]:
        """Hold the threads for the duration of a solve, with BLAS limited to one thread each.

        Overflow and NaN raise no warnings: the solve looks for them and ends with a status.
        """
        quiet = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}
        with _controller().limit(limits=1, user_api="blas"), np.errstate(**quiet):  # type: ignore[arg-type]
            if self.threads == 1:
                yield self
                return
            self._workers = _Workers(self.threads - 1, lambda: np.seterr(**quiet))  # type: ignore[arg-type]
            try:
                yield self
            finally:
                self._workers.close()
                self._workers = None

    def each(self, work: Callable[[slice], None], slices: Sequence[slice] | None = None) -> None:
        """Call `work(particles)` for slices of the particles, or for each of `slices`, on all threads."""
        self._run(work, self.shares if slices is None else slices)

    def fill(self, out: Array, noise: Noise, address: Address, layer: int = 0) -> None:
        """Fill `out`, (positions, N), with the noise of an address."""
        self._run(lambda share: noise.fill(out, share, address, layer), self.shares, 8 * out.size)

    def inner(self, left: Array | Sequence[Array], right: Array) -> Matrix:
        """Return ⟨left_i, right_j⟩; `left` may be several arrays, whose rows are stacked."""
        parts = [left] if isinstance(left, np.ndarray) else list(left)
        rows = sum(map(len, parts))
        sums = np.zeros((len(self.groups), rows, len(right)))

        def work(groups: slice) -> None:
            first = 0
            for part in parts:
                if len(part):
                    products.inner(part, right, groups.start, groups.stop, self.group_size, first, sums)
                first += len(part)

        if sums.size:
            self.on_groups(work, rows * right.size)
        return self.total(sums) / self.particles

    def gram(self, vectors: Array) -> Matrix:
        """Return ⟨v_i, v_j⟩ computed in float64, because pivots may lie below float32 rounding."""
        exact = vectors.astype(np.float64, copy=False)
        return self.inner(exact, exact)

    def mean_squares(self, vectors: Array) -> Matrix:
        """Return ⟨v_i, v_i⟩, (rows,)."""
        sums = np.zeros((len(self.groups), len(vectors), 1))
        self.on_groups(
            lambda groups: products.squares(vectors, groups.start, groups.stop, self.group_size, sums), vectors.size
        )
        return self.total(sums)[:, 0] / self.particles

    def combine(self, out: Array, terms: Sequence[tuple[Array, Array]], add: bool = False) -> None:
        """Set out = Σ coefficients @ vectors over the terms, or add it to `out` with `add=True`."""
        terms = [(np.ascontiguousarray(c, out.dtype), v) for c, v in terms if c.size]
        if not terms or not out.size:
            if not add:
                out[...] = 0.0
            return

        def work(groups: slice) -> None:
            start, stop = groups.start * self.group_size, min(groups.stop * self.group_size, self.particles)
            for index, (coefficients, vectors) in enumerate(terms):
                products.combine(coefficients, vectors, start, stop, float(add or index > 0), out)

        self.on_groups(work, self.particles * sum(c.size for c, _ in terms))

    def total(self, sums: Sequence[NDArray[np.floating]] | Matrix) -> Matrix:
        """Return the sum of one array for each group, added in their order."""
        total = sums[0].astype(np.float64)
        for part in sums[1:]:
            total += part
        return total

    def on_groups(self, work: Callable[[slice], None], size: float = np.inf) -> None:
        """Call `work` on consecutive groups, one stretch for each thread."""
        self._run(work, partition(len(self.groups), -(-len(self.groups) // self.threads)), size)

    def _run(self, work: Callable[[T], None], items: Sequence[T], size: float = np.inf) -> None:
        """Call work(item) for every item: here if there is little to do, else on all threads."""
        if self._workers is None or len(items) <= 1 or size < _SMALL_WORK:
            for item in items:
                work(item)
            return
        per_thread = -(-len(items) // self.threads)

        def share(thread: int) -> None:
            for item in items[thread * per_thread : (thread + 1) * per_thread]:
                work(item)

        self._workers.run(share)


class _Workers:
    """Threads that wait for one task at a time; waking them takes a few locks and no queue."""

    def __init__(self, count: int, prepare: Callable[[], object]) -> None:
        self.task: Callable[[int], None] | None = None
        self.prepare = prepare
        self.errors: list[BaseException] = []
        self.start, self.done = ([threading.Lock() for _ in range(count)] for _ in range(2))
        for lock in (*self.start, *self.done):
            lock.acquire()
        self.threads = [threading.Thread(target=self._serve, args=(k,), daemon=True) for k in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, task: Callable[[int], None]) -> None:
        """Call task(0) here and task(1), … on the threads; raise the first error when all have ended."""
        self.task, woken = task, 0
        try:
            for lock in self.start:
                lock.release()
                woken += 1
            task(0)
        finally:
            self._wait(woken)
        if self.errors:
            error, self.errors = self.errors[0], []
            raise error

    def _wait(self, woken: int) -> None:
        interrupt: KeyboardInterrupt | None = None
        for lock in self.done[:woken]:
            while True:
                try:
                    lock.acquire()
                    break
                except KeyboardInterrupt as error:  # the threads still write into the arrays of the caller
                    interrupt = error
        if interrupt is not None:
            raise interrupt

    def close(self) -> None:
        """End the threads."""
        self.task = None
        for lock in self.start:
            lock.release()
        for thread in self.threads:
            thread.join()

    def _serve(self, k: int) -> None:
        self.prepare()
        while True:
            self.start[k].acquire()
            if self.task is None:
                return
            try:
                self.task(k + 1)
            except BaseException as error:
                self.errors.append(error)
            finally:
                self.done[k].release()
