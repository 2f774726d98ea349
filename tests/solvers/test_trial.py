"""What would make a run silently wrong is refused before it starts, and what is right is not."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import ExternalField, McKeanVlasov
from solvers.sde import functions
from solvers.sde.coefficients import coefficient_functions
from solvers.sde.interpret import bounds_checked, interpreted
from solvers.sde.trial import Trial
from tests.solvers.equations import ORNSTEIN_UHLENBECK, A

PAIRS = np.random.default_rng(0).normal(2, 1, (1000, 2))
TABLE = np.arange(5.0)
entry = njit(lambda a, i: a[i])
two = njit(lambda t, x: (x[0], x[1]))
NOISE = np.random.default_rng(0)
RANDOM = njit(lambda: np.random.standard_normal())  # noqa: NPY002  the only kind that compiles without an argument


def _vectorized(**coefficients):
    return McKeanVlasov(**coefficients, vectorized=True)


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        ({"drift": njit(lambda t, x, m: (x[2], x[0]))}, "drift reads beyond the end of an array at t = 0: index 2"),
        ({"drift": njit(lambda t, x, m: (x[0], m[5])), "moments": two}, "drift reads .* index 5 .* m has 2"),
        ({"diffusion": njit(lambda t, x, m: (entry(x, 2), 1.0))}, "diffusion reads beyond the end of an array"),
        ({"drift": njit(lambda t, x, m: (TABLE[int(3 * abs(x[0]))], 1.0))}, "drift reads beyond .* size 5"),
        (
            {"drift": njit(lambda t, x, m: (1.0 / math.sqrt(-1.0 - t), x[2]), error_model="numpy")},  # not as Python
            "drift reads beyond .*out of bounds",
        ),
        ({"interaction": njit(lambda x, y: (y[0] - x[0], y[3]))}, "interaction reads beyond the end of an array"),
        ({"common": njit(lambda t, x, m: (1.0, x[2]))}, "common reads beyond the end of an array"),
        ({"moments": njit(lambda t, x: x[2]), "drift": njit(lambda t, x, m: (m, m))}, "moments reads beyond the end"),
        ({"drift": njit(lambda t, x, m, f: (f[1], 1.0))}, "drift reads beyond the end of an array"),
        ({"drift": njit(lambda t, x, m: (RANDOM(), 0.0))}, "drift gives two values for the same arguments"),
    ],
)
def test_compiled_coefficients_that_would_run_wrong(coefficients, message):
    takes = any(function.py_func.__code__.co_argcount == 4 for function in coefficients.values())
    field = {"field": [1.0]} if takes else {}
    with pytest.raises((ValueError, TypeError), match=message) as error:
        solvers.solve(McKeanVlasov(**coefficients), PAIRS, 0.0, 1.0, 4, **field)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("x0", [np.linspace(0, 1, 5000), np.ones(1), np.ones(5000)])
@pytest.mark.parametrize(
    "coefficients",
    [
        {"drift": lambda t, x, m: x.mean() - x},
        {"diffusion": lambda t, x, m: x.std() + 0 * x},
        {"moments": lambda t, x: x - x.mean(), "drift": lambda t, x, m: m - x},
        {"common": lambda t, x, m: x / x.max()},
        {"drift": lambda t, x, m: np.cumsum(x)},
        {"drift": lambda t, x, m: x[::-1] - x},
        {"interaction": lambda x, y: y.max() - x + 0 * y},
        {"interaction": lambda x, y: y - x.mean() + 0 * x},
    ],
)
def test_functions_of_all_particles_that_see_others(coefficients, x0):
    name = next(iter(coefficients))
    with pytest.raises(ValueError, match=f"{name} gives a particle another value in other company"):
        solvers.solve(_vectorized(**coefficients), x0, 0.0, 1.0, 4)


def test_random_numbers_in_a_function_of_all_particles():
    equation = _vectorized(drift=lambda t, x, m: NOISE.standard_normal(x.shape))
    with pytest.raises(ValueError, match="drift gives two values for the same arguments"):
        solvers.solve(equation, np.ones(10), 0.0, 1.0, 4)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("scheme", ["euler_maruyama", "milstein"])
def test_noise_called_additive_that_depends_on_x_at_later_times(scheme, vectorized):
    for function in (lambda t, x, m: t * x, lambda t, x, m: 1.0 + max(0.0, t - 0.95) * (x if not vectorized else 1)):
        plain = function if vectorized else njit(function)
        equation = McKeanVlasov(diffusion=plain, noise="additive", vectorized=vectorized)
        if vectorized and function(0.99, 2.0, 0) == function(0.99, 3.0, 0):
            assert solvers.solve(equation, np.ones(100), 0.0, 1.0, 100, scheme=scheme).status == "completed"
            continue
        with pytest.raises(ValueError, match="diffusion depends on x"):
            solvers.solve(equation, np.ones(100), 0.0, 1.0, 100, scheme=scheme)


def test_weights_that_vanish_where_coefficients_are_tried_are_no_reason_to_refuse():
    """exp(−α f) is zero at all particles but the one with the lowest f, where it is smallest by far."""
    x0 = np.full(10_000, 3.0)
    x0[777] = 0.3
    equation = McKeanVlasov(
        drift=lambda t, x, m: -(x - m[0] / m[1]),
        moments=lambda t, x: np.stack([x, np.ones_like(x)]) * np.exp(-2000.0 * x * x),
        vectorized=True,
    )
    run = solvers.solve(equation, x0, 0.0, 1.0, 10)
    np.testing.assert_allclose(run.moments[0, 0] / run.moments[0, 1], 0.3, rtol=1e-12)
    np.testing.assert_allclose(run.final_particles, 0.3 + (x0 - 0.3) * 0.9**10, rtol=1e-10)


@njit(error_model="numpy")
def unusual(t, x, m):
    """Roots and divisions that Python refuses and compiled code does not, sums, and a function that is known later."""
    return 1.0 if math.sqrt(x[0]) > 1.0 else 0.0, solvers_tanh(1.0 / x[1]) - np.sum(x)


def test_what_is_right_is_not_refused():
    x0 = np.concatenate([[[-1.0, 0.0]], PAIRS])
    from_the_end = njit(lambda t, x, m: (x[-1], x[-2]))
    run = solvers.solve(McKeanVlasov(unusual, from_the_end), x0, 0.0, 1.0, 4, save="particles")
    assert run.status == "completed"
    dw = solvers.BrownianMotion(0.0, 1.0, 4, 2).increments(slice(0, 1))[0, 0]
    # √−1 = NaN is not above 1, tanh(1/0) = 1, and the sum is −1
    np.testing.assert_allclose(run.particles[1, 0] - x0[0], 0.25 * np.array([0, 1 + 1]) + dw * [0, -1], atol=1e-14)


def test_a_pull_may_be_an_array():
    equation = McKeanVlasov(interaction=njit(lambda x, y: y - x))
    trial = Trial(equation, 0.0, PAIRS.T.copy(), False)
    form = trial.form()
    trial.check(form, np.linspace(0.0, 1.0, 5), lambda step: trial.field)
    pull = coefficient_functions(equation, form).interaction(
        0.0, PAIRS[:3].T.copy(), np.zeros(1), trial.field, (), PAIRS.T.copy(), 0
    )
    np.testing.assert_allclose(pull.T, PAIRS.mean(0) - PAIRS[:3], rtol=0, atol=1e-12)


solvers_tanh = solvers.tanh


def test_functions_on_the_edge_of_where_they_are_defined():
    """exp and sqrt round the ends of arrays differently; a place that is tried may be outside; fields differ."""
    x0 = np.random.default_rng(1).exponential(size=777)
    field = ExternalField(x0, per_particle=True)

    def drift(t, x, m, f):
        if np.any(x < 0):
            raise ValueError("outside")
        return 1e3 * (np.exp(np.sin(x)) - np.exp(np.sin(f))) + np.sqrt(x)

    assert solvers.solve(_vectorized(drift=drift), x0, 0.0, 1e-3, 2, field=field).status == "completed"


def test_an_explosion_that_stays_finite():
    """Explicit steps of dx = −a (x − E x) dt with a dt = 100 multiply the spread by −99: 1e100 the start after 51."""
    start, end = np.random.default_rng(0).normal(1, 0.1, 1000), 100 * 100 / A
    with pytest.warns(RuntimeWarning, match=r"diverged: at t = 3\d+.* a particle"):
        run = solvers.solve(ORNSTEIN_UHLENBECK, start, 0.0, end, 100)
    assert run.status == "diverged"
    assert len(run.mean) == round(100 * run.final_time / end)
    with pytest.warns(RuntimeWarning, match="diverged"):  # what counts is the growth
        assert solvers.solve(ORNSTEIN_UHLENBECK, start, 0.0, end, 200).status == "diverged"
    assert solvers.solve(ORNSTEIN_UHLENBECK, np.full(3, 1e120), 0.0, 1.0, 10).status == "completed"


def test_compiled_equations_go_to_other_processes():
    """The ready ones are in test_scheme_objects."""
    copy = pickle.loads(pickle.dumps(ORNSTEIN_UHLENBECK))
    assert (copy.noise, copy.vectorized, copy.given) == ("additive", False, ORNSTEIN_UHLENBECK.given)
    for name in copy.given:
        arguments = (0.3, 1.7, 0.9)[: 2 if name == "moments" else 3]
        function = getattr(copy, name)
        assert function(*arguments) == getattr(ORNSTEIN_UHLENBECK, name)(*arguments) == function.py_func(*arguments)


def test_records_keep_the_order_asked_for():
    run = solvers.solve(
        ORNSTEIN_UHLENBECK, np.ones(10), 0.0, 1.0, 10, save_at=[0.5, 0.1, 0.5], save=["mean", "particles"]
    )
    plain = solvers.solve(ORNSTEIN_UHLENBECK, np.ones(10), 0.0, 1.0, 10, save=["mean", "particles"])
    np.testing.assert_allclose(run.times, [0.5, 0.1, 0.5])
    for name in ("mean", "particles", "moments"):
        np.testing.assert_array_equal(getattr(run, name), getattr(plain, name)[[5, 1, 5]])
    backward = solvers.solve(ORNSTEIN_UHLENBECK, np.ones(10), 1.0, 0.0, 10)
    np.testing.assert_allclose(backward.times, np.linspace(1, 0, 11))


@njit
def countdown(n):
    return 0 if n == 0 else 1 + countdown(n - 1)


@njit
def outer(x):
    return entry(x, 1) + math.sqrt(4.0) + countdown(3)


def test_functions_are_rebuilt_with_those_that_they_call():
    offset = njit(lambda x: x[0])
    inner = njit(lambda x: outer(x) + offset(x) + np.abs(x[0]))
    x = np.array([1.0, 2.0])
    for rebuilt in (interpreted(inner), bounds_checked(inner)):
        assert rebuilt(x) == inner(x) == 2 + 2 + 3 + 1 + 1
        with pytest.raises(IndexError):
            rebuilt(x[:1])
    assert interpreted(len) is len
    through = njit(lambda x: functions.tanh(x))
    assert interpreted(through)(0.0) == through(0.0) == 0.0


ONES = np.ones(4)
# dX = dt as far as an index reaches that grows with time, or with the particles
GROWING = McKeanVlasov(drift=njit(lambda t, x, m, c: ONES[int(c[0] * t + c[1] * x)]), noise="additive")
WITH_TIME, WITH_PARTICLES = [4.3, 0.0], [0.0, 1.0]


def test_indices_that_grow_with_time_are_found_before_the_run():
    with pytest.raises(ValueError, match=r"drift reads beyond the end of an array at t = 0\.95"):
        solvers.solve(GROWING, np.zeros(50), 0.0, 1.0, 20, field=WITH_TIME)
    assert solvers.solve(GROWING, np.zeros(50), 0.0, 0.9, 18, field=WITH_TIME).status == "completed"


def test_indices_that_grow_with_the_particles_are_found_while_it_goes():
    assert solvers.solve(GROWING, np.zeros(50), 0.0, 3.9, 20, field=WITH_PARTICLES).status == "completed"
    start = np.zeros(500)
    start[317] = 2.0  # the outermost particle is looked at, wherever it stands
    with pytest.warns(RuntimeWarning, match="drift reads beyond the end of an array at t = 2.1"):
        run = solvers.solve(GROWING, start, 0.0, 3.0, 20, field=WITH_PARTICLES, save=["particles"])
    assert run.status == "failed"
    assert 0 < len(run.times) < 21


def test_noise_that_turns_out_to_depend_on_x_is_found_while_it_goes():
    equation = McKeanVlasov(
        lambda t, x, m: 1.0 + 0 * x, lambda t, x, m: np.maximum(1.0, x), noise="additive", vectorized=True
    )
    with pytest.warns(RuntimeWarning, match="diffusion depends on x"):
        assert solvers.solve(equation, np.zeros(50), 0.0, 8.0, 40).status == "failed"


def _writes_to_m(t, x, m):
    m[0] = 7.0
    return m[1] - x


def _writes_to_x(t, x, m):
    x[0] = 0.0
    return (-x[0], -x[1])


@pytest.mark.parametrize(("drift", "argument", "start"), [(_writes_to_m, "m", 50), (_writes_to_x, "x", (50, 2))])
def test_coefficients_must_not_write_into_their_arguments(drift, argument, start):
    moments = njit(lambda t, x: (1.0, x)) if argument == "m" else None
    with pytest.raises(ValueError, match=f"drift writes into its argument {argument}"):
        solvers.solve(McKeanVlasov(drift=njit(drift), moments=moments), np.ones(start), 0.0, 1.0, 20)
