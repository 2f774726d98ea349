"""Work on particles in fixed blocks, on several threads, with results that do not depend on how many.

Each block is processed by one thread with single-threaded BLAS, and sums over blocks are taken in
block order in float64, so the same bits come out for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from solvers.random import NOISE_BLOCK

# Enough blocks to share among threads, few enough that calls from Python cost little.
T = TypeVar("T")
_TARGET_BLOCKS = 16
_LARGEST_BLOCK = 8 * NOISE_BLOCK


def available_threads() -> int:
    """Return the number of CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def partition(count: int, size: int) -> list[slice]:
    """Cut range(count) into slices of `size`, the last one shorter."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class Blocks:
    """A partition of `particles` particles into blocks, and the threads that work on them.

    Parameters
    ----------
    particles : int
        Number of particles N. The partition depends on N only.
    threads : int
        Number of threads, at least 1.
    """

    def __init__(self, particles: int, threads: int = 1) -> None:
        self.particles = particles
        noise_blocks = -(-particles // NOISE_BLOCK)
        size = min(NOISE_BLOCK * max(1, -(-noise_blocks // _TARGET_BLOCKS)), _LARGEST_BLOCK)
        self.slices = partition(particles, size)
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def running(self) -> Iterator[Blocks]:
        """Hold the threads, with BLAS limited to one thread each, for the duration of a solve."""
        with _controller().limit(limits=1, user_api="blas"):
            if self.threads == 1:
                yield self
                return
            with ThreadPoolExecutor(self.threads - 1) as self._pool:
                try:
                    yield self
                finally:
                    self._pool = None

    def each(self, work: Callable[[slice], None], slices: list[slice] | None = None) -> None:
        """Call `work(block)` for every block, or for every one of `slices`."""
        self._map(work, self.slices if slices is None else slices)

    def sum(self, work: Callable[[slice], NDArray[np.floating]]) -> NDArray[np.float64]:
        """Return the sum over blocks, in block order and float64, of the arrays `work(block)` returns."""
        first, *rest = self._map(work, self.slices)
        total = first.astype(np.float64)
        for part in rest:
            total += part
        return total

    def mean(self, work: Callable[[slice], NDArray[np.floating]]) -> NDArray[np.float64]:
        """Return the particle mean (1/N) of `sum`, the inner product written ⟨a,b⟩ in the formulas."""
        return self.sum(work) / self.particles

    def _map(self, work: Callable[[slice], T], slices: list[slice]) -> list[T]:
        if self._pool is None or len(slices) <= 1:
            return [work(block) for block in slices]
        results: list[T] = [None] * len(slices)  # type: ignore[list-item]

        def share(first: int) -> None:
            for index in range(first, len(slices), self.threads):
                results[index] = work(slices[index])

        others = [self._pool.submit(share, first) for first in range(1, self.threads)]
        try:
            share(0)
        finally:
            for other in others:
                other.result()
        return results
