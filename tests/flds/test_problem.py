"""Problems: batches, and one clear line for each kind of bad input."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import flds

X, Y = np.ones((4, 3)), np.array([1.0, -1.0, 1.0, -1.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": np.ones(4)}, r"inputs must have shape \(samples, d\), got \(4,\)"),
        ({"inputs": np.ones((0, 3))}, r"inputs must not be empty, got shape \(0, 3\)"),
        (
            {"inputs": np.full((4, 3), np.nan)},
            r"inputs must be finite, got nan at index \(0, 0\); remove or replace it",
        ),
        ({"inputs": [["a", "b"]]}, "inputs must be an array of real numbers, got dtype <U1"),
        ({"inputs": [[1.0], [1.0, 2.0]]}, "inputs must be a rectangular array of numbers"),
        ({"targets": Y[:3]}, r"targets must have shape .* with the 4 samples of inputs, got \(3,\)"),
        ({"targets": [1, np.inf, 1, 1]}, r"targets must be finite, got inf at index \(1\)"),
        (
            {"targets": [1, 2, 0.5, 1], "loss": "cross_entropy"},
            'whole class indices from 0 to at most 9999 for the loss "cross_entropy", got 0.5',
        ),
        ({"targets": [1, -2, 0, 1], "loss": "cross_entropy"}, "class indices from 0 to at most 9999 .* got -2"),
        ({"targets": [0, 1, 0, 1e300], "loss": "cross_entropy"}, r"class indices .* got 1e\+300"),
        ({"loss": ["squared"]}, "loss must be one of squared, logistic, cross_entropy, got"),
        (
            {"learning_rate": True},
            r"learning_rate must be a number, one per step \(50\) or a function of the step, got True",
        ),
        ({"batch_order": [[0, 1], [2]], "steps": 2}, "batch_order must be a rectangular array of numbers"),
        ({"targets": np.ones((4, 2)), "loss": "cross_entropy"}, r"class indices of shape \(samples,\)"),
        ({"targets": [1, 2, -1, 1], "loss": "logistic"}, 'targets must be -1 or 1 for the loss "logistic", got 2'),
        ({"activation": "swish"}, "activation must be one of identity, tanh, relu, .* got 'swish'"),
        ({"activation": np.tanh}, "activation must be a name or a flds.Activation"),
        ({"loss": "hinge"}, "loss must be one of squared, logistic, cross_entropy, got 'hinge'"),
        ({"horizon": -1.0}, "horizon must be a finite number above 0, got -1"),
        ({"horizon": "1"}, "horizon must be a number, got '1'"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"steps": 2.0}, "steps must be an integer, got 2.0"),
        ({"learning_rate": -0.1}, "learning_rate must not be negative, got -0.1"),
        ({"learning_rate": np.inf}, "learning_rate must be finite, got inf"),
        (
            {"learning_rate": [0.1, 0.2], "steps": 3},
            r"learning_rate must be a number, one per step \(3\) or a function of the step, got shape \(2,\)",
        ),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 5}, "batch_size must be at most the 4 samples, got 5"),
        ({"batch_order": "shuffled"}, "batch_order must be one of sequential, random, got 'shuffled'"),
        ({"batch_order": np.array([[4]]), "steps": 1}, "batch_order must hold sample indices from 0 to 3, got 4 to 4"),
        ({"batch_order": np.array([[0]]), "steps": 2}, r"integer array of shape \(steps, batch\) with 2 steps"),
        ({"batch_order": np.array([[0.5]]), "steps": 1}, "batch_order must be an integer array"),
        ({"batch_order": np.array([[0]]), "steps": 1, "batch_size": 2}, "batch_size must be left out or equal"),
        ({"batch_seed": -1}, "batch_seed must be at least 0, got -1"),
        ({"test_inputs": X}, "test_inputs and test_targets must be given together"),
        ({"test_inputs": np.ones((2, 2)), "test_targets": [1, 1]}, r"as many columns as inputs \(3\), got 2"),
        ({"test_inputs": X, "test_targets": Y[:2]}, "with the 4 samples of test_inputs"),
        ({"test_inputs": X, "test_targets": np.ones((4, 2))}, r"as many outputs as targets \(1\), got 2"),
        (
            {"targets": [0, 1, 0, 1], "loss": "cross_entropy", "test_inputs": X, "test_targets": [0, 1, 2, 0]},
            "test_targets must be class indices from 0 to 1, got 2",
        ),
    ],
)
def test_bad_input_gives_one_line_that_names_the_argument(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        flds.TrainingProblem(**({"inputs": X, "targets": Y} | arguments))
    assert "\n" not in str(error.value)


def test_sequential_batches_cycle():
    problem = flds.TrainingProblem(X, Y, steps=3, batch_size=3)
    np.testing.assert_array_equal(problem.batches, [[0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3]])


def test_random_batches_visit_every_sample_once_an_epoch():
    problem = flds.TrainingProblem(np.ones((6, 1)), np.ones(6), steps=8, batch_size=2, batch_order="random")
    epochs = problem.batches.reshape(3, 6)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(6), (3, 1)))
    assert not np.array_equal(epochs[0], epochs[1])
    other = flds.TrainingProblem(np.ones((6, 1)), np.ones(6), steps=8, batch_size=2, batch_order="random", batch_seed=1)
    assert not np.array_equal(problem.batches, other.batches)


def test_given_batches_and_full_batches():
    order = np.array([[0, 0], [3, 1]])
    problem = flds.TrainingProblem(X, Y, steps=2, batch_order=order)
    np.testing.assert_array_equal(problem.batches[:2], order)
    assert problem.batch == 2
    assert flds.TrainingProblem(X, Y, steps=2, batch_order="random").full_batch


def test_problems_do_not_change_when_their_arrays_do():
    inputs = X.copy()
    problem = flds.TrainingProblem(inputs, Y)
    inputs[:] = 7.0
    assert problem.x[0, 0] == 1.0
    np.testing.assert_array_equal(problem.inputs, X)
    with pytest.raises(ValueError, match="read-only"):
        problem.x[0, 0] = 2.0


def test_numpy_scalars_become_numbers():
    problem = flds.TrainingProblem(
        X, Y, horizon=np.float32(2), steps=np.int64(3), learning_rate=np.float64(0.1), batch_size=np.int8(2)
    )
    assert [type(v) for v in (problem.horizon, problem.steps, problem.learning_rate, problem.batch_size)] == [
        float, int, float, int,
    ]  # fmt: skip


def test_problems_can_be_pickled():
    problem = pickle.loads(pickle.dumps(flds.TrainingProblem(X, Y, activation="gelu")))
    np.testing.assert_array_equal(problem.x, X)
    assert problem.phi.name == "gelu"


@pytest.mark.parametrize("labels", [[0, 1, 2], np.array([3, 3, 5], np.uint8), [0, 0, 1]])
def test_class_labels_need_a_loss(labels):
    with pytest.raises(ValueError, match=r'look like class labels.*loss="cross_entropy".*loss="squared"'):
        flds.TrainingProblem(np.eye(3), labels)
    assert flds.TrainingProblem(np.eye(3), labels, loss="squared").outputs == 1
    assert flds.TrainingProblem(np.eye(3), labels, loss="cross_entropy").loss_function.classifies


@pytest.mark.parametrize("numbers", [[0.0, 1.0, 2.0], [1, -1, 1], np.eye(3, dtype=int)])
def test_numbers_need_none(numbers):
    assert flds.TrainingProblem(np.eye(3), numbers).loss == "squared"
