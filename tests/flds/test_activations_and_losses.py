"""Activations and losses against numerical derivatives, torch and scikit-learn-style definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flds
from flds.training.activations import ACTIVATIONS
from flds.training.losses import get_loss

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_those_of_torch(name):
    from validation.networks import ACTIVATIONS as TORCH

    x = np.linspace(-8, 8, 1001)
    tensor = torch.tensor(x, requires_grad=True)
    value = TORCH[name](tensor)
    value.sum().backward()
    np.testing.assert_allclose(ACTIVATIONS[name].value(x), value.detach().numpy(), atol=1e-13)
    off_kink = x != 0
    np.testing.assert_allclose(ACTIVATIONS[name].derivative(x)[off_kink], tensor.grad.numpy()[off_kink], atol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_do_not_overflow(name):
    x = np.array([-800.0, -40.0, 0.0, 40.0, 800.0])
    with np.errstate(all="raise", under="ignore"):
        assert np.all(np.isfinite(ACTIVATIONS[name].value(x)))
        assert np.all(np.isfinite(ACTIVATIONS[name].derivative(x)))


@pytest.mark.parametrize(
    ("value", "derivative", "message"),
    [
        (np.tanh, np.tanh, "derivative must be the derivative of value, but differs from it at x"),
        (np.tanh, 3.0, "derivative must be a function of an array, got 3.0"),
        (lambda x: x[:2], np.ones_like, r"value must return a float array in the shape of its argument, \(41,\)"),
        (lambda x: list(x), np.ones_like, "value must return a float array"),
        (lambda x: x / 0.0 * np.nan, np.ones_like, "value must return finite numbers"),
        (math.tanh, np.ones_like, "value must be a function of an array, but failed on one"),
        (lambda x: np.tanh(x, out=x), np.ones_like, "value must not change its argument"),
        (lambda x: x - x.mean(), np.ones_like, "value must act on each number alone"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_activations_are_refused(value, derivative, message):
    with pytest.raises((ValueError, TypeError), match=message):
        flds.Activation(value=value, derivative=derivative)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("squared", np.array([[0.3, -1.0], [2.0, 0.1]])),
        ("logistic", np.array([1.0, -1.0])),
        ("cross_entropy", np.array([2, 0])),
    ],
)
def test_loss_derivatives_are_derivatives_and_values_those_of_torch(name, targets):
    loss = get_loss(name)
    y = loss.encode(targets)
    f = np.random.default_rng(0).standard_normal(y.shape) * 3
    step = 1e-6
    for index in np.ndindex(f.shape):
        change = np.zeros_like(f)
        change[index] = step
        slope = (loss.value(f + change, y) - loss.value(f - change, y)).sum() / (2 * step)
        # central differences: rounding eps/step = 2e-10
        assert slope == pytest.approx(loss.derivative(f, y)[index], abs=1e-8)
    tensor = torch.tensor(f)
    if name == "cross_entropy":
        reference = torch.nn.functional.cross_entropy(tensor, torch.tensor(targets), reduction="none").numpy()
        np.testing.assert_allclose(loss.value(f, y), reference, atol=1e-12)
    assert np.all(np.isfinite(loss.derivative(1e4 * f, y)))


def test_single_precision_activations_are_accepted():
    mine = flds.Activation(
        lambda x: np.tanh(x.astype(np.float32)), lambda x: (1 - np.tanh(x) ** 2).astype(np.float32), name="tanh32"
    )
    assert mine.name == "tanh32"
    with pytest.raises(TypeError, match="name must be a string, got 3"):
        flds.Activation(np.sin, np.cos, name=3)


def test_accuracy():
    entropy, logistic = get_loss("cross_entropy"), get_loss("logistic")
    assert entropy.accuracy(np.array([[0, 1.0], [1, 0]]), entropy.encode(np.array([1, 1]))) == 0.5
    assert logistic.accuracy(np.array([[2.0], [-1.0]]), logistic.encode(np.array([1.0, 1.0]))) == 0.5
