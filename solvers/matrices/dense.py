"""A Gaussian weight matrix that is held whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.random import Address, Noise, Stream
from solvers.matrices.operator import Coordinates, WeightOperator


class DenseOperator(WeightOperator):
    """𝒲 held as a matrix: O(N²) memory, cheaper than the bases once their ranks approach N.

    In the basis √N e_i the coordinates of φ are φ/√N, so the update reads as for the
    lazy operator.

    Parameters
    ----------
    ensemble : Particles
        The particles.
    noise : Noise
        Source of the entries, which is read once.
    layer : int
        Where it is read.
    tied : bool
        Whether the backward images use 𝒲ᵀ or an independent copy 𝒲̃ᵀ.
    dtype : numpy dtype
        Storage of the entries.
    draw : bool
        Whether to draw the entries, or leave them to be restored.
    deviation : float
        Standard deviation of the entries of W, 1 in paper F.
    """

    def __init__(
        self,
        ensemble: Particles,
        noise: Noise,
        layer: int,
        *,
        tied: bool,
        dtype: np.dtype,
        draw: bool = True,
        deviation: float = 1.0,
    ) -> None:
        self.ensemble, self.particles, self._tied = ensemble, ensemble.particles, tied
        self.weights = ensemble.allocate(ensemble.particles, dtype)
        self.backward_weights = self.weights if tied else ensemble.allocate(ensemble.particles, dtype)
        if draw:
            self._draw(self.weights, noise, Stream.WEIGHTS, layer)
            if not tied:
                self._draw(self.backward_weights, noise, Stream.BACKWARD_WEIGHTS, layer)
            if deviation != 1.0:
                self.shrink(deviation)

    def _draw(self, weights: Array, noise: Noise, stream: Stream, layer: int) -> None:
        root = np.sqrt(self.ensemble.particles)

        def scale(weights: Array) -> None:
            weights /= root

        self.ensemble.fill(weights, noise, Address(stream, 0, tuple(range(self.ensemble.particles))), layer)
        self.ensemble.apply(scale, weights)

    def forward(
        self, features: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        return self.ensemble.multiply(features, self.weights, transposed=True), self._coordinates(features)

    def backward(
        self, gradients: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        return self.ensemble.multiply(gradients, self.backward_weights), self._coordinates(gradients)

    def _coordinates(self, vectors: Array) -> Coordinates:
        root = vectors.dtype.type(np.sqrt(self.ensemble.particles))
        return self.ensemble.to_host(self.ensemble.map(lambda part: part / root, vectors))

    def update(self, gradients: Coordinates, features: Coordinates) -> None:
        self.ensemble.add_product(gradients, features, *self._both)

    def add(self, step: Coordinates) -> None:
        def work(weights: Array, change: Array) -> None:
            weights += change

        change = self.ensemble.from_host(step)
        for weights in self._both:
            self.ensemble.apply(work, weights, change)

    def shrink(self, factor: float) -> None:
        for weights in self._both:
            self.ensemble.scale(weights, factor)

    @property
    def _both(self) -> tuple[Array, ...]:
        return (self.weights,) if self._tied else (self.weights, self.backward_weights)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights} | ({} if self._tied else {"backward_weights": self.backward_weights})

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.weights[...] = state["weights"]
        if not self._tied:
            self.backward_weights[...] = state["backward_weights"]

    def mark(self) -> None:
        """Passes reveal nothing."""

    def forget(self, mark: None) -> None:
        """Passes reveal nothing."""

    @property
    def rank(self) -> tuple[int, int]:
        return self.ensemble.particles, self.ensemble.particles

    @property
    def truncation(self) -> tuple[float, float]:
        return 0.0, 0.0
