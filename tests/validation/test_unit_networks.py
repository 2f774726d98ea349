"""Finite ResNets of paper H in torch, and the derivatives of blocks against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import flds
from flds.mean_ode.draws import draw_units
from flds.mean_ode.losses import LOSSES
from validation import plain_mean_ode
from validation.derivatives import check_block
from validation.unit_networks import _loss, train_units, unit_field

GENERATOR = np.random.default_rng(5)
TOKENS, TARGETS = GENERATOR.normal(size=(3, 4, 5)), GENERATOR.normal(size=(3, 4, 5))
RATES, DECAY = {"u": np.array([0.8, 0.4, 0.0, 0.6]), "v": np.full(4, 0.5)}, {"u": 0.2, "v": 0.1}
BLOCKS = [
    *(flds.TwoLayerPerceptron(name) for name in ("tanh", "gelu", "erf", "softplus", "silu", "sin", "identity", "relu")),
    flds.GatedLinearUnit("silu"), flds.MatrixAfterActivation("softplus"), flds.MatrixBeforeActivation("erf"),
    flds.Attention(1), flds.Attention(3, causal=True),
]  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.name}")
def test_every_derivative_agrees_with_autograd(block):
    h = TOKENS.reshape(-1, 5) if block.tokenwise else TOKENS
    b = GENERATOR.normal(size=h.shape)
    z = {name: GENERATOR.normal(size=(*shape, 7)) for name, shape in block.shapes(5).items()}
    change = {name: GENERATOR.normal(size=a.shape) for name, a in z.items()}
    field = unit_field(block)

    def tensor(a):
        return torch.tensor(a)[None]

    th, tz = tensor(h).requires_grad_(), {name: tensor(a).requires_grad_() for name, a in z.items()}
    value = field(th, tz)
    first = torch.autograd.grad((value * tensor(b)).sum(), [th, *tz.values()])
    # the derivative along `change`, as the derivative of a product with the gradient
    weight = torch.zeros_like(value).requires_grad_()
    slopes = torch.autograd.grad(field(th, tz), list(tz.values()), weight, create_graph=True)
    product = sum((slope * tensor(a)).sum() for slope, a in zip(slopes, change.values(), strict=True))
    along = torch.autograd.grad(product, weight, create_graph=True)[0]
    mixed = torch.autograd.grad((along * tensor(b)).sum(), th, allow_unused=True, materialize_grads=True)[0]
    back, gradient = block.pull(h, b, z)
    bent, again = block.pull_tangent(h, b, z, change)
    pairs = [(value, block.value(h, z)), (first[0], back), (along, block.tangent(h, z, change)), (mixed, bent)]
    pairs += [(expected, gradient[name]) for expected, name in zip(first[1:], z, strict=True)]
    pairs += [(expected, again[name]) for expected, name in zip(first[1:], z, strict=True)]
    for expected, found in pairs:
        assert np.max(np.abs(expected.detach().numpy()[0] - found)) < 1e-10


SMOOTH = [block for block in BLOCKS if getattr(getattr(block, "rho", None), "name", "") != "relu"]


@pytest.mark.parametrize("block", SMOOTH, ids=lambda block: block.name)
def test_differences_of_values_confirm_built_in_blocks(block):
    assert max(check_block(block).values()) < 1e-7


def test_a_wrong_derivative_is_found():
    class Wrong(flds.TwoLayerPerceptron):
        def pull(self, h, b, z):
            back, gradient = super().pull(h, b, z)
            return back, gradient | {"u": 1.01 * gradient["u"]}

    with pytest.raises(ValueError, match="gradient of the block 'two_layer_perceptron' is off"):
        check_block(Wrong())


def test_a_wrong_descent_is_found():
    class Wrong(flds.TwoLayerPerceptron):
        def descend(self, h, b, z, steps):
            return super().descend(h, b, z, steps | {"v": 0.99 * steps["v"]})

    with pytest.raises(ValueError, match="descend of the block 'two_layer_perceptron' is off"):
        check_block(Wrong())


def test_a_changed_perceptron_trains_with_its_own_derivatives():
    class Still(flds.TwoLayerPerceptron):
        def pull(self, h, b, z):
            back, gradient = super().pull(h, b, z)
            return back, {name: 0 * a for name, a in gradient.items()}

    x, y = np.random.default_rng(0).normal(size=(2, 3, 4))
    still = flds.solve_mean_ode(flds.MeanFieldProblem(x, y, block=Still(), steps=3), units=64, depth=4)
    assert np.array_equal(still.outputs[-1], still.outputs[0])


def test_what_is_no_block_is_found():
    class Mean(flds.TwoLayerPerceptron):
        def value(self, h, z):
            return super().value(h, z) / z["u"].shape[-1]

        def pull(self, h, b, z):
            back, gradient = super().pull(h, b / z["u"].shape[-1], z)
            return back, gradient

    class Mixing(flds.MatrixAfterActivation):
        def value(self, h, z):
            return super().value(h, z) + super().value(h.mean(0, keepdims=True), z)

        def pull(self, h, b, z):
            back, gradient = super().pull(h, b, z)
            mean = h.mean(0, keepdims=True)
            mixed, more = super().pull(mean, b.sum(0, keepdims=True), z)
            return back + mixed / len(h), {"W": gradient["W"] + more["W"]}

        tangent = flds.Block.tangent
        pull_tangent = flds.Block.pull_tangent

    class Doubled(flds.MatrixBeforeActivation):
        def covector(self, h, b, z):
            return 2 * super().covector(h, b, z)

    unsigned = flds.TwoLayerPerceptron("silu")
    unsigned.flipped = ("u",)
    for block, fault in ((Mean(), "sum"), (Mixing(), "rows"), (unsigned, "flip"), (Doubled(), "covector")):
        with pytest.raises(ValueError, match=f"{fault} of the block"):
            check_block(block)


@pytest.mark.parametrize("kind", ["two_layer_perceptron", "matrix_before_activation", "transformer"])
def test_networks_follow_the_equations_of_training(kind):
    p = flds.MeanFieldProblem(TOKENS, TARGETS, block=kind, alpha=1.5, steps=2)
    found, expected = trained_alike(p, lambda step, name, z, gradient: z - p.rate(name, 0) * gradient)
    assert np.max(np.abs(found - expected)) < 1e-12


@pytest.mark.parametrize(("rule", "move"), [
    (flds.SGD(momentum=0.8), plain_mean_ode.momentum(RATES, DECAY, 0.8)),
    (flds.SGD(momentum=0.8, nesterov=True), plain_mean_ode.momentum(RATES, DECAY, 0.8, nesterov=True)),
    (flds.Adam(betas=(0.8, 0.9), epsilon=1e-3), plain_mean_ode.adam(RATES, DECAY, (0.8, 0.9), 1e-3)),
])  # fmt: skip
def test_networks_follow_rules_schedules_decay_and_batches(rule, move):
    p = flds.MeanFieldProblem(TOKENS, TARGETS, alpha=1.5, steps=4, optimizer=rule, learning_rates=RATES,
                              weight_decay=DECAY, batch_order=[[0], [1], [1], [0]])  # fmt: skip
    found, expected = trained_alike(p, move)
    assert np.max(np.abs(found - expected)) < 1e-12
    assert np.max(np.abs(found - found[0])) > 0.05


def test_rules_without_a_counterpart_are_refused():
    class Own(flds.Optimizer):
        def step(self, gradient, state, rate):
            return -rate * gradient, state

    p = flds.MeanFieldProblem(TOKENS, TARGETS, optimizer=Own(), learning_rates=0.1, steps=2)
    with pytest.raises(ValueError, match="networks of units are trained by SGD and Adam, got "):
        train_units(p, hidden_width=4, depth=2)


def trained_alike(p, move):
    """Outputs of the networks, and those of H-(1), (7) and (8), written out."""
    layers, width = 3, 4
    initial = draw_units(p, layers, width, 1, "iid")
    runs = train_units(p, hidden_width=width, depth=layers, record_every=1,
                       initial=[{name: a[None] for name, a in z.items()} for z in initial])  # fmt: skip
    units = [{name: a.copy() for name, a in z.items()} for z in initial]
    outputs = []
    for step in range(p.steps + 1):
        states = [p.x]
        for layer in range(layers):
            states.append(states[-1] + p.alpha / (layers * width) * total(p, units, layer, states[-1]))
        outputs.append(states[-1])
        if step == p.steps:
            return runs.outputs[0], np.array(outputs)
        batch = np.arange(p.samples) if p.batches.full else p.batches.table[step]
        b = (states[-1][batch] - p.y[batch]) / p.dimension
        rows = b.size / p.dimension
        gradients = [{name: np.zeros_like(a) for name, a in z.items()} for z in units]
        for layer in reversed(range(layers)):
            back = np.zeros_like(b)
            for block, z, gradient in zip(p.blocks, units, gradients, strict=True):
                shape = (-1, p.dimension) if block.tokenwise else b.shape
                at = {name: a[layer] for name, a in z.items()}
                pulled, change = block.pull(states[layer][batch].reshape(shape), b.reshape(shape), at)
                back += pulled.reshape(b.shape)
                for name, values in change.items():
                    gradient[name][layer] = values / (p.alpha * rows)
            b = b + p.alpha / (layers * width) * back
        for z, gradient in zip(units, gradients, strict=True):
            for name in z:
                z[name] = move(step, name, z[name], gradient[name])


def total(p, units, layer, h):
    parts = []
    for block, z in zip(p.blocks, units, strict=True):
        flat = h.reshape(-1, p.dimension) if block.tokenwise else h
        parts.append(block.value(flat, {name: a[layer] for name, a in z.items()}).reshape(h.shape))
    return sum(parts)


def test_seeds_in_one_call_are_those_of_several():
    p = flds.MeanFieldProblem(TOKENS[:, 0], TARGETS[:, 0], steps=3)
    together = train_units(p, hidden_width=2, depth=5, seeds=2, record_every=1)
    assert together.outputs.shape == (2, 4, 3, 5)
    assert not np.allclose(together.outputs[0, -1], together.outputs[1, -1])
    alone = train_units(p, hidden_width=2, depth=5, record_every=1)
    assert np.allclose(alone.outputs[0], together.outputs[0], rtol=0, atol=1e-12)
    assert np.allclose(together.loss[0], [p.losses(f, p.y).mean() for f in together.outputs[0]])
    assert np.all(together.travel("u") > 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_their_slopes_are_those_of_torch(loss):
    targets = {"mean_squared": TARGETS, "logistic": np.sign(TARGETS), "cross_entropy": np.argmax(TARGETS, axis=-1)}
    p = flds.MeanFieldProblem(TOKENS, targets[loss], loss=loss, steps=0)
    f = torch.tensor(2 * TARGETS[None] + 0.3, requires_grad=True)
    mean = _loss(p, f, p.y)
    assert mean.item() == pytest.approx(p.losses(f[0].detach().numpy(), p.y).mean(), rel=1e-14)
    slope = torch.autograd.grad(mean, f)[0].numpy()[0]
    np.testing.assert_allclose(
        p.loss_gradient(f[0].detach().numpy()), 12 * slope, rtol=1e-12
    )  # of the mean over 12 tokens


def test_networks_come_closer_to_the_limit_as_they_grow():
    p = flds.MeanFieldProblem(TOKENS[:, 0], TARGETS[:, 0], steps=5)
    limit = flds.solve_mean_ode(p, units=4096, depth=16).outputs[-1]
    errors = []
    for depth in (8, 128):
        runs = train_units(p, hidden_width=1, depth=depth, seeds=40)
        errors.append(np.mean((runs.outputs[:, -1] - limit) ** 2, axis=(1, 2)))
    ratio = errors[0].mean() / errors[1].mean()
    relative = np.sqrt(sum((e.std(ddof=1) / e.mean()) ** 2 / len(e) for e in errors))
    assert abs(np.log(ratio / 16)) < 4 * relative + 0.5  # mean squares fall like 1/(LM); L = 8 is not yet large


def test_blocks_without_a_counterpart_are_refused():
    class Own(flds.TwoLayerPerceptron):
        name = "own"

    p = flds.MeanFieldProblem(TOKENS[:, 0], TARGETS[:, 0], block=Own())
    with pytest.raises(ValueError, match="or have a method torch_field"):
        train_units(p, hidden_width=1, depth=1)
