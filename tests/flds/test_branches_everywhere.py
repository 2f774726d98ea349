"""Residual branches where runs are described, swept, extrapolated, predicted with and started from the command line."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

import flds
from tests.conftest import one_sample, three_samples

TWO_LAYERS = {"residual": "two_layer", "hidden_ratio": 0.5, "normalization": "rms_norm", "bias": True}


def run(*arguments, cwd):
    """Run the command line; no options before the name of the command."""
    command = [sys.executable, "-m", "flds", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_line_trains_two_layers_and_says_so(tmp_path):
    options = ["--residual", "two_layer", "--hidden-ratio", 4, "--normalization", "rms_norm", "--gain", "--bias"]
    sizes = ["--particles", 200, "--depth", 2, "--steps", 2, "--train-samples", 12, "--test-samples", 5]
    done = run("solve", *options, "--branch-exponent", 1, *sizes, "--out", "x.nc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    problem = flds.load(tmp_path / "x.nc").extra["problem"]
    named = {name: problem[name] for name in ("residual", "hidden_ratio", "normalization", "gain", "bias")}
    assert named == {
        "residual": "two_layer",
        "hidden_ratio": 4.0,
        "normalization": "rms_norm",
        "gain": True,
        "bias": True,
    }
    assert problem["branch_exponent"] == 1.0
    shown = run("info", "x.nc", cwd=tmp_path).stdout
    for text in (done.stdout, shown):
        assert "branches of two layers (hidden ratio 4, rms_norm, gain, bias); branch exponent 1" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden-ratio", "4"], "hidden_ratio"),
        (["--normalization", "rms_norm"], "normalization"),
        (["--residual", "three_layer"], "residual must be one of"),
        (["--residual", "two_layer", "--hidden-ratio", "0.0001"], "hidden_ratio"),
        (["--residual", "two_layer", "--gain"], "gain"),
        (["--branch-exponent", "2"], "branch_exponent must be"),
    ],
)
def test_the_command_line_refuses_what_no_branch_has(options, message, tmp_path):
    done = run("solve", "--particles", 50, "--depth", 2, *options, "--out", "x.nc", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_points_of_a_sweep_over_branches_are_single_runs(tmp_path):
    problem, fixed = replace(three_samples(steps=2), **TWO_LAYERS), {"particles": 150, "depth": 2}
    grid = {"hidden_ratio": [0.5, 2.0], "branch_exponent": [0.5, 1.0], "normalization": ["rms_norm", "layer_norm"]}
    found = flds.sweep(problem, grid, folder=tmp_path, workers=1, **fixed).data
    assert found.outputs.dims[:3] == tuple(grid)
    for ratio in grid["hidden_ratio"]:
        for exponent in grid["branch_exponent"]:
            for name in grid["normalization"]:
                point = {"hidden_ratio": ratio, "branch_exponent": exponent, "normalization": name}
                alone = flds.solve_flds(replace(problem, **point), **fixed)
                np.testing.assert_array_equal(found.outputs.sel(point), alone.outputs)


@pytest.mark.parametrize("weights", ["tied", "independent"])
def test_the_limit_of_the_exponent_1_is_extrapolated(weights):
    """f^(1) = η_c (2 + T) for one sample with φ = identity, of both kinds of weights: spec of the closed form."""
    problem = replace(one_sample("identity", steps=1), branch_exponent=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        limit = flds.estimate_limit(
            problem, particles=1000, depth=8, replicates=8, budget_seconds=1e-3, backward_weights=weights
        )
    half = limit.outputs_half_width[1, 0]
    assert half < 0.05
    assert abs(limit.outputs[1, 0] - 1.5) < 2 * half  # four standard errors


def test_limits_of_two_layers_agree_between_sizes():
    problem = replace(three_samples(steps=2), **TWO_LAYERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        small, large = (
            flds.estimate_limit(problem, particles=n, depth=depth, replicates=6, budget_seconds=1e-3, seed=n)
            for n, depth in ((300, 4), (2000, 8))
        )
    off = np.abs(small.outputs - large.outputs)
    assert np.all(off <= 2 * np.hypot(small.outputs_half_width, large.outputs_half_width))
    assert large.outputs_half_width.max() < 0.1


def test_predictions_are_outputs_on_test_inputs():
    rng = np.random.default_rng(0)
    tests = {"test_inputs": rng.standard_normal((4, 5)), "test_targets": np.ones(4)}
    problem = replace(three_samples(steps=2), **TWO_LAYERS | tests)
    found = flds.solve_flds(problem, particles=300, depth=2, keep_state=True)
    np.testing.assert_allclose(found.predict(tests["test_inputs"]), found.test_outputs[-1], rtol=1e-12)


def test_costs_grow_with_the_hidden_width():
    problem = three_samples()
    costs = [
        flds.estimate_cost(replace(problem, **branch), particles=20_000, depth=8, sampling="law")
        for branch in ({}, {"residual": "two_layer"}, {"residual": "two_layer", "hidden_ratio": 4.0})
    ]
    assert costs[0].memory < costs[1].memory < costs[2].memory
    assert costs[0].seconds < costs[1].seconds < costs[2].seconds
