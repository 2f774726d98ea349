"""A network of two-layer branches in NumPy, written from the equations alone, one sample at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation.plain import PHI, loss_slope, slope

Array = NDArray[np.float64]


@dataclass
class TwoLayerWeights:
    """U (n, d), W (L, H, n), V (L, n, H), v (outputs, n), all entries of order 1, gains (L, n) and biases (L, H).

    W̃ and Ṽ are what the backward pass uses; with one matrix for both passes they are W and V themselves.
    """

    U: Array
    W: Array
    V: Array
    v: Array
    gains: Array
    biases: Array
    backward_W: Array
    backward_V: Array


def train_two_layer(
    weights: TwoLayerWeights,
    inputs: Array,
    targets: NDArray[Any],
    *,
    activation: str,
    loss: str,
    horizon: float,
    exponent: float,
    normalization: str | None,
    rates: Array,
    batches: NDArray[np.intp],
    trained: str = "gain bias",
) -> Array:
    """Train by SGD: h ← h + s V φ(W (γ ν(h))/√n + b)/√H, s = (T/L)^e, rates inside times (T/L)^(1−2e).

    Parameters
    ----------
    weights : TwoLayerWeights
        Trained in place.
    inputs, targets : (samples, d) and (samples, …) arrays
    activation, loss : str
        As for `validation.plain.train`.
    horizon, exponent : float
        T and e.
    normalization : str, optional
        "rms_norm", "layer_norm" or none.
    rates : (steps,) array
        η_c.
    batches : (steps + 1, batch) int array
    trained : str
        Which of gains and biases move.

    Returns
    -------
    (steps + 1, samples, outputs) float64

    References
    ----------
    Paper F, eqs. (1) and (4), and paper H, eq. (2).
    """
    (n, d), (depth, hidden, _) = weights.U.shape, weights.W.shape
    tau = horizon / depth
    s, inside = tau**exponent, tau ** (1 - 2 * exponent)

    def forward(x: Array) -> tuple[list[Array], list[tuple[Array, float, Array]]]:
        h, met = [weights.U @ x / np.sqrt(d)], []
        for layer in range(depth):
            nu, r = _normalized(h[-1], normalization)
            a = weights.W[layer] @ (weights.gains[layer] * nu) / np.sqrt(n) + weights.biases[layer]
            met.append((nu, r, a))
            h.append(h[-1] + s * weights.V[layer] @ PHI[activation](a) / np.sqrt(hidden))
        return h, met

    outputs = []
    for step, batch in enumerate(batches):
        outputs.append([weights.v @ forward(x)[0][-1] / n for x in inputs])
        if step == len(rates):
            break
        changes: list[tuple[Array, Array]] = []
        eta = rates[step] / len(batch)
        for sample in batch:
            h, met = forward(inputs[sample])
            first = loss_slope(loss, weights.v @ h[-1] / n, targets[sample])
            changes.append((weights.v, eta * n * np.outer(first, h[-1]) / n))
            delta = first @ weights.v / n  # ∂L/∂h
            for layer in reversed(range(depth)):
                nu, r, a = met[layer]
                z = PHI[activation](a)
                by_a = s * slope(activation, a) * (weights.backward_V[layer].T @ delta) / np.sqrt(hidden)
                pulled = weights.backward_W[layer].T @ by_a / np.sqrt(n)  # by γ ν
                by_v, by_w = s * np.outer(delta, z), np.outer(by_a, weights.gains[layer] * nu)  # by 𝒱 and 𝒲
                for matrices, other, by, root in (
                    (weights.V, weights.backward_V, by_v, np.sqrt(hidden)),
                    (weights.W, weights.backward_W, by_w, np.sqrt(n)),
                ):
                    changes.append((matrices[layer], root * eta * inside * by))
                    if other is not matrices:
                        changes.append((other[layer], root * eta * inside * by))
                if "bias" in trained:
                    changes.append((weights.biases[layer], eta * n * inside * by_a))
                if "gain" in trained:
                    changes.append((weights.gains[layer], eta * n * inside * pulled * nu))
                delta = delta + _pulled(weights.gains[layer] * pulled, nu, r, normalization)
            changes.append((weights.U, eta * n * np.outer(delta, inputs[sample]) / np.sqrt(d)))
        for values, change in changes:
            values -= change
    return np.array(outputs)


def _normalized(h: Array, normalization: str | None) -> tuple[Array, float]:
    if normalization is None:
        return h, 1.0
    centred = h - h.mean() if normalization == "layer_norm" else h
    r = float(np.sqrt(np.mean(centred**2) + 1e-6))
    return centred / r, r


def _pulled(a: Array, nu: Array, r: float, normalization: str | None) -> Array:
    if normalization is None:
        return a
    mean = a.mean() if normalization == "layer_norm" else 0.0
    return np.asarray((a - mean - nu * np.mean(nu * a)) / r)
