"""What this machine does in a second, measured when it is first wanted, and what a machine of reference does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from solvers.ensemble.homes import has_memory, home_on
from solvers.ensemble.random import NORMAL_SECONDS, Address, Noise, Stream
from solvers.ensemble.threads import FEW, ThreadParticles

# Speeds are measured with so many particles, where there are not few, so that the next size finds the same speed; and
# where bases take more bytes than caches hold, with so many bytes of them.
_MEASURED, _CACHED, _BEYOND_CACHES = 1 << 16, 1 << 24, 1 << 26
# Particles that keep a device busy.
_BUSY = 1 << 20
# Rows of states, and of small matrices.
_STATES = 8
_SQUARE = 256
# Directions that vectors meet at a time there.
_MET = 64


class Speed(NamedTuple):
    """What all threads of a run do together.

    Attributes
    ----------
    rate, probe_rate : float
        Multiply–adds a second, in training and with probes.
    elementwise : float
        Seconds that a particle of a sample takes in one layer besides products: φ or φ', the update of the state.
    normal : float
        Seconds of a normal number.
    call : float
        Seconds of an operation of no work.
    product : float
        Multiply–adds a second of one thread in products of small square matrices, in float64.
    """

    rate: float
    probe_rate: float
    elementwise: float
    normal: float
    call: float
    product: float


def reference_speed(rows: tuple[int, int], itemsize: int, threads: int) -> Speed:
    """Return the speed of one thread or two, for choices that must be the same on every machine.

    `rows` are how many vectors meet the bases at a time, in training and with probes, in numbers of `itemsize` bytes.
    """
    gain = min(threads, 2) ** 0.5  # two share the memory's bandwidth
    rate, probe_rate = (gain * 3e9 * count**0.5 * 8 / itemsize for count in rows)
    return Speed(rate, probe_rate, 14e-9 / gain, NORMAL_SECONDS / gain, 4e-6, 1.2e10)


def measured_speed(
    rows: tuple[int, int],
    itemsize: int,
    threads: int,
    few: bool,
    bases: int,
    products: bool,
    device: str | None = None,
) -> Speed:
    """Return the speed of this machine, with few particles or many, and bases of so many bytes in all layers.

    That of products of small matrices is measured where there are `products`, and infinite where there are none.
    """
    particles = FEW if few else _MEASURED
    if has_memory(device):
        particles = _BUSY
    copies = max(1, _BEYOND_CACHES // (_MET * particles * itemsize)) if bases > _CACHED else 1
    sizes = itemsize, particles, threads, device
    rate, probe_rate = (multiply_adds_per_second(count, copies, *sizes) for count in rows)
    return Speed(rate, probe_rate, *_seconds(*sizes), _product_rate() if products else math.inf)


@cache
def multiply_adds_per_second(
    rows: int, copies: int, itemsize: int, particles: int, threads: int, device: str | None = None
) -> float:
    """Measure products of the shape the bases need, (rows, n) times (n, directions), with so many bases in turn."""
    ensemble, dtype = home_on(device, particles, threads), np.dtype(f"f{itemsize}")
    bases = [ensemble.from_host(np.ones((_MET, particles), dtype)) for _ in range(copies)]
    vectors = ensemble.from_host(np.ones((rows, particles), dtype))

    def products() -> None:
        for basis in bases:
            ensemble.inner(basis, vectors)

    with ensemble.running():
        return rows * copies * _MET * particles / _typical(products, 3)


@cache
def _seconds(itemsize: int, particles: int, threads: int, device: str | None) -> tuple[float, float, float]:
    """Measure what a particle takes elementwise, a normal number, and a call."""
    ensemble, one, dtype = home_on(device, particles, threads), home_on(device, 1, 1), np.dtype(f"f{itemsize}")
    states, number = ensemble.from_host(np.ones((_STATES, particles), dtype)), one.from_host(np.ones((1, 1)))

    def elementwise() -> None:
        images = ensemble.map(np.tanh, states)
        ensemble.apply(lambda image, state: np.add(image, state, out=image), images, states)
        ensemble.mean_squares(images)

    address = Address(Stream.PROBE, positions=tuple(range(_STATES)))
    with ensemble.running():
        each = _typical(elementwise), _typical(lambda: ensemble.fill(states, Noise(0), address))
    with one.running():
        call = _typical(lambda: one.gram(number), 100)
    return each[0] / (_STATES * particles), each[1] / (_STATES * particles), call


@cache
def _product_rate() -> float:
    """Measure the multiply–adds a second of one thread in products of small square matrices."""
    square = np.ones((_SQUARE, _SQUARE))
    with ThreadParticles(1).running():
        return _SQUARE**3 / _typical(lambda: square @ square)


def _typical(work: Callable[[], object], times: int = 5) -> float:
    """Return the median seconds of a call, after a first one."""
    found = []
    for _ in range(times + 1):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return float(np.median(found[1:]))
