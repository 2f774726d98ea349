"""A Gaussian weight matrix that is held whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.random import Address, Noise, Stream
from solvers.matrices.operator import Coordinates, WeightOperator


class DenseOperator(WeightOperator):
    """𝒲 held as a matrix: O(MN) memory, cheaper than the bases once their ranks approach N.

    In the bases √N e_i and √M e_j the coordinates of φ are φ/√N and those of g are g/√M, so updates read as for the
    lazy operator.

    Parameters
    ----------
    inputs : Particles
        The N coordinates of what the matrix multiplies.
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
        Standard deviation of the entries of W, 1 in paper F; below 0 for those of the opposite sign.
    outputs : Particles, optional
        The M coordinates of its images; by default it is square.
    """

    def __init__(
        self,
        inputs: Particles,
        noise: Noise,
        layer: int,
        *,
        tied: bool,
        dtype: np.dtype,
        draw: bool = True,
        deviation: float = 1.0,
        outputs: Particles | None = None,
    ) -> None:
        self.inputs, self.outputs, self._tied = inputs, inputs if outputs is None else outputs, tied
        self.weights = inputs.allocate(self.outputs.particles, dtype)
        self.backward_weights = self.weights if tied else inputs.allocate(self.outputs.particles, dtype)
        if draw:
            self._draw(self.weights, noise, Stream.WEIGHTS, layer)
            if not tied:
                self._draw(self.backward_weights, noise, Stream.BACKWARD_WEIGHTS, layer)
            if deviation != 1.0:
                self.shrink(deviation)

    def _draw(self, weights: Array, noise: Noise, stream: Stream, layer: int) -> None:
        root = np.sqrt(self.inputs.particles)
        rows = tuple(range(noise.first, noise.first + self.outputs.particles))  # a square on the diagonal

        def scale(weights: Array) -> None:
            weights /= root

        self.inputs.fill(weights, noise, Address(stream, 0, rows), layer)
        self.inputs.apply(scale, weights)

    def forward(
        self, features: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        images = self.inputs.multiply(features, self.weights, transposed=True)
        return images, self._coordinates(self.inputs, features)

    def backward(
        self, gradients: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        images = self.inputs.multiply(gradients, self.backward_weights)
        return images, self._coordinates(self.outputs, gradients)

    def _coordinates(self, home: Particles, vectors: Array) -> Coordinates:
        root = math.sqrt(home.particles)
        return home.as_coordinates(home.map(lambda part: part / root, vectors))

    def update(self, gradients: Coordinates, features: Coordinates) -> None:
        self.inputs.add_product(gradients, features, *self._both)

    def add(self, step: Coordinates) -> None:
        def work(weights: Array, change: Array) -> None:
            weights += change

        change = self.inputs.from_host(step) if isinstance(step, np.ndarray) else step
        for weights in self._both:
            self.inputs.apply(work, weights, change)

    def shrink(self, factor: float) -> None:
        for weights in self._both:
            self.inputs.scale(weights, factor)

    @property
    def _both(self) -> tuple[Array, ...]:
        return (self.weights,) if self._tied else (self.weights, self.backward_weights)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights} | ({} if self._tied else {"backward_weights": self.backward_weights})

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.inputs.put(self.weights, state["weights"])
        if not self._tied:
            self.inputs.put(self.backward_weights, state["backward_weights"])

    def mark(self) -> None:
        """Passes reveal nothing."""

    def forget(self, mark: None) -> None:
        """Passes reveal nothing."""

    @property
    def rank(self) -> tuple[int, int]:
        return self.inputs.particles, self.outputs.particles

    @property
    def truncation(self) -> tuple[float, float]:
        return 0.0, 0.0
