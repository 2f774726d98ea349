"""The Neural Mean ODE in NumPy, written from the equations of paper H: a reference that shares no code with the solver.

Every derivative is that of the formula of a block by complex steps, one number at a time; nothing is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation import plain

Array = NDArray[np.float64]
Units = dict[str, Array]  # by name, the last axis units; over depth, the first axis nodes
Field = Callable[[Any, dict[str, Any]], Any]  # (h of one sample, units at one node) → Σ_j φ(h, z_j)
Move = Callable[[int, str, Array, Array], Array]

_STEP = 1e-30


def by_token(one: Field) -> Field:
    """Let a field of one vector work on each token for itself."""
    return lambda h, z: one(h, z) if h.ndim == 1 else np.array([one(token, z) for token in h])


FIELDS: dict[str, Callable[[str], Field]] = {
    "two_layer_perceptron": lambda rho: by_token(lambda h, z: plain.perceptron(h, z["u"], z["v"], rho)),
    "gated_linear_unit": lambda rho: by_token(lambda h, z: plain.gated_unit(h, z["u"], z["w"], z["v"], rho)),
    "matrix_after_activation": lambda rho: by_token(lambda h, z: plain.matrix_after(h, z["W"], rho)),
    "matrix_before_activation": lambda rho: by_token(lambda h, z: plain.matrix_before(h, z["W"], rho)),
}


def attention(causal: bool) -> Field:
    """Return the field of attention, of which a token sees those before it alone, or all."""
    return lambda h, z: plain.attention(h, z["W_Q"], z["W_K"], z["W_V"], z["W_O"], causal)


@dataclass
class TrainedUnits:
    """What a training records before each update.

    Attributes
    ----------
    outputs : (steps + 1, samples, …, outputs) array
        f = h(1) W_U.
    features, covectors : (steps + 1, nodes, samples, …, D) array
        h and b where the fields are evaluated, in the order of depth.
    travel : dict of (steps + 1, nodes) array
        Root mean square displacement by parameter.
    """

    outputs: Array
    features: Array
    covectors: Array
    travel: dict[str, Array]


def train(
    field: Field, units: Units, inputs: Array, targets: NDArray[Any], loss: str, alpha: float, rates: dict[str, float],
    steps: int, read: Array, batches: Sequence[Any] | None = None, move: Move | None = None,
) -> TrainedUnits:  # fmt: skip
    """Train the units of nodes in depth by gradient descent.

    Parameters
    ----------
    field : callable
        One of `FIELDS`, for an activation, `attention`, or a sum of several.
    units : dict of (nodes, …, units) arrays
        Z_0; left as it is.
    inputs, targets : (samples, …, D) and (samples, …) arrays
        Data.
    loss : str
        As for `validation.plain.loss_value`.
    alpha : float
        α.
    rates : dict
        η by parameter.
    steps : int
        K.
    read : (D, outputs) array
        The unembedding W_U.
    batches : sequence of index arrays, optional
        The samples of each update; by default all.
    move : callable, optional
        Of a step, a name, units and the gradient that rates multiply, all nodes at once: the units after the step; by
        default gradient descent at `rates`.

    Returns
    -------
    TrainedUnits

    References
    ----------
    Paper H, eqs. (10), (12), (14).
    """
    start, now = units, {name: z.copy() for name, z in units.items()}
    nodes, count = next(iter(units.values())).shape[0], next(iter(units.values())).shape[-1]
    records: list[tuple[Array, Array, Array]] = []
    travel: dict[str, list[Array]] = {name: [] for name in units}
    for step in range(steps + 1):
        at = [{name: z[node] for name, z in now.items()} for node in range(nodes)]
        passes = [_pass(field, at, x, y, loss, alpha / count, read) for x, y in zip(inputs, targets, strict=True)]
        outputs, features, covectors = (np.array(part) for part in zip(*passes, strict=True))
        records.append((outputs, features.swapaxes(0, 1), covectors.swapaxes(0, 1)))
        for name, z in now.items():
            travel[name].append(np.sqrt(np.mean((z - start[name]) ** 2, axis=tuple(range(1, z.ndim)))))
        if step == steps:
            break
        batch = range(len(inputs)) if batches is None else batches[step]
        rows = outputs[0, ..., 0].size * len(batch)
        pulled = [
            [_pull_units(field, features[s, node], covectors[s, node], here) for s in batch]
            for node, here in enumerate(at)
        ]
        for name, z in now.items():
            gradient = np.sum([[one[name] for one in here] for here in pulled], axis=1) / (alpha * rows)
            now[name] = z - rates[name] * gradient if move is None else move(step, name, z, gradient)
    ends, states, backs = (np.array(part) for part in zip(*records, strict=True))
    return TrainedUnits(ends, states, backs, {name: np.array(rows) for name, rows in travel.items()})


def momentum(rates: dict[str, Array], decay: dict[str, float], mu: float, nesterov: bool = False) -> Move:
    """Return moves by heavy-ball or Nesterov momentum, buf ← μ buf + G, with decoupled decay; rates are (steps,)."""
    buffers: dict[str, Any] = dict.fromkeys(rates, 0.0)

    def move(step: int, name: str, z: Array, gradient: Array) -> Array:
        buffers[name] = mu * buffers[name] + gradient
        seen = gradient + mu * buffers[name] if nesterov else buffers[name]
        return (1 - rates[name][step] * decay[name]) * z - rates[name][step] * seen

    return move


def adam(rates: dict[str, Array], decay: dict[str, float], betas: tuple[float, float], epsilon: float) -> Move:
    """Return moves by Adam with decoupled decay; rates are (steps,)."""
    means: dict[str, Any] = dict.fromkeys(rates, 0.0)
    squares: dict[str, Any] = dict.fromkeys(rates, 0.0)
    one, two = betas

    def move(step: int, name: str, z: Array, gradient: Array) -> Array:
        means[name] = one * means[name] + (1 - one) * gradient
        squares[name] = two * squares[name] + (1 - two) * gradient**2
        mean, square = means[name] / (1 - one ** (step + 1)), squares[name] / (1 - two ** (step + 1))
        return (1 - rates[name][step] * decay[name]) * z - rates[name][step] * mean / (np.sqrt(square) + epsilon)

    return move


def _pass(
    field: Field, at: list[Units], x: Array, y: Any, loss: str, share: float, read: Array
) -> tuple[Array, list[Array], list[Array]]:
    """Forward and backward pass of one sample: f, h and b at the nodes."""
    last = len(at) - 1
    states: list[Array] = []
    covectors: list[Array] = []

    def forward(node: int, h: Array) -> Array:
        states.append(h)
        return np.asarray(share * field(h, at[node]))

    def backward(step: int, b: Array) -> Array:
        covectors.append(b)
        node = last - step
        return share * _pull_state(field, states[node], b, at[node])

    f = _adams(x, forward, last) @ read
    _adams(_loss_slope(loss, f, y) @ read.T, backward, last)
    return f, states, covectors[::-1]


def _adams(x: Array, field: Callable[[int, Array], Array], steps: int) -> Array:
    """Adams and Bashforth's step of order two, one evaluation there, Adams and Moulton's step of order three."""
    dt = 1 / steps
    old = field(0, x)
    new = field(1, x + dt * old)
    x = x + dt * (new + old) / 2
    for node in range(2, steps + 1):
        found = field(node, x + dt * (3 * new - old) / 2)
        x = x + dt * (5 * found + 8 * new - old) / 12
        old, new = new, found
    return x


def _pull_state(field: Field, h: Array, b: Array, z: Units) -> Array:
    """D1φᵀ b, summed over units."""
    out = np.empty_like(h)
    for index in np.ndindex(h.shape):
        moved = h.astype(complex)
        moved[index] += 1j * _STEP
        out[index] = np.sum(b * np.imag(field(moved, z))) / _STEP
    return out


def _pull_units(field: Field, h: Array, b: Array, z: Units) -> Units:
    """D2φᵀ b of every unit."""
    out = {name: np.empty_like(values) for name, values in z.items()}
    for name, values in z.items():
        for index in np.ndindex(values.shape):
            moved = values.astype(complex)
            moved[index] += 1j * _STEP
            out[name][index] = np.sum(b * np.imag(field(h, z | {name: moved}))) / _STEP
    return out


def _loss_slope(loss: str, f: Array, y: Any) -> Array:
    """∇loss of one sample; of tokens, of each for itself."""
    if f.ndim == 1:
        return plain.loss_slope(loss, f, y)
    return np.array([plain.loss_slope(loss, one, target) for one, target in zip(f, y, strict=True)])
