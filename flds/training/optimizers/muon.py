"""Muon: momentum, of which a matrix moves by the orthogonal factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.optimizers.momentum import Momentum
from flds.training.optimizers.optimizer import State
from solvers import checks

Matrix = NDArray[Any]

ORTHOGONALIZATIONS = ("newton_schulz", "polar")
# a, b, c of X ← aX + (b XXᵀ + c (XXᵀ)²) X, which brings singular values near 1 in five steps.
_QUINTIC, _ITERATIONS = (3.4445, -4.7750, 2.0315), 5
# Multiply–adds over the cube of the rows: a product and two of half the work an iteration; a decomposition takes as
# long as so many.
_WORK = {"newton_schulz": 2.0 * _ITERATIONS, "polar": 40.0}
# Singular values below this part of the largest are rounding, and have no direction.
_RANK = 1e-9


@dataclass(frozen=True)
class Muon(Momentum):
    """Muon: the step is −η O(M) with M the gradient with momentum, and O(M) its factor of equal singular values.

    It is for hidden matrices. No factor from their shapes is applied. The two ways to O(M) have different limits.

    Parameters
    ----------
    momentum : float
        μ, from 0 to below 1, as for `SGD`.
    nesterov : bool
        Whether M is G + μ buf, or buf.
    orthogonalization : str
        "newton_schulz": five steps X ← aX + (b XXᵀ + c (XXᵀ)²) X from M/‖M‖_F, with (a, b, c) = (3.4445, −4.7750,
        2.0315), which leave singular values between 0.7 and 1.2. "polar": the polar factor, all singular values 1.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks these rules.

    References
    ----------
    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """

    momentum: float = 0.95
    nesterov: bool = True
    orthogonalization: str = "newton_schulz"

    matrices_only = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("orthogonalization", self.orthogonalization, ORTHOGONALIZATIONS)

    @property
    def work(self) -> float:  # type: ignore[override]
        return _WORK[self.orthogonalization]

    def step(self, gradient: Any, state: State, rate: float) -> tuple[Any, State]:
        seen, state = self.seen(gradient, state)
        orthogonal = polar if self.orthogonalization == "polar" else newton_schulz
        return orthogonal(seen) * -rate, state


def newton_schulz(matrix: Matrix) -> Matrix:
    """Return a matrix with the singular vectors of this one, and singular values near 1 where they are not tiny."""
    norm = np.linalg.norm(matrix)
    if not norm:
        return np.zeros_like(matrix)
    a, b, c = _QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T) / norm
    diagonal = np.arange(len(x))
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        square = gram @ gram.T  # a matrix times its own transpose takes half the work
        square *= c
        gram *= b
        square += gram
        square[diagonal, diagonal] += a
        x = square @ x
    return x if wide else x.T.copy()


def polar(matrix: Matrix) -> Matrix:
    """Return U Vᵀ of the singular value decomposition U S Vᵀ, without what S has no more than rounding of."""
    left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    kept = sizes > _RANK * sizes[:1]
    moved: Matrix = left[:, kept] @ right[kept]
    return moved
