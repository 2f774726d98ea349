"""Normalisation of states over their neurons, and the transpose of its derivative."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.particles import Array, Particles

Numbers = NDArray[np.float64]

# What is added to mean squares, as in torch's layers that are given it.
EPSILON = 1e-6


class Normalized(NamedTuple):
    """ν, (b, n), and the numbers r, (b,), that states were divided by."""

    states: Array
    sizes: Numbers


class Normalization(ABC):
    """ν(h) of each state, in the home of the states."""

    @abstractmethod
    def value(self, home: Particles, h: Array) -> Normalized:
        """Return ν(h) and what states were divided by."""

    @abstractmethod
    def pull(self, home: Particles, a: Array, normalized: Normalized) -> Array:
        """Return ν'ᵀa, (b, n)."""


class RMSNorm(Normalization):
    """ν = h/r, r² = ⟨h, h⟩ + ε; ν'ᵀa = (a − ν ⟨ν, a⟩)/r."""

    def value(self, home: Particles, h: Array) -> Normalized:
        sizes = np.sqrt(home.mean_squares(h) + EPSILON)
        return Normalized(home.map(np.divide, h, rows=(sizes,)), sizes)

    def pull(self, home: Particles, a: Array, normalized: Normalized) -> Array:
        states, sizes = normalized
        met = home.means(states, a)
        return home.map(lambda a, states, met, sizes: (a - states * met) / sizes, a, states, rows=(met, sizes))


class LayerNorm(Normalization):
    """ν = (h − ⟨h⟩)/r, r² = ⟨(h − ⟨h⟩)²⟩ + ε; ν'ᵀa = (a − ⟨a⟩ − ν ⟨ν, a⟩)/r."""

    def value(self, home: Particles, h: Array) -> Normalized:
        centred = home.map(np.subtract, h, rows=(home.means(h),))
        sizes = np.sqrt(home.mean_squares(centred) + EPSILON)
        home.apply(_divide, centred, rows=(sizes,))
        return Normalized(centred, sizes)

    def pull(self, home: Particles, a: Array, normalized: Normalized) -> Array:
        states, sizes = normalized
        rows = home.means(a), home.means(states, a), sizes
        return home.map(lambda a, states, mean, met, sizes: (a - mean - states * met) / sizes, a, states, rows=rows)


def _divide(part: Array, sizes: Array) -> None:
    part /= sizes


NORMALIZATIONS: dict[str, Normalization] = {"rms_norm": RMSNorm(), "layer_norm": LayerNorm()}
