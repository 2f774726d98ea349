"""Residual branches: what a layer adds to its state, and what its gradient is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation
from flds.training.optimizers import Gradient
from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.random import Address
from solvers.matrices.operator import Coordinates, WeightOperator


class Pull(NamedTuple):
    """What a branch hands back: slope · image, or the image alone where there is no slope, and a tape."""

    image: Array
    slope: Array | None
    tape: Any


class ResidualBranch(ABC):
    """The branch of one layer, with its weight matrices.

    A layer is h ← h + √τ forward(h) and g ← g + √τ backward(g). States are (b, N). A tape is what a pass keeps for the
    update: an array with a row for each sample of the batch, the coordinates that kernels are made of.

    Attributes
    ----------
    operators : tuple of WeightOperator
        The matrices, in the order in which states meet them; a network gives each branch one.
    """

    operators: tuple[WeightOperator, ...]

    @abstractmethod
    def forward(self, h: Array, address: Address, remember: bool = True) -> tuple[Array, Any]:
        """Return what is added to h, over √τ, and the tape; with `remember=False` the branch is left as it was."""

    @abstractmethod
    def backward(self, g: Array, h: Array, address: Address) -> Pull:
        """Pull the gradients g back to the states h that the branch met."""

    @abstractmethod
    def gradients(self, met: Any, pulled: Any, weights: NDArray[np.float64], batch: int) -> Iterator[Gradient]:
        """Yield the gradient by each of `operators`, over √τ, from the tapes of samples with these weights."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state of the operators, by name: own memory, no copies; arrays over particles have these last."""
        (operator,) = self.operators
        return operator.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` returned."""
        (operator,) = self.operators
        operator.restore(state)


class SingleMatrix(ResidualBranch):
    """W φ(h), the branch of paper F, eq. (1).

    Its tapes are the coordinates of φ(h) and of g, (b, rank).

    Parameters
    ----------
    ensemble : Particles
        The particles.
    phi : Activation
        φ.
    operator : WeightOperator
        W.
    """

    def __init__(self, ensemble: Particles, phi: Activation, operator: WeightOperator) -> None:
        self.ensemble, self.phi, self.operators = ensemble, phi, (operator,)

    def forward(self, h: Array, address: Address, remember: bool = True) -> tuple[Array, Coordinates]:
        features = self.ensemble.map(self.phi.value, h)
        return self.operators[0].forward(features, address, h, remember=remember)

    def backward(self, g: Array, h: Array, address: Address) -> Pull:
        slope = self.ensemble.map(self.phi.derivative, h)
        # E g² meets fresh noise z̃ through ⟨φ'(h) g, z̃⟩, which matched noise sets to zero
        image, coordinates = self.operators[0].backward(g, address, self.ensemble.map(np.multiply, slope, g))
        return Pull(image, slope, coordinates)

    def gradients(
        self, met: Coordinates, pulled: Coordinates, weights: NDArray[np.float64], batch: int
    ) -> Iterator[Gradient]:
        yield Gradient(pulled, met, weights, batch)
