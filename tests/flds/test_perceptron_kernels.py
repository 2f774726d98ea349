"""Compiled passes of perceptrons against the same block written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from flds.mean_ode.blocks import TwoLayerPerceptron

# tanh under another name, which the kernels do not know
PLAIN = flds.Activation(lambda x: np.tanh(x), lambda x: 1 - np.tanh(x) ** 2, "plain tanh")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-5)])  # some hundred roundings
@pytest.mark.parametrize(("rows", "dimension", "units"), [(1, 1, 1), (3, 4, 17), (10, 10, 2500), (70, 33, 300)])
def test_kernels_do_what_numpy_does(dtype, tolerance, rows, dimension, units):
    g = np.random.default_rng(0)
    h, b = (g.normal(size=(rows, dimension)).astype(dtype) for _ in range(2))
    wide = {name: g.normal(size=(dimension, units + 5)).astype(dtype) for name in "uv"}
    steps = {"u": 0.3, "v": 0.7}
    found, expected = ({name: a.copy() for name, a in wide.items()} for _ in range(2))
    inside = slice(2, units + 2)  # a view: rows are further apart than units
    results = []
    for rho, z in (("tanh", found), (PLAIN, expected)):
        block, part = TwoLayerPerceptron(rho), {name: a[:, inside] for name, a in z.items()}
        assert (block.kernels(h, part) is not None) == (rho == "tanh")
        results.append((block.value(h, part), block.descend(h, b, part, steps)))
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == dtype
        assert np.max(np.abs(ours - theirs)) < tolerance * (1 + np.max(np.abs(theirs))) * np.sqrt(units)
    for name in "uv":
        scale = 1 + np.max(np.abs(expected[name]))
        assert np.max(np.abs(found[name] - expected[name])) < tolerance * scale * np.sqrt(rows)
        assert np.array_equal(found[name][:, :2], wide[name][:, :2])  # neighbours stay as they are
        assert np.array_equal(found[name][:, units + 2 :], wide[name][:, units + 2 :])
        assert not np.array_equal(found[name], wide[name])
