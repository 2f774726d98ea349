"""What the passes of a branch work with at one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation
from flds.training.branches.parts import BranchVector
from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.random import Address
from solvers.matrices.operator import Coordinates, WeightOperator


class BranchLayer:
    """The weight matrices and vectors of one layer, and the homes of its particles.

    Attributes
    ----------
    number : int
        Counted from 0.
    residual, hidden : Particles
        Homes of the states, (b, n), and of what is inside the branch, (b, H), with `map` for elementwise functions,
        `means` for ⟨⟩ over particles, and the rest of the algebra.
    phi : Activation
        φ of the problem, with `value` and `derivative`.
    matrices : dict of WeightOperator
    vectors : dict of (1, n) or (1, H) arrays

    Parameters
    ----------
    number : int
    vectors : dict of BranchVector
        Those of the branch.
    phi : Activation
    homes : dict of Particles
        "residual" and "hidden".
    matrices : dict of WeightOperator
    dtype : numpy dtype
        Of the vectors.

    References
    ----------
    Paper F, eqs. (1) and (4), for the products with W and its transpose.
    """

    def __init__(
        self,
        number: int,
        vectors: Mapping[str, BranchVector],
        phi: Activation,
        homes: Mapping[str, Particles],
        matrices: dict[str, WeightOperator],
        dtype: np.dtype,
    ) -> None:
        self.number, self.phi, self.matrices = number, phi, matrices
        self.residual, self.hidden = homes["residual"], homes["hidden"]
        self._homes = {name: homes[vector.space] for name, vector in vectors.items()}
        self.vectors: dict[str, Array] = {}
        for name, vector in vectors.items():
            self.vectors[name] = self._homes[name].allocate(1, dtype)
            self.vectors[name][...] = vector.initial
        self._alone = list(matrices) == ["hidden"]
        self._address: Address | None = None
        self._remember = True
        self._watched: str | None = None
        self.met: Array

    def begin(self, address: Address, remember: bool, watched: str | None = None) -> BranchLayer:
        """Make ready for a pass whose fresh noise is at `address`, and kept where it is to `remember`; return self.

        What the `watched` matrix is multiplied with is then kept as `met`.
        """
        self._address, self._remember, self._watched = address, remember, watched
        return self

    def multiply(self, name: str, features: Array, against: Array | None = None) -> tuple[Array, Coordinates]:
        """Return 𝒲 times each of the features, and their coordinates, for the tape.

        Parameters
        ----------
        name : str
            Of the matrix.
        features : (b, inputs) array
        against : (any number, outputs) array, optional
            States of this layer that matched noise must not correlate with, where 𝒲 maps to the residual space; those
            that the image is added to, h, matter most.

        Returns
        -------
        images : (b, outputs) array
        coordinates : (b, rank) array
            On the host.
        """
        operator = self.matrices[name]
        if name == self._watched:
            self.met = features
        states = operator.outputs.allocate(0, features.dtype) if against is None else against
        return operator.forward(features, self._at(), states, self._remember)

    def pull(self, name: str, gradients: Array, against: Array | None = None) -> tuple[Array, Coordinates]:
        """Return 𝒲ᵀ, or 𝒲̃ᵀ, times each of the gradients, and their coordinates, which are the gradient by 𝒲.

        Parameters
        ----------
        name : str
            Of the matrix.
        gradients : (b, outputs) array
        against : (any number, inputs) array, optional
            As for `multiply`, where 𝒲ᵀ maps to the residual space.

        Returns
        -------
        images : (b, inputs) array
        coordinates : (b, rank) array
            On the host.
        """
        operator = self.matrices[name]
        states = operator.inputs.allocate(0, gradients.dtype) if against is None else against
        return operator.backward(gradients, self._at(), states, self._remember)

    def _at(self) -> Address:
        assert self._address is not None
        return self._address

    def prefix(self, name: str) -> str:
        """Return what arrays of the parameter `name` begin with in states; a matrix alone needs no name."""
        return "" if self._alone and name in self.matrices else f"{name}_"

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state of the matrices, (…, n) arrays and others, and the vectors, by name: no copies."""
        found: dict[str, NDArray[Any]] = dict(self.vectors)
        for name, operator in self.matrices.items():
            found |= {f"{self.prefix(name)}{key}": array for key, array in operator.state().items()}
        return found

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` returned."""
        for name, values in self.vectors.items():
            self._homes[name].put(values, state[name])
        for name, operator in self.matrices.items():
            begin = self.prefix(name)
            operator.restore({key.removeprefix(begin): one for key, one in state.items() if key.startswith(begin)})
