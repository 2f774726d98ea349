"""A weight matrix under training that is held as a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.random import Address, Noise, Stream
from solvers.ensemble.threads import Blocks, partition
from solvers.matrices.lazy import Array, Coordinates, WeightOperator

# Rows of a dense matrix that one thread takes at a time.
_DENSE_ROWS = 256


class DenseOperator(WeightOperator):
    """𝒲 held as a matrix: O(N²) memory, cheaper than the bases once their ranks approach N.

    In the basis √N e_i the coordinates of φ are φ/√N, so the update reads as for the
    lazy operator.

    Parameters
    ----------
    blocks : Blocks
        The partition of the particles.
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
    """

    def __init__(
        self, blocks: Blocks, noise: Noise, layer: int, *, tied: bool, dtype: np.dtype, draw: bool = True
    ) -> None:
        self.blocks = blocks
        self.rows = partition(blocks.particles, _DENSE_ROWS)
        shape = (blocks.particles, blocks.particles)
        self.weights = np.empty(shape, dtype)
        self.backward_weights = self.weights if tied else np.empty(shape, dtype)
        if draw:
            self._draw(self.weights, noise, Stream.WEIGHTS, layer)
            if not tied:
                self._draw(self.backward_weights, noise, Stream.BACKWARD_WEIGHTS, layer)

    def _draw(self, weights: Array, noise: Noise, stream: Stream, layer: int) -> None:
        size = self.blocks.particles

        def draw(rows: slice) -> None:
            address = Address(stream, 0, tuple(range(rows.start, rows.stop)))
            noise.fill(weights[rows], slice(0, size), address, layer)
            weights[rows] /= np.sqrt(size)

        self.blocks.each(draw, self.rows)

    def forward(
        self, features: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        return self._multiply(self.weights.T, features)

    def backward(
        self, gradients: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        return self._multiply(self.backward_weights, gradients)

    def _multiply(self, matrix: Array, vectors: Array) -> tuple[Array, Coordinates]:
        image = np.empty_like(vectors)

        def work(columns: slice) -> None:
            image[:, columns] = vectors @ matrix[:, columns]

        self.blocks.each(work, self.rows)
        return image, vectors / vectors.dtype.type(np.sqrt(self.blocks.particles))

    def update(self, gradients: Coordinates, features: Coordinates) -> None:
        left = np.ascontiguousarray(gradients.T, self.weights.dtype)
        right = features.astype(self.weights.dtype)

        def work(rows: slice) -> None:
            change = left[rows] @ right
            self.weights[rows] += change
            if self.backward_weights is not self.weights:
                self.backward_weights[rows] += change

        self.blocks.each(work, self.rows)

    def state(self) -> dict[str, NDArray[Any]]:
        tied = self.backward_weights is self.weights
        return {"weights": self.weights} | ({} if tied else {"backward_weights": self.backward_weights})

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.weights[...] = state["weights"]
        if self.backward_weights is not self.weights:
            self.backward_weights[...] = state["backward_weights"]

    def mark(self) -> None:
        """Passes reveal nothing."""

    def forget(self, mark: None) -> None:
        """Passes reveal nothing."""

    @property
    def rank(self) -> tuple[int, int]:
        return self.blocks.particles, self.blocks.particles

    @property
    def truncation(self) -> tuple[float, float]:
        return 0.0, 0.0
