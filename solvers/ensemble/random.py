"""Standard normal noise that is addressed, not drawn in sequence.

The value at an address (seed, stream, step, position, layer, particle) never depends on what was drawn
before it. An address without its particle, and the number of the stretch of `STRETCH` particles, are hashed to
the start and the increment of a SplitMix64 sequence, whose words are functions of their index alone; so loops over
particles vectorise, and a run with n particles sees the first n values of a run with more. Two words give two
normals by the transform of Box and Muller, free of branches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel, part_kernel
from solvers.partition import STRETCH

_PART = 2**48  # positions of one field before those of the next
# What one normal takes on one thread.
NORMAL_SECONDS = 1.5e-9
# Longer for the noise of a refined grid alone is a mistake; while a vector is drawn nothing can be interrupted.
_LONGEST_SECONDS = 86_400.0

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# So few normals are made one at a time.
_FEW = 16
# Pairs of normals made at a time; a shorter stretch costs as much as a multiple of these.
PAIRS = 64

_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_LN2 = math.log(2.0)
_EIGHTH_TURN = math.pi / 2**54
# The bits of sqrt(½): taking these off a double leaves the exponent that brings it between sqrt(½) and sqrt(2).
_ROOT_HALF = np.float64(math.sqrt(0.5)).view(np.int64)


class Stream(IntEnum):
    """What a noise vector is for; streams are independent of each other.

    Attributes
    ----------
    INPUT, READOUT
        The first and the last weights, or the initial values of a forward and a backward equation.
    FORWARD, BACKWARD
        Fresh noise of the images 𝒲φ and 𝒲ᵀg, or the paths of a forward and a backward equation.
    PROBE
        Fresh noise of vectors that are not remembered.
    WEIGHTS, BACKWARD_WEIGHTS
        Entries of weight matrices that are held.
    PATH, COMMON
        Brownian motions of each particle, and those that all share.
    BETWEEN, COMMON_BETWEEN
        Paths between the times of the finest grid, of each particle and of common noise.
    CROSSINGS, JUMPS, BATCHES
        Whether paths crossed a level between the ends of a step, jumps, and which particles meet.
    """

    INPUT = 0
    READOUT = 1
    FORWARD = 2
    BACKWARD = 3
    PROBE = 4
    WEIGHTS = 5
    BACKWARD_WEIGHTS = 6
    PATH = 7
    COMMON = 8
    CROSSINGS = 9
    JUMPS = 10
    BETWEEN = 11
    COMMON_BETWEEN = 12
    BATCHES = 13


_COMMON, _BETWEEN, _COMMON_BETWEEN = int(Stream.COMMON), int(Stream.BETWEEN), int(Stream.COMMON_BETWEEN)
# How often a finest step is halved to find a path between its ends; it is straight in what is left.
_HALVINGS = 30


@part_kernel
def mix64(z):
    """The output function of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


@part_kernel
def address_key(seed, stream, step, position, layer, stretch):
    """Hash an address to 64 bits: one SplitMix64 round per coordinate."""
    key = mix64(np.uint64(seed) + _GOLDEN)
    key = mix64(key ^ mix64(np.uint64(stream) + _GOLDEN))
    key = mix64((key + _GOLDEN) ^ mix64(np.uint64(step) + _GOLDEN))
    key = mix64((key + _GOLDEN) ^ mix64(np.uint64(position) + _GOLDEN))
    key = mix64((key + _GOLDEN) ^ mix64(np.uint64(layer) + _GOLDEN))
    return mix64((key + _GOLDEN) ^ mix64(np.uint64(stretch) + _GOLDEN))


@part_kernel
def increment_of(key):
    """An odd number with enough changes between neighbouring bits, as SplitMix64 makes its increments."""
    increment = mix64(key + _GOLDEN) | np.uint64(1)
    changes = increment ^ (increment >> np.uint64(1))
    count = 0
    for bit in range(64):
        count += np.int64((changes >> np.uint64(bit)) & np.uint64(1))
    return increment ^ np.uint64(0xAAAAAAAAAAAAAAAA) if count < 24 else increment


@part_kernel
def _radius(word):
    """sqrt(−2 ln u) for u = (the upper 52 bits + ½) / 2^52, by ln u = k ln 2 + 2 artanh((m − 1) / (m + 1))."""
    bits = np.float64((np.float64(word >> np.uint64(12)) + 0.5) * 2.0**-52).view(np.int64)
    k = (bits - _ROOT_HALF) >> 52
    m = np.int64(bits - (k << 52)).view(np.float64)  # from sqrt(½) to sqrt(2)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1.0 / 17.0 + z * (1.0 / 19.0 + z * (1.0 / 21.0))
    p = 1.0 / 11.0 + z * (1.0 / 13.0 + z * (1.0 / 15.0 + z * p))
    p = 1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * p))
    p = s + s * z * (1.0 / 3.0 + z * p)
    return math.sqrt(-2.0 * (np.float64(k) * _LN2 + 2.0 * p))


@part_kernel
def _direction(word):
    """Cosine and sine of an angle that is uniform on the circle.

    The upper 53 bits are an angle from −π/4 to π/4, small enough for short Taylor polynomials; two more bits
    reflect the cosine and exchange the two, which reaches the rest of the circle.
    """
    angle = np.float64(np.int64(word) >> np.int64(11)) * _EIGHTH_TURN
    q = angle * angle
    sine = 1.0 / 362880.0 + q * (-1.0 / 39916800.0 + q * (1.0 / 6227020800.0 - q * (1.0 / 1307674368000.0)))
    sine = angle + angle * q * (-1.0 / 6.0 + q * (1.0 / 120.0 + q * (-1.0 / 5040.0 + q * sine)))
    cosine = 1.0 / 40320.0 + q * (
        -1.0 / 3628800.0 + q * (1.0 / 479001600.0 + q * (-1.0 / 87178291200.0 + q * (1.0 / 20922789888000.0)))
    )
    cosine = 1.0 + q * (-0.5 + q * (1.0 / 24.0 + q * (-1.0 / 720.0 + q * cosine)))
    sign = np.int64(np.int64(word & np.uint64(1)) << 63)
    cosine = np.int64(np.float64(cosine).view(np.int64) ^ sign).view(np.float64)
    exchange = (word & np.uint64(2)) != np.uint64(0)
    return sine if exchange else cosine, cosine if exchange else sine


@part_kernel
def add_normals(out, scale, key, increment, first):
    """Add `scale` times normals to `out`, (2, PAIRS), from the words first, first + 1, … of a sequence."""
    for pair in range(PAIRS):
        index = np.uint64(first + 2 * pair + 1)
        radius = scale * _radius(mix64(key + index * increment))
        cosine, sine = _direction(mix64(key + (index + np.uint64(1)) * increment))
        out[0, pair] += radius * cosine
        out[1, pair] += radius * sine


@part_kernel
def fill_few(out, start, stop, offset, seed, stream, step, positions, finest, refinement, scale):
    """Fill as `fill_normals` does for few of the first particles; `scale` is the size of normals of finest steps."""
    for row in range(len(positions)):
        for p in range(start, stop):
            out[row, p - offset] = 0.0
        for fine in range(finest, finest + refinement):
            key = address_key(seed, stream, step, positions[row], fine, 0)
            increment = increment_of(key)
            for p in range(start, stop):
                index = np.uint64(2 * p + 1)
                radius = scale * _radius(mix64(key + index * increment))
                cosine, _ = _direction(mix64(key + (index + np.uint64(1)) * increment))
                out[row, p - offset] += radius * cosine


@kernel
def fill_normals(out, start, stop, offset, seed, stream, step, positions, finest, refinement, size):
    """Fill out[i, start - offset : stop - offset] with `size` times the normals of particles start … stop - 1.

    Row i has position positions[i]. The increment of a step is the sum of those of `refinement` layers from `finest`.
    """
    scale = size / math.sqrt(np.float64(refinement))
    if stop - start <= _FEW and stop <= PAIRS:
        fill_few(out, start, stop, offset, seed, stream, step, positions, finest, refinement, scale)
        return
    sums = np.empty((STRETCH // PAIRS, PAIRS))
    flat = sums.ravel()
    for row in range(len(positions)):
        for first in range(start - start % STRETCH, stop, STRETCH):
            low, high = max(start - first, 0), min(stop - first, STRETCH)
            # whole pairs of rows, of which only low … high - 1 are wanted
            lowest, rows = 2 * (low // (2 * PAIRS)), 2 * ((high + 2 * PAIRS - 1) // (2 * PAIRS))
            sums[lowest:rows] = 0.0
            for fine in range(finest, finest + refinement):
                key = address_key(seed, stream, step, positions[row], fine, first // STRETCH)
                increment = increment_of(key)
                for pair in range(lowest, rows, 2):
                    add_normals(sums[pair : pair + 2], scale, key, increment, pair * PAIRS)
            here = out[row, first + low - offset : first + high - offset]
            for j in range(high - low):
                here[j] = flat[low + j]


@kernel
def fill_integrals(
    dw: Any, dz: Any, start: int, stop: int, offset: int, seed: int, stream: int, step: int, positions: Any,
    finest: int, refinement: int, dt: float,
) -> None:  # fmt: skip
    """Fill `dw` as `fill_normals` does with size √|dt|, and `dz` with the integrals of what the motions gain in a step.

    Over a finest step of length h, ∫ (W − W_t) = h/2 dW + h^(3/2)/√12 ξ, with ξ the normal that as many positions
    further on has (Kloeden and Platen, 10.4.3). Backward in time a step begins at the other end.
    """
    length = abs(dt) / refinement
    size = math.sqrt(abs(dt)) / math.sqrt(np.float64(refinement))
    fresh, further = np.empty(dw.shape), positions + len(positions)
    dw[:, start - offset : stop - offset] = 0.0
    dz[:, start - offset : stop - offset] = 0.0
    for fine in range(finest, finest + refinement):
        fill_normals(fresh, start, stop, offset, seed, stream, step, positions, fine, 1, size)
        for i in range(len(positions)):
            for p in range(start - offset, stop - offset):
                dz[i, p] += length * (dw[i, p] + 0.5 * fresh[i, p])
                dw[i, p] += fresh[i, p]
        fill_normals(fresh, start, stop, offset, seed, stream, step, further, fine, 1, size)
        for i in range(len(positions)):
            for p in range(start - offset, stop - offset):
                dz[i, p] += length / math.sqrt(12.0) * fresh[i, p]
    if dt < 0.0:
        for i in range(len(positions)):
            for p in range(start - offset, stop - offset):
                dz[i, p] = abs(dt) * dw[i, p] - dz[i, p]


@kernel
def fill_path(
    dw: Any, start: int, stop: int, offset: int, seed: int, stream: int, step: int, positions: Any, finest: int,
    refinement: int, length: float, share: float, backward: bool,
) -> None:  # fmt: skip
    """Fill dw[:, start - offset : stop - offset] with what the motions gain in a share of a step, between its ends.

    It is `length` long. Within a finest step the path is found by halving: in the middle of two places it is the mean
    of what it is there, and a normal. So it is the same whenever, and for whatever other times, it is asked for.
    Backward in time a step begins at the other end.
    """
    low, high, each = start - offset, stop - offset, length / refinement
    whole = min(int(share * refinement), refinement - 1)
    rest = share * refinement - whole
    fresh, total, size = np.empty(dw.shape), np.empty(dw.shape), math.sqrt(each)
    dw[:, low:high] = 0.0
    for j in range(whole + 1):
        fine = finest + refinement - 1 - j if backward else finest + j
        fill_normals(total, start, stop, offset, seed, stream, step, positions, fine, 1, size)
        if j < whole:
            dw[:, low:high] += total[:, low:high]
    fine = finest + refinement - 1 - whole if backward else finest + whole
    place = 1.0 - rest if backward else rest
    left, right = np.zeros(dw.shape), total.copy()
    begin, end, node = 0.0, 1.0, 1
    within = _COMMON_BETWEEN if stream == _COMMON else _BETWEEN
    for _ in range(_HALVINGS):
        middle, here = 0.5 * (begin + end), positions + len(positions) * node
        fill_normals(fresh, start, stop, offset, seed, within, step, here, fine, 1, 0.5 * size * math.sqrt(end - begin))
        for i in range(len(positions)):
            for p in range(low, high):
                value = 0.5 * (left[i, p] + right[i, p]) + fresh[i, p]
                if place < middle:
                    right[i, p] = value
                else:
                    left[i, p] = value
        node = 2 * node + (place >= middle)
        begin, end = (begin, middle) if place < middle else (middle, end)
        if place == begin:
            break
    share = (place - begin) / (end - begin)
    for i in range(len(positions)):
        for p in range(low, high):
            gained = left[i, p] + share * (right[i, p] - left[i, p])
            dw[i, p] += total[i, p] - gained if backward else gained


@kernel
def fill_uniforms(
    out: Any, start: int, stop: int, seed: int, stream: int, step: int, position: int, layer: int
) -> None:
    """Fill out[: stop - start] with numbers uniform on (0, 1), those of particles start … stop - 1."""
    for first in range(start - start % STRETCH, stop, STRETCH):
        key = address_key(seed, stream, step, position, layer, first // STRETCH)
        increment = increment_of(key)
        low, high = max(start - first, 0), min(stop - first, STRETCH)
        here = out[first + low - start : first + high - start]
        for j in range(high - low):
            word = mix64(key + np.uint64(low + j + 1) * increment)
            here[j] = (np.float64(word >> np.uint64(12)) + 0.5) * 2.0**-52


@dataclass(frozen=True)
class Address:
    """Where the noise of a batch of vectors is found.

    Parameters
    ----------
    stream : Stream
        What it is for.
    step : int
        Training step, or the key of a grid of times; at least 0.
    positions : tuple of int
        One number of at least 0 for each vector.
    """

    stream: Stream
    step: int = 0
    positions: tuple[int, ...] = (0,)

    def rows(self, kept: NDArray[np.intp] | slice) -> Address:
        """Return the address of the vectors `kept` alone."""
        picked = self.positions[kept] if isinstance(kept, slice) else tuple(self.positions[i] for i in kept)
        return Address(self.stream, self.step, picked)


class Draw(NamedTuple):
    """Where the normals of several vectors are found, as kernels take it: what `fill_normals` takes, and `first`."""

    seed: int
    stream: int
    step: int
    positions: NDArray[np.int64]
    finest: int
    refinement: int
    first: int


@dataclass(frozen=True)
class Noise:
    """A field of standard normals addressed by (stream, step, position, layer, particle).

    Parameters
    ----------
    seed : int
        Any integer from 0 to 2**63 - 1.
    refinement : int
        Steps of the finest grid in one layer; a layer's noise is their sum over sqrt(refinement).
    start : int
        Step of the finest grid where layer 0 begins.
    first : int
        Particle 0 here is particle `first` of the field that has the same seed and begins at 0.
    part : int
        Which of several independent fields with the same seed.

    References
    ----------
    G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    G. E. P. Box, M. E. Muller, "A note on the generation of random normal deviates", Ann. Math. Stat. 29 (1958).
    """

    seed: int
    refinement: int = 1
    start: int = 0
    first: int = 0
    part: int = 0

    def finest(self, layer: int) -> int:
        """Return the step of the finest grid where a layer begins."""
        return self.start + layer * self.refinement

    def draw(self, address: Address, layer: int = 0) -> Draw:
        """Return where kernels find the noise of an `address` at a `layer`."""
        positions = np.array(address.positions, np.int64) + self.part * _PART
        here = self.finest(layer), self.refinement, self.first
        return Draw(self.seed, int(address.stream), address.step, positions, *here)

    def fill(self, out: NDArray[np.floating], share: slice, address: Address, layer: int = 0, offset: int = 0) -> None:
        """Fill out[i, share] with the noise of position i of an `address`, at a `layer`.

        `out` is (positions, N), C-contiguous, or holds only the particles from `offset` on. A `share` that starts at a
        multiple of 2,048 is fastest.
        """
        *here, first = self.draw(address, layer)
        fill_normals(out, first + share.start, first + share.stop, first + offset, *here, 1.0)


def require_drawable(vectors: float, particles: int, refinement: int, threads: int, grid: str) -> None:
    """Raise ValueError if so many vectors of particles would take more than a day to draw on a refined grid.

    A run whose grid is not refined draws no more than it works on. `grid` is what errors call the number of its steps.
    """
    # a short stretch costs as much as two rows of pairs, and threads share stretches
    normals = float(vectors) * max(particles, 2 * PAIRS) * refinement
    seconds = normals * NORMAL_SECONDS / min(threads, -(-particles // STRETCH))
    if refinement > 1 and seconds > _LONGEST_SECONDS:
        raise ValueError(f"{grid} must be smaller: its noise alone would take {seconds / 86_400:.2g} days to draw")


def replicate_seed(seed: int, replicate: int) -> int:
    """Return the seed itself for replicate 0, then independent ones."""
    if replicate == 0:
        return seed
    return int(np.random.SeedSequence((seed, replicate)).generate_state(1, np.uint64)[0] >> np.uint64(1))
