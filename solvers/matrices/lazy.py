"""A Gaussian weight matrix that is sampled only where training looks.

An orthonormal basis of the vectors that 𝒲 has met on either side is kept, with their images, and every new image is
sampled conditionally on what has been revealed. Coordinates on the basis are rows of the Cholesky factors of
Σ = ⟨φ,φ⟩ and Θ = ⟨g,g⟩, the covariance rates of the noise in F-(9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.random import Address, Noise
from solvers.matrices import reveal
from solvers.matrices.algebra import OF_PARTICLES, Place
from solvers.matrices.few import compiled_passes
from solvers.matrices.operator import Coordinates, RankBudgetExceeded, WeightOperator
from solvers.matrices.reveal import Basis, Passes, Sizes
from solvers.matrices.sampling import Sampling

# Rows that a basis has room for at first, and how many times more when they are full.
FIRST_ROWS, GROWTH = 8, 2
# Below these relative norms a residual is rounding: the Gram matrix holds squares, so half the digits.
ROUNDING_FLOOR = {np.dtype(np.float64): 1e-7, np.dtype(np.float32): 1e-5}
# Likewise where what is left is a difference of squares.
_LOST = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-3}


class Side:
    """Orthonormal directions on one side of 𝒲, their images, and the sums of squares seen and dropped."""

    def __init__(self, ensemble: Particles, opposite: Particles, budget: int, dtype: np.dtype) -> None:
        self.ensemble, self.opposite, self.budget = ensemble, opposite, budget
        self.rank = 0
        self.mass = 0.0
        self.dropped = 0.0
        self._directions = ensemble.allocate(0, dtype)
        self._images = opposite.allocate(0, dtype)

    @property
    def directions(self) -> Array:
        return self._directions[: self.rank]

    @property
    def images(self) -> Array:
        return self._images[: self.rank]

    @property
    def basis(self) -> Basis:
        return Basis(self.directions, self.images)

    def room(self, count: int) -> Basis:
        """Return where up to `count` new directions and images go, as far as the budget allows."""
        total = min(self.rank + count, self.budget)
        if total > len(self._directions):
            # Pages that are never touched cost nothing, so spare capacity is free.
            capacity = min(self.budget, max(total, FIRST_ROWS, GROWTH * self.rank))
            self._directions = self._grown(self.ensemble, self._directions, capacity)
            self._images = self._grown(self.opposite, self._images, capacity)
        return Basis(self._directions[self.rank : total], self._images[self.rank : total])

    def append(self, count: int) -> None:
        """Take in the first `count` rows of the room."""
        if self.rank + count > self.budget:
            raise RankBudgetExceeded(f"rank {self.rank + count} exceeds the budget of {self.budget}")
        self.rank += count

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

    def _grown(self, home: Particles, old: Array, capacity: int) -> Array:
        new = home.allocate(capacity, old.dtype)
        new[: self.rank] = old[: self.rank]
        return new


class LazyOperator(WeightOperator):
    """𝒲 sampled only where it is used: ω 𝒲_0 + Pᵀ A Q / √(MN), with 𝒲_0 what is sampled.

    With `tied=True`, particles have exactly the law of an M×N Gaussian matrix under the same updates;
    with `tied=False` the images on the two sides are independent, as in Definition 1 of paper F.

    Parameters
    ----------
    inputs : Particles
        The N coordinates of what the matrix multiplies.
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
        How fresh images 𝒲φ are conditioned: by law, or with exact second moments.
    dtype : numpy dtype
        Storage of directions and images; sums over particles, norms and pivots are float64 always.
    deviation : float
        Standard deviation of the entries of W, 1 in paper F.
    outputs : Particles, optional
        The M coordinates of its images; by default it is square.
    backward_sampling : Sampling, optional
        How fresh images 𝒲ᵀg are conditioned; by default as those of the other side.

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

    on_host = True

    def __init__(
        self,
        inputs: Particles,
        noise: Noise,
        layer: int,
        *,
        tied: bool,
        tolerance: float,
        budget: tuple[int, int],
        sampling: Sampling,
        dtype: np.dtype,
        deviation: float = 1.0,
        outputs: Particles | None = None,
        backward_sampling: Sampling | None = None,
    ) -> None:
        self.noise, self.layer, self.tied = noise, layer, tied
        self.inputs, self.outputs = inputs, inputs if outputs is None else outputs
        self._ratio = (self.inputs.particles / self.outputs.particles) ** 0.5
        self.share = float(deviation)  # ω: what is left of the matrix that is sampled, whose entries have deviation 1
        self.tolerance = max(tolerance, ROUNDING_FLOOR[dtype])
        self._sampling = sampling, sampling if backward_sampling is None else backward_sampling
        self.features = Side(self.inputs, self.outputs, budget[0], dtype)
        self.gradients = Side(self.outputs, self.inputs, budget[1], dtype)
        self.unmatched = False  # whether the sampling left some vectors as they were, for lack of room
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

    def add(self, step: Coordinates) -> None:
        self.learned[: len(step), : step.shape[1]] += step

    def shrink(self, factor: float) -> None:
        self.share *= factor
        self.learned[...] *= factor

    @property
    def learned(self) -> Coordinates:
        """A, (backward rank, forward rank): the learned part of 𝒲 is Pᵀ A Q/√(MN)."""
        return self._pairs[0, : self.gradients.rank, : self.features.rank]

    @property
    def response(self) -> Coordinates:
        """R = p_i · 𝒲_0 q_j/√(MN) of a tied matrix, (backward rank, forward rank)."""
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
            "share": np.array(self.share),
        } | ({"response": self.response} if self.tied else {})

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        for side, name, mass in ((self.features, "feature", 0), (self.gradients, "gradient", 1)):
            directions = side.ensemble.from_state(state[f"{name}_directions"])
            side.restore(directions, side.opposite.from_state(state[f"{name}_images"]), *state["mass"][mass])
        self.share = float(state.get("share", self.share))  # which older states leave out
        self._make_room()
        learned = state["learned"]
        self.learned[: len(learned), : learned.shape[1]] = learned
        if self.tied:
            met = state.get("response")  # which older states leave out
            if met is None:
                met = self.outputs.inner(self.gradients.directions, self.features.images) / self._ratio
            self.response[...] = met

    def take_in(self, directions: Array, images: Array) -> None:
        """Take in directions of features, (r, N), and their images, (r, M), which a pass has revealed before."""
        room = self.features.room(len(directions))
        self.inputs.put(room.directions, directions)
        self.outputs.put(room.images, images)
        self.features.append(len(directions))
        self._make_room()

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
        self, domain: Side, codomain: Side, vectors: Array, address: Address, states: Array | None
    ) -> tuple[Array, Coordinates]:
        """Multiply by 𝒲 = (what is revealed) + (what is fresh) + (what is learned), and remember what is fresh."""
        sampling = self._sampling[domain is self.gradients]
        passes, e, images, draw = self._passes(domain, sampling, address, domain.ensemble.precision(vectors))
        constants = codomain.directions[:0] if sampling.constants is None else sampling.constants
        learned = np.ascontiguousarray(self._facing(domain, self.learned))
        sides, sizes = (domain.basis, codomain.basis, learned, self.share), self._sizes(domain)
        numbers = self.tied, self.tolerance, sizes, draw
        if states is None:
            response = np.ascontiguousarray(self._facing(domain, self.response))
            probed = passes.probe(e, images, vectors, constants, *sides, response, *numbers)
            self.unmatched |= not probed.matched
            return probed.image, probed.coordinates
        room = domain.room(len(vectors))
        revealed = passes.reveal(e, images, vectors, states, constants, room, *sides, *numbers)
        self.unmatched |= not revealed.matched
        domain.append(revealed.added)
        self._make_room()
        if self.tied:
            self._facing(domain, self.response)[domain.rank - revealed.added :] = revealed.response
        domain.mass += revealed.mass
        domain.dropped += revealed.dropped
        return revealed.image, revealed.coordinates

    def _passes(
        self, domain: Side, sampling: Sampling, address: Address, dtype: np.dtype
    ) -> tuple[Passes, Any, Any, Any]:
        """Return the passes, and both homes and the draw as they take them; compiled, if there are few particles."""
        home, images, noise, layer = domain.ensemble, domain.opposite, self.noise, self.layer
        condition = None if home.cut is None or images.cut is None else sampling.compiled(dtype)
        if condition is not None:
            passes = compiled_passes(condition, reveal.shift, _LOST[dtype])
            return passes, home.cut, images.cut, noise.draw(address, layer)

        def by_sampling(e: Particles, z: Array, states: Array, constants: Array) -> bool:
            return sampling.condition(z, states)

        passes = reveal.passes(OF_PARTICLES, by_sampling, reveal.shift, _LOST[dtype])
        return passes, home, images, Place(noise, address, layer)

    def _sizes(self, domain: Side) -> Sizes:
        """Return √(N/M), and for 𝒲ᵀ its inverse; images of new directions are of size 1, or √(M/N)."""
        if domain is self.features:
            return Sizes(1.0, self._ratio)
        return Sizes(1.0 / self._ratio, 1.0 / self._ratio)

    def _facing(self, domain: Side, pairs: Coordinates) -> Coordinates:
        """Return a matrix of both sides with the domain's directions as rows."""
        return pairs.T if domain is self.features else pairs

    def _make_room(self) -> None:
        """Let A and R grow with the bases; they are zero where nothing was learned or met."""
        sides, old = (self.gradients, self.features), self._pairs
        _, rows, columns = old.shape
        if self.gradients.rank > rows or self.features.rank > columns:
            self._pairs = np.zeros((2, *(max(side.rank, min(side.budget, GROWTH * side.rank)) for side in sides)))
            self._pairs[:, : old.shape[1], : old.shape[2]] = old
