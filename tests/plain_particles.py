"""A second home of particles, deliberately plain: one line of NumPy a method, to show that any home will do."""

from __future__ import annotations

import functools

import numpy as np

from solvers.ensemble import Particles


class PlainParticles(Particles):
    """N particles in NumPy arrays, cut into nothing, without threads."""

    def __init__(self, particles):
        self.particles = self.held = particles

    def beside(self, particles):
        return type(self)(particles)

    def allocate(self, rows, dtype=np.float64):
        return np.full((rows, self.particles), np.nan, dtype)  # what is read before it is written shows

    def stack(self, parts):
        return np.concatenate(parts)

    def to_host(self, vectors):
        return vectors.view(np.ndarray)

    def from_host(self, vectors):
        return vectors.copy()

    def fill(self, out, noise, address, layer=0):
        noise.fill(out, slice(0, self.particles), address, layer)

    def inner(self, left, right):
        rows = left if isinstance(left, np.ndarray) else np.concatenate(left)
        return rows.astype(float) @ right.astype(float).T / self.particles

    def mean_squares(self, vectors):
        return np.mean(vectors.astype(float) ** 2, axis=1)

    def means(self, *factors):
        return np.prod([factor.astype(float) for factor in factors], axis=0).mean(axis=1)

    def gram(self, vectors):
        return self.inner(vectors, vectors)

    def project(self, vectors, coordinates, directions):
        rest = self.stack([vectors])
        self.combine(rest, [(-coordinates, directions)], add=True)
        return rest, self.inner(rest, directions), self.gram(rest)

    def combine(self, out, terms, add=False):
        out[...] = sum((c @ v for c, v in terms), start=out.copy() if add else np.zeros_like(out))

    def apply(self, work, out, *arrays, rows=()):
        work(out, *arrays, *(row[:, None].astype(out.dtype) for row in rows))

    def total(self, sums):
        return np.sum(sums, axis=0, dtype=float)

    def multiply(self, vectors, matrix, transposed=False):
        return vectors @ (matrix.T if transposed else matrix)

    def add_product(self, left, right, *matrices):
        for matrix in matrices:
            matrix += left.T @ right


class Guarded(np.ndarray):
    """Rows of particles that only their home may look into; others may count and pick whole rows."""

    open = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **rest):
        return self._inside(getattr(ufunc, method), inputs, rest)

    def __array_function__(self, function, types, inputs, rest):
        return self._inside(function, inputs, rest)

    def __getitem__(self, key):
        if isinstance(key, tuple) and not Guarded.open:
            raise AssertionError(f"particles were cut outside their home: {key}")
        return super().__getitem__(key)

    def _inside(self, function, inputs, rest):
        if not Guarded.open:
            raise AssertionError(f"{function.__name__} was called on particles outside their home")
        plain = [[np.asarray(a) for a in i] if isinstance(i, (list, tuple)) else _plain(i) for i in inputs]
        out = tuple(map(_plain, rest.pop("out", ())))
        return function(*plain, **(rest | ({"out": out} if out else {})))


def _plain(value):
    return value.view(np.ndarray) if isinstance(value, Guarded) else value


def _guarded(method):
    @functools.wraps(method)
    def guarded(self, *arguments, **rest):
        Guarded.open += 1
        try:
            found = method(self, *arguments, **rest)
        finally:
            Guarded.open -= 1
        # what has a particle axis is guarded; small matrices are the host's
        new = method.__name__ in ("allocate", "stack", "multiply", "from_host")
        return found.view(Guarded) if new else found

    return guarded


class GuardedParticles(PlainParticles):
    """The plain home, whose arrays fail where anything else looks into them."""


for _name in ("allocate", "stack", "fill", "inner", "mean_squares", "means", "gram", "project", "combine", "apply",
              "multiply", "from_host", "add_product"):  # fmt: skip
    setattr(GuardedParticles, _name, _guarded(getattr(PlainParticles, _name)))
