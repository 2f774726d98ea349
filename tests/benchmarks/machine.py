"""What this machine does at most: the bounds that benchmarks are held against, measured in the same run.

Every figure is of all threads that a solve uses, at work at the same time.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numba import njit

from solvers import tanh
from solvers.ensemble.random import fill_normals
from solvers.processors import available_threads

ROUNDS = 5
_PART = 2048


def seconds(run, *arguments):
    """Time of one call."""
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def median_seconds(run, rounds=ROUNDS):
    """Median time of calls run(0), run(1), …"""
    return statistics.median(seconds(run, index) for index in range(rounds))


def in_turn(runs, rounds=ROUNDS):
    """Times of several functions of a seed, by name, called in turn so that what disturbs one disturbs all."""
    times = {name: [] for name in runs}
    for seed in range(1, rounds + 1):
        for name, run in runs.items():
            times[name].append(seconds(run, seed))
    return times


def _together(work, items):
    """Nanoseconds for each item where every thread does `work`, with a number of its own, on so many items."""
    threads = available_threads()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
        times = [seconds(lambda: list(pool.map(work, range(threads)))) for _ in range(ROUNDS)]
    return min(times) / (threads * items) * 1e9


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _tanhs(x, repeats):
    for _ in range(repeats):
        for i in range(len(x)):
            x[i] = tanh(x[i] + 1.0)


@njit(nogil=True, error_model="numpy")
def _normals(out, repeats, position):
    for layer in range(repeats):
        fill_normals(out, 0, out.shape[1], 0, 1, 3, 0, position, layer, 1, 1.0)


def normals_and_tanhs(items):
    """Return a function of a seed that makes so many normals and so many hyperbolic tangents, in cache."""
    threads = available_threads()
    normals, tanhs = np.empty((threads, 1, _PART)), np.zeros((threads, _PART))
    position, repeats = np.zeros(1, np.int64), items // (threads * _PART)
    pool = ThreadPoolExecutor(threads)

    def run(seed):
        list(pool.map(lambda k: _normals(normals[k], repeats, position), range(threads)))
        list(pool.map(lambda k: _tanhs(tanhs[k], repeats), range(threads)))

    return run


@cache
def multiply_adds(dtype):
    """Multiply–adds a second of BLAS on square matrices, the most that this machine was seen to do."""
    size = 1024
    a = np.random.default_rng(0).standard_normal((size, size)).astype(dtype)
    best = min(seconds(np.dot, a, a) for _ in range(2 * ROUNDS))
    return size**3 / best


@cache
def triad_bandwidth():
    """Bytes a second of a = b + s c on arrays far larger than the cache, two read and one written."""
    count = 2**24
    a, b, c = (np.ones((available_threads(), count)) for _ in range(3))
    return 24.0 / _together(lambda k: _triad(a[k], b[k], c[k]), count) * 1e9


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _triad(a, b, c):
    for i in range(len(a)):
        a[i] = b[i] + 3.0 * c[i]


def exponent(sizes, times):
    """Slope of log time over log size between the last two sizes, and over all of them."""
    x, y = np.log(sizes), np.log(times)
    return float((y[-1] - y[-2]) / (x[-1] - x[-2])), float(np.polyfit(x, y, 1)[0])
