"""Dense torch networks against networks with backpropagation written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from tests.conftest import three_samples
from tests.naive import dense_outputs

torch = pytest.importorskip("torch")

from validation import engine, networks  # noqa: E402


def drawn(problem, width, depth, weights, seed, residual="pre"):
    """The torch network before training."""
    generator = torch.Generator().manual_seed(seed)
    return networks.ResNet(
        problem, width, depth, independent=weights == "independent", residual=residual, generator=generator
    )


def run_by_hand(problem, width, depth, weights, seed, residual="pre"):
    """The twin in tests.naive, started from the torch network's own initial weights."""
    network = drawn(problem, width, depth, weights, seed, residual)
    draws = [network.input_weights, network.readout, torch.stack([one.weight for one in network.matrices])]
    draws += [torch.stack([one.copy for one in network.matrices])] if weights == "independent" else []
    draws = [d.detach().numpy().copy() for d in draws]
    return dense_outputs(problem, width, depth, 1, weights, residual=residual, draws=draws)[0]


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("residual", ["pre", "post"])
def test_autograd_equals_backpropagation_by_hand(activation, weights, batch_size, residual):
    problem = three_samples(activation, steps=4, batch_size=batch_size)
    solution = networks.train(problem, width=30, depth=5, backward_weights=weights, residual=residual, seed=3)
    by_hand = run_by_hand(problem, 30, 5, weights, 3, residual)
    np.testing.assert_allclose(solution.outputs, by_hand[..., 0], rtol=0, atol=1e-10)


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


@pytest.mark.parametrize("weights", ["tied", "independent"])
def test_mean_squares_over_depth_by_hand(weights):
    """h forward and g_{ℓ-1} = g_ℓ + √(τ/n) φ'(h_{ℓ-1}) ⊙ Wᵀ g_ℓ backward at step 0, one sample."""
    problem = flds.TrainingProblem(np.ones((1, 2)), [1.0], activation="tanh", steps=1)
    solution = networks.train(problem, width=40, depth=4, backward_weights=weights, seed=5)
    network = drawn(problem, 40, 4, weights, 5)
    u, v = network.input_weights.detach().numpy(), network.readout.detach().numpy()[0]
    w = [one.weight.detach().numpy() for one in network.matrices]
    back = w if weights == "tied" else [one.copy.detach().numpy() for one in network.matrices]
    h, g, scale = [u.sum(1) / np.sqrt(2)], [v], np.sqrt(1 / 4 / 40)
    for weight in w:
        h.append(h[-1] + scale * weight @ np.tanh(h[-1]))
    for layer in (3, 2, 1, 0):
        g.insert(0, g[0] + scale * (1 - np.tanh(h[layer]) ** 2) * (back[layer].T @ g[0]))
    np.testing.assert_allclose(solution.feature_variance[0], np.mean(np.square(h), axis=1), rtol=1e-12)
    np.testing.assert_allclose(solution.gradient_variance[0], np.mean(np.square(g), axis=1), rtol=1e-12)


def test_the_solution_is_that_of_a_solver(classes, tmp_path):
    solution = networks.train(classes, width=20, depth=3, record_every=2)
    engine = flds.simulate_resnet(classes, width=20, depth=3, record_every=2)
    shared = {
        name: field for name, field in engine.variables.items() if name not in ("rank", "rank_by_step", "truncation")
    }
    assert set(shared) == set(solution.variables)
    for name, field in shared.items():
        assert solution.variables[name].dims == field.dims
        assert solution.variables[name].values.shape == field.values.shape, name
    again = flds.load(solution.save(tmp_path / "network.nc"))
    assert again.settings["residual"] == "pre"
    np.testing.assert_array_equal(again.test_accuracy, solution.test_accuracy)


def test_training_that_diverges_ends_with_a_status():
    problem = three_samples("relu", steps=40)
    wild = flds.TrainingProblem(problem.x, [1.0, -1.0, 0.5], activation="relu", learning_rate=50.0, steps=40)
    solution = networks.train(wild, width=20, depth=3)
    assert solution.status == "diverged"
    assert len(solution.steps) < 41
    assert np.isfinite(solution.outputs).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"residual": "mid"}, "residual must be one of pre, post, got 'mid'"),
        ({"device": "tpu"}, "device must be one of cpu"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"record_every": 0}, "record_every must be at least 1, got 0"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(ValueError, match=message):
        networks.train(three_samples(), **option)


def test_a_large_network_is_measured_in_a_process_of_its_own(monkeypatch):
    """As at full size, but small; what fails there is a claim that is refuted."""
    completed, memory = engine._large(2000)
    assert completed.verdict == "confirmed"
    assert "measured peak" in memory.name  # which so small a network hardly moves
    monkeypatch.setattr(engine, "MILLION", "raise MemoryError('none left')")
    (failed,) = engine._large(2000)
    assert (failed.verdict, failed.measured) == ("refuted", "it ended saying MemoryError: none left")


@pytest.mark.parametrize("exponent", [0.5, 1])
@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("norm", [None, "rms_norm", "layer_norm"])
@pytest.mark.parametrize("ratio", [0.5, 2])
def test_two_layers_equal_plain_numpy(ratio, norm, weights, exponent):
    """Autograd against passes written out from the equations, with minibatches and two outputs."""
    from validation.plain_branches import TwoLayerWeights, train_two_layer

    rng = np.random.default_rng(0)
    problem = flds.TrainingProblem(
        rng.standard_normal((4, 3)), rng.standard_normal((4, 2)), steps=3, batch_size=2, horizon=2.0,
        residual="two_layer", hidden_ratio=ratio, normalization=norm, gain=norm is not None, bias=True,
        branch_exponent=exponent, activation="gelu",
    )  # fmt: skip
    run = networks.train(problem, width=12, depth=3, backward_weights=weights, seed=2)
    network = drawn(problem, 12, 3, weights, 2)
    inner, outer = network.matrices[::2], network.matrices[1::2]

    def stacked(tensors):
        return np.array([tensor.detach().numpy() for tensor in tensors])

    w, v = stacked(one.weight for one in inner), stacked(one.weight for one in outer)
    copies = (w, v) if weights == "tied" else (stacked(one.copy for one in inner), stacked(one.copy for one in outer))
    hidden = w.shape[1]
    plain = TwoLayerWeights(
        network.input_weights.detach().numpy().copy(), w, v, network.readout.detach().numpy().copy(),
        np.ones((3, 12)), np.zeros((3, hidden)), *copies,
    )  # fmt: skip
    found = train_two_layer(
        plain, problem.x, problem.y, activation="gelu", loss="squared", horizon=2.0, exponent=exponent,
        normalization=norm, rates=np.full(3, 0.5), batches=problem.batches, trained="bias gain" if norm else "bias",
    )  # fmt: skip
    assert np.abs(found - found[0]).max() > 0.05
    np.testing.assert_allclose(run.outputs, found, rtol=0, atol=1e-11)
