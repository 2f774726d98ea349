"""Memory that waits for arrays of its size."""

from __future__ import annotations

import gc

import numpy as np

from solvers.ensemble.reuse import _LARGE, Reuse
from solvers.ensemble.threads import ThreadParticles

COUNT = _LARGE // 8


def place(array):
    return array.__array_interface__["data"][0]


def test_memory_of_an_array_that_is_gone_serves_the_next():
    reuse = Reuse()
    reuse.open()
    first = reuse.empty((2, COUNT), np.float64)
    first[...] = 1.0
    where = place(first)
    del first
    second = reuse.empty((4, COUNT), np.float32)  # as many bytes
    assert place(second) == where
    assert second.shape == (4, COUNT)
    assert second.flags.c_contiguous
    assert second.flags.aligned
    assert second.flags.writeable


def test_memory_that_a_view_uses_is_not_given_away():
    reuse = Reuse()
    reuse.open()
    first = reuse.empty((2, COUNT), np.float64)
    row = first[1, 5:]
    row[...] = 7.0
    del first
    others = [reuse.empty((2, COUNT), np.float64) for _ in range(3)]
    for other in others:
        other[...] = 0.0
    assert not any(np.shares_memory(row, other) for other in others)
    assert np.all(row == 7.0)


def test_small_arrays_and_closed_memory_are_the_systems():
    reuse = Reuse()
    assert reuse.empty((2, COUNT), np.float64).base is None
    reuse.open()
    assert reuse.empty((1, 10), np.float64).base is None
    kept = reuse.empty((2, COUNT), np.float64)
    reuse.close()
    del kept
    gc.collect()
    assert not reuse._idle


def test_what_waits_does_not_add_to_the_peak():
    reuse = Reuse()
    reuse.open()
    small = [reuse.empty((1, COUNT), np.float64) for _ in range(6)]
    del small
    assert sum(size * len(waiting) for size, waiting in reuse._idle.items()) == 6 * _LARGE
    large = reuse.empty((4, COUNT), np.float64)
    assert sum(size * len(waiting) for size, waiting in reuse._idle.items()) == 2 * _LARGE
    del large


def test_particles_reuse_memory_while_they_run_alone():
    ensemble = ThreadParticles(COUNT)
    with ensemble.running():
        first = ensemble.allocate(1)
        where = place(first)
        del first
        assert place(ensemble.allocate(1)) == where
    assert ensemble.allocate(1).base is None
