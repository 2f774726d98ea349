"""Schemes as objects: those of the library, one's own, what is refused, and how a run goes on with them."""

from __future__ import annotations

import importlib
import math
import pickle
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import BrownianMotion, McKeanVlasov, schemes
from solvers.schemes import EulerMaruyama, Heun, Milstein, Scheme, Stage, TamedEuler, euler_terms, noise_terms
from solvers.sde.schemes import _FILES, get_scheme
from solvers.sde.schemes.passes import stage_pass
from solvers.sde.schemes.scheme import check_term
from solvers.sde.trial import Trial
from tests.solvers.equations import PLANAR_GENERAL
from tests.test_docstrings import complaints, docs

ROOT = Path(__file__).parents[2]
# nothing to compile
GEOMETRIC = solvers.equations.geometric_brownian_motion(0.3, 0.8)
ORNSTEIN_UHLENBECK = solvers.equations.ornstein_uhlenbeck(1.5, 0.4, 0.7)
SHORT = {
    "euler_maruyama": EulerMaruyama, "milstein": Milstein, "heun": Heun, "tamed_euler": TamedEuler,
    "drift_implicit_euler": schemes.DriftImplicitEuler, "trapezoidal": schemes.Trapezoidal, "sra1": schemes.SRA1,
}  # fmt: skip
ALL = ", ".join(SHORT)
COMMON = McKeanVlasov(common=njit(lambda t, x, m: 0.5))
MEAN_FIELD = McKeanVlasov(moments=njit(lambda t, x: x), noise="mean_field")


class ThreeStages(Scheme):
    """Shu and Osher's scheme of order 3 for equations without noise; each stage has the means where it starts."""

    stages = (Stage(euler_terms), Stage(euler_terms, weight=1 / 4), Stage(euler_terms, weight=2 / 3))


def scaled_terms(equation, coefficients, form, factor):
    drift = coefficients.drift

    def scaled(out, s):
        out += factor * s.dt * drift(s.t, s.x, s.m, s.field, s.args)

    yield scaled
    yield from noise_terms(equation, coefficients, form)


@dataclass(frozen=True)
class Scaled(Scheme):
    """Euler–Maruyama with the drift times a factor."""

    factor: float

    @property
    def name(self):
        return f"scaled by {self.factor:g}"

    @property
    def stages(self):
        return (Stage(scaled_terms, settings=(self.factor,)),)


@pytest.fixture(scope="module")
def howto():
    """What the page on one's own scheme defines; tests/test_docs.py runs the rest of it."""
    page = (ROOT / "docs" / "howto.md").read_text()
    (code,) = re.findall(r"^## use one's own scheme\n.*?^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict = {}
    exec(code[: code.index("half = ")], names)
    return names


@pytest.mark.parametrize("name", SHORT)
def test_names_and_objects_give_the_same_bits(name):
    equation = ORNSTEIN_UHLENBECK if name == "sra1" else GEOMETRIC
    x0 = np.random.default_rng(0).normal(1.0, 0.2, 3000)
    runs = [solvers.solve(equation, x0, 0.0, 1.0, 8, scheme=scheme) for scheme in (name, SHORT[name]())]
    np.testing.assert_array_equal(runs[0].final_particles, runs[1].final_particles)
    assert runs[0].settings == runs[1].settings
    assert runs[1].settings["scheme"] == name
    for study, steps, options in (
        (solvers.strong_order, (2, 4, 8), {}),
        (solvers.weak_order, (2, 4, 8), {}),
        (solvers.particle_order, 4, {"particles": (8, 16, 32)}),
    ):
        errors = [
            study(equation, np.ones(64), 0.0, 1.0, steps, replicates=3, scheme=scheme, **options).errors
            for scheme in (name, SHORT[name]())
        ]
        np.testing.assert_array_equal(*errors)


def test_a_scheme_is_a_file_and_a_line():
    folder = ROOT / "solvers" / "sde" / "schemes"
    parts = {"__init__", "scheme", "kernels", "passes", "terms", "newton"}
    assert {path.stem for path in folder.glob("*.py")} == parts | set(_FILES)
    assert solvers.schemes is schemes is importlib.import_module("solvers.schemes")
    tools = {"Scheme", "Stage", "Step", "common_noise_terms", "drift_terms", "euler_terms", "noise_terms"}
    assert set(schemes.__all__) == tools | set(_FILES.values())
    for file, name in _FILES.items():
        assert getattr(schemes, name).__module__ == f"solvers.sde.schemes.{file}"
    with pytest.raises(AttributeError, match=r"module 'solvers\.schemes' has no attribute 'Euler'; it has BAOAB, Drif"):
        _ = importlib.import_module("solvers.sde.schemes").Euler


def test_claims():
    additive, heun = EulerMaruyama(), Heun()
    assert [additive.strong_order(e) for e in (ORNSTEIN_UHLENBECK, MEAN_FIELD, GEOMETRIC, PLANAR_GENERAL, COMMON)] == [
        1.0, 1.0, 0.5, 0.5, 0.5,
    ]  # fmt: skip
    assert [heun.strong_order(e) for e in (ORNSTEIN_UHLENBECK, GEOMETRIC, PLANAR_GENERAL, COMMON)] == [1, 1, 0.5, 0.5]
    assert Milstein().strong_order(GEOMETRIC) == 1.0
    assert {scheme().weak_order(GEOMETRIC) for scheme in (EulerMaruyama, Heun, Milstein)} == {1.0}
    assert ThreeStages().strong_order(GEOMETRIC) is None
    assert ThreeStages().weak_order(GEOMETRIC) is None


def test_means_are_those_of_each_stage():
    """dX = −a (X − θ E X) dt: the mean and what differs from it shrink by the cubic Taylor polynomial in a step."""
    rate, attraction, h = 1.5, 0.4, 0.25
    equation = McKeanVlasov(lambda t, x, m: -rate * (x - attraction * m), moments=lambda t, x: x, vectorized=True)
    x0 = np.random.default_rng(0).normal(1.0, 0.5, 5000)
    run = solvers.solve(equation, x0, 0.0, 3 * h, 3, scheme=ThreeStages())

    def shrink(rate):
        return (1 - rate * h + (rate * h) ** 2 / 2 - (rate * h) ** 3 / 6) ** 3

    exact = x0.mean() * shrink(rate * (1 - attraction)) + (x0 - x0.mean()) * shrink(rate)
    np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=1e-13)
    assert run.settings["scheme"] == "ThreeStages"


def test_one_own_scheme_is_what_it_says(howto):
    scheme, steps, h = howto["scheme"], 5, 0.2
    x0 = np.random.default_rng(0).normal(1.0, 0.5, 3000)
    dw = BrownianMotion(0.0, 1.0, steps, 1).increments(slice(0, 3000))[..., 0]
    # the mean, a number, is in every coefficient
    compiled = McKeanVlasov(
        njit(lambda t, x, m: math.cos(t) - x * x + m), njit(lambda t, x, m: 0.3 * x + m), njit(lambda t, x: x)
    )
    arrays = McKeanVlasov(
        lambda t, x, m: np.cos(t) - x * x + m, lambda t, x, m: 0.3 * x + m, lambda t, x: x, vectorized=True
    )
    exact = x0.copy()
    for step in range(steps):
        t, m = step * h, exact.mean()
        ahead = exact + 0.5 * h * (np.cos(t) - exact**2 + m)
        exact = exact + h * (np.cos(t + 0.5 * h) - ahead**2 + m) + (0.3 * exact + m) * dw[step]
    for equation in (compiled, arrays):
        run = solvers.solve(equation, x0, 0.0, 1.0, steps, scheme=scheme)
        np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=1e-12)
        assert run.settings["scheme"] == "midpoint_drift"
    with pytest.raises(ValueError, match='scheme="midpoint_drift" needs a drift and no interaction; use scheme="euler'):
        solvers.solve(COMMON, x0, 0.0, 1.0, steps, scheme=scheme)


def test_orders_of_one_own_scheme(howto):
    study = solvers.strong_order(
        howto["equation"], np.ones(200), 0.0, 1.0, (8, 16, 32, 64), scheme=howto["scheme"], replicates=4
    )
    assert abs(study.order - 1.0) < 0.1
    decay = McKeanVlasov(lambda t, x, m: -x, vectorized=True)
    ends = [solvers.solve(decay, [1.0], 0, 1, n, scheme=howto["scheme"]).final_particles[0] for n in (32, 64)]
    errors = np.abs(np.array(ends) - math.exp(-1))
    assert abs(errors[0] / errors[1] - 4) < 0.1  # order 2, where that of Euler–Maruyama is 1


def test_equal_settings_are_compiled_once():
    form = Trial(ORNSTEIN_UHLENBECK, 0.0, np.ones((1, 4)), True).form()
    passes = [stage_pass(ORNSTEIN_UHLENBECK, form, Scaled(factor).stages[0]) for factor in (2.0, 2.0, 3.0)]
    assert passes[0] is passes[1]
    assert passes[0] is not passes[2]
    same = [stage_pass(ORNSTEIN_UHLENBECK, form, stage) for stage in (*EulerMaruyama().stages, *Heun().stages)]
    assert same[0] is same[1] is same[2]
    runs = [solvers.solve(GEOMETRIC, np.ones(100), 0, 1, 4, scheme=Scaled(factor)) for factor in (1.0, 2.0)]
    plain = solvers.solve(GEOMETRIC, np.ones(100), 0, 1, 4)
    np.testing.assert_allclose(runs[0].final_particles, plain.final_particles, rtol=1e-14)
    assert np.abs(runs[1].final_particles - plain.final_particles).min() > 0.01


class Taken(Heun):
    name = "heun"


class Nameless(Scheme):
    name = ""
    stages = EulerMaruyama.stages


class Stageless(Scheme):
    pass


class Loose(Scheme):
    stages = (euler_terms,)


class Weightless(Scheme):
    stages = (Stage(euler_terms, weight=math.nan),)


class Listed(Scheme):
    stages = (Stage(scaled_terms, settings=([1.0],)),)


class Empty(Scheme):
    stages = (Stage(lambda equation, coefficients, form: iter(())),)


@pytest.mark.parametrize(
    ("scheme", "error", "message"),
    [
        ("euler", ValueError, f"^scheme must be one of {ALL}, got 'euler'$"),
        (
            "BAOAB",
            ValueError,
            r"^scheme BAOAB has no short name: pass solvers\.schemes\.BAOAB\(friction, temp",
        ),
        (3, TypeError, rf"^scheme must be one of {ALL} or a solvers\.schemes\.Scheme, got 3$"),
        (None, TypeError, r"or a solvers\.schemes\.Scheme, got None$"),
        (Heun, TypeError, r"got the class Heun; make an object of it: Heun\(\)$"),
        (Taken(), ValueError, "^scheme must have a name of its own, got Taken with the name of another, 'heun'; set"),
        (Nameless(), TypeError, "^name of the scheme Nameless must be a string that is not empty, got ''$"),
        (Stageless(), TypeError, r"^stages of the scheme Stageless must be a tuple of at least one .*Stage, got \(\)$"),
        (Loose(), TypeError, r"^a stage of the scheme Loose must be a solvers\.schemes\.Stage of a function, got <fun"),
        (Weightless(), ValueError, "^weight of a stage of the scheme Weightless must be finite, got nan$"),
        (Listed(), TypeError, "^settings of a stage of the scheme Listed must be hashable: .*; use tuples$"),
        (Empty(), TypeError, "^the equation cannot be solved: ValueError: .* gives no terms"),
    ],
)
def test_bad_schemes(scheme, error, message):
    with pytest.raises(error, match=message) as caught:
        solvers.solve(GEOMETRIC, np.ones(4), 0.0, 1.0, 10, scheme=scheme)
    assert "\n" not in str(caught.value)


def adds(out, s):
    out += s.dt * s.x


def sets(out, s):
    out[:] = out + s.dt * s.x


def rebinds(out, s):
    out = out + s.dt * s.x


def begins_anew(out, s):
    change = s.dt * s.x
    out = change + out
    for p in range(1):
        out[0, p] += 0.0


def compares(out, s):
    out = s.dt == s.t
    del out


def returns(out, s):
    return s.dt * s.x


def passes_on(out, s):
    return adds(out, s)


def adds_within(out, s):
    def each(p):
        out[:, p] += s.dt

    each(0)


def reads(out, s):
    print(s.t)


@pytest.mark.parametrize("term", [reads, passes_on, adds_within, adds, sets, njit(adds), partial(adds)])
def test_terms_that_add_in_place(term):
    check_term(term)


@pytest.mark.parametrize("term", [rebinds, njit(begins_anew), compares])
def test_terms_that_give_their_first_argument_another_value(term):
    """What they add would be lost without a word."""
    with pytest.raises(ValueError, match=r"^the term \w+ must add to out in place: out \+= …$"):
        check_term(term)


@pytest.mark.parametrize("term", [returns, njit(returns)])
def test_terms_that_return_what_they_should_add(term):
    with pytest.raises(
        ValueError, match=r"^the term returns must add to its first argument, out \+= …, and returns some"
    ):
        check_term(term)


class Rebinding(Scheme):
    stages = (Stage(lambda equation, coefficients, form: iter((rebinds,))),)


def test_a_scheme_of_such_terms_is_refused():
    with pytest.raises(TypeError, match="ValueError: the term rebinds must add to out in place"):
        solvers.solve(GEOMETRIC, np.ones(4), 0.0, 1.0, 10, scheme=Rebinding())


@pytest.mark.parametrize("scheme", ["milstein", Milstein()])
def test_noise_that_a_scheme_does_not_take(scheme):
    rule = 'scheme="milstein" needs noise="additive" or "diagonal" and no common noise, got noise='
    for equation, x0, got in (
        (PLANAR_GENERAL, np.ones((4, 2)), '"general"'),
        (MEAN_FIELD, np.ones(4), '"mean_field"'),
        (COMMON, np.ones(4), '"diagonal" and common noise'),
    ):
        with pytest.raises(ValueError, match=f'^{rule}{got}; use scheme="euler_maruyama"$'):
            solvers.solve(equation, x0, 0.0, 1.0, 4, scheme=scheme)
    for study in (solvers.strong_order, solvers.weak_order):
        with pytest.raises(ValueError, match=f"^{rule}"):
            study(COMMON, np.ones(4), 0.0, 1.0, (1, 2, 4), replicates=3, scheme=scheme)
    with pytest.raises(ValueError, match=f"^{rule}"):
        solvers.particle_order(COMMON, np.ones(8), 0.0, 1.0, 1, (1, 2, 4), replicates=3, scheme=scheme)


def test_a_run_goes_on_with_its_scheme(tmp_path):
    x0 = np.random.default_rng(0).normal(1.0, 0.2, 500)
    for scheme in ("heun", Scaled(2.0)):
        whole = solvers.solve(GEOMETRIC, x0, 0.0, 2.0, 16, scheme=scheme)
        half = solvers.load(solvers.solve(GEOMETRIC, x0, 0.0, 1.0, 8, scheme=scheme).save(tmp_path / "half.nc"))
        rest = solvers.resume(GEOMETRIC, half, 2.0, 8, scheme=None if scheme == "heun" else Scaled(2.0))
        np.testing.assert_array_equal(rest.final_particles, whole.final_particles)
        assert rest.settings["scheme"] == get_scheme(scheme).name
        rest = solvers.resume(GEOMETRIC, half, 2.0, 8, scheme=Heun() if scheme == "heun" else scheme)
        np.testing.assert_array_equal(rest.final_particles, whole.final_particles)
        with pytest.raises(
            ValueError, match=r"^scheme must be that of the run, '(heun|scaled by 2)', got 'milstein'; "
        ):
            solvers.resume(GEOMETRIC, half, 2.0, 8, scheme="milstein")
    with pytest.raises(ValueError, match=r"^scheme must be given again, .* 'scaled by 2': pass scheme=$"):
        solvers.resume(GEOMETRIC, half, 2.0, 8)
    with pytest.raises(ValueError, match=r"that of the run, 'scaled by 2', got 'scaled by 3'; pass that one$"):
        solvers.resume(GEOMETRIC, half, 2.0, 8, scheme=Scaled(3.0))
    with pytest.raises(TypeError, match=r"^scheme must be one of .*, got 3$"):
        solvers.resume(GEOMETRIC, half, 2.0, 8, scheme=3)


@pytest.mark.parametrize("name", ["equations", "schemes"])
def test_what_the_modules_list_is_documented(name):
    module = importlib.import_module(f"solvers.{name}")
    items = [(f"{name}.{label}", getattr(module, label)) for label in module.__all__]
    found = [one for label, item in items for one in complaints(label, item, docs(item), "free")]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("name", ["ornstein_uhlenbeck", "geometric_brownian_motion", "kuramoto", "cucker_smale"])
@pytest.mark.parametrize("arguments", [{}, {"volatility": 0.3}], ids=["plain", "noisy"])
def test_ready_equations_are_pickled(name, arguments):
    assert name in solvers.equations.__all__
    equation = getattr(solvers.equations, name)(**arguments)
    again = pickle.loads(pickle.dumps(equation))
    old = pickle.loads(pickle.dumps(equation, 0).replace(b"solvers.sde.equations", b"solvers.equations"))
    x0, field = np.random.default_rng(0).normal(size=(20, 2)), 0.1 if name == "kuramoto" else None
    x0 = x0 if name == "cucker_smale" else x0[:, 0]
    ends = [solvers.solve(one, x0, 0, 1, 4, field=field).final_particles for one in (equation, again, old)]
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])
