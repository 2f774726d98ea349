"""Brownian motions of the particles on a grid of times, replayable in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.ensemble.random import Address, Noise, Stream, require_drawable
from solvers.memory import require_memory
from solvers.partition import STRETCH

# Streams whose intervals are places in time.
_IN_TIME = (Stream.PATH, Stream.COMMON)
# Grids whose times differ by less than one such part of an interval, as rounding may make them, are one.
_PARTS = 1000
# Shorter steps would be lost when they are added to a time.
_ROUNDING = 1e-14
# Bytes for each time of the grid: the times, and what making them takes.
_GRID = 16


@dataclass(frozen=True)
class BrownianMotion:
    """Independent Brownian motions, `motions` for each particle, on `steps` equal intervals from t0 to t1.

    An increment depends on (seed, motion, length and place in time of the interval, particle) and on nothing that was
    drawn before it. Two grids of one seed carry the same path where they have the same finest intervals: one that
    starts where the other ends goes on with it, and t0 and t1 may be exchanged. Other grids carry independent paths.

    Parameters
    ----------
    t0, t1 : float
        Ends of the time interval.
    steps : int
        Number of intervals.
    motions : int
        Number of Brownian motions of one particle.
    seed : int
        From 0 to 2**63 - 1.
    noise_steps : int, optional
        A multiple of `steps`, by default `steps`: the grid on which the path is drawn.
    stream : Stream
        ``Stream.PATH``: the particles' own motions. ``Stream.COMMON``: those of common noise, which all
        particles share and which are found as particle 0. In the streams of a network an interval is a layer, and its
        number alone counts.

    Raises
    ------
    ValueError, TypeError
        If a number is not valid.
    MemoryError
        If a grid of so many steps does not fit in memory.
    """

    t0: float
    t1: float
    steps: int
    motions: int = 1
    seed: int = 0
    noise_steps: int | None = None
    stream: Stream = Stream.PATH

    def __post_init__(self) -> None:
        t0, t1 = checks.interval(self.t0, self.t1)
        steps = checks.positive_integer("steps", self.steps)
        plain = {
            "t0": t0,
            "t1": t1,
            "steps": steps,
            "motions": checks.positive_integer("motions", self.motions),
            "seed": checks.seed_number("seed", self.seed),
            "noise_steps": checks.noise_grid(self.noise_steps, steps, ("noise_steps", "steps")),
        }
        for name, value in plain.items():  # Python's own numbers, which can be written to files
            object.__setattr__(self, name, value)
        require_memory(_GRID * (steps + 1), "take fewer steps")
        if self.dt <= _ROUNDING * max(abs(t0), abs(t1)):
            raise ValueError(f"steps of {self.dt:g} vanish beside times of {max(abs(t0), abs(t1)):g}; take fewer steps")

    @property
    def dt(self) -> float:
        """Length of one interval."""
        return abs(self.t1 - self.t0) / self.steps

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """The grid, (steps + 1,), from t0 to t1."""
        return np.linspace(self.t0, self.t1, self.steps + 1)

    @cached_property
    def address(self) -> Address:
        """Where the normals are found."""
        return Address(self.stream, self._place[0], tuple(range(self.motions)))

    @cached_property
    def noise(self) -> Noise:
        """The normals of one interval each."""
        return Noise(self.seed, self.refinement, start=self._place[1])

    @property
    def refinement(self) -> int:
        """Steps of the finest grid in one interval."""
        return (self.noise_steps or self.steps) // self.steps

    @cached_property
    def _place(self) -> tuple[int, int]:
        """A key for all grids with the same finest intervals, and which of these is the first here."""
        if self.stream not in _IN_TIME:
            return 0, 0
        length = self.dt / self.refinement
        first, phase = divmod(round(min(self.t0, self.t1) / length * _PARTS), _PARTS)
        # neither powers of two nor of ten lie where rounding turns over
        text = f"{round(math.log2(length) * _PARTS**3)} {phase}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1, first

    def increments(
        self, particles: int | Sequence[int] | slice = 0, intervals: int | slice | None = None
    ) -> NDArray[np.float64]:
        """Return the increments of W over intervals of the grid, counted in increasing time.

        Parameters
        ----------
        particles : int, sequence of int or slice with a stop
            Which particles.
        intervals : int or slice, optional
            Which intervals; all of them by default.

        Returns
        -------
        increments : (intervals, particles, motions) float64

        Raises
        ------
        ValueError, IndexError
            If a particle is negative or a slice has no stop, or if there is no such interval.
        """
        wanted = _indices(particles)
        layers = np.arange(self.steps)[slice(None) if intervals is None else intervals]
        out = np.empty((np.size(layers), len(wanted), self.motions))
        stretches, places = np.divmod(wanted, STRETCH)
        drawn = np.size(layers) * len(np.unique(stretches)) * self.motions
        require_drawable(drawn, STRETCH, self.refinement, 1, "noise_steps")
        normals = np.empty((self.motions, STRETCH))
        for row, layer in enumerate(np.atleast_1d(layers)):
            for stretch in np.unique(stretches):
                start, here = int(stretch) * STRETCH, stretches == stretch
                self.noise.fill(normals, slice(start, start + STRETCH), self.address, int(layer), offset=start)
                out[row, here] = normals[:, places[here]].T
        return out * math.sqrt(self.dt)


def _indices(particles: int | Sequence[int] | slice) -> NDArray[np.intp]:
    if isinstance(particles, slice):
        if particles.stop is None or particles.stop < 0 or (particles.start or 0) < 0:
            raise ValueError(f"a slice of particles needs a stop, and no negative ends, got {particles}")
        return np.arange(particles.stop)[particles]
    wanted = np.atleast_1d(np.asarray(particles))
    if wanted.dtype.kind not in "iu" or wanted.ndim != 1 or (wanted < 0).any():
        raise ValueError(f"particles must be integers of at least 0 or a slice, got {particles!r}")
    return wanted.astype(np.intp)
