"""Answers without Monte-Carlo error: quadrature at initialisation, and exact dynamics for φ = identity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation, get_activation
from flds.training.options import BACKWARD_WEIGHTS
from flds.training.problem import TrainingProblem
from solvers import checks

Array = NDArray[np.float64]

# Midpoints of a symmetric grid: spectrally accurate for smooth functions, second order across a kink or
# jump at 0, where the error is below 1e-7.
_STEP = 1e-3
_NODES = np.arange(-12.0, 12.0, _STEP) + _STEP / 2
_WEIGHTS = np.exp(-0.5 * _NODES**2) * _STEP / np.sqrt(2 * np.pi)
# In two variables every 25th node, 0.025 apart and again symmetric about 0.
_EVERY = 25
_SPARSE = slice(_EVERY // 2, None, _EVERY)


def gaussian_square(function: object, variance: float) -> float:
    """Return E f(√variance Z)² for standard normal Z, where `function` is f of float64 arrays of any shape."""
    return float(np.sum(_WEIGHTS * function(np.sqrt(variance) * _NODES) ** 2))  # type: ignore[operator]


def feature_variance(activation: str | Activation, initial: float, horizon: float, depth: int) -> Array:
    """Return q_ℓ = E h_ℓ² of the untrained network at depth L and infinite width.

    The Euler recursion q_{ℓ+1} = q_ℓ + τ E φ(√q_ℓ Z)².

    Parameters
    ----------
    activation : str or Activation
        φ.
    initial, horizon : float
        q_0 = |x|²/d, and T.
    depth : int
        L.

    Returns
    -------
    (depth + 1,) float64

    Raises
    ------
    ValueError, TypeError
        If there is no such activation.

    References
    ----------
    Paper F, Proposition 2.
    """
    phi, tau = get_activation(activation), horizon / depth
    q = [float(initial)]
    for _ in range(depth):
        q.append(q[-1] + tau * gaussian_square(phi.value, q[-1]))
    return np.array(q)


def gradient_variance(activation: str | Activation, initial: float, horizon: float, depth: int) -> Array:
    """Return p_ℓ = E g_ℓ² likewise, (depth + 1,): p_{ℓ-1} = p_ℓ (1 + τ E φ'(√q_{ℓ-1} Z)²), p_L = 1.

    Parameters and errors are those of `feature_variance`; the recursion is that of Proposition 3 of paper F.
    """
    phi, tau = get_activation(activation), horizon / depth
    p = [1.0]
    for q in feature_variance(activation, initial, horizon, depth)[-2::-1]:
        p.append(p[-1] * (1 + tau * gaussian_square(phi.derivative, q)))
    return np.array(p[::-1])


def tangent_kernel(
    activation: str | Activation, initial: float, horizon: float, depth: int, backward_weights: str = "tied"
) -> float:
    """Return K in f^(1) − f^(0) = −η_c L' K + o(η_c), one sample, at depth L and infinite width.

    Tied: q_L + q_0 p_0 + τ Σ_ℓ E[φ(h_{ℓ-1})²] p_ℓ, the shares of v, U and the W_ℓ. Independent: 2 q_L.
    Parameters and errors are those of `feature_variance`; `backward_weights` is "tied" or "independent".
    """
    checks.choice("backward_weights", backward_weights, BACKWARD_WEIGHTS)
    q = feature_variance(activation, initial, horizon, depth)
    if backward_weights == "independent":
        return float(2 * q[-1])
    p = gradient_variance(activation, initial, horizon, depth)
    return float(q[-1] + q[0] * p[0] + np.sum(np.diff(q) * p[1:]))


def _bivariate(function: object, covariance: Array) -> float:
    """Return E f(h_a) f(h_b) for centred Gaussians with this 2×2 covariance."""
    first, cross = np.sqrt(covariance[0, 0]), covariance[0, 1]
    slope = cross / first if first > 0 else 0.0
    rest = np.sqrt(max(covariance[1, 1] - slope**2, 0.0))
    z, weights = _NODES[_SPARSE], _WEIGHTS[_SPARSE] * _EVERY
    left = weights * function(first * z)  # type: ignore[operator]
    inner = [weights @ function(slope * part[:, None] + rest * z).T for part in np.split(z, 8)]  # type: ignore[operator]
    return float(left @ np.concatenate(inner))


def pair_means(function: object, covariance: Array) -> Array:
    """Return E f(h_a) f(h_b) for all pairs of jointly Gaussian h, (m, m).

    `function` is f of float64 arrays of any shape, `covariance` that of the h, (m, m).
    """
    size = len(covariance)
    result = np.diag([gaussian_square(function, variance) for variance in np.diagonal(covariance)])
    for a in range(size):
        for b in range(a):
            result[a, b] = result[b, a] = _bivariate(function, covariance[np.ix_([a, b], [a, b])])
    return result


def feature_kernels(activation: str | Activation, inputs: Array, horizon: float, depth: int) -> tuple[Array, Array]:
    """Return E[h_ℓ,a h_ℓ,b], (depth + 1, m, m), and E[φ(h_ℓ,a) φ(h_ℓ,b)], (depth, m, m), of the untrained network.

    For several inputs, (m, d), at depth L and infinite width, by quadrature in two variables: the increments are
    jointly Gaussian over inputs with covariance rate E[φ(h_a) φ(h_b)] (Proposition 2 of paper F). Errors are at
    rounding level for smooth φ, below 1e-5 with a kink and 1e-3 with a jump, where a ≠ b. Other parameters
    and errors are those of `feature_variance`.
    """
    phi, tau = get_activation(activation), horizon / depth
    h = [inputs @ inputs.T / inputs.shape[1]]
    rates = []
    for _ in range(depth):
        rates.append(pair_means(phi.value, h[-1]))
        h.append(h[-1] + tau * rates[-1])
    return np.array(h), np.array(rates)


def gradient_kernels(activation: str | Activation, inputs: Array, horizon: float, depth: int) -> Array:
    """Return E[g_ℓ,a g_ℓ,b] of the untrained network likewise, (depth + 1, m, m) (Proposition 3 of paper F).

    Parameters and errors are those of `feature_kernels`.
    """
    phi, tau = get_activation(activation), horizon / depth
    h, _ = feature_kernels(activation, inputs, horizon, depth)
    g = [np.ones((len(inputs), len(inputs)))]
    for covariance in h[-2::-1]:
        g.append(g[-1] * (1 + tau * pair_means(phi.derivative, covariance)))
    return np.array(g[::-1])


def tangent_kernels(
    activation: str | Activation, inputs: Array, horizon: float, depth: int, backward_weights: str = "tied"
) -> Array:
    """Return K in f^(1)_a − f^(0)_a = −(η_c / m) Σ_b K_ab L'_b + o(η_c), full batch of m inputs, (m, m).

    Tied: E[h_L h_L] + (x_a·x_b/d) E[g_0 g_0] + τ Σ_ℓ E[φ(h_{ℓ-1}) φ(h_{ℓ-1})] E[g_ℓ g_ℓ]. Independent: 2 E[h_L h_L].
    Parameters and errors are those of `feature_kernels`; `backward_weights` is "tied" or "independent".
    """
    checks.choice("backward_weights", backward_weights, BACKWARD_WEIGHTS)
    h, rates = feature_kernels(activation, inputs, horizon, depth)
    if backward_weights == "independent":
        return np.asarray(2 * h[-1])
    g = gradient_kernels(activation, inputs, horizon, depth)
    return np.asarray(h[-1] + h[0] * g[0] + horizon / depth * np.sum(rates * g[1:], axis=0))


def post_activation(activation: str | Activation, initial: float, horizon: float, depth: int) -> tuple[Array, Array]:
    """Return E h_ℓ and E h_ℓ² of the untrained post-activation network at infinite width, (depth + 1,) each.

    h_0 = φ(u_0), h_ℓ = h_{ℓ-1} + √τ φ(u_ℓ) with u_ℓ ~ N(0, E h_{ℓ-1}²) independent of h_{ℓ-1}, since every W_ℓ is
    fresh (the network of Proposition 1 of paper F). Parameters and errors are those of `feature_variance`.
    """
    phi, root = get_activation(activation), np.sqrt(horizon / depth)

    def moments(variance: float) -> tuple[float, float]:
        mean = float(np.sum(_WEIGHTS * phi.value(np.sqrt(variance) * _NODES)))
        return mean, gaussian_square(phi.value, variance)

    mean, square = moments(initial)
    means, squares = [mean], [square]
    for _ in range(depth):
        first, second = moments(squares[-1])
        squares.append(squares[-1] + 2 * root * means[-1] * first + root**2 * second)
        means.append(means[-1] + root * first)
    return np.array(means), np.array(squares)


def identity_first_output(
    rate: float,
    target: float,
    horizon: float,
    depth: int,
    backward_weights: str,
    initial: float = 1.0,
    branch_exponent: float = 0.5,
) -> float:
    """Return f^(1) for φ = identity, one sample with |x|²/d = `initial`, exact in η_c at depth L and infinite width.

    Parameters
    ----------
    rate, target, horizon, initial : float
        η_c, y, T and |x|²/d.
    depth : int
        L.
    backward_weights : str
        With q = (1 + τ^{2e})^L, "tied": η_c y q_0 [2 q + T (1 + τ^{2e})^{L-1}], and "independent":
        η_c y q_0 [q + 1 + (q − 1) τ^{1−2e}].
    branch_exponent : float
        e, ½ or 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the backward weights are neither.
    """
    checks.choice("backward_weights", backward_weights, BACKWARD_WEIGHTS)
    tau = horizon / depth
    growth = 1 + tau ** (2 * branch_exponent)
    if backward_weights == "tied":
        kernel = 2 * growth**depth + horizon * growth ** (depth - 1)
    else:
        kernel = growth**depth + 1 + (growth**depth - 1) * tau ** (1 - 2 * branch_exponent)
    return rate * target * initial * kernel


def identity_hidden_output(rate: float, target: float, horizon: float, depth: int, backward_weights: str) -> float:
    """Return f^(1) with the W_ℓ trained alone, and |x|²/d = 1.

    "tied": η_c y T (1 + τ)^{L-1}. "independent": η_c y [(1 + τ)^L − 1]. They tend to η_c y T e^T and η_c y (e^T − 1).
    Parameters and errors are those of `identity_first_output`.
    """
    checks.choice("backward_weights", backward_weights, BACKWARD_WEIGHTS)
    growth = 1 + horizon / depth
    kernel = horizon * growth ** (depth - 1) if backward_weights == "tied" else growth**depth - 1
    return rate * target * kernel


def printed_first_output(rate: float, target: float, horizon: float, depth: int, initial: float = 1.0) -> float:
    """Return f^(1) for φ = identity by Proposition 4 of paper F as printed, one sample with |x|²/d = `initial`.

    The drift of layer ℓ is a (1 + τ) τ q_{ℓ-1} g_ℓ with a = η_c y, since E[φ'φ'] = 1; with E[v g_ℓ] = 1 and
    q_ℓ = q_0 (1 + τ)^ℓ this gives a q_0 [(2 + τ)(1 + τ)^L − τ]. Parameters are those of `identity_first_output`.
    """
    tau = horizon / depth
    return rate * target * initial * ((2 + tau) * (1 + tau) ** depth - tau)


def kuramoto_order_parameter(coupling: float) -> float:
    """Return r of infinitely many Kuramoto oscillators with frequencies N(0, 1).

    The root of 1 = K ∫ cos² φ g(K r sin φ) dφ over (−π/2, π/2), by bisection; 0 below K = √(8/π). K is `coupling`.

    References
    ----------
    S. H. Strogatz, "From Kuramoto to Crawford", Physica D 143 (2000).
    """
    phi = np.linspace(-np.pi / 2, np.pi / 2, 4001)
    low, high = 0.0, 1.0
    for _ in range(60):
        r = (low + high) / 2
        density = np.exp(-((coupling * r * np.sin(phi)) ** 2) / 2) / np.sqrt(2 * np.pi)
        low, high = (r, high) if coupling * np.trapezoid(np.cos(phi) ** 2 * density, phi) > 1 else (low, r)
    return low


@dataclass
class _Matrix:
    """One 𝒲_ℓ acting on vectors of coefficients: what it was applied to on either side, and what came out."""

    tied: bool
    rights: list[Array] = field(default_factory=list)
    right_images: list[Array] = field(default_factory=list)
    lefts: list[Array] = field(default_factory=list)
    left_images: list[Array] = field(default_factory=list)
    learned: list[tuple[float, Array, Array]] = field(default_factory=list)


class IdentityDynamics:
    """Training of the linear network, φ = identity, at finite depth and infinite width, without error.

    All states are linear combinations of independent Gaussian vectors (columns of U, v, and fresh noise),
    so a state is its row of coefficients and an inner product of states is a dot product of rows. The
    matrices 𝒲_ℓ are conditioned on all raw products so far by least squares, not through orthonormal
    bases, and the learned part is kept as a list of rank-one updates.

    Parameters
    ----------
    problem : TrainingProblem
        With activation "identity" and the loss "squared".
    depth : int
        L.
    backward_weights : str
        "tied" or "independent".

    Raises
    ------
    ValueError
        If the problem has another activation or loss, or the backward weights are neither.

    References
    ----------
    Paper F, eqs. (1) and (4).
    """

    def __init__(self, problem: TrainingProblem, depth: int, backward_weights: str = "tied") -> None:
        if problem.phi.name != "identity":
            raise ValueError(f'problem must have the activation "identity", got {problem.phi.name!r}')
        if problem.loss != "squared":
            raise ValueError(f'problem must have the loss "squared", got {problem.loss!r}')
        checks.choice("backward_weights", backward_weights, BACKWARD_WEIGHTS)
        self.problem, self.depth = problem, depth
        inputs, outputs = problem.x.shape[1], problem.outputs
        passes = (problem.steps + 1) * problem.batch
        self.size = inputs + outputs + 2 * depth * passes
        self.used = inputs + outputs
        self.input_weights = np.eye(inputs, self.size)
        self.readout = np.eye(outputs, self.size, inputs)
        self.matrices = [_Matrix(backward_weights == "tied") for _ in range(depth)]
        self.root_tau = np.sqrt(problem.horizon / depth)

    def outputs(self) -> Array:
        """Return the outputs on the batch of every step 0 … K, (steps + 1, batch, outputs)."""
        problem = self.problem
        recorded = []
        for step, batch in enumerate(problem.batches):
            inputs = problem.x[batch]
            states = [[self.input_weights.T @ x / np.sqrt(len(x))] for x in inputs]
            for matrix in self.matrices:
                for h in states:
                    h.append(h[-1] + self.root_tau * self._forward(matrix, h[-1]))
            f = np.array([self.readout @ h[-1] for h in states])
            recorded.append(f)
            if step == problem.steps:
                break
            slopes = problem.loss_function.derivative(f, problem.y[batch])
            self._train(step, inputs, states, slopes)
        return np.array(recorded)

    def _train(self, step: int, inputs: Array, states: list[list[Array]], slopes: Array) -> None:
        rate = self.problem.groups["hidden"].rates[step] / len(inputs)
        # one gradient vector a sample, L'_s g_s, is all that the updates need
        gradients = [[slope @ self.readout] for slope in slopes]
        for matrix in reversed(self.matrices):
            for g in gradients:
                g.append(g[-1] + self.root_tau * self._backward(matrix, g[-1]))
        for x, h, g, slope in zip(inputs, states, gradients, slopes, strict=True):
            self.input_weights -= rate * np.outer(x, g[-1]) / np.sqrt(len(x))
            self.readout -= rate * np.outer(slope, h[-1])
            for layer, matrix in enumerate(self.matrices):
                matrix.learned.append((-rate * self.root_tau, g[self.depth - 1 - layer], h[layer]))

    def _forward(self, matrix: _Matrix, vector: Array) -> Array:
        learned = [amount * g * (h @ vector) for amount, g, h in matrix.learned]
        return sum(learned, self._product(matrix, vector, transposed=False))

    def _backward(self, matrix: _Matrix, vector: Array) -> Array:
        learned = [amount * h * (g @ vector) for amount, g, h in matrix.learned]
        return sum(learned, self._product(matrix, vector, transposed=True))

    def _product(self, matrix: _Matrix, vector: Array, transposed: bool) -> Array:
        """The initial 𝒲 (or its transpose) times a vector, given all products revealed before."""
        sides = [(matrix.rights, matrix.right_images), (matrix.lefts, matrix.left_images)]
        (mine, images), (others, other_images) = sides[::-1] if transposed else sides
        rest = vector.copy()
        result = np.zeros(self.size)
        if mine:
            amounts = np.linalg.lstsq(np.array(mine).T, vector, rcond=1e-10)[0]
            rest -= amounts @ np.array(mine)
            result += amounts @ np.array(images)
        if matrix.tied and others:
            known = np.array(others)
            pairs = np.array(other_images) @ rest  # ⟨𝒲ᵀp, r⟩ = ⟨p, 𝒲r⟩
            result += np.linalg.lstsq(known @ known.T, pairs, rcond=1e-12)[0] @ known
        # The fresh symbol is orthogonal to every vector so far, so unlike a finite vector it needs no projection.
        fresh = rest @ rest
        if fresh > 1e-20 * (vector @ vector):
            result[self.used] += np.sqrt(fresh)
            self.used += 1
        mine.append(vector.copy())
        images.append(result.copy())
        return result
