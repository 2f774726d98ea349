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

from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.random import Address, Noise
from solvers.matrices.cholesky import rank_revealing_cholesky, triangular_inverse
from solvers.matrices.operator import Coordinates, RankBudgetExceeded, WeightOperator
from solvers.matrices.sampling import Sampling

# Below these relative norms a residual is rounding: the Gram matrix holds squares, so half the digits.
ROUNDING_FLOOR = {np.dtype(np.float64): 1e-7, np.dtype(np.float32): 1e-5}
# Likewise where what is left is a difference of squares.
_LOST = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-3}
# Squares of what is left may differ so much before their differences lose more than a digit to rounding.
_SPREAD = 100.0


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

    def append(self, count: int) -> Array:
        """Make room for `count` new directions and images, and return where the directions go."""
        total = self.rank + count
        if total > self.budget:
            raise RankBudgetExceeded(f"rank {total} exceeds the budget of {self.budget}")
        if total > len(self._directions):
            # Pages that are never touched cost nothing, so spare capacity is free.
            capacity = min(self.budget, max(total, 8, 2 * self.rank))
            self._directions = self._grown(self._directions, capacity)
            self._images = self._grown(self._images, capacity)
        self.rank = total
        return self._directions[total - count : total]

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
    """Vectors written as known @ directions + fresh @ new directions + what was dropped."""

    known: Coordinates
    fresh: Coordinates
    kept: NDArray[np.intp]
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
        self._pairs = np.zeros((2, 0, 0))  # A and R, with room to grow

    def forward(
        self, features: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        return self._multiply(self.features, self.gradients, features, address, states if remember else None)

    def backward(
        self, gradients: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        return self._multiply(self.gradients, self.features, gradients, address, states if remember else None)

    def update(self, gradients: Coordinates, features: Coordinates) -> None:
        self.learned[: gradients.shape[1], : features.shape[1]] += gradients.T @ features

    @property
    def learned(self) -> Coordinates:
        """A, (backward rank, forward rank): the learned part of 𝒲 is P A Qᵀ/N."""
        return self._pairs[0, : self.gradients.rank, : self.features.rank]

    @property
    def response(self) -> Coordinates:
        """R = ⟨p_i, y_j⟩ = ⟨x_i, q_j⟩ of a tied matrix, (backward rank, forward rank)."""
        return self._pairs[1, : self.gradients.rank, : self.features.rank]

    def state(self) -> dict[str, NDArray[Any]]:
        sides = (self.features, self.gradients)
        return {
            "feature_directions": self.features.directions,
            "feature_images": self.features.images,
            "gradient_directions": self.gradients.directions,
            "gradient_images": self.gradients.images,
            "learned": self.learned,
            "mass": np.array([[side.mass, side.dropped] for side in sides]),
        } | ({"response": self.response} if self.tied else {})

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        for side, name, mass in ((self.features, "feature", 0), (self.gradients, "gradient", 1)):
            side.restore(state[f"{name}_directions"], state[f"{name}_images"], *state["mass"][mass])
        self._make_room()
        learned = state["learned"]
        self.learned[: len(learned), : learned.shape[1]] = learned
        if self.tied:
            met = state.get("response")  # which older states leave out
            measured = self.ensemble.inner(self.gradients.directions, self.features.images) if met is None else met
            self.response[...] = measured

    def mark(self) -> Any:
        return self.features.mark(), self.gradients.mark()

    def forget(self, mark: Any) -> None:
        features, gradients = mark
        self.features.forget(features)
        self.gradients.forget(gradients)

    @property
    def rank(self) -> tuple[int, int]:
        return self.features.rank, self.gradients.rank

    @property
    def truncation(self) -> tuple[float, float]:
        sides = (self.features, self.gradients)
        forward, backward = (side.dropped / side.mass if side.mass > 0 else 0.0 for side in sides)
        return forward, backward

    def _multiply(
        self, domain: Basis, codomain: Basis, vectors: Array, address: Address, states: Array | None
    ) -> tuple[Array, Coordinates]:
        if states is None:
            return self._probe(domain, codomain, vectors, address)
        return self._reveal(domain, codomain, vectors, address, states)

    def _reveal(
        self, domain: Basis, codomain: Basis, vectors: Array, address: Address, states: Array
    ) -> tuple[Array, Coordinates]:
        """Multiply by 𝒲 = (what is revealed) + (what is fresh) + (what is learned), and remember what is fresh."""
        ensemble, old = self.ensemble, domain.rank
        part = self._expand(domain, vectors)
        self._make_room()
        known, new = np.hstack([part.known, part.fresh]), slice(old, domain.rank)
        if part.kept.size:
            fresh = domain.images[new]
            ensemble.fill(fresh, self.noise, address.rows(part.kept), self.layer)
            self.sampling.condition(fresh, states)
            if self.tied:
                response = ensemble.inner(domain.directions[new], codomain.images)
                shift = self._shift(response, fresh, codomain)
                ensemble.combine(fresh, [(shift, codomain.directions)], add=True)
                self._facing(domain, self.response)[new] = response
        image = ensemble.allocate(len(vectors), vectors.dtype)
        pull = known @ self._facing(domain, self.learned)
        ensemble.combine(image, [(known, domain.images), (pull, codomain.directions)])
        domain.mass += part.mass
        domain.dropped += part.dropped
        return image, known

    def _expand(self, basis: Basis, vectors: Array) -> Expansion:
        """Project the vectors on the basis, and append what is left to it, orthonormal and in sample order."""
        ensemble, directions = self.ensemble, basis.directions
        products = ensemble.inner([directions, vectors], vectors)
        known, squares = products[: basis.rank].T, np.diagonal(products[basis.rank :])
        rest, overlap, gram = ensemble.project(vectors, known, directions)
        known = known + overlap  # projected twice: what is left has lost digits to the vectors' own size
        left, room = np.diagonal(gram), ensemble.particles - basis.rank
        factor, kept = rank_revealing_cholesky(gram, self.tolerance**2 * squares, most=room)
        dropped = float(np.clip(left - (factor**2).sum(axis=1), 0.0, None).sum())
        if not kept.size:
            return Expansion(known, factor, kept, float(squares.sum()), dropped)

        new = basis.append(len(kept))
        inverse = triangular_inverse(factor[kept])
        ensemble.combine(new, [(inverse, rest[kept]), (-inverse @ overlap[kept], directions)])
        if left.max() > _SPREAD * np.diagonal(factor[kept]).min() ** 2:  # differences of what is left lost more
            overlap = ensemble.inner(new, directions)
            ensemble.combine(new, [(-overlap, directions)], add=True)
            known = known + factor @ overlap
        # orthonormal up to the rounding of the Gram matrix over its smallest pivot, so the factorisation is repeated
        repeat = np.linalg.cholesky(ensemble.gram(new))
        ensemble.combine(new, [(triangular_inverse(repeat), ensemble.copy(new))])
        return Expansion(known, factor @ repeat, kept, float(squares.sum()), dropped)

    def _probe(self, domain: Basis, codomain: Basis, vectors: Array, address: Address) -> tuple[Array, Coordinates]:
        """Multiply by 𝒲 and forget.

        What is left of the vectors is known by its Gram matrix, which their noise takes as covariance, and by its
        response, ⟨φ,x_i⟩ less that of the known part; so no product beyond those of the vectors is needed.
        """
        ensemble, rank, count = self.ensemble, domain.rank, len(vectors)
        fresh = ensemble.allocate(count, vectors.dtype)
        ensemble.fill(fresh, self.noise, address, self.layer)
        if not self.tied:  # the response to what was trained on has what conditions would bring
            self.sampling.condition(fresh, None)
        families = [domain.directions, vectors, *([codomain.images] if self.tied else [])]
        products = ensemble.inner(families, vectors)
        known, gram = products[:rank].T, products[rank : rank + count]
        smallest = max(self.tolerance, _LOST[vectors.dtype]) ** 2 * np.diagonal(gram)
        factor, kept = rank_revealing_cholesky(gram - known @ known.T, smallest, most=ensemble.particles - rank)
        drawn = fresh if len(kept) == count else fresh[kept]
        if self.tied:
            pull = known @ self._facing(domain, self.learned - self.response)
            pull += products[rank + count :].T - factor @ ensemble.inner(drawn, codomain.directions)
        else:
            pull = known @ self._facing(domain, self.learned)
        image = ensemble.allocate(count, vectors.dtype)
        ensemble.combine(image, [(known, domain.images), (factor, drawn), (pull, codomain.directions)])
        return image, np.hstack([known, factor])

    def _shift(self, response: Coordinates, fresh: Array, codomain: Basis) -> Coordinates:
        """Return what makes images of fresh noise, y = z − Σ_i p_i ⟨p_i,z⟩ + Σ_i p_i ⟨x_i,q⟩, on the directions p_i."""
        return response - self.ensemble.inner(fresh, codomain.directions)

    def _facing(self, domain: Basis, pairs: Coordinates) -> Coordinates:
        """Return a matrix of both sides with the domain's directions as rows."""
        return pairs.T if domain is self.features else pairs

    def _make_room(self) -> None:
        """Let A and R grow with the bases; they are zero where nothing was learned or met."""
        sides, old = (self.gradients, self.features), self._pairs
        if any(side.rank > room for side, room in zip(sides, old.shape[1:], strict=True)):
            self._pairs = np.zeros((2, *(max(side.rank, min(side.budget, 2 * side.rank)) for side in sides)))
            self._pairs[:, : old.shape[1], : old.shape[2]] = old
