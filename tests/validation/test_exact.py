"""Faults planted in the engine and in the Mean ODE, which the comparison with plain NumPy must refute."""

from __future__ import annotations

import numpy as np
import pytest

import flds
import flds.training.assemble as assembled
from flds.mean_ode import losses as mean_losses
from flds.mean_ode.network import Dynamics, MeanDynamics
from flds.results import replicates
from flds.training import losses
from flds.training.branches import SingleMatrix
from flds.training.narrow import NarrowPasses
from flds.training.network import Network
from flds.training.optimizers import Gradient
from flds.training.records import kernels
from solvers.ensemble.random import Stream
from solvers.matrices.dense import DenseOperator
from solvers.matrices.lazy import LazyOperator
from validation import exact, plain
from validation.claims import Scale

QUICK = Scale("quick")
SECTIONS = {
    "training": exact.exact_training, "mean ode": exact.exact_mean_ode, "formulas": exact.formulas,
    "weights": exact.dense_weights,
}  # fmt: skip


def test_nothing_is_refuted():
    claims = [claim for section in SECTIONS.values() for claim in section(QUICK)]
    assert len(claims) >= 42
    assert {claim.verdict for claim in claims} == {"confirmed"}


BACKWARD, MULTIPLY = Network.backward, LazyOperator._multiply
UPDATE, PULL, GATE = LazyOperator.update, flds.GatedLinearUnit.pull, flds.GatedLinearUnit.value


def squared_norm(self, forward, slopes, step):
    """With several outputs the weight ‖L'‖² instead of ‖L'‖."""
    result = BACKWARD(self, forward, slopes, step)
    result.weights = result.weights if slopes.shape[1] == 1 else result.weights**2
    return result


def steeper(method, factor):
    original = method

    def slope(self, outputs, targets):
        return factor * original(self, outputs, targets)

    return slope


def without_transpose(self, g, states, active):
    gradients, variance = [], []
    for one, h in zip(self.operators[::-1], states[-2::-1], strict=True):
        pulled = g * self.share
        g = g + self.scale * self.phi.derivative(h[active]) * (one.backward_weights @ pulled.T).T
        gradients.append({"hidden": pulled})
        variance.append(float(np.mean(g**2)))
    return [g], gradients, variance


def forgetful_probes(self, *arguments):
    if arguments[-1] is not None:  # states of a pass that is remembered
        return MULTIPLY(self, *arguments)
    whole, self._pairs = self._pairs, self._pairs * np.array([0.9, 1.0])[:, None, None]
    try:
        return MULTIPLY(self, *arguments)
    finally:
        self._pairs = whole


def larger_kernels(coordinates):
    return 1.5 * kernels(coordinates)


def kernels_of_the_step_before(coordinates):
    return kernels([coordinates[0], *coordinates[:-1]])


def unrooted(self, heads):
    return original_weights(self, heads._replace(q=heads.q / np.sqrt(self.key_dimension)))


original_weights = flds.Attention._weights


def doubled(self, h, z):
    return 2 * GATE(self, h, z)


def doubled_pull(self, h, b, z):
    back, gradients = PULL(self, h, b, z)
    return 2 * back, {name: 2 * value for name, value in gradients.items()}


def slope_of_the_layer_above(self, g, h, tape, layer):
    """φ' at the state after this layer's step, or what is like it: the state itself with the branch added."""
    later = layer.residual.map(lambda x: x + 0.1 * layer.phi.value(x), h)
    pull = original_backward(self, g, h, tape, layer)
    return pull._replace(slope=layer.residual.map(layer.phi.derivative, later))


original_backward = SingleMatrix.backward


def second_moment_of_all_but_one(self, x):
    return SECOND_MOMENT(self, x[:1]) if len(x) else SECOND_MOMENT(self, x)


SECOND_MOMENT = Network._second_moment


def counted_backwards(self, outputs, targets):
    return 1 - ACCURACY(self, outputs, targets)


ACCURACY = losses.CrossEntropy.accuracy


def travel_of_the_node_before(self, parameter):
    return np.roll(TRAVEL(self, parameter), 1)


TRAVEL = Dynamics.travel


def first_rate_always(self, inputs, slopes, forward, backward, step):
    UPDATE_NETWORK(self, inputs, slopes, forward, backward, 0)


def losses_of_the_first_samples(problem, steps, recorded, *outputs):
    return OUTPUT_VARIABLES(problem, steps, list(range(len(recorded))), *outputs)


def with_replacement(self):
    shape = (self.steps + 1, self.batch)
    return np.random.default_rng(self.batch_seed).integers(0, self.samples, shape)


def mean_over_outputs(self, h, targets=None):
    return LOSS_GRADIENT(self, h, targets) / self.outputs


def only_the_last_block(self, work, node, h, *rest):
    blocks, whole = self.problem.blocks, TOTAL(self, work, node, h, *rest)
    if len(blocks) == 1:
        return whole
    object.__setattr__(self.problem, "blocks", blocks[:1])
    try:
        return whole - TOTAL(self, work, node, h, *rest)
    finally:
        object.__setattr__(self.problem, "blocks", blocks)


def narrower(self, weights, noise, stream, layer):
    DRAW(self, weights, noise, stream, layer)
    weights *= 0.95


def same_in_all_layers(self, weights, noise, stream, layer):
    DRAW(self, weights, noise, stream, 0)


def copy_that_begins_equal(self, weights, noise, stream, layer):
    DRAW(self, weights, noise, Stream.WEIGHTS, layer)


def smaller_errors(samples):
    mean, error = MEAN_AND_ERROR(samples)
    return mean, error / np.sqrt(len(samples))


UPDATE_NETWORK, OUTPUT_VARIABLES = Network.update, assembled.output_variables
LOSS_GRADIENT, TOTAL = flds.MeanFieldProblem.loss_gradient, Dynamics._total
DRAW, MEAN_AND_ERROR = DenseOperator._draw, replicates.mean_and_error


class StepBefore:
    """Coordinates of the gradients of the step before, where there is one."""

    def __init__(self):
        self.last = {}

    def __call__(self):
        def update(operator, gradients, features):
            before = self.last.get(id(operator), gradients)
            self.last[id(operator)] = gradients
            old = np.zeros_like(gradients)
            old[:, : before.shape[1]] = before[:, : gradients.shape[1]]
            UPDATE(operator, old, features)

        return update


@pytest.mark.parametrize(
    ("target", "name", "fault", "section"),
    [
        pytest.param(Network, "backward", squared_norm, "training", id="weights are squared norms"),
        *(
            pytest.param(kind, "derivative", steeper(kind.derivative, 1.3), "training", id=f"slope of {kind.__name__}")
            for kind in (losses.CrossEntropy, losses.Logistic, losses.Squared)
        ),
        pytest.param(losses.CrossEntropy, "value", steeper(losses.CrossEntropy.value, 1.3), "training",
                     id="cross-entropy"),
        pytest.param(losses.CrossEntropy, "accuracy", counted_backwards, "training", id="accuracy"),
        *(
            pytest.param(kind, "slope", steeper(kind.slope, 1.5), "formulas", id=f"slope of {kind.__name__}, Mean ODE")
            for kind in (mean_losses.CrossEntropy, mean_losses.Logistic, mean_losses.MeanSquared)
        ),
        pytest.param(NarrowPasses, "backward", without_transpose, "training", id="dense without its transpose"),
        pytest.param(LazyOperator, "_multiply", forgetful_probes, "training", id="probes see 90 % of what was learned"),
        pytest.param(assembled, "kernels", larger_kernels, "training", id="kernels times 1.5"),
        pytest.param(assembled, "kernels", kernels_of_the_step_before, "training",
                     id="kernels of the step before"),
        pytest.param(Network, "_second_moment", second_moment_of_all_but_one, "training",
                     id="variances of one sample alone"),
        pytest.param(flds.Attention, "_weights", unrooted, "formulas", id="attention divided by d_k"),
        pytest.param(Dynamics, "travel", travel_of_the_node_before, "mean ode", id="travel of the node before"),
        pytest.param(MeanDynamics, "factor", 1.0, "mean ode", id="gradients not divided by alpha"),
        pytest.param(mean_losses.CrossEntropy, "slope", steeper(mean_losses.CrossEntropy.slope, 1.5), "mean ode",
                     id="slope of the Mean ODE's cross-entropy in training"),
        pytest.param(flds.GatedLinearUnit, "value", doubled, "formulas", id="gated unit doubled"),
        pytest.param(SingleMatrix, "backward", slope_of_the_layer_above, "training", id="derivative of a later state"),
        pytest.param(LazyOperator, "update", StepBefore()(), "training", id="gradients of the step before"),
        pytest.param(Network, "update", first_rate_always, "training", id="rate of the first step in all"),
        pytest.param(assembled, "output_variables", losses_of_the_first_samples, "training",
                     id="losses of other samples than recorded"),
        pytest.param(flds.TrainingProblem, "batches", property(with_replacement), "training",
                     id="batches with replacement"),
        pytest.param(replicates, "mean_and_error", smaller_errors, "training", id="errors over n instead of its root"),
        pytest.param(flds.MeanFieldProblem, "loss_gradient", mean_over_outputs, "mean ode",
                     id="mean over outputs twice"),
        pytest.param(Dynamics, "_total", only_the_last_block, "mean ode", id="one of two blocks"),
        pytest.param(DenseOperator, "_draw", narrower, "weights", id="dense weights of variance 0.9"),
        pytest.param(DenseOperator, "_draw", same_in_all_layers, "weights", id="dense weights the same in all layers"),
        pytest.param(DenseOperator, "_draw", copy_that_begins_equal, "weights", id="copy that begins equal"),
        pytest.param(Gradient, "batch", property(lambda self: 1, lambda self, value: None), "training",
                     id="sum over the batch instead of the mean"),
    ],
)  # fmt: skip
def test_planted_faults_are_refuted(target, name, fault, section, monkeypatch):
    monkeypatch.setattr(target, name, fault)
    if fault is doubled:  # consistently
        monkeypatch.setattr(target, "pull", doubled_pull)
    assert any(claim.verdict == "refuted" for claim in SECTIONS[section](QUICK))


@pytest.mark.parametrize("name", plain.PHI)
def test_slopes_of_the_plain_activations_are_their_differences(name):
    x = np.linspace(-3.1, 3.2, 40)  # without 0, where relu has a kink
    differences = (plain.PHI[name](x + 1e-6) - plain.PHI[name](x - 1e-6)) / 2e-6
    np.testing.assert_allclose(plain.slope(name, x), differences, rtol=0, atol=1e-8)


@pytest.mark.parametrize("loss", ["squared", "logistic", "cross_entropy"])
def test_slopes_and_values_of_the_plain_losses(loss):
    f = np.array([0.3]) if loss == "logistic" else np.array([0.3, -0.5, 1.2])
    y = {"squared": np.array([1.0, 0.0, -1.0]), "logistic": -1.0, "cross_entropy": 2}[loss]
    value = {
        "squared": lambda f: 0.5 * np.sum((f - y) ** 2), "logistic": lambda f: np.log(1 + np.exp(-y * f[0])),
        "cross_entropy": lambda f: np.log(np.exp(f).sum()) - f[2],
    }[loss]  # fmt: skip
    differences = [(value(f + d) - value(f - d)) / 2e-6 for d in 1e-6 * np.eye(len(f))]
    np.testing.assert_allclose(plain.loss_slope(loss, f, y), differences, rtol=0, atol=1e-9)
    assert plain.loss_value(loss, f, y) == pytest.approx(value(f), rel=1e-14)
    assert plain.is_right("cross_entropy", np.array([0.3, -0.5, 1.2]), 2)
    assert not plain.is_right("logistic", np.array([0.3]), -1.0)
