"""Particles spread over the ranks of an MPI communicator.

Each rank holds consecutive groups of particles, in threads of its own. Sums of all groups reach every rank and are
added in the order of the groups, so all ranks go on with the same numbers, to the bit those of one process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from solvers.checks import reason
from solvers.ensemble.particles import Array, Everywhere, Matrix, Particles
from solvers.ensemble.random import Address, Noise
from solvers.ensemble.threads import ThreadParticles
from solvers.partition import share_of
from solvers.ranks import is_shared

T = TypeVar("T")

# Messages of more numbers are cut up, so that each rank adds up a part of them for all.
_LONG = 1 << 13
# Seconds in which what a rank says last is handed on, before all end.
_PATIENCE = 0.5
# What all ranks raise together.
_SHARED = (KeyboardInterrupt, SystemExit, Everywhere, np.linalg.LinAlgError)


class MPIParticles(ThreadParticles):
    """N particles over the ranks of a communicator.

    All ranks call the same methods in the same order with the same small matrices. An error that one of them meets
    alone, or memory that it lacks, ends them all; its message says which rank it was.

    Parameters
    ----------
    particles : int
        Number of particles N, of all ranks together.
    threads : int
        Threads of each rank.
    communicator : mpi4py.MPI.Comm
        The ranks.

    Raises
    ------
    ValueError
        If there are more ranks than groups of particles.
    """

    marches = False

    def __init__(self, particles: int, threads: int, communicator: Any) -> None:
        super().__init__(particles, threads)
        self.communicator = communicator
        self.rank, self.ranks = communicator.Get_rank(), communicator.Get_size()
        groups = len(self.groups)
        if self.ranks > groups:
            raise ValueError(
                f"{self.ranks} ranks are more than the {groups} groups of {particles} particles; use fewer ranks"
            )
        self.cut, self.speaks = None, self.rank == 0
        shares = [share_of(particles, rank, self.ranks) for rank in range(self.ranks)]
        self._lengths = np.array([share.stop - share.start for share in shares])
        self._counts = -(-self._lengths // self.group_size)  # groups of each rank
        self._hold(shares[self.rank].start, int(self._lengths[self.rank]))

    def _another(self, particles: int) -> MPIParticles:
        return MPIParticles(particles, self.threads, self.communicator)

    @contextmanager
    def running(self) -> Iterator[Particles]:
        with self._or_all_end(), super().running():
            yield self
            self._interrupts.pending = None  # of a signal after the last sum, which not all ranks have heard

    def check(self) -> None:
        """Do nothing: an interrupt comes where all ranks hear of it, in their next sum."""

    def allocate(self, rows: int, dtype: Any = np.float64) -> Array:
        with self._or_all_end():
            return super().allocate(rows, dtype)

    def fill(self, out: Array, noise: Noise, address: Address, layer: int = 0) -> None:
        super().fill(out, replace(noise, first=noise.first + self.first), address, layer)

    def multiply(self, vectors: Array, matrix: Array, transposed: bool = False) -> Array:
        raise NotImplementedError("matrices that are held whole are held by one process")

    def add_product(self, left: NDArray[Any], right: NDArray[Any], *matrices: Array) -> None:
        raise NotImplementedError("matrices that are held whole are held by one process")

    def total(self, sums: Sequence[NDArray[np.floating]] | Matrix) -> Matrix:
        own = np.asarray(sums, np.float64)
        size = int(np.prod(own.shape[1:]))
        if not size:
            return np.zeros(own.shape[1:])
        add = self._add_parts if size > _LONG else self._add_all
        total, signals = add(own.reshape(len(own), size), self._interrupts.pending or 0)
        self._hear(signals)
        return total.reshape(own.shape[1:])

    def _add_all(self, own: Matrix, pending: int) -> tuple[Matrix, Matrix]:
        """Let all ranks have all sums, (groups, size), and add them up."""
        size = own.shape[1]
        lengths = self._counts * size + 1
        found = np.empty(int(lengths.sum()))
        self.communicator.Allgatherv(np.append(own.ravel(), pending), [found, lengths])
        ends = np.cumsum(lengths)
        total = np.zeros(size)
        for rank, (end, length) in enumerate(zip(ends, lengths, strict=True)):
            _add(total, found[end - length : end - 1].reshape(-1, size), first=rank == 0)
        return total, found[ends - 1]

    def _add_parts(self, own: Matrix, pending: int) -> tuple[Matrix, Matrix]:
        """Let each rank have a part of all sums, add it up, and hand it to the others."""
        size = own.shape[1]
        parts = [size * rank // self.ranks for rank in range(self.ranks + 1)]
        widths = np.diff(parts)
        send = np.concatenate([own[:, low:high].ravel() for low, high in pairwise(parts)])
        mine = int(widths[self.rank])
        found = np.empty((int(self._counts.sum()), mine))
        self.communicator.Alltoallv([send, len(own) * widths], [found, self._counts * mine])
        part = np.zeros(mine)
        _add(part, found, first=True)
        lengths = widths + 1
        whole = np.empty(size + self.ranks)
        self.communicator.Allgatherv(np.append(part, pending), [whole, lengths])
        ends = np.cumsum(lengths)
        total = np.concatenate([whole[end - length : end - 1] for end, length in zip(ends, lengths, strict=True)])
        return total, whole[ends - 1]

    def of_all_groups(self, sums: Matrix) -> Matrix:
        lengths = self._counts * sums.shape[1]
        found = np.empty((int(self._counts.sum()), sums.shape[1]))
        self.communicator.Allgatherv(np.ascontiguousarray(sums), [found, lengths])
        return found

    def gather(self, vectors: Array, to_all: bool = True) -> Array:
        own, rows = np.ascontiguousarray(vectors.T, np.float64), len(vectors)
        lengths = self._lengths * rows
        if to_all:
            found = np.empty((self.particles, rows))
            self.communicator.Allgatherv(own, [found, lengths])
        else:
            found = np.empty((self.particles, rows)) if self.speaks else own
            self.communicator.Gatherv(own, [found, lengths] if self.speaks else None)
        return np.ascontiguousarray(found.T, vectors.dtype)

    def pick(self, vectors: Array, places: NDArray[np.integer]) -> Array:
        held = np.flatnonzero((places >= self.first) & (places < self.first + self.held))
        parts = self.communicator.allgather((held, vectors[:, places[held] - self.first]))
        found = np.empty((len(vectors), len(places)), vectors.dtype)
        for where, part in parts:
            found[:, where] = part
        return found

    def extremes(self, vectors: Array) -> NDArray[np.intp]:
        own = super().extremes(vectors)
        rows = np.arange(len(own)) % len(vectors)
        parts = self.communicator.allgather((vectors[rows, own], own + self.first))
        values, places = (np.array(one) for one in zip(*parts, strict=True))
        least, most = values[:, : len(vectors)].argmin(axis=0), values[:, len(vectors) :].argmax(axis=0)
        return np.asarray(places[np.concatenate([least, most]), np.arange(len(own))])

    def _hear(self, signals: Matrix) -> None:
        """Let a signal that reached any rank come on all, unless it is put off."""
        if signals.any() and not self._interrupts.held:
            self._interrupts.pending = None
            number = int(signals[signals != 0][0])
            self._interrupts.handlers.get(number, signal.default_int_handler)(number, None)

    def _run(self, work: Callable[[T], None], items: Sequence[T], size: float = np.inf) -> None:
        with self._or_all_end():
            super()._run(work, items, size)

    @contextmanager
    def _or_all_end(self) -> Iterator[None]:
        """End all ranks if this one raises what the others do not."""
        try:
            yield
        except _SHARED:
            raise
        except BaseException as error:
            if is_shared(error):
                raise
            print(f"rank {self.rank} of {self.ranks} ended all: {reason(error)}", file=sys.stderr, flush=True)
            if not isinstance(error, MemoryError):
                traceback.print_exc()
                sys.stderr.flush()
            time.sleep(_PATIENCE)
            self.communicator.Abort(1)
            os._exit(1)


def _add(total: Matrix, sums: Matrix, first: bool) -> None:
    """Add (groups, size) to the total, one group after another; the first of all takes its place."""
    if first:
        total[:] = sums[0]
    for one in sums[first:]:
        total += one
