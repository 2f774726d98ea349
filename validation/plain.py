"""Both papers' networks in NumPy, written from the equations alone: a reference that shares no code with the solvers.

Only what the equations say is here, one sample at a time where that is shortest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]
Function = Callable[[Any], Any]

_STEP = 1e-30  # of a complex step, whose square is lost in rounding

# φ by name; derivatives are taken with complex steps or written out where a kink or erf forbids them.
PHI: dict[str, Function] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "erf": erf,
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sin": np.sin,
}


def slope(name: str, x: Array) -> Array:
    """Return φ'(x) in the shape of x, exact to rounding."""
    if name == "relu":
        return np.where(x > 0, 1.0, 0.0)
    if name == "erf":
        return np.asarray(2 / np.sqrt(np.pi) * np.exp(-(x**2)))
    if name == "gelu":
        return np.asarray((1 + erf(x / np.sqrt(2))) / 2 + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))
    return np.asarray(np.imag(PHI[name](x + 1j * _STEP)) / _STEP)


def loss_value(loss: str, f: Any, y: Any) -> Any:
    """Return the loss of one sample with outputs f, (outputs,); of complex f, the same formula.

    "squared" ½‖f − y‖², "mean_squared" the same per output, "logistic" the mean of log(1 + e^{−yf}) over outputs, or
    "cross_entropy" −log softmax(f)_y.
    """
    if loss == "logistic":
        return np.sum(np.log(1 + np.exp(-y * f))) / len(f)
    if loss == "cross_entropy":
        return np.log(np.sum(np.exp(f))) - f[int(y)]
    return np.sum((f - y) ** 2) / 2 / (len(f) if loss == "mean_squared" else 1)


def is_right(loss: str, f: Array, y: Any) -> bool:
    """Return whether the sign of f is that of y = ±1, or the largest f that of class y."""
    return bool(f[0] * y > 0) if loss == "logistic" else int(np.argmax(f)) == int(y)


def loss_slope(loss: str, f: Array, y: Any) -> Array:
    """Return ∂L/∂f of one sample, (outputs,), by complex steps."""
    moved = f + 1j * _STEP * np.eye(len(f))
    return np.array([np.imag(loss_value(loss, one, y)) / _STEP for one in moved])


@dataclass
class Weights:
    """A network of width n, depth L: U (n, d), W and W̃ (L, n, n), v (outputs, n), all entries of order 1.

    With one matrix for both passes W̃ is W itself.
    """

    U: Array
    W: Array
    backward: Array
    v: Array


@dataclass
class Trained:
    """Outputs f^(k) on all inputs, and what the passes of every batch met.

    Attributes
    ----------
    outputs : (steps + 1, samples, outputs) array
        f^(k).
    features, gradients : (steps + 1, L, batch, n) array
        φ(h_{ℓ−1}) and g_ℓ; g = Σ_c L'_c g_c / ‖L'‖, and without a sign for one output.
    feature_variance, gradient_variance : (steps + 1, L + 1) array
        Mean squares of h_ℓ and of g_ℓ over neurons and batch.
    batch_loss : (steps + 1,) array
        Mean loss of the batch.
    """

    outputs: Array
    features: Array
    gradients: Array
    feature_variance: Array
    gradient_variance: Array
    batch_loss: Array


def train(
    weights: Weights,
    inputs: Array,
    targets: NDArray[Any],
    *,
    activation: str,
    loss: str,
    horizon: float,
    rates: Array,
    batches: NDArray[np.intp],
    trained: str = "UWv",
) -> Trained:
    """Train a network by stochastic gradient descent: h_ℓ = h_{ℓ−1} + √(T/(Ln)) W_ℓ φ(h_{ℓ−1}), f = v·h_L/n.

    Parameters
    ----------
    weights : Weights
        Trained in place.
    inputs, targets : (samples, d) and (samples, …) arrays
        Data; class indices for "cross_entropy".
    activation, loss : str
        φ, and "squared", "logistic" or "cross_entropy".
    horizon : float
        T.
    rates : (steps,) array
        η_c; the learning rate is η_c n.
    batches : (steps + 1, batch) int array
        Samples of each step; the last row is not trained on.
    trained : str
        Which weights move.

    Returns
    -------
    Trained
        Outputs of (steps + 1, samples, outputs), features and gradients.

    References
    ----------
    Paper F, eqs. (1) and (4).
    """
    n, depth = weights.U.shape[0], len(weights.W)
    scale = np.sqrt(horizon / (depth * n))
    outputs, features, gradients, losses = [], [], [], []
    squares: tuple[list[Array], list[Array]] = ([], [])
    for step, batch in enumerate(batches):
        outputs.append([_forward(weights, x, activation, scale)[0][-1] @ weights.v.T / n for x in inputs])
        passes = [_pass(weights, inputs[s], targets[s], activation, loss, scale) for s in batch]
        features.append([[p.features[layer] for p in passes] for layer in range(depth)])
        gradients.append([[p.normed[layer + 1] for p in passes] for layer in range(depth)])
        squares[0].append(np.mean([np.square(p.states).mean(axis=1) for p in passes], axis=0))
        squares[1].append(np.mean([np.square(p.normed).mean(axis=1) for p in passes], axis=0))
        losses.append(np.mean([loss_value(loss, p.output, targets[s]) for p, s in zip(passes, batch, strict=True)]))
        if step == len(rates):
            break
        eta = rates[step] * n / len(batch)
        for p, s in zip(passes, batch, strict=True):
            if "v" in trained:
                weights.v -= eta * np.outer(p.loss_slope, p.states[-1]) / n
            if "U" in trained:
                weights.U -= eta * np.outer(p.deltas[0], inputs[s]) / np.sqrt(inputs.shape[1])
            for layer in range(depth if "W" in trained else 0):
                change = eta * scale * np.outer(p.deltas[layer + 1], p.features[layer])
                weights.W[layer] -= change
                if weights.backward is not weights.W:
                    weights.backward[layer] -= change
    arrays = (outputs, features, gradients, *squares, losses)
    return Trained(*(np.array(array) for array in arrays))


@dataclass
class _Pass:
    """One sample's forward and backward pass: h_0 … h_L, φ(h_0) … φ(h_{L−1}), f, L', ∂L/∂h_0 … and g_0 … g_L."""

    states: list[Array]
    features: list[Array]
    output: Array
    loss_slope: Array
    deltas: list[Array]
    normed: list[Array]


def _forward(weights: Weights, x: Array, activation: str, scale: float) -> tuple[list[Array], list[Array]]:
    """Return h_0 … h_L and φ(h_0) … φ(h_{L−1})."""
    h = [weights.U @ x / np.sqrt(len(x))]
    features = []
    for matrix in weights.W:
        features.append(PHI[activation](h[-1]))
        h.append(h[-1] + scale * matrix @ features[-1])
    return h, features


def _pass(weights: Weights, x: Array, y: Any, activation: str, loss: str, scale: float) -> _Pass:
    h, features = _forward(weights, x, activation, scale)
    n = len(h[-1])
    f = h[-1] @ weights.v.T / n
    first = loss_slope(loss, f, y)
    deltas = [first @ weights.v / n]
    for layer in reversed(range(len(weights.W))):
        back = slope(activation, h[layer]) * (weights.backward[layer].T @ deltas[0])
        deltas.insert(0, deltas[0] + scale * back)
    size = first[0] if len(first) == 1 else np.linalg.norm(first)
    return _Pass(h, features, f, first, deltas, [n * delta / size for delta in deltas])


# Units of the Mean ODE at one state h (D,), or at the states of the tokens (tokens, D): φ(h, z), summed over units.


def perceptron(h: Array, u: Array, v: Array, activation: str) -> Array:
    """Σ_j v_j ρ(u_j·h/D), (D,); u and v are (D, units). H-(2)."""
    return np.asarray(sum(v[:, j] * PHI[activation](u[:, j] @ h / len(h)) for j in range(u.shape[1])))


def gated_unit(h: Array, u: Array, w: Array, v: Array, activation: str) -> Array:
    """Σ_j v_j ρ(w_j·h/D) (u_j·h/D), (D,); u, w and v are (D, units)."""
    gates = [PHI[activation](w[:, j] @ h / len(h)) * (u[:, j] @ h / len(h)) for j in range(u.shape[1])]
    return np.asarray(sum(v[:, j] * gate for j, gate in enumerate(gates)))


def matrix_after(h: Array, matrices: Array, activation: str) -> Array:
    """Σ_j W_j ρ(h), (D,); matrices are (input, output, units)."""
    return np.asarray(sum(matrices[:, :, j].T @ PHI[activation](h) for j in range(matrices.shape[2])))


def matrix_before(h: Array, matrices: Array, activation: str) -> Array:
    """Σ_j ρ(W_j h), (D,); matrices are (input, output, units)."""
    return np.asarray(sum(PHI[activation](matrices[:, :, j].T @ h) for j in range(matrices.shape[2])))


def attention(h: Array, q: Array, k: Array, v: Array, o: Array, causal: bool = False) -> Array:
    """Σ_j W_Oᵀ Σ_i softmax_i(W_Q h_t · W_K h_i / √d_k) W_V h_i, (tokens, D). H-(3).

    q, k and v are (D, d_k, units), o is (d_k, D, units).
    """
    total = np.zeros(h.shape, np.result_type(h, q, k, v, o))
    for j in range(q.shape[2]):
        for t in range(len(h)):
            seen = range(t + 1) if causal else range(len(h))
            scores = [(q[:, :, j].T @ h[t]) @ (k[:, :, j].T @ h[i]) / np.sqrt(q.shape[1]) for i in seen]
            weights = np.exp(scores) / np.sum(np.exp(scores))
            total[t] += o[:, :, j].T @ sum(a * (v[:, :, j].T @ h[i]) for a, i in zip(weights, seen, strict=True))
    return total
