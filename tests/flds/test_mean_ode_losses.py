"""Losses of the Mean ODE, the axis of one output, and files in which loss and axis are those of older versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

import flds
from flds.mean_ode.losses import LOSSES, Logistic, get_loss
from flds.plotting import plot_outputs
from flds.sweeps.grid import Grid
from flds.training.losses import LOSSES as TRAINING_LOSSES
from validation.linear_units import linear_mean_ode
from validation.unit_networks import train_units

GENERATOR = np.random.default_rng(8)
X, TESTS, READOUT = (GENERATOR.normal(size=shape) for shape in ((6, 4), (3, 4), (4, 1)))
SIGNS = np.sign(X[:, 0])
SMALL = {"units": 32, "depth": 4}


def single(steps=3, **rest):
    """One output a sample."""
    data = {"inputs": X, "targets": SIGNS, "unembedding": READOUT, "test_inputs": TESTS, "test_targets": np.ones(3),
            "learning_rates": 0.5}  # fmt: skip
    return flds.MeanFieldProblem(**data | rest, steps=steps)


def targets_of(name, shape):
    """Random targets for outputs of a shape."""
    kinds = {"mean_squared": GENERATOR.normal(size=shape), "logistic": GENERATOR.choice([-1.0, 1.0], shape),
             "cross_entropy": GENERATOR.integers(0, shape[-1], shape[:-1])}  # fmt: skip
    return kinds[name]


def slope_error(loss, targets, outputs):
    """The largest distance of a slope from central differences."""
    step, worst = 1e-6, 0.0
    slope = loss.slope(outputs, targets)
    for place in np.ndindex(outputs.shape):
        high, low = outputs.copy(), outputs.copy()
        high[place] += step
        low[place] -= step
        difference = (loss.values(high, targets) - loss.values(low, targets))[place[:-1]] / (2 * step)
        worst = max(worst, abs(difference - slope[place]))
    return worst


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4)])
@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_those_of_the_values(name, shape):
    loss, outputs = get_loss(name), 2 * GENERATOR.normal(size=shape)
    targets = loss.checked("targets", targets_of(name, shape), shape[:-1], shape[-1])
    assert loss.values(outputs, targets).shape == shape[:-1]
    assert slope_error(loss, targets, outputs) < 1e-9  # differences of step 1e-6 round to about 1e-10


def test_a_slope_that_is_not_divided_by_the_outputs_is_caught():
    class Wrong(Logistic):
        def slope(self, outputs, targets):
            return super().slope(outputs, targets) * outputs.shape[-1]

    assert slope_error(Wrong(), targets_of("logistic", (5, 3)), GENERATOR.normal(size=(5, 3))) > 0.1


def test_the_logistic_loss_is_stable_and_its_slope_exact():
    loss = get_loss("logistic")
    margins = np.array([-1e300, -800.0, -40.0, -1.0, 0.0, 1e-8, 1.0, 40.0, 700.0, 1e300])[:, None]
    for sign in (1.0, -1.0):
        targets = np.full_like(margins, sign)
        slope = loss.slope(sign * margins, targets)
        np.testing.assert_allclose(slope, -sign * expit(-margins), rtol=4e-16)
        values = loss.values(sign * margins, targets)
        np.testing.assert_allclose(values[:3], -margins[:3, 0], rtol=1e-15)
        assert values[-1] == 0
        assert values[-2] == pytest.approx(np.exp(-700))
    assert loss.slope(np.float32([[0.5]]), np.ones((1, 1))) == pytest.approx(-expit(-0.5))


def test_the_logistic_loss_of_one_output_is_that_of_a_training_problem():
    ours, theirs = get_loss("logistic"), TRAINING_LOSSES["logistic"]()
    outputs, targets = GENERATOR.normal(size=(7, 1)), GENERATOR.choice([-1.0, 1.0], (7, 1))
    np.testing.assert_allclose(ours.values(outputs, targets), theirs.value(outputs, targets), rtol=1e-15)
    np.testing.assert_allclose(ours.slope(outputs, targets), theirs.derivative(outputs, targets), rtol=1e-14)
    assert ours.accuracy(outputs, targets) == theirs.accuracy(outputs, targets)


@pytest.mark.parametrize("name", ["mean_squared", "logistic"])
def test_an_output_twice_is_an_output_once(name):
    """Losses are divided by the number of outputs, so that a copy of one changes nothing."""
    once = flds.solve_mean_ode(single(loss=name), **SMALL)
    pair = {"targets": np.stack([SIGNS, SIGNS], 1), "test_targets": np.ones((3, 2))}
    twice = flds.solve_mean_ode(single(loss=name, unembedding=np.repeat(READOUT, 2, axis=1), **pair), **SMALL)
    assert twice.outputs.shape == (*once.outputs.shape, 2)
    np.testing.assert_allclose(twice.outputs, np.repeat(once.outputs[..., None], 2, axis=-1), atol=1e-12)
    np.testing.assert_allclose(twice.loss, once.loss, rtol=1e-12)


def test_signs_are_learnt_and_their_accuracy_is_reported():
    solution = flds.solve_mean_ode(single(loss="logistic", steps=60), **SMALL)
    assert solution.loss[-1] < 0.1 < solution.loss[0]
    assert solution.accuracy[-1] == 1.0
    expected = np.mean(solution.test_outputs > 0, axis=1)
    np.testing.assert_array_equal(solution.test_accuracy, expected)
    assert "accuracy" not in flds.solve_mean_ode(single(), **SMALL).variables


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "squared"}, r"^loss 'squared' of a MeanFieldProblem is now 'mean_squared', .*; give loss='mean_squ"),
        ({"loss": "hinge"}, "loss must be one of mean_squared, logistic, cross_entropy, got 'hinge'"),
        ({"loss": ["squared"]}, "loss must be one of mean_squared"),
        ({"loss": "logistic", "targets": X[:, 0]}, "targets must be -1 or 1 for the loss \"logistic\", got "),
        ({"loss": "logistic", "test_targets": np.zeros(3)}, "test_targets must be -1 or 1"),
        ({"targets": np.ones((6, 2))}, r"targets must have shape \(6, 1\) or \(6,\) for the loss 'mean_squared'"),
        ({"unembedding": np.ones((4, 2))}, r"targets must have shape \(6, 2\) for the loss 'mean_squared', a number"),
        ({"loss": "cross_entropy", "targets": np.zeros((6, 1), int)}, r"targets must have shape \(6,\) for the loss"),
        ({"loss": "cross_entropy", "targets": np.ones(6, int)}, "targets must be class indices from 0 to 0"),
    ],
)  # fmt: skip
def test_losses_and_targets_that_do_not_fit_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        single(**options)
    assert "\n" not in str(error.value)


def test_one_output_has_no_axis_in_anything_of_a_solution():
    options = {"keep_state": True, "depth_error": True, "record_features": True, "record_every": 2, "replicates": 2}
    solution = flds.solve_mean_ode(single(), **SMALL, **options)
    assert solution.outputs.shape == solution.outputs_standard_error.shape == (3, 6)
    assert solution.outputs_depth_error.shape == (3, 6)
    assert solution.replicate_outputs.shape == (2, 3, 6)
    assert solution.test_outputs.shape == solution.test_outputs_standard_error.shape == (3, 3)
    assert solution.variables["outputs"].dims == ("step", "sample")
    assert (solution.targets.shape, solution.test_targets.shape) == ((6,), (3,))
    assert solution.predict(TESTS).shape == (3,)
    assert [part.shape for part in solution.predict(TESTS, return_error=True)] == [(3,), (3,)]
    np.testing.assert_array_equal(solution.predict(TESTS), solution.test_outputs[-1])
    np.testing.assert_allclose(solution.loss, ((solution.replicate_outputs - SIGNS) ** 2).mean(axis=(0, 2)) / 2)
    with_axis = single(targets=SIGNS[:, None], test_targets=np.ones((3, 1)))
    np.testing.assert_array_equal(flds.solve_mean_ode(with_axis, **SMALL, **options).outputs, solution.outputs)
    assert flds.resume(solution, 2, problem=with_axis).outputs.shape == (4, 6)
    assert plot_outputs(solution)


def test_tokens_and_classes_of_one_output_have_no_axis_either():
    tokens = GENERATOR.normal(size=(3, 5, 4))
    p = flds.MeanFieldProblem(tokens, tokens[..., 0], unembedding=READOUT, block="attention", steps=1)
    solution = flds.solve_mean_ode(p, units=8, depth=2, keep_state=True)
    assert solution.outputs.shape == (2, 3, 5)
    assert solution.variables["outputs"].dims == ("step", "sample", "token")
    assert solution.targets.shape == solution.predict(tokens).shape == (3, 5)
    sure = flds.solve_mean_ode(single(loss="cross_entropy", targets=[0] * 6, test_targets=[0] * 3), **SMALL)
    assert sure.outputs.shape == (4, 6)
    assert sure.targets.shape == (6,)
    assert np.all(sure.loss == 0)


def test_what_is_compared_with_a_solution_has_no_axis_either():
    x, y = GENERATOR.normal(size=(2, 5, 1))
    p = flds.MeanFieldProblem(x, y, activation="identity", steps=3)
    solution = flds.solve_mean_ode(p, units=256, depth=16, record_features=True)
    exact, networks = linear_mean_ode(p), train_units(p, hidden_width=2, depth=3, record_every=1)
    assert solution.outputs.shape == exact.shape == networks.outputs.shape[1:] == (4, 5)
    assert np.max(np.abs(solution.outputs - exact)) < 2e-3  # 6e-4 at depth 16, an eighth at 32
    np.testing.assert_allclose(networks.loss[0], ((networks.outputs[0] - y[:, 0]) ** 2).mean(axis=1) / 2)
    units = flds.draw_units(p, 2, 4)
    assert flds.follow_units(p, solution, units, [0.0, 1.0])[0]["u"].shape == (4, 2, 1, 4)


def older(solution, path):
    """Write a solution as versions did that called the loss "squared" and kept the axis of one output."""
    solution.extra["problem"]["loss"] = "squared"
    for name, item in solution.variables.items():
        if "outputs" in name or "targets" in name:
            assert "output" not in item.dims
            solution.variables[name] = item._replace(dims=(*item.dims, "output"), values=item.values[..., None])
    return flds.load(solution.save(path))


def test_files_of_older_versions_mean_what_they_meant(tmp_path):
    options = SMALL | {"keep_state": True, "replicates": 2}
    p = single()
    now = flds.solve_mean_ode(p, **options)
    expected, longer, prediction = now.outputs, flds.resume(now, 2), now.predict(X)
    old = older(now, tmp_path / "old.nc")
    assert old.extra["problem"]["loss"] == "squared"
    assert old.outputs.shape == (4, 6, 1)  # opened as it is
    assert "mean_squared loss" in old.summary()
    old.plot(tmp_path / "old.png")
    assert plot_outputs(old)
    for given in (None, p):
        np.testing.assert_array_equal(old.predict(X, problem=given), prediction)
        np.testing.assert_array_equal(flds.rerun(old, problem=given).outputs, expected)
        found = flds.resume(old, 2, problem=given)
        np.testing.assert_array_equal(found.outputs, longer.outputs)
        assert found.extra["problem"]["loss"] == "mean_squared"
        assert found.replicate_outputs.shape == (2, 6, 6)
    with pytest.raises(ValueError, match="but differs in its loss"):
        flds.rerun(old, problem=single(loss="logistic"))
    with pytest.raises(ValueError, match="but differs in its targets"):
        flds.rerun(old, problem=single(targets=-SIGNS))


def test_another_meaning_of_the_old_name_is_caught(tmp_path, monkeypatch):
    now = flds.solve_mean_ode(single(), **SMALL)
    expected, old = now.outputs, older(now, tmp_path / "old.nc")
    monkeypatch.setattr("flds.results.loss_names.FORMER", {"squared": "logistic"})
    assert not np.array_equal(flds.rerun(old).outputs, expected)
    for module in ("flds.results.loss_names", "flds.mean_ode.losses"):
        monkeypatch.setattr(f"{module}.FORMER", {})
    with pytest.raises(ValueError, match="loss must be one of"):
        flds.rerun(old)


# As versions wrote them that called the loss "squared".
MARKS = {
    1.0: "d50e67d62af0249c4179651d6dee2a7c37755b699ddae054d8eb1a587c90d51b",
    2.0: "17ba6b97c84607d5bc457474533629151bde92c76c0afb32aa6effe76ad6ccf3",
}


def marks(values=None, **rest):
    p = flds.MeanFieldProblem(np.arange(6.0).reshape(3, 2) / 4, np.ones((3, 2)), steps=2, **rest)
    plan = Grid(p, values or {"sigma_v": list(MARKS)}, None, {"units": 16, "depth": 2})
    return plan, [task.fingerprint for task in plan.tasks(Path("folder"))]


def test_folders_of_older_sweeps_belong_to_the_same_sweep():
    plan, found = marks()
    assert found == list(MARKS.values())
    assert plan.fixed["loss"] == "'squared'"
    assert not set(marks(loss="logistic")[1]) & set(found)
    plan, swept = marks({"loss": ["mean_squared", "logistic"]})
    assert plan.fingerprint({"loss": "squared"}) == swept[0] != swept[1]
    training = flds.TrainingProblem(np.arange(6.0).reshape(3, 2) / 4, np.ones(3), steps=2)
    assert Grid(training, {"loss": ["squared"]}, None, {}).fingerprint({"loss": "squared"})  # keeps its name
