"""A results file can be run again, bit for bit, or says why not."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from flds.mean_ode.problem import BLOCKS
from flds.replay import version_changes

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(6, 4)), GENERATOR.normal(size=6)


@pytest.mark.parametrize(
    ("solve", "options", "of_problem"),
    [
        (flds.solve_flds, {"particles": 300, "replicates": 2, "backward_weights": "independent"}, {"batch_size": 2}),
        (flds.solve_flds, {"particles": 60, "operator": "dense", "sampling": "law", "dtype": "float32"},
         {"learning_rate": [0.5, 0.1, 0.2]}),
        (flds.simulate_resnet, {"width": 200, "noise_depth": 6, "record_every": 2},
         {"batch_order": np.array([[0, 1], [2, 3], [4, 5]]), "test_inputs": X[:2], "test_targets": Y[:2]}),
        (flds.simulate_resnet, {"width": 100}, {"loss": "cross_entropy", "batch_order": "random", "batch_size": 3,
                                                "targets": [0, 1, 2, 0, 1, 2]}),
    ],
)  # fmt: skip
def test_a_run_from_its_file_is_the_same_bit_for_bit(tmp_path, solve, options, of_problem):
    problem = flds.TrainingProblem(**({"inputs": X, "targets": Y, "steps": 3, "activation": "gelu"} | of_problem))
    first = solve(problem, depth=3, seed=5, **options)
    stored = flds.load(first.save(tmp_path / "run.nc"))
    again = flds.rerun(stored, threads=1)
    free = {"threads": 0, "reason": ""}
    assert again.settings | free == first.settings | free
    for name, item in first.variables.items():
        assert np.array_equal(item.values, again.variables[name].values, equal_nan=True), name
    assert version_changes(stored) == []
    stored.versions["numpy"] = "1.0"
    assert version_changes(stored)[0].startswith("numpy 1.0 then, ")


def test_a_run_that_ran_out_of_rank_ends_there_again(tmp_path):
    problem = flds.TrainingProblem(X, Y, steps=9, batch_size=1)
    with pytest.warns(RuntimeWarning, match="the rank outgrew"):
        first = flds.simulate_resnet(problem, width=200, depth=2, rank_budget=(5, 6), operator="lazy")
    with pytest.warns(RuntimeWarning, match=r"the rank outgrew rank_budget \(5, 6\)"):
        again = flds.rerun(flds.load(first.save(tmp_path / "run.nc")))
    np.testing.assert_array_equal(again.outputs, first.outputs)


@pytest.mark.parametrize("block", BLOCKS)
def test_mean_odes_are_run_again_from_their_files(block, tmp_path):
    tokens = GENERATOR.normal(size=(3, 2, 4))
    problem = flds.MeanFieldProblem(tokens, tokens, block=block, alpha=2.0, steps=2, learning_rates=0.1, deviations={})
    solve = flds.solve_tangent_ode if block == "two_layer_perceptron" else flds.solve_mean_ode
    first = solve(problem, units=16, depth=2, seed=3, sampling="iid", record_every=2)
    again = flds.rerun(flds.load(first.save(tmp_path / "run.nc")), threads=1)
    for name, item in first.variables.items():
        assert np.array_equal(item.values, again.variables[name].values), name


def test_the_grid_of_the_noise_follows_the_depth():
    first = flds.simulate_resnet(flds.TrainingProblem(X, Y, steps=1), width=20, depth=4)
    assert flds.rerun(first, depth=6).settings["noise_depth"] == 6


def test_what_cannot_be_run_again_says_why(tmp_path, monkeypatch):
    square = flds.Activation(lambda x: x**2, lambda x: 2 * x, "square")
    one = flds.simulate_resnet(flds.TrainingProblem(X, Y, steps=1, activation=square), width=50, depth=1)
    with pytest.raises(ValueError, match="the activation 'square' is not built in"):
        flds.rerun(flds.load(one.save(tmp_path / "one.nc")))
    known = "solve_flds, simulate_resnet, solve_frozen, solve_mean_ode"
    with pytest.raises(ValueError, match=f"solution must be of one of {known}"):
        flds.rerun(flds.solve_forward(particles=100, depth=2))
    monkeypatch.setattr("flds.training.description.EMBEDDED_BYTES", 10)
    large = flds.simulate_resnet(flds.TrainingProblem(X, Y, steps=1), width=50, depth=1)
    with pytest.raises(ValueError, match="only the hash of inputs, which were too large to be kept"):
        flds.rerun(large)
