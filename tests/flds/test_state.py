"""A trained network can be asked for new outputs, and trained on as if it had never stopped."""

from __future__ import annotations

import re

import numpy as np
import pytest

import flds
from flds.replay import predict
from tests.conftest import MARGIN, three_samples

GENERATOR = np.random.default_rng(0)
X, Y, TESTS = GENERATOR.normal(size=(6, 4)), GENERATOR.normal(size=6), GENERATOR.normal(size=(3, 4))
TOKENS = GENERATOR.integers(0, 5, (6, 4))
TRANSFORMER = {
    "inputs": TOKENS, "targets": TOKENS, "test_inputs": TOKENS[:2], "test_targets": TOKENS[:2],
    "loss": "cross_entropy", "learning_rates": 0.1,
    "block": (flds.TwoLayerPerceptron(), flds.Attention(2, causal=True)),
    "embedding": GENERATOR.normal(size=(5, 4)), "unembedding": GENERATOR.normal(size=(4, 5)),
}  # fmt: skip


def training_problem(steps, **rest):
    tests = {"test_inputs": TESTS, "test_targets": Y[:3]}
    return flds.TrainingProblem(**{"inputs": X, "targets": Y, "activation": "gelu"} | tests | rest, steps=steps)


def mean_problem(steps, **rest):
    data = {"inputs": X, "targets": X[::-1], "test_inputs": TESTS, "test_targets": -TESTS}
    return flds.MeanFieldProblem(**data | rest, steps=steps)


# Tolerance, operator and sampling are given where their defaults depend on the number of steps.
FIXED = {"tolerance": 0.005, "operator": "lazy", "depth": 3, "seed": 5}
RUNS = {
    "matched": (flds.solve_flds, training_problem, FIXED | {"particles": 1200, "replicates": 2}, {}),
    "matched without room": (flds.solve_flds, training_problem, FIXED | {"particles": 150}, {"batch_size": 2}),
    "kernels": (flds.solve_flds, training_problem, FIXED | {"particles": 900, "record_kernels": True},
                {"batch_size": 2, "batch_order": "random"}),
    "dense": (flds.simulate_resnet, training_problem,
              FIXED | {"width": 60, "operator": "dense", "dtype": "float32", "backward_weights": "independent",
                       "record_kernels": True, "record_every": 3}, {"batch_size": 2}),
    "classes": (flds.simulate_resnet, training_problem, FIXED | {"width": 300},
                {"loss": "cross_entropy", "targets": [0, 1, 2, 0, 1, 2], "test_targets": [0, 1, 2]}),
    "nothing to learn": (flds.simulate_resnet, training_problem, FIXED | {"width": 90, "record_kernels": True},
                         {"inputs": np.zeros((6, 4)), "targets": np.zeros(6)}),
    "one sample that needs no gradient": (
        flds.simulate_resnet, training_problem, FIXED | {"width": 90, "record_kernels": True},
        {"inputs": np.concatenate([np.zeros((1, 4)), X[1:]]), "targets": np.concatenate([[0.0], Y[1:]])}),
    "two layers": (flds.solve_flds, training_problem, FIXED | {"particles": 1200, "record_kernels": True}, {
        "residual": "two_layer", "hidden_ratio": 0.5, "normalization": "layer_norm", "gain": True, "bias": True,
        "optimizer": {"hidden": flds.Muon(), "gain": flds.Adam(), "bias": flds.SGD(momentum=0.5)}, "batch_size": 2}),
    "two layers, dense": (flds.simulate_resnet, training_problem, FIXED | {"width": 50, "operator": "dense"}, {
        "residual": "two_layer", "hidden_ratio": 2, "normalization": "rms_norm", "gain": True, "branch_exponent": 1}),
    "two layers of one width": (flds.simulate_resnet, training_problem, FIXED | {"width": 90}, {
        "residual": "two_layer", "bias": True}),
    "no tests": (flds.simulate_resnet, training_problem, FIXED | {"width": 90, "record_every": 2},
                 {"test_inputs": None, "test_targets": None}),
    "perceptrons": (flds.solve_mean_ode, mean_problem, {"units": 64, "depth": 4, "replicates": 2}, {}),
    "perceptrons, no tests": (flds.solve_mean_ode, mean_problem, {"units": 64, "depth": 4, "record_every": 3},
                              {"test_inputs": None, "test_targets": None}),
    "tangent": (flds.solve_tangent_ode, mean_problem,
                {"units": 64, "depth": 4, "record_features": True, "depth_error": True, "dtype": "float32"}, {}),
    "transformer": (flds.solve_mean_ode, mean_problem, {"units": 16, "depth": 4}, TRANSFORMER),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:the bases left too little room")
@pytest.mark.parametrize("done", [0, 3])
@pytest.mark.parametrize("name", RUNS)
def test_training_goes_on_as_if_it_had_never_stopped(name, done, tmp_path):
    solve, problem, options, rest = RUNS[name]
    whole = solve(problem(done + 4, **rest), **options)
    part = solve(problem(done, **rest), keep_state=True, **options)
    stored = flds.load(part.save(tmp_path / "part.nc"))
    twice = flds.resume(flds.resume(stored, 1), 3)
    free = {"threads": 1, "rank_budget": None, "reason": None, "keep_state": True}
    for solution in (flds.resume(part, 4), flds.resume(stored, 4, threads=1), twice):
        assert (solution.notes, solution.settings | free) == (whole.notes, whole.settings | part.settings | free)
        assert list(solution.variables) == list(whole.variables)
        for field, item in whole.variables.items():
            np.testing.assert_array_equal(solution.variables[field].values, item.values, err_msg=field)


@pytest.mark.filterwarnings("ignore:the bases left too little room")
@pytest.mark.parametrize("name", [name for name in RUNS if "no tests" not in name])
def test_predictions_on_test_inputs_are_their_outputs(name, tmp_path):
    solve, problem, options, rest = RUNS[name]
    trained = problem(2, **rest)
    solution = solve(trained, keep_state=True, **options)
    expected = solution.test_outputs[-1]
    raw = trained.test_inputs
    for one in (solution, flds.load(solution.save(tmp_path / "run.nc"))):
        np.testing.assert_array_equal(one.predict(raw), expected)
        np.testing.assert_array_equal(one.predict(raw, problem=trained), expected)
    if options.get("replicates", 1) > 1:
        mean, error = solution.predict(raw, return_error=True)
        np.testing.assert_array_equal(error, solution.test_outputs_standard_error[-1])
        np.testing.assert_array_equal(mean, expected)


def test_lazy_weights_remember_what_they_were_trained_on():
    solution = flds.solve_flds(training_problem(4), keep_state=True, **FIXED | {"particles": 1200, "tolerance": 0.0})
    # nothing is dropped above 1e-7 of a vector's norm, and states are combinations of a few tens of vectors
    np.testing.assert_allclose(solution.predict(X), solution.outputs[-1], rtol=0, atol=1e-5)


def test_predictions_are_the_network_of_the_stored_weights():
    problem = training_problem(3, activation="tanh")
    solution = flds.simulate_resnet(problem, width=50, depth=4, operator="dense", keep_state=True)
    stored = {name: item.values for name, item in solution.states[0].items()}
    h = TESTS @ stored["input_weights"] / 2
    for layer in range(4):
        h = h + 0.5 * np.tanh(h) @ stored[f"layer_{layer}_weights"].T
    np.testing.assert_allclose(solution.predict(TESTS), (h * stored["readout"][0]).mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize("weights", ["tied", "independent"])
def test_predictions_have_the_law_of_dense_networks(weights):
    problem = training_problem(2, activation="tanh", learning_rate=1.0)
    # without what was learned, means over 100 differ by 5 standard errors at least, and by 8 once training has gone on
    options = {"width": 48, "depth": 2, "backward_weights": weights, "replicates": 100, "keep_state": True}
    lazy = flds.simulate_resnet(problem, operator="lazy", tolerance=0.0, **options)
    dense = flds.simulate_resnet(problem, operator="dense", seed=1, **options)
    new = np.vstack([TESTS[:1] + 0.3, 2 * X[:1] - X[1:2]])
    for longer in (False, True):  # the last pass is repeated with new weights once training has gone on
        samples = [predict(flds.resume(one, 1) if longer else one, new, None) for one in (lazy, dense)]
        moments = [np.concatenate([f, (f - f.mean(0)) ** 2], axis=1) for f in samples]
        difference = moments[0].mean(0) - moments[1].mean(0)
        error = np.sqrt(sum(one.var(0, ddof=1) / len(one) for one in moments))
        assert np.all(np.abs(difference) < MARGIN * error)


def test_a_state_is_left_as_it_is():
    solution = flds.simulate_resnet(three_samples(), width=200, depth=2, keep_state=True)
    before = {name: item.values.copy() for name, item in solution.states[0].items()}
    flds.resume(solution, 2)
    solution.predict(np.eye(5))
    for name, values in before.items():
        np.testing.assert_array_equal(solution.states[0][name].values, values, err_msg=name)


def test_rates_of_further_steps():
    rates = [0.5, 0.3, 0.2, 0.1]
    whole = flds.simulate_resnet(training_problem(4, learning_rate=rates), width=200, **FIXED)
    part = flds.simulate_resnet(training_problem(2, learning_rate=rates[:2]), width=200, keep_state=True, **FIXED)
    np.testing.assert_array_equal(flds.resume(part, 2, learning_rate=rates[2:]).outputs, whole.outputs)
    constant = flds.simulate_resnet(training_problem(4, learning_rate=[0.5, 0.3, 0.3, 0.3]), width=200, **FIXED)
    np.testing.assert_array_equal(flds.resume(part, 2).outputs, constant.outputs)


def test_states_are_saved_whatever_their_shapes(tmp_path):
    crowded = 0.3 * np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    problem = flds.TrainingProblem(crowded, [1.0, -1.0, 0.5], steps=1)
    options = {"tolerance": 0.05, "operator": "lazy", "seed": 20}
    some = flds.solve_flds(problem, particles=20, depth=6, keep_state=True, **options)
    blocks = (flds.Attention(1), flds.Attention(2))  # the same names, other shapes
    tokens = GENERATOR.normal(size=(2, 3, 4))
    heads = flds.MeanFieldProblem(tokens, tokens, block=blocks, steps=1, learning_rates=0.1)
    for solution in (some, flds.solve_mean_ode(heads, units=8, depth=2, keep_state=True)):
        stored = flds.load(solution.save(tmp_path / "run.nc"))
        x = solution.variables.get("problem_inputs", solution.variables.get("inputs")).values
        np.testing.assert_array_equal(stored.predict(x), solution.predict(x))


def test_a_file_can_be_read_without_its_states(tmp_path):
    path = flds.simulate_resnet(three_samples(steps=1), width=20, depth=1, keep_state=True).save(tmp_path / "run.nc")
    assert flds.load(path, groups=False).states == []
    assert flds.load(path).states


def test_files_of_a_version_that_said_less_are_read(tmp_path):
    solutions = (
        flds.simulate_resnet(training_problem(1), width=20, depth=1),
        flds.solve_mean_ode(mean_problem(1), units=16, depth=2),
    )
    for solution, problem in zip(solutions, (training_problem(1), mean_problem(1)), strict=True):
        for name in ("check", "types"):
            solution.extra["problem"].pop(name, None)
        stored = flds.load(solution.save(tmp_path / "run.nc"))
        again = flds.rerun(stored, problem=problem)
        np.testing.assert_array_equal(again.outputs, solution.outputs)
    with pytest.raises(ValueError, match="does not say which blocks it is of"):
        flds.rerun(stored)


def test_many_replicates_keep_their_order(tmp_path):
    solution = flds.simulate_resnet(three_samples(steps=1), width=20, depth=1, replicates=11, keep_state=True)
    stored = flds.load(solution.save(tmp_path / "run.nc"))
    for one, other in zip(solution.states, stored.states, strict=True):
        np.testing.assert_array_equal(one["readout"].values, other["readout"].values)


def test_problems_that_cannot_be_read_back_are_given(tmp_path):
    square = flds.Activation(lambda x: x**2, lambda x: 2 * x, "square")
    problem = training_problem(1, activation=square)
    one = flds.load(flds.simulate_resnet(problem, width=50, depth=1, keep_state=True).save(tmp_path / "one.nc"))
    with pytest.raises(ValueError, match="the activation 'square' is not built in: give the problem= itself"):
        one.predict(X)
    assert one.predict(X, problem=problem).shape == (6,)
    assert flds.resume(one, 1, problem=problem).steps[-1] == 2
    np.testing.assert_array_equal(flds.rerun(one, problem=problem).outputs, one.outputs)
    with pytest.raises(ValueError, match="problem must be that of the solution, but differs in its activation"):
        one.predict(X, problem=training_problem(1))
    for other in (lambda x: x**2 + 0.1 * x, lambda x: 2 * x + 0.1), (np.tanh, lambda x: 1 - np.tanh(x) ** 2):
        imitated = training_problem(1, activation=flds.Activation(*other, "square"))
        with pytest.raises(ValueError, match="but differs in its activation, block, branch, initial law or optimizer"):
            one.predict(X, problem=imitated)
    with pytest.raises(TypeError, match=r"problem must be a flds\.TrainingProblem, got MeanFieldProblem"):
        one.predict(X, problem=mean_problem(1))
    longer = flds.resume(one, 2, problem=problem, learning_rate=[0.1, 0.2])
    assert longer.predict(X, problem=problem).shape == (6,)  # which says nothing of steps and rates
    assert flds.resume(longer, 1, problem=problem).steps[-1] == 4
    skewed = mean_problem(1, initial_laws={"u": lambda p: -1 - np.log1p(-p)})
    two = flds.load(flds.solve_mean_ode(skewed, units=16, depth=2, keep_state=True).save(tmp_path / "two.nc"))
    with pytest.raises(ValueError, match="the initial law of u is not built in: give the problem= itself"):
        flds.rerun(two)
    assert two.predict(TESTS, problem=skewed).shape == (3, 4)
    uniform = mean_problem(1, initial_laws={"u": lambda p: np.sqrt(12) * (p - 0.5)})
    with pytest.raises(ValueError, match="but differs in its activation, block, branch, initial law or optimizer"):
        two.predict(TESTS, problem=uniform)
    with pytest.raises(ValueError, match="but differs in its targets"):
        two.predict(X, problem=mean_problem(1, initial_laws=skewed.initial_laws, targets=X))


@pytest.mark.parametrize("problem", [training_problem, mean_problem])
def test_the_name_of_a_built_in_activation_is_not_enough(problem):
    sine = problem(1, activation=flds.Activation(np.sin, np.cos, "tanh"))
    if problem is training_problem:
        solution = flds.simulate_resnet(sine, width=30, depth=2)
    else:
        solution = flds.solve_mean_ode(sine, units=16, depth=2)
    with pytest.raises(ValueError, match=r"is not built in.*: give the problem= itself"):
        flds.rerun(solution)
    np.testing.assert_array_equal(flds.rerun(solution, problem=sine).outputs, solution.outputs)


def test_mistakes_are_one_line():
    plain = flds.simulate_resnet(three_samples(), width=20, depth=1)
    kept = flds.simulate_resnet(
        three_samples(batch_order=np.array([[0], [1], [2]])), width=20, depth=1, keep_state=True
    )
    mean = flds.solve_mean_ode(mean_problem(1), units=16, depth=2, keep_state=True)
    untrained = flds.simulate_resnet(three_samples(steps=0), width=20, depth=1, keep_state=True)
    calls = {
        r"no state of the trained network: solve with keep_state=True": lambda: plain.predict(np.eye(5)),
        r"the solution has no state": lambda: flds.resume(plain, 3),
        r"inputs must have as many columns as the training inputs \(5\), got 4": lambda: kept.predict(np.ones((2, 4))),
        r"inputs must be a matrix|inputs must have shape": lambda: kept.predict(np.ones(5)),
        r"inputs must have the shape of the training inputs past the first, \(4,\), got \(5,\)":
            lambda: mean.predict(np.ones((2, 5))),
        r"return_error needs at least two replicates, got 1": lambda: kept.predict(np.eye(5), return_error=True),
        r"steps must be at least 1, got 0": lambda: flds.resume(kept, 0),
        r'batch_order must be "sequential" or "random" to go on': lambda: flds.resume(kept, 2),
        r"learning_rate must be a number, one per further step \(2\) or a function of the step, got shape \(3,\)":
            lambda: flds.resume(untrained, 2, learning_rate=[1, 2, 3]),
        r"unknown option 'depth'; only threads, device, rank_budget, communicator, executor, checkpoint, "
        "checkpoint_every, callback can differ":
            lambda: flds.resume(kept, 1, depth=4),
        r"learning_rate must name parameters \(u, v\), got 'w'":
            lambda: flds.resume(mean, 1, learning_rate={"w": 0.1}),
        r'keep_state needs sampling "matched" or "law", got "matched_all"':
            lambda: flds.solve_flds(three_samples(), particles=500, depth=1, sampling="matched_all", keep_state=True),
        r"solution must be a Solution, got str": lambda: flds.resume("part.nc", 1),
        r"learning_rate must be a number, one per further step \(1\) or a function of the step, got True":
            lambda: flds.resume(untrained, 1, learning_rate=True),
        r"solution must be of one of solve_flds, simulate_resnet, solve_frozen, solve_mean_ode, solve_tangent_ode, "
        "got Solution":
            lambda: flds.resume(flds.solve_forward(particles=100, depth=2), 1),
    }  # fmt: skip
    for message, call in calls.items():
        with pytest.raises((ValueError, TypeError), match=message) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [
    lambda **rest: flds.simulate_resnet(training_problem(1, activation="relu"), width=50, depth=2, **rest),
    lambda **rest: flds.solve_mean_ode(mean_problem(1, activation="relu"), units=16, depth=2, **rest),
], ids=["network", "mean ODE"])  # fmt: skip
def test_inputs_whose_outputs_overflow_are_refused(make):
    one, single = make(keep_state=True), make(keep_state=True, dtype="float32")
    several = make(keep_state=True, replicates=2)
    line = r"^inputs are too large: {} are not finite, got up to {}; scale them down$"
    for run, size in ((one, 1.7e308), (single, 1e100), (several, 1.7e308)):
        with pytest.raises(ValueError, match=line.format("outputs", re.escape(f"{size:.3g}"))):
            run.predict([[0.5] * 4, [-size] * 4])
        assert np.isfinite(run.predict(np.full((2, 4), 1e30))).all()


def test_inputs_whose_errors_overflow_are_refused():
    problem = training_problem(1, activation="relu")
    run = flds.simulate_resnet(problem, width=50, depth=2, keep_state=True, replicates=2)
    assert np.isfinite(run.predict(np.full((2, 4), 1e200))).all()
    with pytest.raises(ValueError, match=r"^inputs are too large: standard errors of outputs are not finite"):
        run.predict(np.full((2, 4), 1e200), return_error=True)


def test_a_run_that_ended_early_has_no_state():
    steep = flds.TrainingProblem(np.eye(2), [1.0, 1.0], activation="relu", learning_rate=1e200, steps=5)
    with pytest.warns(RuntimeWarning, match="training diverged"):
        solution = flds.solve_flds(steep, particles=300, depth=2, keep_state=True)
    with pytest.raises(ValueError, match=r"no state of .*keep_state=True; .* \(status 'diverged'\)"):
        solution.predict(np.eye(2))


def test_a_replicate_that_ended_early_leaves_no_state():
    problem = flds.TrainingProblem(X, Y, activation="relu", learning_rate=2.0, steps=25)
    options = {"width": 20, "depth": 3, "replicates": 6, "keep_state": True}
    with pytest.warns(RuntimeWarning, match="of replicate [2-6]"):
        solution = flds.simulate_resnet(problem, **options)
    assert solution.status == "diverged"
    assert solution.states == []


def test_the_loss_that_overflows_is_a_divergence():
    problem = flds.TrainingProblem(X, Y, activation="identity", learning_rate=1e170, steps=1)
    with pytest.warns(RuntimeWarning, match="training diverged after step 0"):
        solution = flds.simulate_resnet(problem, width=20, depth=2)
    assert np.all(np.isfinite(solution.batch_loss))


def test_messages_after_a_resumed_run_count_from_the_start():
    kept = flds.simulate_resnet(training_problem(3), width=30, depth=2, keep_state=True)
    with pytest.warns(RuntimeWarning, match="training diverged after step 3"):
        flds.resume(kept, 2, learning_rate=1e200)


def test_states_count_in_the_memory_that_is_asked_for():
    options = {"particles": 100_000, "depth": 8, "replicates": 20}
    plain = flds.estimate_cost(three_samples(), **options)
    kept = flds.estimate_cost(three_samples(), keep_state=True, **options)
    # bases and images, at the expected rank, of the 19 replicates before the last
    rank = plain.rank[0] + plain.rank[1]
    assert kept.memory - plain.memory > 19 * 2 * rank * 8 * 100_000 * 4
