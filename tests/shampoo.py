"""A rule of one's own, as the documentation has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import flds


def root(matrix, epsilon, power):
    """Return (matrix + ε)^power of a symmetric matrix."""
    sizes, vectors = np.linalg.eigh(matrix)
    return vectors * (np.maximum(sizes, 0.0) + epsilon) ** power @ vectors.T


@dataclass(frozen=True)
class Shampoo(flds.Optimizer):
    """M ↦ (Σ MMᵀ + ε)^(−¼) M (Σ MᵀM + ε)^(−¼), sums over all steps so far."""

    epsilon: float = 1e-3
    matrices_only = True

    def init(self, parameter):
        rows, columns = parameter.shape
        return {"left": np.zeros((rows, rows)), "right": np.zeros((columns, columns))}

    def step(self, gradient, state, rate):
        left = state["left"] + gradient @ gradient.T
        right = state["right"] + gradient.T @ gradient
        step = root(left, self.epsilon, -0.25) @ gradient @ root(right, self.epsilon, -0.25)
        return -rate * step, {"left": left, "right": right}
