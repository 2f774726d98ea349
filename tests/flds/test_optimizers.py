"""Optimisers: the lazy operator does what the dense one does, rule by rule; and what is refused."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import flds
from flds.training.method import decide
from flds.training.network import Network
from flds.training.optimizers.muon import newton_schulz, polar
from flds.training.optimizers.trial import steps_of
from flds.training.train import train
from tests.conftest import three_samples
from tests.held import HeldNetwork
from tests.shampoo import Shampoo

ADAM = flds.Adam(betas=(0.8, 0.95), epsilon=1e-3)
RULES = {
    "sgd": {},
    "heavy ball": {"optimizer": flds.SGD(momentum=0.9)},
    "nesterov": {"optimizer": flds.SGD(momentum=0.8, nesterov=True)},
    "decay": {"weight_decay": 0.3},
    "decay by group": {"weight_decay": {"hidden": 0.5, "readout": 0.1}, "optimizer": flds.SGD(momentum=0.5)},
    "clip": {"gradient_clip": 0.2, "optimizer": flds.SGD(momentum=0.5)},
    "newton_schulz": {"optimizer": flds.Muon()},
    "polar": {"optimizer": flds.Muon(momentum=0.5, nesterov=False, orthogonalization="polar")},
    "muon without momentum": {"optimizer": flds.Muon(momentum=0.0, nesterov=False)},
    "muon with adam": {"optimizer": {"hidden": flds.Muon(), "input": ADAM, "readout": flds.Adam()}},
    "shampoo": {"optimizer": {"hidden": Shampoo()}},
    "schedules": {"learning_rate": {"hidden": lambda k: 0.5 / (1 + k), "input": 0.1, "readout": np.linspace(1, 0, 8)}},
    "deviations": {"standard_deviations": {"input": 0.5, "hidden": 1.5, "readout": 0.2}, "weight_decay": 0.2},
    "all": {
        "optimizer": {"hidden": flds.Muon(), "input": flds.SGD(momentum=0.9), "readout": ADAM},
        "weight_decay": 0.1,
        "gradient_clip": 0.5,
        "learning_rate": lambda k: 0.5 * (1 + np.cos(np.pi * k / 8)) / 2,
        "standard_deviations": 0.8,
    },
}


def outputs(kind, problem, **options):
    settings = decide(problem, 100, 3, "law", {"threads": 1, "tolerance": 0.0, "dtype": "float64", **options}).settings
    recorder = train(kind(problem, settings, 3))
    assert recorder.status == "completed"
    return np.array([record.outputs for record in recorder.records])


@pytest.mark.parametrize("horizon", [1.0, 2.0])
@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("rule", RULES)
def test_lazy_and_dense_networks_of_the_same_weights_agree(rule, weights, horizon):
    """Eight steps from the same W_0; what is left is rounding, that of coordinates in bases of some 25 directions."""
    problem = three_samples(steps=8, horizon=horizon, **RULES[rule])
    lazy = outputs(HeldNetwork, problem, operator="lazy", backward_weights=weights)
    dense = outputs(Network, problem, operator="dense", backward_weights=weights)
    assert np.abs(dense - dense[0]).max() > 0.05
    np.testing.assert_allclose(lazy, dense, rtol=0, atol=1e-11)


def test_the_page_writes_the_rule_that_is_tested():
    page = (Path(flds.__file__).parents[1] / "docs" / "optimizers.md").read_text(encoding="utf-8")
    (code,) = (part.partition("```")[0] for part in page.split("```python\n") if "class Shampoo" in part)
    names = {"np": np, "flds": flds, "x": np.eye(3), "y": np.ones(3), "__name__": __name__}
    exec(code, names)
    np.testing.assert_allclose(steps_of(names["Shampoo"](0.1)), steps_of(Shampoo(0.1)), rtol=1e-13)


@pytest.mark.parametrize("power", [-0.5, 0.5])
@pytest.mark.parametrize("rule", [flds.SGD(momentum=0.5), flds.Muon(), Shampoo()])
def test_a_wrong_power_of_depth_is_seen(rule, power, monkeypatch):
    """Updates of matrices over τ^power move outputs by what more depth does not bring back."""
    from flds.training.parameters import Matrix

    problem = three_samples(steps=4, horizon=2.0, optimizer={"hidden": rule})
    plain = outputs(Network, problem, operator="dense")
    right = Matrix.__init__

    def wrong(self, name, group, operator, scale, inside, *rest):
        right(self, name, group, operator, scale, inside * (2.0 / 3) ** power, *rest)

    monkeypatch.setattr(Matrix, "__init__", wrong)
    assert np.abs(outputs(Network, problem, operator="dense") - plain).max() > 1e-2


def test_newton_schulz_and_the_polar_factor():
    generator = np.random.default_rng(0)
    for shape in ((4, 7), (7, 4), (5, 5)):
        left, sizes, right = np.linalg.svd(generator.standard_normal(shape), full_matrices=False)
        matrix = left * sizes @ right
        np.testing.assert_allclose(polar(matrix), left @ right, atol=1e-13)
        x = sizes / np.linalg.norm(sizes)
        for _ in range(5):
            x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
        np.testing.assert_allclose(newton_schulz(matrix), left * x @ right, atol=1e-13)
        np.testing.assert_array_equal(newton_schulz(0 * matrix), 0 * matrix)
        np.testing.assert_array_equal(polar(0 * matrix), 0 * matrix)
    single = np.outer(np.arange(1.0, 4), np.arange(1.0, 6))
    assert np.linalg.matrix_rank(polar(single)) == 1


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_rules_do_what_torch_does(kind):
    """The same gradients on the same parameter, for ten steps."""
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3))
    rule, theirs = {
        "momentum": (
            flds.SGD(momentum=0.9, nesterov=True),
            torch.optim.SGD([parameter], lr=0.1, momentum=0.9, nesterov=True),
        ),
        "adam": (ADAM, torch.optim.Adam([parameter], lr=0.1, betas=ADAM.betas, eps=ADAM.epsilon)),
    }[kind]
    ours = parameter.detach().numpy().copy()
    state = rule.init(np.zeros_like(ours))
    for step in range(10):
        gradient = np.sin(ours + step)
        parameter.grad = torch.tensor(np.sin(parameter.detach().numpy() + step))
        theirs.step()
        change, state = rule.step(gradient, state, 0.1)
        ours = ours + change
        np.testing.assert_allclose(ours, parameter.detach().numpy(), rtol=1e-12)


def test_weight_decay_is_decoupled_and_the_same_at_every_width():
    """Where there is no gradient, a step multiplies all weights by 1 − η λ, outputs by its third power and no more."""
    problem = flds.TrainingProblem(
        [[1.0, 2.0]], [0.0], activation="identity", learning_rate=0.0, steps=2, standard_deviations={"readout": 0.0}
    )
    assert np.abs(outputs(Network, problem, operator="lazy")).max() == 0
    settings = decide(problem, 50, 2, "law", {"threads": 1}).settings
    network = Network(problem, settings, 0)
    network.initialise()
    before = network.input_weights.copy()
    for parameter in network.parameters:
        parameter.shrink(0.9)
    np.testing.assert_allclose(network.input_weights, 0.9 * before, rtol=1e-15)
    assert [operator.share for operator in network.operators] == [0.9, 0.9]


def test_clipping_is_free_of_width_and_takes_the_whole_norm():
    """The norm that is clipped is the root of all that parameters see, and a small one leaves the bits."""
    problem = three_samples(steps=3)
    plain, clipped = (
        outputs(Network, problem_, operator="lazy") for problem_ in (problem, three_samples(steps=3, gradient_clip=1e6))
    )
    np.testing.assert_array_equal(plain, clipped)
    norms = {}
    for width in (200, 3200):
        settings = decide(problem, width, 3, "law", {"threads": 1}).settings
        found = []
        for seed in range(8):
            network = Network(problem, settings, seed)
            found.append(gradient_norm(network))
        norms[width] = np.mean(found), np.std(found, ddof=1) / 8**0.5
    apart = norms[200][0] - norms[3200][0]
    assert abs(apart) < 4 * np.hypot(norms[200][1], norms[3200][1]) + 0.02 * norms[3200][0]


def gradient_norm(network):
    from solvers.ensemble.random import Address, Stream

    problem = network.problem
    with network.ensemble.running():
        network.initialise()
        forward = network.forward(problem.x, Address(Stream.FORWARD, 0, tuple(range(problem.samples))))
        slopes = problem.loss_function.derivative(forward.outputs, problem.y)
        backward = network.backward(forward, slopes, 0)
        gradients = network._gradients(problem.x, slopes, forward, backward)
        pairs = zip(network.parameters, gradients, strict=True)
        return sum(parameter.squares(gradient) for parameter, gradient in pairs) ** 0.5


@dataclass(frozen=True)
class Own(flds.Optimizer):
    """Rules that are not what they say."""

    kind: str
    entrywise: bool = False

    def step(self, gradient, state, rate):
        step = {
            "entries": lambda: np.sign(gradient),
            "mixes": lambda: gradient / np.linalg.norm(gradient),
            "adds": lambda: gradient + 1.0,
            "shape": lambda: gradient[:1],
            "fails": lambda: gradient.missing,
            "fine": lambda: gradient * np.abs(gradient),
        }[self.kind]()
        return (-rate * step, state) if self.kind != "single" else step


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"optimizer": "adagrad"}, r"optimizer must be one of sgd, muon, adam, got 'adagrad'"),
        ({"optimizer": 3}, r"optimizer must be flds\.SGD\(\.\.\.\), .* got 3"),
        ({"optimizer": {"hiden": flds.SGD()}}, r"optimizer must name groups of parameters \(input, hidden, readout\)"),
        ({"optimizer": {}}, r"optimizer by group must name one of input, hidden, readout, got an empty dictionary"),
        ({"optimizer": {"input": flds.Muon()}}, r"optimizer\['input'\] must be a rule for vectors, got Muon"),
        ({"learning_rate": {"hidden": -1.0}}, r"learning_rate\['hidden'\] must not be negative, got -1"),
        ({"learning_rate": lambda k: np.nan if k == 7 else 0.1, "steps": 9}, r"learning_rate\(7\) must be a finite"),
        ({"learning_rate": lambda k: "a"}, r"learning_rate\(0\) must be a number, got 'a'|got dtype"),
        ({"learning_rate": lambda k: 1 / 0}, r"learning_rate\(0\): ZeroDivisionError"),
        ({"learning_rate": np.inf}, r"learning_rate must be finite, got inf"),
        ({"weight_decay": -0.1}, r"weight_decay must be a finite number of at least 0, got -0\.1"),
        ({"weight_decay": 2.0}, r"weight_decay times the learning rate must be below 1, got 1 for input at step 0"),
        ({"weight_decay": {"hidden": 1.0}, "learning_rate": [0.1, 2.0], "steps": 2}, r"got 2 for hidden at step 1"),
        ({"gradient_clip": 0.0}, r"gradient_clip must be a finite number above 0, got 0"),
        ({"gradient_clip": "a"}, r"gradient_clip must be a number, got 'a'"),
        ({"standard_deviations": {"hidden": -1.0}}, r"standard_deviations\['hidden'\] must be a finite number of"),
        ({"optimizer": {"hidden": Own("entries")}}, r"set entrywise = True if it treats entries each for itself"),
        ({"optimizer": {"hidden": Own("adds")}}, r"must not depend on the bases|must add nothing to rows"),
        ({"optimizer": {"input": Own("mixes")}}, r"optimizer of input, Own, must treat each particle alone"),
        ({"optimizer": Own("shape")}, r"must give steps of the shape of the gradient, \(3, 5\), got float64 of"),
        ({"optimizer": Own("fails")}, r"Own, failed in step: AttributeError"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(arguments, said):
    with pytest.raises((TypeError, ValueError), match=said) as caught:
        three_samples(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: flds.SGD(momentum=1.0), "momentum must be below 1, or nothing is forgotten, got 1"),
        (lambda: flds.SGD(momentum=-0.1), "momentum must be a finite number of at least 0"),
        (lambda: flds.SGD(nesterov=True), "nesterov needs a momentum above 0"),
        (lambda: flds.Muon(orthogonalization="qr"), "orthogonalization must be one of newton_schulz, polar, got 'qr'"),
        (lambda: flds.Adam(betas=(0.9, 1.0)), r"betas\[1\] must be below 1"),
        (lambda: flds.Adam(betas=0.9), "betas must be a pair of numbers, got 0.9"),
        (lambda: flds.Adam(epsilon=0.0), "epsilon must be a finite number above 0, got 0"),
    ],
)
def test_mistakes_in_rules_are_one_line(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_entrywise_rules_need_the_dense_operator():
    problem = three_samples(optimizer="adam", steps=2)
    with pytest.raises(ValueError, match='operator="lazy" needs steps of low rank, but Adam treats entries of the hid'):
        flds.simulate_resnet(problem, width=50, depth=2, operator="lazy")
    found = flds.simulate_resnet(problem, width=50, depth=2)
    assert found.settings["operator"] == "dense"
    own = three_samples(optimizer=Own("fine", entrywise=True), steps=2)
    assert flds.simulate_resnet(own, width=50, depth=2).settings["operator"] == "dense"


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("rule", ["nesterov", "muon with adam", "shampoo", "all"])
@pytest.mark.parametrize("operator", ["lazy", "dense"])
def test_resumed_runs_have_the_bits_of_single_ones(operator, rule, weights, tmp_path):
    """What rules remember is part of the state, in files too."""
    chosen = dict(RULES[rule])
    longer = three_samples(steps=8, **chosen)
    options = {"width": 60, "depth": 2, "operator": operator, "backward_weights": weights, "keep_state": True}
    options |= {"record_every": 1, "seed": 5, "tolerance": 1e-4}
    whole = flds.simulate_resnet(longer, **options)
    if not isinstance(chosen.get("learning_rate", 0.5), float):
        chosen["learning_rate"] = {name: group.rates[:3] for name, group in longer.groups.items()}
    first = flds.simulate_resnet(three_samples(steps=3, **chosen), **options)
    given = None if rule not in ("schedules", "all") else {n: g.rates[3:] for n, g in longer.groups.items()}
    kept = flds.load(first.save(tmp_path / "part.nc"))
    own = three_samples(steps=3, **chosen) if rule == "shampoo" else None
    found = flds.resume(kept, 5, learning_rate=given, problem=own)
    np.testing.assert_array_equal(found.outputs, whole.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = flds.rerun(kept, problem=own)
    np.testing.assert_array_equal(again.outputs, first.outputs)
    if own is not None:
        with pytest.raises(ValueError, match="the optimizer Shampoo is not built in: give the problem= itself"):
            flds.rerun(kept)
        other = three_samples(steps=3, optimizer={"hidden": Shampoo(epsilon=1.0)})
        with pytest.raises(ValueError, match="differs in its"):
            flds.rerun(kept, problem=other)
