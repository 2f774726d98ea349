"""The attention block of paper H, H-(3), with its derivatives."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import numpy as np

from flds.mean_ode.blocks import Array, Block, Parameters, apply, apply_transposed, balanced_rate, outer
from solvers import checks


class _Heads(NamedTuple):
    """Queries, keys and values, each (samples, tokens, d_k, units)."""

    q: Array
    k: Array
    v: Array


class Attention(Block):
    """φ(h, z)_t = W_Oᵀ Σ_i a_ti W_V h_i with a_ti = softmax_i(W_Q h_t · W_K h_i / √d_k); a unit is a head.

    Parameters
    ----------
    key_dimension : int
        d_k, the rows of the four matrices. W_Q, W_K and W_V are held as (D, d_k, units), W_O as (d_k, D, units).
    causal : bool
        Whether a token sees only itself and those before it, as predicting the next token requires.

    Raises
    ------
    ValueError, TypeError
        If `key_dimension` is not a positive integer, or `causal` neither True nor False.

    References
    ----------
    Paper H, eq. (3), and § 4.2 for the default deviations.
    """

    name = "attention"
    flipped = ("W_O",)
    tokenwise: ClassVar[bool] = False

    def __init__(self, key_dimension: int = 1, causal: bool = False) -> None:
        self.key_dimension = checks.positive_integer("key_dimension", key_dimension)
        self.causal = checks.flag("causal", causal)

    def shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        inner = (dimension, self.key_dimension)
        return {"W_Q": inner, "W_K": inner, "W_V": inner, "W_O": inner[::-1]}

    def deviations(self, dimension: int) -> dict[str, float]:
        inner = 1 / math.sqrt(dimension)
        return {"W_Q": inner, "W_K": inner, "W_V": inner, "W_O": math.sqrt(dimension)}

    def rates(self, dimension: int, deviations: dict[str, float]) -> dict[str, float]:
        # W_Q, W_K and W_V are u/D of a perceptron, whose rate is D: entries of W then move by Δu/D
        inner = balanced_rate(dimension, deviations["W_O"]) / dimension**2
        return {"W_Q": inner, "W_K": inner, "W_V": inner, "W_O": float(dimension)}

    def value(self, h: Array, z: Parameters) -> Array:
        heads = _project(h, z)
        return _read(_mix(self._weights(heads), heads.v), z["W_O"])

    def pull(self, h: Array, b: Array, z: Parameters) -> tuple[Array, Parameters]:
        heads = _project(h, z)
        weights, readout = self._weights(heads), apply(b, z["W_O"].swapaxes(0, 1))
        back, _ = self._softmax_pull(heads, weights, readout)
        return _project_back(back, z), self._gradients(h, b, back, _mix(weights, heads.v))

    def tangent(self, h: Array, z: Parameters, change: Parameters) -> Array:
        heads, moved = _project(h, z), _project(h, change)
        weights = self._weights(heads)
        mixed = _mix(self._weights_change(weights, heads, moved), heads.v) + _mix(weights, moved.v)
        return _read(_mix(weights, heads.v), change["W_O"]) + _read(mixed, z["W_O"])

    def pull_tangent(self, h: Array, b: Array, z: Parameters, change: Parameters) -> tuple[Array, Parameters]:
        # D1⟨b, D2φ ζ⟩ is the change of D1φᵀb along ζ, by the symmetry of second derivatives
        heads, moved = _project(h, z), _project(h, change)
        weights = self._weights(heads)
        readout = apply(b, z["W_O"].swapaxes(0, 1))
        readout_change = apply(b, change["W_O"].swapaxes(0, 1))
        back, scores = self._softmax_pull(heads, weights, readout)
        weights_change = self._weights_change(weights, heads, moved)
        met = _meet(readout, heads.v)
        met_change = _meet(readout_change, heads.v) + _meet(readout, moved.v)
        mean = (weights * met).sum(axis=2, keepdims=True)
        mean_change = (weights_change * met + weights * met_change).sum(axis=2, keepdims=True)
        scores_change = weights_change * (met - mean) + weights * (met_change - mean_change)
        root = math.sqrt(self.key_dimension)
        back_change = _Heads(
            (_mix(scores_change, heads.k) + _mix(scores, moved.k)) / root,
            (_gather(scores_change, heads.q) + _gather(scores, moved.q)) / root,
            _gather(weights_change, readout) + _gather(weights, readout_change),
        )
        total = _project_back(back_change, z) + _project_back(back, change)
        return total, self._gradients(h, b, back, _mix(weights, heads.v))

    def _weights(self, heads: _Heads) -> Array:
        """a, (samples, tokens t, tokens i, units)."""
        scores = _meet(heads.q, heads.k) / math.sqrt(self.key_dimension)
        if self.causal:
            count = scores.shape[1]
            scores[:, np.triu(np.ones((count, count), bool), 1)] = -np.inf
        scores -= scores.max(axis=2, keepdims=True)
        powers = np.exp(scores)
        return np.asarray(powers / powers.sum(axis=2, keepdims=True))

    def _weights_change(self, weights: Array, heads: _Heads, moved: _Heads) -> Array:
        scores = (_meet(moved.q, heads.k) + _meet(heads.q, moved.k)) / math.sqrt(self.key_dimension)
        return np.asarray(weights * (scores - (weights * scores).sum(axis=2, keepdims=True)))

    def _softmax_pull(self, heads: _Heads, weights: Array, readout: Array) -> tuple[_Heads, Array]:
        """Pull covectors of the mixed values back to queries, keys and values; also those of the scores."""
        met = _meet(readout, heads.v)
        scores = weights * (met - (weights * met).sum(axis=2, keepdims=True))
        root = math.sqrt(self.key_dimension)
        back = _Heads(_mix(scores, heads.k) / root, _gather(scores, heads.q) / root, _gather(weights, readout))
        return back, scores

    def _gradients(self, h: Array, b: Array, back: _Heads, mixed: Array) -> Parameters:
        return {
            "W_Q": outer(h, back.q),
            "W_K": outer(h, back.k),
            "W_V": outer(h, back.v),
            "W_O": outer(b, mixed).swapaxes(0, 1),
        }


def _read(mixed: Array, output: Array) -> Array:
    return apply_transposed(mixed, np.ascontiguousarray(output.swapaxes(0, 1)))


def _project(h: Array, z: Parameters) -> _Heads:
    return _Heads(*(apply(h, z[name]) for name in ("W_Q", "W_K", "W_V")))


def _project_back(back: _Heads, z: Parameters) -> Array:
    first = apply_transposed(back.q, z["W_Q"]) + apply_transposed(back.k, z["W_K"])
    return first + apply_transposed(back.v, z["W_V"])


def _meet(left: Array, right: Array) -> Array:
    """Σ_c left_tc right_ic, (samples, t, i, units)."""
    return np.einsum("stcj,sicj->stij", left, right)


def _mix(weights: Array, values: Array) -> Array:
    """Σ_i weights_ti values_i, (samples, t, d_k, units)."""
    return np.einsum("stij,sicj->stcj", weights, values)


def _gather(weights: Array, values: Array) -> Array:
    """Σ_t weights_ti values_t, (samples, i, d_k, units)."""
    return np.einsum("stij,stcj->sicj", weights, values)
