"""The tangent kernel against closed forms and autograd, and frozen training against training at small rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import flds
from flds.frozen.quadrature import product_means
from flds.training.activations import ACTIVATIONS, get_activation
from flds.training.branches import SingleMatrix
from tests.conftest import MARGIN, one_sample, three_samples
from validation.closed_forms import pair_means, tangent_kernels

POINTS = np.random.default_rng(2).standard_normal((4, 5))


class Same(SingleMatrix):
    """One matrix, for which particles are used."""


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_means_of_products(name):
    """Those of relu are exact here, where quadrature in two variables is good to 1e-5, and 1e-3 for its derivative."""
    phi, covariance = get_activation(name), POINTS @ POINTS.T / 3
    for derivative, kinked in ((False, 1e-5), (True, 1e-3)):
        found = product_means(phi, derivative, covariance)
        expected = pair_means(phi.derivative if derivative else phi.value, covariance)
        np.testing.assert_allclose(found, expected, rtol=0, atol=kinked if name == "relu" else 1e-10)


def test_means_where_states_are_zero_or_equal():
    covariance = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    for name in ("tanh", "relu", "softplus"):
        found = product_means(get_activation(name), False, covariance)
        np.testing.assert_allclose(found[0], found[1], rtol=1e-9)
        np.testing.assert_allclose(found[0, 1], found[0, 0], rtol=1e-7)
        assert found[2, 2] == pytest.approx(get_activation(name).value(np.zeros(1))[0] ** 2)


CORRELATIONS = [-0.9999, -0.5, 0.3, 0.9, 0.999, 0.99999]


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_means_of_functions_with_kinks_and_of_fast_ones(correlation):
    """relu, given as one's own, against its closed form, and sin(20 z) against its exact mean.

    Smoothing leaves the square of the step, 1e-3, times the jump of φ' or, of φ', over what parts the two.
    """
    covariance = np.array([[2.0, 2 * correlation], [2 * correlation, 2.0]])
    relu = get_activation("relu")
    own = flds.Activation(relu.value, relu.derivative, name="relu")  # a name decides nothing
    for derivative, tolerance in ((False, 1e-7), (True, 1e-5)):
        exact = product_means(relu, derivative, covariance)
        found = product_means(own, derivative, covariance)
        np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance)
    size = 20.0
    found = product_means(get_activation("sin"), False, size**2 / 2 * covariance)[0, 1]
    exact = 0.5 * (np.exp(-(size**2) * (1 - correlation)) - np.exp(-(size**2) * (1 + correlation)))
    assert found == pytest.approx(exact, abs=1e-7)


def test_an_activation_is_what_it_does_and_not_its_name():
    named = flds.Activation(np.tanh, lambda z: 1 - np.tanh(z) ** 2, name="relu")
    found = flds.tangent_kernel(replace(three_samples(), activation=named), POINTS, depth=2)
    np.testing.assert_allclose(found, flds.tangent_kernel(three_samples("tanh"), POINTS, depth=2), atol=1e-9)


def test_the_untrained_kernel_of_two_layers_knows_no_rule():
    asked = {"depth": 2, "particles": 300}
    problem = three_samples(residual="two_layer", normalization="rms_norm")
    plain, adam = (flds.tangent_kernel(replace(problem, optimizer=rule), POINTS, **asked) for rule in ("sgd", "adam"))
    np.testing.assert_array_equal(plain, adam)


# E f² and the kernels at L → ∞, from the exact answers
@pytest.mark.parametrize(
    ("activation", "tied", "independent"),
    [("identity", 8.15484549, 5.43656366), ("tanh", 3.49832288, 2.85579985), ("relu", 4.12180318, 3.29744254),
     ("erf", 3.84378687, 3.00888463)],
)  # fmt: skip
def test_kernels_of_infinite_depth(activation, tied, independent):
    """Extrapolated in 1/L from 32, 64 and 128 layers."""
    problem = one_sample(activation)
    for weights, expected in (("tied", tied), ("independent", independent)):
        found = flds.tangent_kernel(problem, [[1.0]], backward_weights=weights)
        assert found[0, 0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", ["tied", "independent"])
def test_kernels_between_inputs(weights):
    problem = three_samples("gelu", horizon=1.5)
    found = flds.tangent_kernel(problem, POINTS, POINTS[:2], backward_weights=weights, depth=6)
    expected = tangent_kernels("gelu", POINTS, 1.5, 6, weights)
    np.testing.assert_allclose(found, expected[:, :2], rtol=1e-10)
    np.testing.assert_allclose(
        flds.tangent_kernel(problem, POINTS, backward_weights=weights, depth=6), expected, rtol=1e-10
    )


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("exponent", [0.5, 1])
def test_kernels_of_particles_are_those_of_quadrature(weights, exponent):
    """Over eight seeds, with the deviations of all groups."""
    rest = {"branch_exponent": exponent, "standard_deviations": {"input": 0.8, "hidden": 1.2, "readout": 0.7}}
    exact = flds.tangent_kernel(three_samples(**rest), POINTS, backward_weights=weights, depth=4)
    sized = three_samples(residual=Same(), **rest)
    found = np.array([
        flds.tangent_kernel(sized, POINTS, backward_weights=weights, depth=4, particles=4000, seed=seed)
        for seed in range(8)
    ])  # fmt: skip
    error = found.std(axis=0, ddof=1) / 8**0.5
    assert np.all(np.abs(found.mean(axis=0) - exact) <= MARGIN * error + 2e-3 * np.abs(exact).max())


@pytest.mark.parametrize("operator", ["lazy", "dense"])
def test_kernels_of_trained_networks_are_those_of_autograd(operator):
    """Of a dense network of two layers and two outputs, by torch; a lazy one repeats what dense coordinates give."""
    torch = pytest.importorskip("torch")
    from validation import networks

    problem = flds.TrainingProblem(
        POINTS, POINTS[:, :2], steps=2, residual="two_layer", hidden_ratio=0.5, normalization="layer_norm", gain=True,
        bias=True, branch_exponent=0.5, horizon=2.0,
    )  # fmt: skip
    options = {"width": 40, "depth": 2, "keep_state": True, "dtype": "float64"}
    run = flds.simulate_resnet(problem, operator=operator, **options)
    found = flds.tangent_kernel(run, POINTS[:3])
    assert found.shape == (3, 3, 2, 2)
    if operator == "lazy":  # symmetric and positive, and on what was trained on what predictions move by
        matrix = found.transpose(0, 2, 1, 3).reshape(6, 6)
        np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-9 * np.abs(matrix).max())
        assert np.linalg.eigvalsh(matrix).min() > 0
        return
    network = networks.ResNet(problem, 40, 2, generator=torch.Generator().manual_seed(0))
    state = {name: item.values for name, item in run.states[0].items()}
    with torch.no_grad():
        network.input_weights.copy_(torch.tensor(state["input_weights"].T))
        network.readout.copy_(torch.tensor(state["readout"]))
        for layer, block in enumerate(network.blocks):
            for name, matrix in block.matrices.items():
                weights = state[f"layer_{layer}_{name}_weights"]
                matrix.weight.copy_(torch.tensor(weights * weights.shape[1] ** 0.5))
            for name, vector in block.vectors.items():
                vector.copy_(torch.tensor(state[f"layer_{layer}_{name}"][0]))
    outputs = network(torch.tensor(POINTS[:3]))
    parameters = list(network.parameters())
    inner = {id(matrix.weight): matrix.weight.shape[1] for matrix in network.matrices}  # rates of W: its inputs, else n
    rows = [[torch.autograd.grad(outputs[a, c], parameters, retain_graph=True) for c in range(2)] for a in range(3)]
    for a, c, b, e in np.ndindex(3, 2, 3, 2):
        products = sum(
            inner.get(id(parameter), 40) * float((one * other).sum())
            for parameter, one, other in zip(parameters, rows[a][c], rows[b][e], strict=True)
        )
        assert found[a, b, c, e] == pytest.approx(products, rel=1e-9, abs=1e-9)


FROZEN = {
    "plain": {},
    "momentum": {"optimizer": {"hidden": flds.SGD(momentum=0.5), "readout": flds.SGD(momentum=0.8, nesterov=True)}},
    "schedule": {"learning_rate": {"hidden": lambda k: 1.0 / (1 + k), "input": 0.3, "readout": 0.7}},
    # all samples come first, so that their outputs are those of what is remembered from the start
    "batches": {"batch_order": [[0, 1, 2], [2, 2, 0], [1, 0, 1], [0, 2, 2]]},
    "clipped": {"gradient_clip": 0.8},
}


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("exponent", [0.5, 1])
@pytest.mark.parametrize("name", FROZEN)
def test_training_at_small_rates_is_frozen_at_first_order(name, exponent, weights):
    """The difference over the rate falls by half with the rate; fluctuations are the same at both and cancel."""
    slow = []
    for rate in (4e-3, 2e-3):
        rest = dict(FROZEN[name])
        rates = rest.pop("learning_rate", 1.0)
        named = rates if isinstance(rates, dict) else dict.fromkeys(("input", "hidden", "readout"), rates)
        scaled = {
            group: (lambda k, one=one, rate=rate: rate * one(k)) if callable(one) else rate * one
            for group, one in named.items()
        }
        problem = three_samples("tanh", steps=4, learning_rate=scaled, branch_exponent=exponent, horizon=1.5, **rest)
        frozen = flds.solve_frozen(problem, backward_weights=weights, depth=4).outputs[1:]
        found = flds.solve_flds(
            problem, particles=4000, depth=4, backward_weights=weights, dtype="float64", recorded_samples=[0, 1, 2]
        ).outputs
        slow.append((found[1:] - found[0] - frozen) / rate)
    # what is left at rate 0 is statistical: extrapolated, it is small against the kernel, of order 1 to 10
    rest = 2 * slow[1] - slow[0]
    assert np.abs(rest).max() < 0.15
    assert np.abs(frozen).max() / rate > 0.5


def test_a_kernel_that_is_wrong_by_its_hidden_part_is_told(monkeypatch):
    problem = three_samples("tanh", steps=1, learning_rate=2e-3)
    found = flds.solve_flds(problem, particles=4000, depth=4, dtype="float64").outputs
    monkeypatch.setattr("flds.frozen.kernel.product_means", lambda phi, derivative, c: 0.0 * c)
    frozen = flds.solve_frozen(problem, depth=4).outputs[1]
    assert np.abs((found[1] - found[0] - frozen) / 2e-3).max() > 0.3


def test_a_frozen_solution_is_one_like_others(classes, tmp_path):
    run = flds.solve_frozen(classes, depth=4)
    assert run.test_accuracy.shape == run.steps.shape
    read = flds.load(run.save(tmp_path / "run.nc"))
    np.testing.assert_array_equal(flds.rerun(read).test_outputs, run.test_outputs)
    assert "tangent kernel of the untrained network, by quadrature" in read.summary()
    read.plot(tmp_path / "run.png")
    with pytest.raises(ValueError, match="solve_frozen keeps no network to go on with"):
        flds.resume(read, 1)
    kernel = run.kernel
    np.testing.assert_allclose(kernel, flds.tangent_kernel(classes, classes.x, depth=4), rtol=1e-12)
    with pytest.warns(RuntimeWarning, match="training diverged at step"):
        assert flds.solve_frozen(three_samples(learning_rate=100.0, steps=30)).status == "diverged"


def trained(**rest):
    problem = three_samples(steps=1, **{"residual": "two_layer"} | rest if rest else {})
    return flds.simulate_resnet(problem, width=60, depth=2, keep_state=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: flds.solve_frozen(three_samples(weight_decay={"hidden": 0.1})), ValueError,
         "^the kernel is frozen only where steps are sums of gradients: weight decay of hidden shrinks the weights"),
        (lambda: flds.solve_frozen(three_samples(optimizer="muon")), ValueError,
         r"Muon\(.*\) of hidden makes other steps of them; use flds\.SGD\(\)$"),
        (lambda: flds.solve_frozen(three_samples(optimizer={"input": "adam"})), ValueError, r"Adam\(.*\) of input"),
        (lambda: flds.solve_frozen(3), TypeError, r"^problem must be a flds\.TrainingProblem, got int$"),
        (lambda: flds.solve_frozen(three_samples(), depth=0), ValueError, "^depth must be"),
        (lambda: flds.solve_frozen(three_samples(), backward_weights="both"), ValueError, "^backward_weights must"),
        (lambda: flds.tangent_kernel(3, POINTS), TypeError, "^tangent_kernel takes a flds.TrainingProblem"),
        (lambda: flds.tangent_kernel(three_samples(), POINTS[0]), ValueError, r"^a must have shape"),
        (lambda: flds.tangent_kernel(three_samples(), POINTS, POINTS[:, :2]), ValueError, r"^b must have as many col"),
        (lambda: flds.tangent_kernel(flds.simulate_resnet(three_samples(steps=1), width=90, depth=2), POINTS),
         ValueError,
         "^tangent_kernel needs a solution with keep_state=True$"),
        (lambda: flds.tangent_kernel(flds.solve_frozen(three_samples()), POINTS), ValueError,
         "^tangent_kernel needs a solution of solve_flds or simulate_resnet$"),
        (lambda: flds.tangent_kernel(
            flds.simulate_resnet(three_samples(steps=1), width=90, depth=2, keep_state=True,
                                 backward_weights="independent"), POINTS), ValueError,
         '^tangent_kernel of a trained network needs backward_weights "tied"'),
        (lambda: flds.tangent_kernel(trained(), POINTS, backward_weights="independent"), ValueError,
         "^backward_weights is of an untrained network, and a solution has its own; leave it out$"),
        (lambda: flds.tangent_kernel(trained(), POINTS, depth=3), ValueError, "^depth is of an untrained network"),
        (lambda: flds.tangent_kernel(trained(), POINTS, problem=three_samples("relu", steps=1)), ValueError,
         "^problem must be that of the solution, but differs in its activation$"),
        (lambda: flds.tangent_kernel(trained(), POINTS, problem=3), TypeError, "^problem must be a flds.TrainingPro"),
        (lambda: flds.tangent_kernel(three_samples(), POINTS, problem=three_samples()), ValueError, "^problem= is for"),
        (lambda: flds.tangent_kernel(three_samples(), POINTS, particles=0), ValueError, "^particles must be at least"),
        (lambda: flds.solve_frozen(three_samples(), seed=-1), ValueError, "^seed must be"),
        (lambda: flds.tangent_kernel(trained(normalization="rms_norm"), 0 * POINTS), ValueError,
         "^a must not be zero in a normalized network, whose features would be zero, got row 0$"),
        (lambda: trained(normalization="rms_norm").predict(0 * POINTS), ValueError, "^inputs must not be zero in a n"),
        (lambda: flds.solve_frozen(three_samples()).predict(POINTS), ValueError, "^solve_frozen keeps no network"),
        (lambda: flds.resume(flds.solve_frozen(three_samples()), 2), ValueError, "^solve_frozen keeps no network"),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message) as found:
        call()
    assert "\n" not in str(found.value)
