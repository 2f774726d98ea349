"""Dense torch networks against networks with backpropagation written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from tests.conftest import three_samples
from tests.naive import dense_outputs

torch = pytest.importorskip("torch")

from validation import networks  # noqa: E402


def run_by_hand(problem, width, depth, weights, seed):
    """The twin in tests.naive, started from the torch network's own initial weights."""
    generator = torch.Generator().manual_seed(seed)
    network = networks.ResNet(
        problem.x.shape[1], problem.outputs, width, depth, problem.phi.name, problem.horizon,
        weights == "independent", generator, torch.float64,
    )  # fmt: skip
    draws = [network.input_weights, network.readout, torch.stack(list(network.weights))]
    draws += [torch.stack(network.backward_weights)] if weights == "independent" else []
    return dense_outputs(problem, width, depth, 1, weights, draws=[d.detach().numpy().copy() for d in draws])[0]


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_autograd_equals_backpropagation_by_hand(activation, weights, batch_size):
    problem = three_samples(activation, steps=4, batch_size=batch_size)
    solution = networks.train(problem, width=30, depth=5, backward_weights=weights, seed=3)
    np.testing.assert_allclose(solution.outputs, run_by_hand(problem, 30, 5, weights, 3)[..., 0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("loss", ["squared", "logistic", "cross_entropy"])
def test_losses(loss):
    rng = np.random.default_rng(0)
    targets = {"squared": rng.standard_normal((4, 2)), "logistic": [1, -1, 1, 1], "cross_entropy": [0, 2, 1, 0]}[loss]
    problem = flds.TrainingProblem(rng.standard_normal((4, 3)), targets, loss=loss, steps=3, batch_size=2)
    solution = networks.train(problem, width=20, depth=3)
    by_hand = run_by_hand(problem, 20, 3, "tied", 0)
    np.testing.assert_allclose(solution.outputs.reshape(by_hand.shape), by_hand, rtol=0, atol=1e-10)


def test_bad_arguments():
    with pytest.raises(ValueError, match="backward_weights must be one of tied, independent"):
        networks.train(three_samples(), backward_weights="tide")
    mine = flds.Activation(np.sin, np.cos)
    with pytest.raises(ValueError, match="activation must be one of identity, tanh"):
        networks.train(three_samples(mine))
