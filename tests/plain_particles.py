"""A second home of particles, deliberately plain: one line of NumPy a method, to show that any home will do."""

from __future__ import annotations

import numpy as np

from solvers.ensemble import Particles


class PlainParticles(Particles):
    """N particles in NumPy arrays, cut into nothing, without threads."""

    def __init__(self, particles):
        self.particles = particles

    def allocate(self, rows, dtype=np.float64):
        return np.full((rows, self.particles), np.nan, dtype)  # what is read before it is written shows

    def stack(self, parts):
        return np.concatenate(parts)

    def fill(self, out, noise, address, layer=0):
        noise.fill(out, slice(0, self.particles), address, layer)

    def inner(self, left, right):
        rows = left if isinstance(left, np.ndarray) else np.concatenate(left)
        return rows.astype(float) @ right.astype(float).T / self.particles

    def mean_squares(self, vectors):
        return np.mean(vectors.astype(float) ** 2, axis=1)

    def gram(self, vectors):
        return self.inner(vectors, vectors)

    def combine(self, out, terms, add=False):
        out[...] = sum((c @ v for c, v in terms), start=out.copy() if add else np.zeros_like(out))

    def apply(self, work, out, *arrays):
        work(out, *arrays)

    def total(self, sums):
        return np.sum(sums, axis=0, dtype=float)

    def multiply(self, vectors, matrix, transposed=False):
        return vectors @ (matrix.T if transposed else matrix)

    def add_product(self, left, right, *matrices):
        for matrix in matrices:
            matrix += left.T @ right
