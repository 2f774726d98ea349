"""Standard normal noise that is addressed, not drawn in sequence.

The value at an address (seed, stream, step, position, layer, particle) never depends on what was
drawn before it. Each block of `NOISE_BLOCK` particles has its own xoshiro256++ generator, whose state
is a SplitMix64 hash of the address; within a block the particles follow in order, so a run with n
particles sees the first n values of a run with more. Normals come from a 256-level ziggurat.

References
----------
D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47 (2021).
G. Marsaglia, W. W. Tsang, "The ziggurat method for generating random variables", JSS 5 (2000).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel

NOISE_BLOCK = 2048

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


class Stream(IntEnum):
    """What a noise vector is for; streams are independent of each other."""

    INPUT = 0
    READOUT = 1
    FORWARD = 2
    BACKWARD = 3
    PROBE = 4
    WEIGHTS = 5
    BACKWARD_WEIGHTS = 6
    PATH = 7
    COMMON = 8


def _ziggurat_tables() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right edges x_i and densities exp(-x_i^2/2) of 256 layers of equal area."""
    edge, area = 3.6541528853610088, 0.00492867323399
    x = np.zeros(257)
    x[0] = area * math.exp(0.5 * edge * edge)
    x[1] = edge
    for i in range(1, 255):
        x[i + 1] = math.sqrt(-2.0 * math.log(math.exp(-0.5 * x[i] * x[i]) + area / x[i]))
    return x, np.exp(-0.5 * x * x)


_X, _F = _ziggurat_tables()
_EDGE = _X[1]
_UNIT = 2.0**-53


@kernel
def mix64(z):
    """The output function of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


@kernel
def address_key(seed, stream, step, position, layer, block):
    """Hash an address to 64 bits: one SplitMix64 round per coordinate."""
    key = mix64(np.uint64(seed) + _GOLDEN)
    key = mix64(key ^ mix64(np.uint64(stream) + _GOLDEN))
    key = mix64((key + _GOLDEN) ^ mix64(np.uint64(step) + _GOLDEN))
    key = mix64((key + _GOLDEN) ^ mix64(np.uint64(position) + _GOLDEN))
    key = mix64((key + _GOLDEN) ^ mix64(np.uint64(layer) + _GOLDEN))
    return mix64((key + _GOLDEN) ^ mix64(np.uint64(block) + _GOLDEN))


@kernel
def seed_state(key):
    """Four 64-bit words of xoshiro256++ state from the SplitMix64 sequence started at `key`."""
    s0 = key + _GOLDEN
    s1 = s0 + _GOLDEN
    s2 = s1 + _GOLDEN
    s3 = s2 + _GOLDEN
    return mix64(s0), mix64(s1), mix64(s2), mix64(s3)


@kernel
def next_word(s0, s1, s2, s3):
    """One step of xoshiro256++: the output word and the new state."""
    total = s0 + s3
    word = ((total << np.uint64(23)) | (total >> np.uint64(41))) + s0
    t = s1 << np.uint64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= t
    s3 = (s3 << np.uint64(45)) | (s3 >> np.uint64(19))
    return word, s0, s1, s2, s3


@kernel
def _uniform(word):
    return np.float64(word >> np.uint64(11)) * _UNIT


@kernel
def _add_block(out, row, start, stop, key, scale):
    """Add `scale` times the normals of one noise block to out[row, start:stop]."""
    s0, s1, s2, s3 = seed_state(key)
    for j in range(start, stop):
        while True:
            word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
            level = np.int64(word & np.uint64(255))
            x = _uniform(word) * _X[level]
            if x >= _X[level + 1]:
                if level == 0:  # the tail beyond the last edge, by Marsaglia's method
                    while True:
                        word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                        x = -math.log1p(-_uniform(word)) / _EDGE
                        word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                        if -2.0 * math.log1p(-_uniform(word)) >= x * x:
                            break
                    x += _EDGE
                    # the sign bit must come from a word that did not decide the tail
                    word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                else:
                    height, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                    y = _F[level] + _uniform(height) * (_F[level + 1] - _F[level])
                    if y >= math.exp(-0.5 * x * x):
                        continue
            break
        out[row, j] += scale * (x if word & np.uint64(256) else -x)


@kernel
def fill_normals(out, start, stop, offset, seed, stream, step, positions, layer, refinement):
    """Fill out[i, start - offset : stop - offset] with the normals of particles start … stop - 1.

    Row i has position positions[i]. `start` is a multiple of `NOISE_BLOCK`. `layer` counts steps of the
    caller's own grid, each made of `refinement` steps of the finest grid: the coarse increment is the sum
    of the fine ones.
    """
    scale = 1.0 / math.sqrt(np.float64(refinement))
    for row in range(len(positions)):
        for first in range(start, stop, NOISE_BLOCK):
            last = min(first + NOISE_BLOCK, stop)
            for j in range(first - offset, last - offset):
                out[row, j] = 0.0
            for fine in range(layer * refinement, (layer + 1) * refinement):
                key = address_key(seed, stream, step, positions[row], fine, first // NOISE_BLOCK)
                _add_block(out, row, first - offset, last - offset, key, scale)


@dataclass(frozen=True)
class Address:
    """Where the noise of a batch of vectors is found: a stream, a training step, one position a vector."""

    stream: Stream
    step: int = 0
    positions: tuple[int, ...] = (0,)

    def rows(self, kept: NDArray[np.intp]) -> Address:
        """Return the address of the vectors `kept` alone."""
        return Address(self.stream, self.step, tuple(self.positions[i] for i in kept))


@dataclass(frozen=True)
class Noise:
    """A field of standard normals addressed by (stream, step, position, layer, particle).

    Parameters
    ----------
    seed : int
        Any integer from 0 to 2**63 - 1.
    refinement : int
        Steps of the finest grid in one layer; a layer's noise is their sum over sqrt(refinement).
    """

    seed: int
    refinement: int = 1

    def fill(self, out: NDArray[np.floating], block: slice, address: Address, layer: int = 0, offset: int = 0) -> None:
        """Fill out[i, block] with the noise of position i.

        `out` is (positions, N), C-contiguous, or holds only the particles from `offset` on.
        """
        fill_normals(
            out, block.start, block.stop, offset, self.seed, int(address.stream), address.step,
            np.array(address.positions, np.int64), layer, self.refinement,
        )  # fmt: skip


def replicate_seed(seed: int, replicate: int) -> int:
    """Return the seed itself for replicate 0, then independent ones."""
    if replicate == 0:
        return seed
    return int(np.random.SeedSequence((seed, replicate)).generate_state(1, np.uint64)[0] >> np.uint64(1))
