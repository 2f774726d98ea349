"""Passes of the Mean ODE that leave the units where they are, rules that move them, and the bar that counts both."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import flds
from flds.mean_ode import solve
from flds.mean_ode.draws import draw_units
from flds.mean_ode.network import MeanDynamics, TangentDynamics
from flds.mean_ode.problem import BLOCKS
from flds.mean_ode.update import Stretch
from flds.training.optimizers import SGD

GENERATOR = np.random.default_rng(4)
TOKENS, TARGETS = GENERATOR.normal(size=(2, 3, 4, 5))
KINDS = [(MeanDynamics, block) for block in BLOCKS] + [
    (TangentDynamics, "two_layer_perceptron"),
    (TangentDynamics, "transformer"),
]


def dynamics(kind=MeanDynamics, block="two_layer_perceptron", threads=1, units=40, **rest):
    p = flds.MeanFieldProblem(TOKENS, TARGETS, **{"block": block, "alpha": 1.5, "learning_rates": 0.3} | rest)
    return kind(p, draw_units(p, 4, units, 1, "iid"), threads)


def slope_at(one):
    """The states of a forward pass, and the covector at its end."""
    states = []
    last = one.forward(one.problem.x, states)
    return states, one.problem.loss_gradient(last)


def copied(one):
    return [{name: values.copy() for name, values in z.items()} for z in one.moved]


def stepped(one):
    """One step; returns the covectors."""
    rows = one.problem.x.size // one.problem.dimension
    return one.descend(*slope_at(one), begun(one, rows))


def begun(one, rows):
    """The first update of the units."""
    update = one.update(rows)
    update.begin(0)
    return update


def farthest(one, other):
    return max(np.max(np.abs(a[name] - b[name])) for a, b in zip(one, other, strict=True) for name in a)


class Gathered:
    """Gradients of all units, from the stretches in which a pass hands them over."""

    def __init__(self, one):
        self.arrays = [{name: np.full_like(values, np.nan) for name, values in z.items()} for z in one.moved]

    def __call__(self, stretch, gradient):
        for name, values in gradient.items():
            place = self.arrays[stretch.block][name][stretch.node][..., stretch.units]
            assert np.all(np.isnan(place))  # no unit twice
            place[...] = values


@pytest.mark.parametrize(("kind", "block"), KINDS)
def test_a_pass_yields_covectors_and_gradients_and_moves_nothing(kind, block):
    one, other = dynamics(kind, block, threads=2), dynamics(kind, block)
    for _ in range(2):  # the tangent ODE starts at ζ = 0
        stepped(one)
        stepped(other)
    before, gradients, (states, slope) = copied(one), Gathered(one), slope_at(one)
    alone, with_gradients = one.backward(states, slope), one.backward(states, slope, gradients)
    assert farthest(one.moved, before) == 0
    covectors = stepped(other)
    np.testing.assert_array_equal(alone, covectors)  # to the last bit, as records need
    np.testing.assert_allclose(with_gradients, covectors, rtol=1e-10, atol=1e-12)
    factor = 1 / 1.5 if kind is MeanDynamics else 1.0
    for start, z, gradient in zip(before, other.moved, gradients.arrays, strict=True):
        for name in z:
            np.testing.assert_allclose(
                z[name], start[name] - 0.3 * factor / 12 * gradient[name], rtol=1e-10, atol=1e-12
            )
            assert np.any(z[name] != start[name])


def test_a_pass_that_moves_units_is_caught():
    class Restless(flds.TwoLayerPerceptron):
        def covector(self, h, b, z):
            return self.descend(h, b, z, {"u": 0.1, "v": 0.1})

    one = dynamics(block=Restless())
    before = copied(one)
    one.backward(*slope_at(one))
    assert farthest(one.moved, before) > 1e-4


class Signs(flds.Optimizer):
    """A rule to which the size of a gradient matters: the step is ±rate, against its sign, where it exceeds a bound."""

    def step(self, gradient, state, rate):
        return -rate * np.sign(gradient) * (np.abs(gradient) > 0.01), state


@pytest.mark.parametrize("rule", [SGD(), SGD(momentum=0.8), flds.Adam(), Signs()])
@pytest.mark.parametrize(("kind", "block"), KINDS)
def test_a_rule_moves_units_as_it_moves_all_of_them_at_once(kind, block, rule):
    one, other, whole = dynamics(kind, block, 2, optimizer=rule), dynamics(kind, block, optimizer=rule), rule
    update = one.update(12)
    states = None
    for step in range(3):
        update.begin(step)
        one.descend(*slope_at(one), update)
        gradients = Gathered(other)
        other.backward(*slope_at(other), gradients)
        scaled = [{name: other.factor / 12 * g for name, g in z.items()} for z in gradients.arrays]
        states = states or [{name: whole.init(a) for name, a in z.items()} for z in other.moved]
        for z, found, state in zip(other.moved, scaled, states, strict=True):
            for name in z:
                step, state[name] = whole.step(found[name], state[name], 0.3)
                z[name] += step
    assert farthest(one.moved, other.moved) < 1e-11
    assert farthest(one.moved, dynamics(kind, block).moved) > 1e-3


def test_plain_gradient_descent_is_taken_at_once_only_where_a_block_can():
    asked = []

    class Quick(flds.TwoLayerPerceptron):
        def descend(self, h, b, z, steps):
            asked.append(steps)
            return super().descend(h, b, z, steps)

    stepped(dynamics(block=Quick()))
    assert len(asked) == 8  # two stretches of units a node
    assert asked[0] == {"u": 0.3 / 1.5 / 12, "v": 0.3 / 1.5 / 12}
    stepped(dynamics(block=Quick(), optimizer=SGD(momentum=0.8)))
    stepped(dynamics(block=Quick(), weight_decay=0.1))
    stepped(dynamics(TangentDynamics, Quick()))
    assert len(asked) == 8


def test_a_rate_of_zero_holds_a_parameter_whatever_its_gradient():
    for rule, size in ((SGD(), np.inf), (SGD(momentum=0.8), 1e6)):  # whose moments go on
        one = dynamics(block="gated_linear_unit", learning_rates={"u": 0.0}, optimizer=rule)
        before = copied(one)
        states, slope = slope_at(one)
        gradients = Gathered(one)
        one.backward(states, slope, gradients)
        gradients.arrays[0]["u"][...] = size
        for node in range(4):
            gradient = {name: values[node] for name, values in gradients.arrays[0].items()}
            begun(one, 12)(Stretch(0, node, slice(0, 40)), gradient)
        assert np.array_equal(one.moved[0]["u"], before[0]["u"])
        assert not np.array_equal(one.moved[0]["v"], before[0]["v"])


@pytest.mark.parametrize("solver", [flds.solve_mean_ode, flds.solve_tangent_ode])
def test_covectors_of_the_last_record_leave_the_kept_units_alone(solver):
    p = flds.MeanFieldProblem(TOKENS[:, 0], TARGETS[:, 0], steps=2)
    plain, featured = (
        solver(p, units=32, depth=4, keep_state=True, record_features=features) for features in (False, True)
    )
    for name in ("block_0_u", "block_0_v"):
        np.testing.assert_array_equal(plain.states[0][name].values, featured.states[0][name].values)
    longer = solver(
        flds.MeanFieldProblem(TOKENS[:, 0], TARGETS[:, 0], steps=3), units=32, depth=4, record_features=True
    )
    np.testing.assert_array_equal(longer.covectors[:3], featured.covectors)


class Bar:
    def __init__(self, total, shown):
        self.total, self.shown, self.count = total, shown, 0

    def __enter__(self):
        return self

    def __exit__(self, *rest):
        pass

    def update(self):
        self.count += 1


def test_a_bar_counts_every_pass_that_there_is(monkeypatch):
    bars = []
    monkeypatch.setattr(solve, "progress_bar", lambda *rest: bars.append(Bar(*rest)) or bars[-1])
    p = flds.MeanFieldProblem(TOKENS[:, 0], TARGETS[:, 0], steps=3)
    run = flds.solve_mean_ode(p, units=16, depth=2, replicates=2, depth_error=True, keep_state=True, progress=True)
    flds.rerun(run, progress=True)
    flds.resume(run, 5, progress=True)
    flds.solve_tangent_ode(p, units=16, depth=2)
    assert [bar.total for bar in bars] == [bar.count for bar in bars] == [16, 16, 2 * 6 + 2 * 9, 4]
    assert [bar.shown for bar in bars] == [True, True, True, False]


def test_progress_is_shown_on_standard_error_where_it_is_asked_for(capsys):
    p = flds.MeanFieldProblem(TOKENS[:, 0], TARGETS[:, 0], steps=1)
    run = flds.solve_mean_ode(p, units=16, depth=2, keep_state=True)
    assert capsys.readouterr() == ("", "")
    for call in (
        lambda **rest: flds.solve_mean_ode(p, units=16, depth=2, **rest),
        lambda **rest: flds.solve_tangent_ode(p, units=16, depth=2, **rest),
        lambda **rest: flds.rerun(run, **rest),
        lambda **rest: flds.resume(run, 1, **rest),
    ):
        plain, watched = call(), call(progress=True)
        out, shown = capsys.readouterr()
        assert out == ""
        assert "/2 [" in shown
        np.testing.assert_array_equal(plain.outputs, watched.outputs)
        with pytest.raises(TypeError, match=r"^progress must be True or False, got 'yes'$"):
            call(progress="yes")


def test_files_of_the_mean_ode_need_each_other_one_way():
    root = Path(flds.__file__).parent
    files = {f"flds.mean_ode.{path.stem}": path for path in (root / "mean_ode").glob("*.py")}
    files["flds.results.mean_ode"] = root / "results" / "mean_ode.py"
    needs = {}
    for name, path in files.items():
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        named = {node.module for node in nodes} | {
            f"{node.module}.{alias.name}" for node in nodes for alias in node.names
        }
        needs[name] = named & set(files)
    while free := [name for name, needed in needs.items() if not needed & set(needs)]:
        for name in free:
            del needs[name]
    assert not needs, f"a circle among {', '.join(needs)}"
