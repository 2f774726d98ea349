"""A Gaussian weight matrix under training, behind one interface: lazily sampled, or held densely.

Inner products are ⟨a,b⟩ = (1/N) Σ_i a_i b_i, and 𝒲 = W/√N with W iid N(0,1). Training uses 𝒲 in three
ways only: 𝒲φ forward, 𝒲ᵀg backward, and rank-one updates. `LazyOperator` therefore keeps an orthonormal
basis of the vectors 𝒲 has met on either side and their images, and samples every new image
conditionally on what has been revealed. Coordinates on the basis are rows of the Cholesky factors of
Σ = ⟨φ,φ⟩ and Θ = ⟨g,g⟩, the covariance rates of the noise in F-(9).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from solvers.ensemble.random import Address, Noise
from solvers.ensemble.threads import Blocks
from solvers.matrices.cholesky import rank_revealing_cholesky
from solvers.matrices.sampling import Context, Sampling

Array = NDArray[np.floating]
Coordinates = NDArray[np.float64]

# Below these relative norms a residual is rounding: the Gram matrix holds squares, so half the digits.
ROUNDING_FLOOR = {np.dtype(np.float64): 1e-7, np.dtype(np.float32): 1e-5}


class RankBudgetExceeded(Exception):
    """A basis outgrew the rank that memory was planned for."""


class WeightOperator(ABC):
    """𝒲 = W/√N at one layer, or, with independent backward weights, the pair (𝒲, 𝒲̃)."""

    @abstractmethod
    def forward(
        self, features: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        """Return the images 𝒲φ, (b, N), and the coordinates of the features φ, (b, rank).

        Fresh noise is that of `address`. `states`, (any number, N), are vectors of this depth that matched noise must
        not correlate with. With `remember=False` the operator is left as it was.
        """

    @abstractmethod
    def backward(
        self, gradients: Array, address: Address, states: Array, remember: bool = True
    ) -> tuple[Array, Coordinates]:
        """Return the images 𝒲ᵀg (or 𝒲̃ᵀg), (b, N), and the coordinates of the gradients g, (b, rank).

        `address`, `states` and `remember` are as for `forward`.
        """

    @abstractmethod
    def update(self, gradients: Coordinates, features: Coordinates) -> None:
        """Add Σ_s g_s φ_sᵀ / N to 𝒲 (and to 𝒲̃).

        `gradients` and `features` are coordinates, (b, rank) each, of which one carries the rates.
        """

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Return what was revealed, (rank, N), and learned, or the matrices, (N, N), by name: own memory, no copies."""

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


class Basis:
    """Orthonormal directions on one side of 𝒲, their images, and the mass dropped so far."""

    def __init__(self, particles: int, budget: int, dtype: np.dtype) -> None:
        self.budget = budget
        self.rank = 0
        self.mass = 0.0
        self.dropped = 0.0
        self._directions = np.empty((0, particles), dtype)
        self._images = np.empty((0, particles), dtype)

    @property
    def directions(self) -> Array:
        return self._directions[: self.rank]

    @property
    def images(self) -> Array:
        return self._images[: self.rank]

    def room(self, count: int, remember: bool) -> tuple[Array, Array]:
        """Return where `count` new directions and images go: here, or in scratch memory."""
        shape = (count, self._directions.shape[1])
        if not remember:
            return np.empty(shape, self._directions.dtype), np.empty(shape, self._directions.dtype)
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
        new = np.empty((capacity, old.shape[1]), old.dtype)
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
    blocks : Blocks
        The partition of the particles.
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
        Storage of directions and images; sums over blocks, norms and pivots are float64 always.

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
        self, blocks: Blocks, noise: Noise, layer: int, *, tied: bool, tolerance: float,
        budget: tuple[int, int], sampling: Sampling, dtype: np.dtype,
    ) -> None:  # fmt: skip
        self.blocks, self.noise, self.layer, self.tied = blocks, noise, layer, tied
        self.tolerance = max(tolerance, ROUNDING_FLOOR[dtype])
        self.sampling = sampling
        self.features = Basis(blocks.particles, budget[0], dtype)
        self.gradients = Basis(blocks.particles, budget[1], dtype)
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
            "feature_directions": self.features.directions, "feature_images": self.features.images,
            "gradient_directions": self.gradients.directions, "gradient_images": self.gradients.images,
            "learned": self.learned, "mass": np.array([[side.mass, side.dropped] for side in sides]),
        } | self.sampling.state()  # fmt: skip

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
        self, domain: Basis, codomain: Basis, learned: Coordinates, vectors: Array, address: Address,
        states: Array, remember: bool,
    ) -> tuple[Array, Coordinates]:  # fmt: skip
        """Multiply by 𝒲 = (what is revealed) + (what is fresh) + (what is learned)."""
        part = self._expand(domain, vectors, remember)
        shift = self._draw_images(domain, codomain, part, address.rows(part.kept), states, remember)
        self.blocks.combine(part.new_images, [(shift, codomain.directions)], add=True)
        pull = part.known[:, : learned.shape[1]] @ learned.T  # coordinates on the codomain's older directions
        image = np.empty_like(vectors)
        self.blocks.combine(
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
        blocks, directions = self.blocks, basis.directions
        squares = blocks.mean_squares(vectors)
        known = blocks.inner(vectors, directions)
        residual = vectors.copy()
        blocks.combine(residual, [(-known, directions)], add=True)
        again = blocks.inner(residual, directions)
        known += again
        left = blocks.mean_squares(residual)
        if not np.any(left > self.tolerance**2 * squares):
            none = np.empty((0, vectors.shape[1]), vectors.dtype)
            nothing = np.empty((len(vectors), 0))
            return Expansion(known, nothing, np.empty(0, np.intp), none, none, float(squares.sum()), float(left.sum()))

        blocks.combine(residual, [(-again, directions)], add=True)
        gram = blocks.gram(residual)
        room = vectors.shape[1] - basis.rank
        factor, kept = rank_revealing_cholesky(gram, self.tolerance**2 * squares, most=room)
        new_directions, new_images = basis.room(len(kept), remember)
        started = residual[kept]
        blocks.combine(new_directions, [(_inverse(factor[kept]), started)])

        # One pass leaves an orthonormality error of eps/tolerance^2, so the factorisation is repeated.
        overlap = blocks.inner(new_directions, directions)
        repeat = np.linalg.cholesky(blocks.gram(new_directions) - overlap @ overlap.T)
        blocks.combine(new_directions, [(-overlap, directions)], add=True)
        started[...] = new_directions
        blocks.combine(new_directions, [(_inverse(repeat), started)])
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
        self.blocks.fill(z, self.noise, address, self.layer)
        families = (
            self.features.directions, self.features.images, self.gradients.directions, self.gradients.images
        )  # fmt: skip
        grows = 0 if domain is self.features else 2
        self.sampling.condition(z, Context(families, grows, q, remember, states))
        if not self.tied:
            return np.empty((len(z), 0))
        return self.blocks.inner(q, codomain.images) - self.blocks.inner(z, codomain.directions)


def _inverse(lower: Array) -> Coordinates:
    return np.asarray(solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False))
