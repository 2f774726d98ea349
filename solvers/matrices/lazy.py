"""A Gaussian weight matrix that is sampled only where training looks.

An orthonormal basis of the vectors that 𝒲 has met on either side is kept, with their images, and every new image is
sampled conditionally on what has been revealed. Coordinates on the basis are rows of the Cholesky factors of
Σ = ⟨φ,φ⟩ and Θ = ⟨g,g⟩, the covariance rates of the noise in F-(9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.random import Address, Noise
from solvers.matrices.cholesky import rank_revealing_cholesky
from solvers.matrices.operator import Coordinates, RankBudgetExceeded, WeightOperator
from solvers.matrices.sampling import Context, Sampling

# Below these relative norms a residual is rounding: the Gram matrix holds squares, so half the digits.
ROUNDING_FLOOR = {np.dtype(np.float64): 1e-7, np.dtype(np.float32): 1e-5}


class Basis:
    """Orthonormal directions on one side of 𝒲, their images, and the sums of squares seen and dropped."""

    def __init__(self, ensemble: Particles, budget: int, dtype: np.dtype) -> None:
        self.ensemble, self.budget = ensemble, budget
        self.rank = 0
        self.mass = 0.0
        self.dropped = 0.0
        self._directions = ensemble.allocate(0, dtype)
        self._images = ensemble.allocate(0, dtype)

    @property
    def directions(self) -> Array:
        return self._directions[: self.rank]

    @property
    def images(self) -> Array:
        return self._images[: self.rank]

    def room(self, count: int, remember: bool) -> tuple[Array, Array]:
        """Return where `count` new directions and images go: here, or in scratch memory."""
        if not remember:
            dtype = self._directions.dtype
            return self.ensemble.allocate(count, dtype), self.ensemble.allocate(count, dtype)
        total = self.rank + count
        if total > self.budget:
            raise RankBudgetExceeded(f"rank {total} exceeds the budget of {self.budget}")
        if total > len(self._directions):
            # Pages that are never touched cost nothing, so spare capacity is free.
            capacity = min(self.budget, max(total, 8, 2 * self.rank))
            self._directions = self._grown(self._directions, capacity)
            self._images = self._grown(self._images, capacity)
        return self._directions[self.rank : total], self._images[self.rank : total]

    def restore(self, directions: Array, images: Array, mass: float, dropped: float) -> None:
        """Take over directions and images; what joins them later goes into new memory."""
        self.rank, self.mass, self.dropped = len(directions), float(mass), float(dropped)
        self._directions, self._images = directions, images

    def mark(self) -> tuple[int, float, float]:
        """Return what `forget` needs to come back to here."""
        return self.rank, self.mass, self.dropped

    def forget(self, mark: tuple[int, float, float]) -> None:
        """Undo what was appended since a mark."""
        self.rank, self.mass, self.dropped = mark

    def _grown(self, old: Array, capacity: int) -> Array:
        new = self.ensemble.allocate(capacity, old.dtype)
        new[: self.rank] = old[: self.rank]
        return new


@dataclass
class Expansion:
    """Vectors written as known @ directions + fresh @ new_directions + what was dropped."""

    known: Coordinates
    fresh: Coordinates
    kept: NDArray[np.intp]
    new_directions: Array
    new_images: Array
    mass: float
    dropped: float


class LazyOperator(WeightOperator):
    """𝒲 sampled only where it is used.

    With `tied=True`, N particles have exactly the law of an N×N Gaussian matrix under the same updates;
    with `tied=False` the images on the two sides are independent, as in Definition 1 of paper F.

    Parameters
    ----------
    ensemble : Particles
        The particles.
    noise : Noise
        Source of fresh vectors.
    layer : int
        Where it is read.
    tied : bool
        Whether the backward images use 𝒲ᵀ or an independent copy 𝒲̃ᵀ.
    tolerance : float
        Residuals below this fraction of a vector's norm are dropped.
    budget : (int, int)
        Largest ranks of the forward and the backward basis.
    sampling : Sampling
        How fresh vectors are conditioned: by law, or with exact second moments.
    dtype : numpy dtype
        Storage of directions and images; sums over particles, norms and pivots are float64 always.

    Raises
    ------
    RankBudgetExceeded
        From `forward` and `backward`, when a basis would outgrow its budget.

    References
    ----------
    Paper F, eq. (9), whose covariance rates are ⟨φ,φ⟩ and ⟨g,g⟩, and Definition 1. E. Bolthausen, "An iterative
    construction of solutions of the TAP equations for the Sherrington–Kirkpatrick model", Comm. Math. Phys. 325 (2014),
    for the law of a Gaussian matrix given some of its products.
    """

    def __init__(
        self,
        ensemble: Particles,
        noise: Noise,
        layer: int,
        *,
        tied: bool,
        tolerance: float,
        budget: tuple[int, int],
        sampling: Sampling,
        dtype: np.dtype,
    ) -> None:
        self.ensemble, self.noise, self.layer, self.tied = ensemble, noise, layer, tied
        self.tolerance = max(tolerance, ROUNDING_FLOOR[dtype])
        self.sampling = sampling
        self.features = Basis(ensemble, budget[0], dtype)
        self.gradients = Basis(ensemble, budget[1], dtype)
        self.learned = np.zeros((0, 0))  # A: the learned part of 𝒲 is P A Qᵀ/N

    def forward(
        self, features: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        return self._multiply(self.features, self.gradients, self.learned, features, address, states, remember)

    def backward(
        self, gradients: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        return self._multiply(self.gradients, self.features, self.learned.T, gradients, address, states, remember)

    def update(self, gradients: Coordinates, features: Coordinates) -> None:
        grown = np.zeros(self.rank[::-1])
        grown[: self.learned.shape[0], : self.learned.shape[1]] = self.learned
        grown[: gradients.shape[1], : features.shape[1]] += gradients.T @ features
        self.learned = grown

    def state(self) -> dict[str, NDArray[Any]]:
        sides = (self.features, self.gradients)
        return {
            "feature_directions": self.features.directions,
            "feature_images": self.features.images,
            "gradient_directions": self.gradients.directions,
            "gradient_images": self.gradients.images,
            "learned": self.learned,
            "mass": np.array([[side.mass, side.dropped] for side in sides]),
        } | self.sampling.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        for side, name, mass in ((self.features, "feature", 0), (self.gradients, "gradient", 1)):
            side.restore(state[f"{name}_directions"], state[f"{name}_images"], *state["mass"][mass])
        self.learned = state["learned"]
        self.sampling.restore(state)

    def mark(self) -> Any:
        return self.features.mark(), self.gradients.mark(), self.sampling.mark()

    def forget(self, mark: Any) -> None:
        features, gradients, sampling = mark
        self.features.forget(features)
        self.gradients.forget(gradients)
        self.sampling.forget(sampling)

    @property
    def rank(self) -> tuple[int, int]:
        return self.features.rank, self.gradients.rank

    @property
    def truncation(self) -> tuple[float, float]:
        sides = (self.features, self.gradients)
        forward, backward = (side.dropped / side.mass if side.mass > 0 else 0.0 for side in sides)
        return forward, backward

    def _multiply(
        self,
        domain: Basis,
        codomain: Basis,
        learned: Coordinates,
        vectors: Array,
        address: Address,
        states: Array,
        remember: bool,
    ) -> tuple[Array, Coordinates]:
        """Multiply by 𝒲 = (what is revealed) + (what is fresh) + (what is learned)."""
        part = self._expand(domain, vectors, remember)
        shift = self._draw_images(domain, codomain, part, address.rows(part.kept), states, remember)
        self.ensemble.combine(part.new_images, [(shift, codomain.directions[: shift.shape[1]])], add=True)
        pull = part.known[:, : learned.shape[1]] @ learned.T  # coordinates on the codomain's older directions
        image = self.ensemble.allocate(len(vectors), vectors.dtype)
        self.ensemble.combine(
            image,
            [
                (part.known, domain.images),
                (part.fresh, part.new_images),
                (pull, codomain.directions[: pull.shape[1]]),
            ],
        )
        if remember:
            domain.rank += len(part.kept)
            domain.mass += part.mass
            domain.dropped += part.dropped
        return image, np.hstack([part.known, part.fresh])

    def _expand(self, basis: Basis, vectors: Array, remember: bool) -> Expansion:
        """Project the vectors on the basis twice and factor what is left, in sample order."""
        ensemble, directions = self.ensemble, basis.directions
        squares = ensemble.mean_squares(vectors)
        known = ensemble.inner(vectors, directions)
        residual = ensemble.copy(vectors)
        ensemble.combine(residual, [(-known, directions)], add=True)
        again = ensemble.inner(residual, directions)
        known += again
        left = ensemble.mean_squares(residual)
        if not np.any(left > self.tolerance**2 * squares):
            none = ensemble.allocate(0, vectors.dtype)
            nothing = np.empty((len(vectors), 0))
            return Expansion(known, nothing, np.empty(0, np.intp), none, none, float(squares.sum()), float(left.sum()))

        ensemble.combine(residual, [(-again, directions)], add=True)
        gram = ensemble.gram(residual)
        room = ensemble.particles - basis.rank
        factor, kept = rank_revealing_cholesky(gram, self.tolerance**2 * squares, most=room)
        new_directions, new_images = basis.room(len(kept), remember)
        started = residual[kept]
        ensemble.combine(new_directions, [(_inverse(factor[kept]), started)])

        # One pass leaves an orthonormality error of eps/tolerance^2, so the factorisation is repeated.
        overlap = ensemble.inner(new_directions, directions)
        repeat = np.linalg.cholesky(ensemble.gram(new_directions) - overlap @ overlap.T)
        ensemble.combine(new_directions, [(-overlap, directions)], add=True)
        ensemble.combine(new_directions, [(_inverse(repeat), ensemble.copy(new_directions))])
        dropped = float(np.clip(np.diagonal(gram) - (factor**2).sum(axis=1), 0.0, None).sum())
        mass = float(squares.sum())
        return Expansion(known + factor @ overlap, factor @ repeat, kept, new_directions, new_images, mass, dropped)

    def _draw_images(
        self, domain: Basis, codomain: Basis, part: Expansion, address: Address, states: Array, remember: bool
    ) -> Coordinates:
        """Fill the new images with fresh noise z and return, when tied, the response's coordinates.

        The image of a new direction q is y = z − Σ_i p_i ⟨p_i,z⟩ + Σ_i p_i ⟨x_i,q⟩, so what is added to
        z has coordinates ⟨x_i,q⟩ − ⟨p_i,z⟩ on the codomain's directions p_i.
        """
        z, q = part.new_images, part.new_directions
        if not len(z):
            return np.empty((0, 0))
        self.ensemble.fill(z, self.noise, address, self.layer)
        families = (self.features.directions, self.features.images, self.gradients.directions, self.gradients.images)
        grows = 0 if domain is self.features else 2
        self.sampling.condition(z, Context(families, grows, q, remember, states))
        if not self.tied:
            return np.empty((len(z), 0))
        return self.ensemble.inner(q, codomain.images) - self.ensemble.inner(z, codomain.directions)


def _inverse(lower: Array) -> Coordinates:
    return np.asarray(solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False))
