"""Moments in stages, largest values, weighted means and means of groups, against NumPy of all particles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit
from scipy.special import logsumexp

import solvers
from solvers import GroupMeans, Largest, McKeanVlasov, WeightedMean
from solvers.sde.moments.mean import Mean
from solvers.sde.moments.moment import Moment

ROUNDING = 1e-12
X = np.random.default_rng(3).standard_normal((5000, 2))


def first(t, x):
    return x[0]


def apart(t, x, m):
    return abs(x[0] - m)


def label(t, x):
    return 1.0 * (x[1] > 0.0)


def steep(t, x, args):
    return -args * (x[0] * x[0] + x[1] * x[1])


def still(t, x, m):
    return 0.0 * x


def compiled(function, vectorized):
    return function if vectorized else njit(function)


def equation(moments, vectorized):
    drift = still if vectorized else njit(lambda t, x, m: (0.0, 0.0))
    return McKeanVlasov(drift=drift, moments=moments, vectorized=vectorized)


def moments_of(moments, vectorized, x=X, **rest):
    """m where a run starts, and after two steps that move nothing."""
    run = solvers.solve(equation(moments, vectorized), x, 0.0, 1.0, 2, **rest)
    assert run.status == "completed"
    np.testing.assert_array_equal(run.moments, run.moments[[0]].repeat(3, axis=0))
    return run.moments[0]


@pytest.mark.parametrize("vectorized", [False, True])
def test_later_moments_see_earlier_ones(vectorized):
    m = moments_of((compiled(first, vectorized), compiled(apart, vectorized)), vectorized)
    mean = X[:, 0].mean()
    np.testing.assert_allclose(m, [mean, np.abs(X[:, 0] - mean).mean()], rtol=ROUNDING)


@pytest.mark.parametrize("vectorized", [False, True])
def test_the_largest_value(vectorized):
    top = compiled(lambda t, x: -(x[0] * x[0] + x[1] * x[1]), vectorized)
    (m,) = moments_of(Largest(top), vectorized)
    assert m == -np.square(X).sum(1).min()


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("steepness", [1.0, 1e5])
def test_weighted_means_do_not_overflow(vectorized, steepness):
    """Against NumPy's sums of weights relative to the largest, which are right at any steepness."""
    given = WeightedMean(compiled(steep, vectorized), compiled(lambda t, x, args: x[0], vectorized))
    run = solvers.solve(equation(given, vectorized), X, 0.0, 1.0, 1, args=steepness)
    logarithms = -steepness * np.square(X).sum(1)
    weights = np.exp(logarithms - logarithms.max())
    expected = [weights @ X[:, 0] / weights.sum(), logsumexp(logarithms) - math.log(len(X))]
    np.testing.assert_allclose(run.moments[-1], expected, rtol=1e-11)


def test_the_smallest_value_from_weights_alone():
    run = solvers.solve(equation(WeightedMean(njit(steep)), False), X, 0.0, 1.0, 1, args=1e8)
    assert -run.moments[0, 0] / 1e8 == pytest.approx(np.square(X).sum(1).min(), abs=1e-7)


@pytest.mark.parametrize("vectorized", [False, True])
def test_means_of_groups(vectorized):
    values = compiled((lambda t, x: np.stack([x[0], x[1]])) if vectorized else (lambda t, x: (x[0], x[1])), vectorized)
    m = moments_of(GroupMeans(values, compiled(label, vectorized), 2), vectorized)
    expected = [X[X[:, 1] <= 0].mean(0), X[X[:, 1] > 0].mean(0)]
    np.testing.assert_allclose(m, np.ravel(expected), rtol=1e-10)


def test_kinds_follow_each_other_and_the_share_of_resets_stays_last():
    numbers = X[:, 0]
    one = McKeanVlasov(
        drift=njit(lambda t, x, m: 0.0),
        moments=[njit(lambda t, x: x), Largest(njit(lambda t, x, m: x - m)), njit(lambda t, x, m: (m[0], m[1], x**2))],
    )
    run = solvers.solve(one, numbers, 0.0, 1.0, 2, reset=solvers.Reset(threshold=50.0, value=0.0))
    expected = [numbers.mean(), (numbers - numbers.mean()).max(), numbers.mean(), (numbers - numbers.mean()).max()]
    np.testing.assert_allclose(run.moments[1], [*expected, np.square(numbers).mean(), 0.0], rtol=1e-9, atol=1e-15)


def test_a_single_largest_number_is_a_number():
    one = McKeanVlasov(drift=njit(lambda t, x, m: m - x), moments=Largest(njit(lambda t, x: x)))
    run = solvers.solve(one, np.array([0.0, 1.0, 3.0]), 0.0, 1.0, 1)
    np.testing.assert_array_equal(run.final_particles, [3.0, 3.0, 3.0])


@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun", "tamed_euler", "drift_implicit_euler"])
def test_vectorized_and_compiled_runs_agree_for_any_scheme(scheme):
    def run(vectorized):
        made = McKeanVlasov(
            drift=compiled(lambda t, x, m: (m[0] - x) * m[1], vectorized),
            diffusion=compiled(lambda t, x, m: 0.5, vectorized),
            moments=(compiled(lambda t, x: x, vectorized), compiled(lambda t, x, m: abs(x - m), vectorized)),
            noise="additive",
            vectorized=vectorized,
        )
        return solvers.solve(made, X[:, 0], 0.0, 1.0, 8, scheme=scheme)

    one, other = run(False), run(True)
    np.testing.assert_allclose(one.final_particles, other.final_particles, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        one.moments[-1],
        [one.final_particles.mean(), np.abs(one.final_particles - one.final_particles.mean()).mean()],
        rtol=1e-11,
    )


@pytest.mark.parametrize("kind", ["weighted", "largest", "groups", "stages"])
def test_threads_change_no_bit(kind):
    moments = {
        "weighted": WeightedMean(njit(lambda t, x: -3.0 * x[0] ** 2), njit(lambda t, x: (x[0], x[1]))),
        "largest": Largest(njit(lambda t, x: (x[0], -x[0]))),
        "groups": GroupMeans(njit(first), njit(lambda t, x: 1.0 * (x[1] > 0)), 2),
        "stages": (njit(first), njit(apart)),
    }[kind]
    one = McKeanVlasov(drift=njit(lambda t, x, m: (m[0] - x[0], m[1] - x[1])), moments=moments)
    x0 = np.random.default_rng(1).standard_normal((40_000, 2))
    runs = [solvers.solve(one, x0, 0.0, 1.0, 4, threads=threads) for threads in (1, 2, 3)]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.final_particles, runs[0].final_particles)
        np.testing.assert_array_equal(run.moments, runs[0].moments)


def test_a_run_goes_on_with_its_later_moments(tmp_path):
    one = McKeanVlasov(
        drift=njit(lambda t, x, m: (m[0] - x) * m[1]), diffusion=njit(lambda t, x, m: 1.0), noise="additive",
        moments=(njit(lambda t, x: x), njit(lambda t, x, m: abs(x - m))),
    )  # fmt: skip
    whole = solvers.solve(one, X[:, 0], 0.0, 2.0, 8)
    half = solvers.solve(one, X[:, 0], 0.0, 1.0, 4)
    half.save(tmp_path / "run.nc")
    again = solvers.resume(one, solvers.load(tmp_path / "run.nc"), 2.0, 4)
    np.testing.assert_array_equal(again.final_particles, whole.final_particles)
    many = solvers.solve_many(one, X[:, 0], 0.0, 1.0, 4, seed=[0, 1])
    np.testing.assert_array_equal(many.moments[0], half.moments)


def test_a_kind_of_moment_of_ones_own():
    class SecondMoment(Moment):
        kernels = Mean.kernels

        def functions(self):
            return {"values": njit(lambda t, x: x)}

        def width(self, rows):
            return rows

        def size(self, rows):
            return rows

        def finish(self, total, particles):
            return total / particles + 1.0

    one = McKeanVlasov(drift=njit(lambda t, x, m: m), moments=SecondMoment())
    run = solvers.solve(one, np.array([1.0, 3.0]), 0.0, 1.0, 1)
    np.testing.assert_array_equal(run.final_particles, [4.0, 6.0])


class Wrong(Mean):
    """It has other functions, and returns too much."""

    def functions(self):
        return self.function

    def finish(self, total, particles):
        return np.zeros(3)


NUMBERS = X[:100, 0]


def refused(moments, x0=NUMBERS, **rest):
    solvers.solve(McKeanVlasov(drift=njit(lambda t, x, m: 0.0 * x), moments=moments), x0, 0.0, 1.0, 2, **rest)


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda: refused(Largest), TypeError, "^moments must be functions or moments, got the class Largest$"),
        (lambda: refused(Wrong({})), ValueError, "^functions of Wrong must be one or two, got 0$"),
        (
            lambda: refused(Wrong({"x": njit(lambda t, x: x)})),
            TypeError,
            "finish of Wrong must return 1 numbers, got",
        ),
        (lambda: refused(()), ValueError, "^moments must not be empty; leave them out$"),
        (lambda: refused(Largest(3)), TypeError, "^the function of Largest must be a function, got 3$"),
        (
            lambda: refused(Largest(lambda t, x: x)),
            TypeError,
            r"^function of Largest of moments\[0\] must be compiled",
        ),
        (
            lambda: refused((njit(lambda t, x: x), njit(lambda t, x: x))),
            TypeError,
            r"^moments\[1\] must take \(t, x, m\[, args\]\)",
        ),
        (
            lambda: refused(WeightedMean(njit(lambda t, x: (x, x)))),
            ValueError,
            "^log_weight must return a number, got 2$",
        ),
        (lambda: refused(GroupMeans(njit(lambda t, x: x), njit(lambda t, x: 0.0), 0)), ValueError, "^groups must be "),
        (
            lambda: refused((njit(lambda t, x: x), njit(lambda t, x, m: m[3] + x))),
            (TypeError, ValueError),
            r"moments\[1\] (reads beyond|failed)",
        ),
        (
            lambda: McKeanVlasov(noise="mean_field", moments=Largest(njit(lambda t, x: x))),
            ValueError,
            '^noise="mean_field" needs moments or covariance',
        ),
    ],
)
def test_bad_input(work, error, message):
    with pytest.raises(error, match=message) as found:
        work()
    assert "\n" not in str(found.value)


def test_an_empty_group_or_another_label_is_refused_or_ends_the_run():
    moments = GroupMeans(njit(lambda t, x: x), njit(lambda t, x: np.floor(t + 1.0 * (x > 0))), 2)
    one = McKeanVlasov(drift=njit(lambda t, x, m: m[0]), moments=moments)
    with pytest.warns(RuntimeWarning, match="diverged"):
        run = solvers.solve(one, NUMBERS, 0.0, 2.0, 4)
    assert run.status == "diverged"
    assert run.final_time == 1.0
    for moved in (5.0, 0.5):
        moments = GroupMeans(njit(lambda t, x: x), njit(lambda t, x, args: args), 2)
        one = McKeanVlasov(drift=njit(lambda t, x, m, args: m[0]), moments=moments)
        with pytest.raises(ValueError, match=r"GroupMeans is not: each group needs a particle, and labels are whole"):
            solvers.solve(one, NUMBERS, 0.0, 1.0, 2, args=moved)


def test_weights_of_zero_may_be_those_of_many_particles():
    weight = njit(lambda t, x: 0.0 if x > 0 else -np.inf)
    moments = WeightedMean(weight, njit(lambda t, x: x))
    sorted_ones = np.sort(np.random.default_rng(1).standard_normal(30_000))
    for x in (sorted_ones, sorted_ones[::-1]):
        one = McKeanVlasov(drift=njit(lambda t, x, m: 0.0), moments=moments)
        run = solvers.solve(one, x, 0.0, 1.0, 1)
        expected = [x[x > 0].mean(), math.log((x > 0).mean())]
        np.testing.assert_allclose(run.moments[-1], expected, rtol=1e-12)
    with pytest.raises(ValueError, match="WeightedMean is not: some particle needs a weight above 0"):
        solvers.solve(one, -np.abs(NUMBERS), 0.0, 1.0, 1)


def test_going_on_needs_the_same_kinds_of_moments():
    one = McKeanVlasov(drift=njit(lambda t, x, m: 0.0), moments=Largest(njit(lambda t, x: x)))
    run = solvers.solve(one, NUMBERS, 0.0, 1.0, 1)
    other = McKeanVlasov(drift=njit(lambda t, x, m: 0.0), moments=njit(lambda t, x: x))
    with pytest.raises(ValueError, match=r"^equation must be that of the run, with Largest, got functions alone$"):
        solvers.resume(other, run, 2.0, 1)


def test_functions_of_later_moments_that_mix_particles_are_refused():
    with pytest.raises(ValueError, match=r"moments\[1\] gives a particle another value in other company"):
        solvers.solve(
            McKeanVlasov(
                drift=lambda t, x, m: 0 * x, moments=(lambda t, x: x, lambda t, x, m: x - x.mean()), vectorized=True
            ),
            NUMBERS, 0.0, 1.0, 2,
        )  # fmt: skip
