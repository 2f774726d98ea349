"""Learning rates by width, optimisers that Gaussian matrices can have, and the check of coordinates."""

from __future__ import annotations

import copy
import functools

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn

import flds.nn
from flds.nn import GaussianLinear, check_optimizer, coordinate_check, dense_linear, gaussian, parameter_groups
from tests.nn.measured import measured
from tests.nn.networks import X, Y, matrices, pair, train

mpl.use("Agg")


def network(width=20):
    return flds.nn.TwoLayerNetwork(5, 1, width, 2, linear=gaussian(8), hidden_ratio=2.0)


def test_groups_have_rates_for_their_width():
    model = network()
    one, other = parameter_groups(model, 0.3, 0.2)
    assert [one["name"], other["name"]] == ["matrices", "vectors"]
    assert (one["lr"], one["weight_decay"], other["lr"], other["weight_decay"]) == (0.3, 0.2, 6.0, 0.01)
    assert {id(p) for p in one["params"]} == {id(layer.learned) for layer in matrices(model)}
    assert len(one["params"]) + len(other["params"]) == len(list(model.parameters()))
    assert parameter_groups(model, 0.3, width=7)[1]["lr"] == pytest.approx(2.1)
    dense = flds.nn.ResidualMLP(5, 1, 20, 2, linear=functools.partial(dense_linear, bias=False))
    assert len(parameter_groups(dense, 0.3, width=20)[0]["params"]) == 2


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (
            lambda: parameter_groups(nn.Linear(3, 3), 0.1),
            ValueError,
            "^width must be given, since the network has",
        ),
        (lambda: parameter_groups("net", 0.1), TypeError, "^model must be a torch.nn.Module, got 'net'$"),
        (
            lambda: parameter_groups(nn.Sequential(nn.MultiheadAttention(8, 2)), 0.1, width=8),
            ValueError,
            "^matrices of MultiheadAttention '0' have no rate here: make the groups by hand$",
        ),
        (
            lambda: check_optimizer(network(), torch.optim.SGD(network().parameters(), 0.1)),
            ValueError,
            "^optimizer must have parameters of the network, and has none$",
        ),
        (lambda: parameter_groups(network(), -1.0), ValueError, "^learning_rate must be "),
        (lambda: flds.nn.Muon(nn.Linear(3, 3), 0.1), ValueError, "^layers must have a GaussianLinear"),
        (
            lambda: flds.nn.Muon([torch.zeros(3)], 0.1),
            TypeError,
            "^layers must be GaussianLinear or matrices",
        ),
        (lambda: flds.nn.Muon(network(), 0.1, scale="shape"), ValueError, "^scale must be "),
        (lambda: flds.nn.Muon(network(), 0.1, orthogonalization="qr"), ValueError, "^orthogonalization must be "),
        (lambda: check_optimizer(network(), "adam"), TypeError, "^optimizer must be a torch.optim.Optimizer"),
        (lambda: flds.nn.ResidualMLP(5, 1, 20, 0), ValueError, "^depth must be at least 1, got 0$"),
        (lambda: flds.nn.TwoLayerNetwork(5, 0, 20, 1), ValueError, "^outputs must be at least 1, got 0$"),
        (lambda: flds.nn.Transformer(7, 6, 20, 1, 16), ValueError, "^width must be a multiple of key_features"),
        (lambda: flds.nn.Transformer(7, 6, 20, 1, 0), ValueError, "^key_features must be at least 1, got 0$"),
        (
            lambda: flds.nn.Transformer(7, 6, 16, 1)(torch.zeros(1, 9, dtype=int)),
            ValueError,
            "^tokens must be at most 6",
        ),
        (lambda: flds.nn.estimate_memory(network(), 0, 1), ValueError, "^tokens must be at least 1, got 0$"),
    ],
)
def test_bad_input(work, error, message):
    with pytest.raises(error, match=message) as found:
        work()
    assert "\n" not in str(found.value)


def test_muon_refuses_a_decay_of_everything():
    model = network()
    optimizer = flds.nn.Muon(model, lr=2.0, weight_decay=0.5)
    model(X.float()).sum().backward()
    with pytest.raises(ValueError, match=r"^lr × weight_decay must be below 1, got 1$"):
        optimizer.step()


def test_a_state_of_muon_goes_on():
    _, one, loss = pair("two layers, ratio 0.5")
    _, whole, _ = pair("two layers, ratio 0.5")
    expected = train(whole, lambda model: flds.nn.Muon(model, 0.05), loss, 6)
    first = flds.nn.Muon(one, 0.05)
    train(one, lambda model: first, loss, 3)
    second = flds.nn.Muon(one, 0.01)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(train(one, lambda model: second, loss, 3), expected[3:], rtol=0, atol=1e-12)


def test_copies_of_muon_go_on():
    _, one, loss = pair("two layers, ratio 0.5")
    optimizer = flds.nn.Muon(one, 0.05, weight_decay=0.1)
    train(one, lambda model: optimizer, loss, 2)
    twin, copied = copy.deepcopy((one, optimizer))
    found, expected = (train(m, lambda model, o=o: o, loss, 2) for m, o in ((twin, copied), (one, optimizer)))
    assert torch.equal(found, expected)
    assert matrices(twin)[0].weight_share == matrices(one)[0].weight_share < 0.99


OPTIMIZERS = {
    "SGD": (lambda p: torch.optim.SGD(p, lr=0.0), True),  # as a warm-up begins
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1), True),
    "torch's Muon": (lambda p: torch.optim.Muon(p, lr=0.1), True),
    "Muon": (lambda p: flds.nn.Muon(p, lr=0.1, orthogonalization="polar"), True),
    "Adam": (lambda p: torch.optim.Adam(p, lr=0.1), False),
    "AdamW": (lambda p: torch.optim.AdamW(p, lr=0.1), False),
    "RMSprop": (lambda p: torch.optim.RMSprop(p, lr=0.1), False),
    "Adagrad": (lambda p: torch.optim.Adagrad(p, lr=0.1), False),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_whose_steps_do_not_turn_are_refused(name):
    model, (make, turns) = network(), OPTIMIZERS[name]
    optimizer = make([layer.learned for layer in matrices(model)])
    before = str(optimizer.state_dict())
    if turns:
        check_optimizer(model, optimizer)
    else:
        with pytest.raises(ValueError, match=rf"^{name} on A is not {name} on the weights of GaussianLinear 'inner.0'"):
            check_optimizer(model, optimizer)
    check_optimizer(nn.Linear(3, 3), optimizer)  # which has no Gaussian matrix
    assert str(optimizer.state_dict()) == before


def test_an_optimiser_that_cannot_be_tried_is_refused():
    model = network()
    with pytest.raises(ValueError, match=r"^LBFGS cannot be tried on a matrix"):
        check_optimizer(model, torch.optim.LBFGS([layer.learned for layer in matrices(model)]))


def test_vectors_may_have_adam():
    model = network()
    learned = {id(layer.learned) for layer in matrices(model)}
    rest = [one for one in model.parameters() if id(one) not in learned]
    check_optimizer(model, torch.optim.Adam(rest))


class Standard(nn.Module):
    """A network as torch makes it, which no learning rate suits at all widths."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, x):
        return self.layers(x)


def test_networks_that_change_with_width_are_told_from_those_that_do_not():
    """Adam moves hidden activations by order width; the groups of this library by order 1, dense or Gaussian."""
    widths = [64, 128, 256, 512, 2048]

    def adam(model, width):
        return torch.optim.Adam(model.parameters(), lr=1e-3)

    found = coordinate_check(Standard, widths[:4], (X.float(), Y.float()), 3, make_optimizer=adam, seeds=4)
    assert not found.passed
    hidden = {layer.name: layer for layer in found.layers}["layers.2"]
    assert hidden.verdict == "grows"
    assert abs(hidden.change_exponent[0] - 1.0) < max(0.25, 2 * hidden.change_exponent[1])

    def mixed(width):
        linear = gaussian(32) if width > 512 else functools.partial(dense_linear, bias=False)
        return flds.nn.TwoLayerNetwork(5, 1, width, 2, linear=linear)

    found = coordinate_check(mixed, widths, (X.float(), Y.float()), 3, learning_rate=0.3, seeds=4)
    assert found.passed
    assert [layer.name for layer in found.layers] == ["inner.0", "outer.0", "inner.1", "outer.1", "output"]
    for layer in found.layers:
        value, error = layer.change_exponent
        assert abs(value) < max(0.05, 2 * error)
        assert layer.change.shape == (5, 4)
    assert found.layers[-1].size_exponent[0] == pytest.approx(-0.5, abs=0.2)  # outputs begin at n^-½
    lines = str(found).splitlines()
    assert len(lines) == 6
    assert lines[-1].startswith("output")


def test_the_picture_of_a_check(tmp_path):
    found = coordinate_check(Standard, [8, 16, 32], (X.float(), Y.float()), 1, learning_rate=0.01, seeds=2)
    figure = found.plot(tmp_path / "check.png")
    assert (tmp_path / "check.png").stat().st_size > 10_000
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes]
    assert labels == [("width", "size before training"), ("width", "change after 1 step")]


def test_a_module_that_never_changes():
    found = coordinate_check(Frozen, [8, 16, 32], (X.float(), Y.float()), 1, learning_rate=0.01, seeds=2)
    verdicts = {layer.name: layer.verdict for layer in found.layers}
    assert verdicts["first"] == "does not change"
    assert np.isnan({layer.name: layer for layer in found.layers}["first"].change_exponent[0])


class Frozen(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(5, width).requires_grad_(False), nn.Linear(width, 1)

    def forward(self, x):
        return self.last(self.first(x))


def deeper(width):
    return nn.Sequential(*[nn.Linear(5, 5) for _ in range(width // 8)], nn.Linear(5, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": [8, 16]}, "^widths must be at least three different numbers, got"),
        ({"widths": [8, 8, 16]}, "^widths must be at least three different numbers, got"),
        ({"batch": X}, r"^batch must be \(inputs, targets\), with a tensor of"),
        ({"batch": (X.float() * torch.nan, Y.float())}, "^the loss is not finite at width 8: "),
        ({"steps": 0}, "^steps must be at least 1, got 0$"),
        ({"seeds": 1}, "^seeds must be at least 2, got 1$"),
        ({"learning_rate": 1e30}, "^the loss is not finite at width 8: lower the learning rate, or mend the "),
        ({"make_model": deeper}, "^networks of all widths must have modules of the same names"),
        ({"loss": lambda model, batch: model.layers[0].weight.sum()}, "^no module of the network returned a tensor"),
    ],
)
def test_bad_checks(arguments, message):
    rest = {"make_model": Standard, "widths": [8, 16, 32], "batch": (X.float(), Y.float()), "steps": 2} | arguments
    with pytest.raises(ValueError, match=message):
        coordinate_check(**rest)


def test_a_check_with_adam_on_gaussian_matrices_is_refused():
    """Adam on A is another rule, which would look stable where Adam on the weights grows."""

    def adam(model, width):
        return torch.optim.Adam(model.parameters(), 0.01)

    def make(width):
        return flds.nn.ResidualMLP(5, 1, width, 2)

    with pytest.raises(ValueError, match=r"^Adam on A is not Adam on the weights of GaussianLinear 'matrices\.0'"):
        coordinate_check(make, [8, 16, 32], (X.float(), Y.float()), 1, make_optimizer=adam, seeds=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"make_model": lambda width: width}, "^make_model must return a torch.nn.Module, got 8$"),
        ({"loss": lambda model, batch: model(batch[0])}, "^loss must return a tensor of one number, got "),
    ],
)
def test_checks_of_other_kinds(arguments, message):
    rest = {"make_model": Standard, "widths": [8, 16, 32], "batch": (X.float(), Y.float()), "steps": 2} | arguments
    with pytest.raises(TypeError, match=message):
        coordinate_check(**rest)


def test_dropout_moves_nothing_by_itself():
    def dropping(width):
        return nn.Sequential(nn.Linear(5, width), nn.Dropout(0.5), nn.Linear(width, 1))

    found = coordinate_check(dropping, [8, 16, 32], (X.float(), Y.float()), 1, learning_rate=1e-9, seeds=2)
    assert all((one.change < 1e-3 * one.size).all() for one in found.layers)


@pytest.mark.parametrize(
    "name", ["perceptrons", "narrow_transformer", pytest.param("transformer", marks=pytest.mark.slow)]
)
def test_memory_is_what_was_estimated(name):
    """Within 20 %; eight matrices of width 100,000, which would take 640 GB, in less than two.

    How much of the libraries is mapped before and how much after varies by some 50 MB from one process to another.
    """
    taken, estimate, _, peak = measured(name)
    assert abs(estimate - taken) < 0.2 * estimate + 50e6
    if name == "perceptrons":
        assert peak < 2e9


def test_estimates_grow_no_further_than_ranks():
    models = [nn.Sequential(GaussianLinear(1000, 1000, rank=rank)) for rank in (10, 100, 1000)]
    few, some, most = (flds.nn.estimate_memory(model, 20, 10) for model in models)
    assert few < some < most
    assert most == pytest.approx(flds.nn.estimate_memory(models[2], 10, 20), rel=0.05)
    assert flds.nn.estimate_memory(models[1], 20, 1000) == some
