"""A Gaussian weight matrix under training, behind one interface: sampled where training looks, or held whole.

𝒲 = W/√N has M outputs and N inputs, and W iid N(0,1). Inner products ⟨a,b⟩ are means over the M or the N coordinates.
Training uses 𝒲 in three ways only: 𝒲φ forward, 𝒲ᵀg backward, and updates of low rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.particles import Array, Everywhere, Particles
from solvers.ensemble.random import Address

Coordinates = NDArray[np.floating]  # float64 but those of vectors of a matrix held whole


class RankBudgetExceeded(Everywhere):
    """A basis outgrew the rank that memory was planned for."""


class WeightOperator(ABC):
    """𝒲 = W/√N at one layer, (M, N), or, with independent backward weights, the pair (𝒲, 𝒲̃).

    Attributes
    ----------
    inputs, outputs : Particles
        Homes of the N and the M coordinates; the same one for a square matrix.
    on_host : bool
        Whether `update`, `add` and `shrink` are work in the memory of the host, which threads may share by operators.
    """

    inputs: Particles
    outputs: Particles
    on_host: bool = False

    @abstractmethod
    def forward(
        self, features: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        """Return the images 𝒲φ, (b, M), and the coordinates of the features φ, (b, rank).

        Fresh noise is that of `address`. `states`, (any number, M), are vectors of this depth that matched noise must
        not correlate with. With `remember=False` the operator is left as it was.
        """

    @abstractmethod
    def backward(
        self, gradients: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        """Return the images 𝒲ᵀg (or 𝒲̃ᵀg), (b, N), and the coordinates of the gradients g, (b, rank).

        `address`, `states`, (any number, N), and `remember` are as for `forward`.
        """

    @abstractmethod
    def update(self, gradients: Coordinates, features: Coordinates) -> None:
        """Add Σ_s g_s φ_sᵀ / √(MN) to 𝒲 (and to 𝒲̃).

        `gradients` and `features` are coordinates, (b, rank) each; one of them is already multiplied by minus the rate.
        """

    @abstractmethod
    def add(self, step: Coordinates) -> None:
        """Add Pᵀ step Q / √(MN) to 𝒲 (and to 𝒲̃), with `step` in the coordinates of the bases P and Q, (rank, rank)."""

    @abstractmethod
    def shrink(self, factor: float) -> None:
        """Multiply 𝒲 (and 𝒲̃) by a factor."""

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Return what was revealed, (rank, N), and learned, or the matrices, (M, N), by name: own memory, no copies."""

    @abstractmethod
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state of an operator made with the same arguments; the arrays are left as they are."""

    @abstractmethod
    def mark(self) -> Any:
        """Return what `forget` needs to come back to here; a later update makes it worthless."""

    @abstractmethod
    def forget(self, mark: Any) -> None:
        """Undo what passes have revealed since a mark."""

    @property
    @abstractmethod
    def rank(self) -> tuple[int, int]:
        """Dimensions of the forward and the backward basis."""

    @property
    @abstractmethod
    def truncation(self) -> tuple[float, float]:
        """Share of Σ⟨φ,φ⟩ and of Σ⟨g,g⟩ over all vectors seen that fell below the tolerance."""
