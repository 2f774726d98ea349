"""Work on N particles by several threads, with results that do not depend on how many.

Particles are cut into blocks, and consecutive blocks into groups, in a way that depends on N only. Each
group is summed by one thread, block after block, with single-threaded BLAS, and the groups are added in
order in float64, so the same bits come out for any number of threads.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import threadpoolctl
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from solvers.ensemble import products
from solvers.ensemble.random import NOISE_BLOCK, Address, Noise, Stream
from solvers.ensemble.workers import Workers
from solvers.interrupts import ENDING

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

T = TypeVar("T")

# Groups to share among threads; also the number of partial sums held at once.
_MOST_GROUPS = 16
# Particles that elementwise work takes at a time, so that temporaries stay in cache.
SHARE = 16 * NOISE_BLOCK
# Stretches of groups for each thread, who take turns: a thread that wakes late takes fewer.
_STRETCHES = 2
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
        self.shares = partition(particles, min(share, SHARE))
        self._workers: Workers | None = None
        self._interrupts = _Interrupts()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Let no interrupt come in between: what is half done could not go on."""
        self._interrupts.held = True
        try:
            yield
        finally:
            self._interrupts.held = False

    @contextmanager
    def running(self) -> Iterator[Blocks]:
        """Hold the threads for the duration of a solve, with BLAS limited to one thread each.

        Overflow and NaN raise no warnings: the solve looks for them and ends with a status. Ctrl-C, and other signals
        that Python handles, are dealt with when the threads have ended what they are at.
        """
        quiet = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}
        with self._interrupts.deferred(), _single_threaded_blas, np.errstate(**quiet):  # type: ignore[arg-type]
            if self.threads == 1:
                yield self
                return
            self._workers = Workers(self.threads - 1, lambda: np.seterr(**quiet))  # type: ignore[arg-type]
            try:
                yield self
            finally:
                self._workers.close()
                self._workers = None

    def each(self, work: Callable[[slice], None], slices: Sequence[slice] | None = None) -> None:
        """Call `work(particles)` for slices of the particles, or for each of `slices`, on all threads."""
        self._run(work, self.shares if slices is None else slices)

    def fill(self, out: Array, noise: Noise, address: Address, layer: int = 0) -> None:
        """Fill `out`, (positions, N), with the noise of an address at a layer."""
        self._run(lambda share: noise.fill(out, share, address, layer), self.shares, 8 * out.size)

    def inner(self, left: Array | Sequence[Array], right: Array) -> Matrix:
        """Return ⟨left_i, right_j⟩, (rows, rows) float64; `left` may be several arrays, whose rows are stacked."""
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
        """Return ⟨v_i, v_j⟩ of the rows of `vectors`, (rows, rows) float64.

        All of it is computed in float64, because pivots may lie below float32 rounding.
        """
        exact = vectors.astype(np.float64, copy=False)
        return self.inner(exact, exact)

    def mean_squares(self, vectors: Array) -> Matrix:
        """Return ⟨v_i, v_i⟩ of the rows of `vectors`, (rows,) float64."""
        sums = np.zeros((len(self.groups), len(vectors), 1))
        self.on_groups(
            lambda groups: products.squares(vectors, groups.start, groups.stop, self.group_size, sums), vectors.size
        )
        return self.total(sums)[:, 0] / self.particles

    def combine(self, out: Array, terms: Sequence[tuple[Array, Array]], add: bool = False) -> None:
        """Set `out`, (rows, N), to Σ coefficients @ vectors over the terms, or add it to `out` with `add=True`.

        A term is a pair of arrays, (rows, k) and (k, N).
        """
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
        """Return the sum of `sums`, one array for each group, in the shape of one, in float64 and in their order."""
        total = sums[0].astype(np.float64)
        for part in sums[1:]:
            total += part
        return total

    def on_groups(self, work: Callable[[slice], None], size: float = np.inf) -> None:
        """Call `work` on consecutive groups, some stretches of them for each thread.

        Where `size`, the number of multiply–adds, is small, this thread does it all.
        """
        stretches = 1 if self._workers is None or size < _SMALL_WORK else _STRETCHES * self.threads
        self._run(work, partition(len(self.groups), -(-len(self.groups) // stretches)), size)

    def _run(self, work: Callable[[T], None], items: Sequence[T], size: float = np.inf) -> None:
        """Call work(item) for every item: here if there is little to do, else on all threads, who take turns."""
        if self._workers is None or len(items) <= 1 or size < _SMALL_WORK:
            for item in items:
                work(item)
            self._interrupts.check()
            return
        turns = iter(items)

        def take_turns() -> None:
            for item in turns:
                work(item)

        self._workers.share(take_turns)
        self._interrupts.check()


class _Interrupts:
    """Ctrl-C and its like during a solve, dealt with where no thread is at work and no lock is held.

    A signal that Python handles is noted, and its handler called at the next `check`; a second one comes at once.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.held = False
        self.handlers: dict[int, Callable[..., object]] = {}

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold signals back until `check`, or the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        found = {number: signal.getsignal(number) for number in ENDING}
        self.handlers = {number: handler for number, handler in found.items() if callable(handler)}
        for number in self.handlers:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in self.handlers.items():
                signal.signal(number, handler)
        self.check()

    def check(self) -> None:
        """Let the handler of a noted signal do what it does, which mostly is to raise KeyboardInterrupt."""
        if self.pending is not None and not self.held:
            number, self.pending = self.pending, None
            self.handlers[number](number, None)

    def _note(self, number: int, frame: object) -> None:
        if self.pending is not None:
            self.handlers[number](number, frame)
        self.pending = number


class _SingleThreadedBlas:
    """Limits BLAS to one thread while any solve runs; the last one to end restores what was there before."""

    def __init__(self) -> None:
        self.lock, self.running = threading.Lock(), 0
        self.controller: ThreadpoolController | None = None
        self.restore: Callable[[], None] = lambda: None

    def __enter__(self) -> None:
        with self.lock:
            if self.running == 0:
                self.controller = self.controller or ThreadpoolController()  # finding the libraries takes a while
                _release_blas()
                self.restore = self.controller.limit(limits=1, user_api="blas").restore_original_limits
            self.running += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.running -= 1
            if self.running == 0:
                _release_blas()
                self.restore()


def _release_blas() -> None:
    """Let this thread set the limits, of which recent threadpoolctl heeds only those of the thread that was first.

    The lock and the count of solves keep order among threads here, where the last to end need not be the first.
    """
    release = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)


_single_threaded_blas = _SingleThreadedBlas()
