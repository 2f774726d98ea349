"""Rules of one's own: what they remember, what is refused, and what tells two of them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import flds
from tests.conftest import three_samples

X, Y = np.random.default_rng(0).normal(size=(2, 5, 3))
EVERY = ("input", "hidden", "readout")


def trained(rule, steps=4, group="hidden", **options):
    problem = three_samples(steps=steps, optimizer={group: rule} if group else rule, learning_rate=0.3)
    options = {"width": 40, "depth": 2, "operator": "lazy", "threads": 1} | options
    return flds.simulate_resnet(problem, **options)


def moved(rule, steps=4, rates=0.3):
    problem = flds.MeanFieldProblem(X, Y, steps=steps, optimizer=rule, learning_rates=rates)
    return flds.solve_mean_ode(problem, units=32, depth=2, threads=1).outputs


class Momentum(flds.Optimizer):
    """Heavy ball with μ = ½; `zero` makes what is remembered before the first step."""

    def __init__(self, zero):
        self.zero = zero

    def init(self, parameter):
        return {"b": self.zero(parameter)}

    def step(self, gradient, state, rate):
        b = 0.5 * state["b"] + gradient
        return -rate * b, {"b": b}


class Counted(flds.Optimizer):
    """Gradient descent at a rate that falls with what is counted, by a statement that could change what is shared."""

    def init(self, parameter):
        return {"k": 0}

    def step(self, gradient, state, rate):
        step = -rate / (1 + state["k"]) * gradient
        state["k"] += 1
        return step, state


@pytest.mark.parametrize("group", EVERY)
def test_one_that_is_built_in_written_again(group):
    own = trained(Momentum(np.zeros_like), group=group)
    np.testing.assert_allclose(own.outputs, trained(flds.SGD(momentum=0.5), group=group).outputs, atol=1e-13)


@pytest.mark.parametrize("group", EVERY)
def test_numbers_that_are_counted_in_place(group):
    """In one thread and two, in the Mean ODE, after a resumption and in a state that is kept after one update."""
    rates = dict.fromkeys(EVERY, 0.5) | {group: 0.3 / np.arange(1, 5)}
    scheduled = flds.simulate_resnet(
        three_samples(steps=4, learning_rate=rates), width=40, depth=2, operator="lazy", threads=1
    )
    problem = three_samples(steps=4, optimizer={group: Counted()}, learning_rate={**rates, group: 0.3})
    sizes = {"width": 40, "depth": 2, "operator": "lazy", "keep_state": True}
    for threads in (1, 2):
        own = flds.simulate_resnet(problem, threads=threads, **sizes)
        np.testing.assert_allclose(own.outputs, scheduled.outputs, atol=1e-13)
    first = flds.simulate_resnet(problem, callback=lambda record: record.step == 1, **sizes)
    np.testing.assert_array_equal(flds.resume(first, problem=problem).outputs, own.outputs)


def test_numbers_that_are_counted_in_place_for_units():
    own, scheduled = moved(Counted()), moved(flds.SGD(), rates={name: 0.3 / np.arange(1, 5) for name in "uv"})
    np.testing.assert_allclose(own, scheduled, atol=1e-13)


class Twice(flds.Optimizer):
    """Two buffers, which may be one array before the first step."""

    def __init__(self, apart):
        self.apart = apart

    def init(self, parameter):
        return {"m": parameter, "v": 0 * parameter if self.apart else parameter}

    def step(self, gradient, state, rate):
        m, v = 0.5 * state["m"] + gradient, 0.9 * state["v"] + gradient
        return -rate * (m + 0.1 * v), {"m": m, "v": v}


@pytest.mark.parametrize("group", EVERY)
def test_buffers_that_begin_as_one_array(group):
    np.testing.assert_array_equal(trained(Twice(False), group=group).outputs, trained(Twice(True), group=group).outputs)


class Rebinds(Momentum):
    """Heavy ball that puts new arrays into the dictionary it is given, and returns that."""

    def step(self, gradient, state, rate):
        state["b"] = 0.5 * state["b"] + gradient
        return -rate * state["b"], state


class Older(flds.Optimizer):
    """A rule that adds the gradient of two steps before; what was the last one becomes that, the same array."""

    def __init__(self, copies):
        self.copies = copies

    def init(self, parameter):
        return {"last": 0 * parameter, "older": 0 * parameter}

    def step(self, gradient, state, rate):
        last = state["last"].copy() if self.copies else state["last"]
        return -rate * (gradient + 0.5 * state["older"]), {"last": gradient, "older": last}


class Late(flds.Optimizer):
    """A rule whose step is what it remembers, the array itself."""

    def __init__(self, copies):
        self.copies = copies

    def init(self, parameter):
        return {"step": 0 * parameter}

    def step(self, gradient, state, rate):
        return state["step"].copy() if self.copies else state["step"], {"step": -rate * gradient}


def test_arrays_of_a_state_may_be_returned_under_other_names():
    """In every home of parameters, as if they were copies."""
    pairs = [(Rebinds(np.zeros_like), flds.SGD(momentum=0.5)), (Older(False), Older(True)), (Late(False), Late(True))]
    for one, other in pairs:
        np.testing.assert_allclose(moved(one), moved(other), atol=1e-13)
        for group in EVERY:
            found, expected = (trained(rule, group=group).outputs for rule in (one, other))
            np.testing.assert_allclose(found, expected, atol=1e-13)
    assert np.abs(moved(Older(True)) - moved(flds.SGD())).max() > 1e-3


def test_moments_go_on_where_a_rate_is_zero():
    """As in a network: a rate of 0 is one of 1e-300, which moves nothing."""
    for rule in (flds.SGD(momentum=0.5), flds.Adam()):
        zero, tiny = (moved(rule, rates=np.array([first, 0.3, 0.3, 0.3])) for first in (0.0, 1e-300))
        np.testing.assert_array_equal(zero, tiny)
    plain = moved(flds.SGD(), rates=np.array([0.0, 0.3, 0.3, 0.3]))
    assert np.abs(moved(flds.SGD(momentum=0.5), rates=np.array([0.0, 0.3, 0.3, 0.3])) - plain).max() > 1e-3


@dataclass(frozen=True)
class Switch(flds.Optimizer):
    """Gradient descent that ends after some steps."""

    at: int = 10

    def init(self, parameter):
        return {"k": 0}

    def step(self, gradient, state, rate):
        return -rate * gradient * (state["k"] < self.at), {"k": state["k"] + 1}


def test_settings_tell_rules_apart_whose_first_steps_are_the_same():
    problem, other = (three_samples(steps=8, optimizer={"hidden": Switch(at)}) for at in (4, 6))
    found = flds.simulate_resnet(problem, width=40, depth=2, operator="lazy", keep_state=True)
    np.testing.assert_array_equal(flds.rerun(found, problem=problem).outputs, found.outputs)
    for again in (lambda: flds.rerun(found, problem=other), lambda: flds.resume(found, 1, problem=other)):
        with pytest.raises(ValueError, match="differs in its optimizer"):
            again()
    units, others = (flds.MeanFieldProblem(X, Y, steps=8, optimizer=Switch(at), learning_rates=0.1) for at in (4, 6))
    with pytest.raises(ValueError, match="differs in its optimizer"):
        flds.rerun(flds.solve_mean_ode(units, units=32, depth=2), problem=others)


class Wrong(flds.Optimizer):
    """What a user may get wrong."""

    def __init__(self, kind):
        self.kind, self.calls = kind, 0

    def init(self, parameter):
        return {
            "unannounced": {}, "dropped": {"a": 0.0 * parameter}, "whole": {"b": np.zeros(parameter.shape, int)},
            "list": {"b": [0.0]}, "text": {"b": "a"}, "array": parameter, "nothing": None,
            "row": {"b": parameter[:, 0]}, "grown": {"b": np.zeros_like(parameter)},
        }.get(self.kind, {})  # fmt: skip

    def step(self, gradient, state, rate):
        self.calls += 1
        if self.kind == "grown":
            state["b"] += gradient
        if self.kind == "scaled":
            gradient *= rate
        after = {
            "unannounced": {"b": gradient}, "whole": {"b": gradient}, "row": state, "list": state, "text": state,
            "grown": state,
        }.get(self.kind, {})  # fmt: skip
        step = {
            "changing": lambda: self.calls * gradient,
            "nan": lambda: np.nan * gradient,
            "as list": lambda: gradient.tolist(),
            "complex": lambda: gradient + 0j,
            "late": lambda: gradient[:1] if self.calls > 60 else gradient,
            "algebra": lambda: np.linalg.inv(np.zeros((2, 2))) if self.calls > 60 else gradient,
        }.get(self.kind, lambda: gradient)()
        return step, after


@pytest.mark.parametrize("group", ["hidden", "input", None])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("unannounced", "must remember what init returns, nothing, got b"),
        ("dropped", "must remember what init returns, a, got nothing"),
        ("whole", "must remember 'b' as init returns it, int64 of shape .*, got float64"),
        ("list", "must return arrays by name, got 'b': "),
        ("text", "must return arrays by name, got 'b': 'a'"),
        ("array", "must return a dictionary of arrays by name, got "),
        ("nothing", "must return a dictionary of arrays by name, got None"),
        ("changing", "must give the same for the same arguments"),
        ("grown", r"must not write into its gradient and state \(m \+= g\)"),
        ("scaled", "must not write into its gradient and state"),
        ("nan", "must give finite steps"),
        ("as list", "must give steps of the shape of the gradient, .*, got "),
        ("complex", "must give steps of the shape of the gradient, .*, got complex128"),
    ],
)  # fmt: skip
def test_wrong_rules_are_told_before_a_run(kind, said, group):
    rule, found = Wrong(kind), f"Wrong, .*{said}|init of optimizer.*Wrong, {said}"
    with pytest.raises((TypeError, ValueError), match=found) as caught:
        problem_of(rule, group)
    assert "\n" not in str(caught.value)


def problem_of(rule, group):
    if group is None:
        return flds.MeanFieldProblem(X, Y, optimizer=rule, learning_rates=0.1)
    return three_samples(optimizer={group: rule})


def test_vectors_have_no_rows_of_their_own():
    with pytest.raises(TypeError, match=r"arrays of the parameter's shape, .*, got 'b' of shape"):
        three_samples(optimizer={"input": Wrong("row")})
    rule = Wrong("fine")
    rule.work = -1.0
    with pytest.raises(ValueError, match="work must be"):
        three_samples(optimizer={"hidden": rule})


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("late", ValueError, r"the optimizer Wrong\(\) must give steps of the shape of the gradient, .*, got \(1, "),
        ("algebra", RuntimeError, r"the optimizer Wrong\(\) failed: Singular matrix"),
    ],
)
@pytest.mark.parametrize("group", ["hidden", "input"])
def test_rules_that_fail_on_the_way_are_named(kind, error, said, group):
    with pytest.raises(error, match=said):
        trained(Wrong(kind), steps=60, group=group)
    with pytest.raises(error, match=said):
        moved(Wrong(kind), steps=60)


def test_algebra_that_fails_where_training_diverges_is_divergence():
    problem = three_samples(steps=20, optimizer={"hidden": flds.Muon(orthogonalization="polar")}, learning_rate=1e9)
    with pytest.warns(RuntimeWarning, match="diverged"):
        found = flds.simulate_resnet(problem, width=40, depth=2, operator="lazy")
    assert found.status == "diverged"


class Fake(flds.SGD):
    """A subclass of a rule is another rule."""

    def step(self, gradient, state, rate):
        return -rate * np.sign(gradient), state


def test_the_tangent_ode_takes_no_subclass_of_descent():
    with pytest.raises(ValueError, match="Fake"):
        flds.solve_tangent_ode(flds.MeanFieldProblem(X, Y, steps=2, optimizer=Fake()), units=32, depth=2)


@pytest.mark.parametrize("error", [MemoryError("none"), np.linalg.LinAlgError("singular"), StopIteration()])
def test_errors_of_a_callback_are_its_own(error):
    def fails(record):
        raise error

    with pytest.raises(RuntimeError, match=f"callback failed at step 0: {type(error).__name__}"):
        trained(flds.SGD(), callback=fails)
    with pytest.raises(RuntimeError, match=f"callback failed at step 0: {type(error).__name__}"):
        flds.solve_mean_ode(flds.MeanFieldProblem(X, Y, steps=2), units=32, depth=2, callback=fails)
