"""Perceptrons through all depth nodes in one call: the pass node by node, to rounding, on any number of threads."""

from __future__ import annotations

import numba
import numpy as np
import pytest

import flds
from flds.mean_ode import perceptron_kernels
from flds.mean_ode.draws import draw_units
from flds.mean_ode.network import Dynamics, MeanDynamics

X, Y = np.random.default_rng(0).standard_normal((2, 5, 6))
# Sums of some thousand numbers of order 1, which are then of order 1/√thousand.
ROUNDING = {"float64": 1e-13, "float32": 2e-5}


def dynamics(dtype="float64", threads=1, nodes=7, units=1500, **rest):
    problem = flds.MeanFieldProblem(X, Y, **{"alpha": 1.5, "steps": 3} | rest)
    drawn = draw_units(problem, nodes, units, 0, "iid")  # whose field is not 0, as that of pairs is
    units = [{name: z.astype(dtype) for name, z in block.items()} for block in drawn]
    return MeanDynamics(problem, units, threads)


def step(one, kind=MeanDynamics):
    """Outputs, states, covectors and units after one step, by the passes of a class."""
    states: list = []
    last = kind.forward(one, X.astype(one.dtype), states)
    update = one.update(len(X))
    update.begin(0)
    still = kind.backward(one, states, (last - Y).astype(one.dtype))
    covectors = kind.descend(one, states, (last - Y).astype(one.dtype), update)
    assert np.array_equal(still[-1], covectors[-1])
    return last, np.array(states), np.array(covectors), one.moved[0]["u"], one.moved[0]["v"]


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("nodes", [2, 3, 4, 9])
@pytest.mark.parametrize("units", [2, 700, 5000])
def test_one_call_is_all_nodes_one_by_one(dtype, nodes, units):
    marched, plain = (dynamics(dtype, nodes=nodes, units=units) for _ in range(2))
    assert marched._march(X.astype(dtype)) is not None
    for found, expected in zip(step(marched), step(plain, Dynamics), strict=True):
        assert found.dtype == expected.dtype == dtype
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING[dtype] * scale)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_threads_change_no_bit(dtype):
    runs = []
    for threads in (1, 2, 3):
        one = dynamics(dtype, threads, units=20_000)
        with one.ensemble.running():
            runs.append(step(one))
    for run in runs[1:]:
        for found, expected in zip(run, runs[0], strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_rate_of_zero_holds_its_units_and_tokens_are_rows():
    still = dynamics(learning_rates={"u": 0.0, "v": 1.0})
    before = still.moved[0]["u"].copy()
    step(still)
    np.testing.assert_array_equal(still.moved[0]["u"], before)
    tokens = np.random.default_rng(1).standard_normal((2, 3, 4, 6))
    problem = flds.MeanFieldProblem(tokens[0], tokens[1])
    one = MeanDynamics(problem, draw_units(problem, 5, 800, 0, "iid"))
    found, expected = one.forward(problem.x), Dynamics.forward(one, problem.x)
    assert found.shape == problem.x.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rest", [{"block": "gated_linear_unit"}, {"block": flds.TwoLayerPerceptron("relu")}])
def test_other_blocks_go_node_by_node(rest):
    assert dynamics(**rest)._march(X) is None


def test_tanh_of_float32():
    @numba.njit(error_model="numpy")
    def all_of(x):
        for i in range(len(x)):
            x[i] = perceptron_kernels.squash(x[i])

    x = np.concatenate([np.linspace(-12, 12, 100_001), 10.0 ** np.arange(-30, 30)]).astype(np.float32)
    found = x.copy()
    all_of(found)
    exact = np.tanh(x.astype(np.float64))
    apart = np.abs(found - exact)[exact != 0] / np.abs(exact[exact != 0])
    assert apart.max() < 6 * 2.0**-24
    assert np.abs(found).max() <= 1.0
    odd = np.array([np.nan, np.inf, -np.inf], np.float32)
    all_of(odd)
    assert np.isnan(odd[0])
    np.testing.assert_allclose(odd[1:], [1.0, -1.0], atol=2.0**-22)
