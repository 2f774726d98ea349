"""Pairs with a cutoff, in random batches, with functions of sums, against NumPy sums over all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import McKeanVlasov, Pairs, Periodic
from solvers.ensemble.random import Draw
from solvers.sde.pairs.batches import partition_of
from tests.conftest import MARGIN
from validation.pairs import decay, variance_shares

COUNT = 700
# Sums of that many numbers of order 1, in another order.
ROUNDING = 1e-12


def positions(dimension, seed=0, scale=1.0):
    x = scale * np.random.default_rng(seed).random((COUNT, dimension))
    return x[:, 0] if dimension == 1 else x


def spring(x, y):
    """K with a value for every number of components, compiled or of arrays."""
    return np.sin(3.0 * (y - x)) + 0.1 * y


def kernel(dimension, vectorized):
    if vectorized:
        return spring
    if dimension == 1:
        return njit(lambda x, y: np.sin(3.0 * (y - x)) + 0.1 * y)
    return njit(spring)


def change(x0, pairs, vectorized=False, box=None, **rest):
    """What one step of length 1 adds to the particles."""
    equation = McKeanVlasov(interaction=pairs, vectorized=vectorized)
    boundary = None if box is None else Periodic(0.0, box)
    run = solvers.solve(equation, x0, 0.0, 1.0, 1, boundary=boundary, **rest)
    moved = run.final_particles - x0
    return moved if box is None else (moved + box / 2) % box - box / 2


def by_hand(x0, cutoff, box=None, space=None):
    x = x0.reshape(len(x0), -1)
    apart = x[None] - x[:, None]
    if box is not None:
        apart -= box * np.round(apart / box)
    near = (np.square(apart[..., :space]).sum(-1) < cutoff**2)[..., None]
    y = x[:, None] + apart
    return (near * spring(x[:, None], y)).mean(1).reshape(x0.shape)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("cutoff", [0.05, 0.3, 100.0])
def test_a_cutoff_counts_whoever_is_near(dimension, cutoff, vectorized):
    x0 = positions(dimension)
    found = change(x0, Pairs(kernel(dimension, vectorized), cutoff=cutoff), vectorized)
    np.testing.assert_allclose(found, by_hand(x0, cutoff), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("cutoff", [0.05, 0.5])
def test_a_cutoff_reaches_across_a_periodic_box(dimension, cutoff, vectorized):
    x0 = positions(dimension)
    found = change(x0, Pairs(kernel(dimension, vectorized), cutoff=cutoff), vectorized, box=1.0)
    np.testing.assert_allclose(found, by_hand(x0, cutoff, 1.0), rtol=0, atol=10 * ROUNDING)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("space", [1, 2])
def test_other_components_have_their_nearest_image_too(space, vectorized):
    """Such as a heading on a circle, which the cutoff does not look at."""
    x0 = positions(3)
    found = change(x0, Pairs(kernel(3, vectorized), cutoff=0.3, space=space), vectorized, box=1.0)
    np.testing.assert_allclose(found, by_hand(x0, 0.3, 1.0, space), rtol=0, atol=10 * ROUNDING)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("dimension", [1, 2])
def test_all_pairs_see_the_nearest_image(dimension, vectorized):
    x0 = positions(dimension)
    found = change(x0, Pairs(kernel(dimension, vectorized)), vectorized, box=1.0)
    np.testing.assert_allclose(found, by_hand(x0, np.inf, 1.0), rtol=0, atol=10 * ROUNDING)


def test_sums_without_a_cutoff_are_those_of_a_function():
    for dimension in (1, 2):
        x0, k = positions(dimension), kernel(dimension, False)
        np.testing.assert_allclose(change(x0, Pairs(k)), change(x0, k), rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(change(x0, Pairs(k, cutoff=50.0)), change(x0, k), rtol=0, atol=ROUNDING)


def test_distances_in_the_first_components():
    x0 = positions(4)
    found = change(x0, Pairs(kernel(4, False), cutoff=0.2, space=2))
    np.testing.assert_allclose(found, by_hand(x0, 0.2, space=2), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("where", ["far", "together", "on a line", "two clusters"])
def test_cells_of_any_shape(where):
    x0 = positions(2)
    if where == "far":
        x0[3] = 1e9, -1e12
    if where == "together":
        x0[:] = 0.25
    if where == "on a line":
        x0[:, 1] = 0.5
    if where == "two clusters":
        x0[::2] += 1e6
    found = change(x0, Pairs(njit(lambda x, y: np.sin(y - x)), cutoff=0.1))
    near = np.square(x0[None] - x0[:, None]).sum(-1) < 0.01
    expected = (near[..., None] * np.sin(x0[None] - x0[:, None])).mean(1)
    tolerance = 1e-12 * np.abs(x0).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_stages_of_a_step_have_lists_of_their_own():
    """Heun's second stage beyond the ends of the box: one step against NumPy."""
    x0, k = positions(2), njit(lambda x, y: 2.0 * (y - x) + 0.3)
    equation = McKeanVlasov(interaction=Pairs(k, cutoff=0.2))
    run = solvers.solve(equation, x0, 0.0, 1.0, 1, scheme="heun", boundary=Periodic(0.0, 1.0))

    def pull(x):
        apart = x[None] - x[:, None]
        apart -= np.round(apart)
        near = np.square(apart).sum(-1) < 0.04
        return (near[..., None] * (2.0 * apart + 0.3)).mean(1)

    first = pull(x0)
    expected = (x0 + 0.5 * (first + pull(x0 + first))) % 1.0
    np.testing.assert_allclose(run.final_particles, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_function_of_sums(vectorized):
    """Motsch and Tadmor's alignment: Σ φ (v' − v) / Σ φ."""
    x0 = positions(2)
    phi = np.exp(-np.square(x0[:, None, 0] - x0[None, :, 0]))
    expected = np.stack([x0[:, 1], (phi @ x0[:, 1]) / phi.sum(1) - x0[:, 1]], axis=1)
    if vectorized:

        def align(x, y):
            weight = np.exp(-((x[0] - y[0]) ** 2))
            return np.stack([weight, weight * (y[1] - x[1])])

        pairs = Pairs(align, function=lambda t, x, m, s: np.stack([x[1], s[1] / s[0]]))
    else:

        @njit
        def align(x, y):
            weight = np.exp(-((x[0] - y[0]) ** 2))
            return weight, weight * (y[1] - x[1])

        pairs = Pairs(align, function=njit(lambda t, x, m, s: (x[1], s[1] / s[0])))
    np.testing.assert_allclose(change(x0, pairs, vectorized), expected, rtol=0, atol=ROUNDING)


def test_a_function_of_one_sum_takes_a_number_field_and_args():
    x0 = positions(1)
    pairs = Pairs(
        njit(lambda x, y, field, args: args * (y - x)),
        function=njit(lambda t, x, m, s, field, args: field * s**2),
    )
    found = change(x0, pairs, field=2.0, args=3.0)
    np.testing.assert_allclose(found, 2.0 * (3.0 * (x0.mean() - x0)) ** 2, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("rest", [{}, {"cutoff": 0.2}, {"random_batch": 7}])
def test_the_number_and_the_field_of_the_partner(rest, vectorized):
    """A kernel of i and j, and one of both fields, are one thing where the field is the number."""
    x0 = positions(2)
    numbers = solvers.ExternalField(np.arange(COUNT) / COUNT, per_particle=True)
    if vectorized:
        by_index = Pairs(lambda x, y, i, j: (i - 2 * j) / COUNT * (y - x), partner="index", **rest)
        by_field = Pairs(lambda x, y, f, g: (f - 2 * g) * (y - x), partner="field", **rest)
    else:
        by_index = Pairs(njit(lambda x, y, i, j: (i - 2 * j) / COUNT * (y - x)), partner="index", **rest)
        by_field = Pairs(njit(lambda x, y, f, g: (f - 2 * g) * (y - x)), partner="field", **rest)
    one, other = change(x0, by_index, vectorized), change(x0, by_field, vectorized, field=numbers)
    np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING)
    if rest == {}:
        weight = (np.arange(COUNT)[:, None] - 2 * np.arange(COUNT)) / COUNT
        expected = (weight[..., None] * (x0[None] - x0[:, None])).mean(1)
        np.testing.assert_allclose(one, expected, rtol=0, atol=10 * ROUNDING)


@pytest.mark.parametrize(("particles", "size"), [(700, 7), (700, 9), (5, 2), (7, 7), (701, 350)])
def test_batches_are_a_partition_with_none_too_small(particles, size):
    order, begin, batch = partition_of(particles, size, Draw(1, 0, 2, np.zeros(1, np.int64), 5, 1, 0))
    assert sorted(order) == list(range(particles))
    sizes = np.diff(begin)
    assert sizes.min() >= size
    assert sizes.max() <= sizes.min() + 1
    np.testing.assert_array_equal(batch[order], np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize("size", [2, 5, 16])
def test_random_batches_are_unbiased(size):
    """The mean over 2,000 draws is the sum over all pairs, particle by particle; and draws are not correlated."""
    x0, draws = np.random.default_rng(0).random(33), 2000
    k = njit(lambda x, y: np.exp(y - 2.0 * x))
    equation = McKeanVlasov(interaction=Pairs(k, random_batch=size))
    runs = solvers.solve_many(equation, x0, 0.0, 1.0, 1, seed=range(draws), save=())
    found = runs.final_particles - x0
    exact = np.exp(x0[None] - 2.0 * x0[:, None]).mean(1)
    error = found.std(axis=0, ddof=1) / math.sqrt(draws)
    # of 33 particles the farthest
    assert (np.abs(found.mean(axis=0) - exact) < (MARGIN + 0.5) * error).all()
    centred = (found - exact) / found.std(axis=0)
    assert np.abs((centred[1:] * centred[:-1]).mean(axis=0)).max() < (MARGIN + 0.5) / math.sqrt(draws)


def test_batches_change_from_step_to_step_and_with_the_seed():
    x0 = positions(1)
    equation = McKeanVlasov(interaction=Pairs(njit(lambda x, y: y), random_batch=3))
    run = solvers.solve(equation, x0, 0.0, 2.0, 2, save=solvers.particles())
    moves = np.diff(run.particles, axis=0)
    assert not np.isclose(moves[0], moves[1]).any()
    other = solvers.solve(equation, x0, 0.0, 2.0, 2, save=solvers.particles(), seed=1)
    assert not np.isclose(other.particles[1], run.particles[1]).any()


@pytest.mark.parametrize("size", [2, 5])
def test_the_law_of_random_batches_is_known(size):
    """dX_i = (mean of a batch − X_i) dt multiplies the variance by (1 − dt)² + dt²/(p − 1) in each step."""
    found = variance_shares(size, 5, 16, 5000)
    error = found.std(ddof=1) / 4.0
    assert abs(found.mean() - decay(size, 5)) < (MARGIN + 1.5) * error  # of 16 seeds
    assert found.mean() - 0.8**10 > 10 * error


@pytest.mark.parametrize("rest", [{"cutoff": 0.1}, {"random_batch": 5}, {}])
def test_threads_resumption_and_checkpoints_change_no_bit(rest, tmp_path):
    x0 = np.random.default_rng(0).random((5000, 2))
    equation = McKeanVlasov(
        interaction=Pairs(njit(lambda x, y: y - x), **rest),
        diffusion=njit(lambda t, x, m: (0.1, 0.1)),
        noise="additive",
    )
    box = {"boundary": Periodic(0.0, 1.0)}
    whole = solvers.solve(equation, x0, 0.0, 1.0, 4, threads=1, **box)
    other = solvers.solve(equation, x0, 0.0, 1.0, 4, threads=2, **box)
    np.testing.assert_array_equal(other.final_particles, whole.final_particles)
    half = solvers.solve(equation, x0, 0.0, 0.5, 2, **box)
    half.save(tmp_path / "half.nc")
    rest = solvers.resume(equation, solvers.load(tmp_path / "half.nc"), 1.0, 2, **box)
    np.testing.assert_array_equal(rest.final_particles, whole.final_particles)
    assert half.settings["interaction"].startswith("Pairs(")


def test_going_on_needs_the_same_kind_of_pairs():
    x0 = positions(1)
    k = kernel(1, False)
    run = solvers.solve(McKeanVlasov(interaction=Pairs(k, cutoff=0.2)), x0, 0.0, 1.0, 2)
    for other in (Pairs(k, cutoff=0.3), k, Pairs(k, random_batch=3)):
        with pytest.raises(ValueError, match=r"^equation must be that of the run, with Pairs\(cutoff=0.2\), got "):
            solvers.resume(McKeanVlasov(interaction=other), run, 2.0, 2)
    assert solvers.resume(McKeanVlasov(interaction=Pairs(pull, cutoff=0.2)), run, 2.0, 2).status == "completed"


def test_orders_are_claimed_where_pairs_have_them():
    def study(pairs, **rest):
        equation = McKeanVlasov(drift=njit(lambda t, x, m: -x), interaction=pairs)
        return solvers.strong_order(equation, FEW, 0.0, 1.0, steps=(4, 8, 16), replicates=3, **rest)

    assert study(Pairs(pull)).claimed == study(pull).claimed == 1.0
    assert study(Pairs(pull, random_batch=2)).claimed is None
    assert study(Pairs(pull, cutoff=0.5)).claimed is None
    batched = McKeanVlasov(drift=njit(lambda t, x, m: -x), interaction=Pairs(pull, random_batch=2))
    assert solvers.weak_order(batched, FEW, 0.0, 1.0, replicates=3).claimed == 1.0
    with pytest.raises(ValueError, match=r"^particle_order needs the same partners in all runs"):
        solvers.particle_order(batched, lambda g, n: g.random(n), 0.0, 1.0, 4)


FEW = np.linspace(0.0, 1.0, 10)
pull = njit(lambda x, y: y - x)


def refused(x0=FEW, kernel=pull, boundary=None, vectorized=False, field=None, **rest):
    equation = McKeanVlasov(interaction=Pairs(kernel, **rest), vectorized=vectorized)
    solvers.solve(equation, x0, 0.0, 1.0, 2, boundary=boundary, field=field)


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda: Pairs(3), TypeError, "^kernel of pairs must be a function, got 3$"),
        (lambda: Pairs(pull, function=3), TypeError, "^function of pairs must be a function, got 3$"),
        (lambda: Pairs(pull, cutoff=0.0), ValueError, "^cutoff must be "),
        (lambda: Pairs(pull, cutoff="near"), TypeError, "^cutoff must be "),
        (lambda: Pairs(pull, cutoff=math.inf), ValueError, "^cutoff must be "),
        (lambda: Pairs(pull, random_batch=1), ValueError, "^random_batch must be at least 2, got 1$"),
        (lambda: Pairs(pull, random_batch=2.5), TypeError, "^random_batch must be "),
        (lambda: Pairs(pull, partner="name"), ValueError, "^partner must be "),
        (lambda: Pairs(pull, space=2), ValueError, "^space says where the cutoff looks at distances"),
        (lambda: Pairs(pull, cutoff=1.0, random_batch=2), ValueError, "^cutoff and random_batch are two ways to meet"),
        (
            lambda: Pairs(pull, function=pull, random_batch=2),
            ValueError,
            "^random_batch is right on average for sums, and not for a function of them$",
        ),
        (lambda: refused(random_batch=11), ValueError, "^random_batch must be at most the 10 particles, got 11$"),
        (
            lambda: refused(cutoff=0.6, boundary=Periodic(0.0, 1.1)),
            ValueError,
            "^cutoff must be at most half the periodic box, 0.55, got 0.6$",
        ),
        (
            lambda: refused(np.ones((4, 5)), cutoff=1.0),
            ValueError,
            "^a cutoff looks at 3 components at most, got 5: say which with space=$",
        ),
        (lambda: refused(cutoff=1.0, space=2), ValueError, "^space must be at most the 1 components of a part"),
        (lambda: refused(kernel=lambda x, y: y - x), TypeError, "^interaction must be compiled with numba.njit"),
        (lambda: refused(kernel=njit(lambda x: x)), TypeError, r"^interaction must take \(x, y"),
        (
            lambda: refused(kernel=pull, partner="index"),
            TypeError,
            r"^interaction must take \(x, y, i, j\[, field\]\[, args\]\)",
        ),
        (
            lambda: refused(kernel=njit(lambda x, y, f, g: f + g), partner="field"),
            TypeError,
            '^partner="field" needs an external field: pass field=$',
        ),
        (lambda: refused(kernel=njit(lambda x, y: (x, y))), ValueError, "^interaction must return a number a particle"),
        (
            lambda: refused(np.ones((4, 2)), kernel=njit(lambda x, y: (x[0], y[7]))),
            ValueError,
            "^interaction reads beyond the end of an array",
        ),
        (
            lambda: refused(kernel=lambda x, y: y - x.mean() + 0 * y, vectorized=True),
            ValueError,
            "^interaction gives a particle another value in other company",
        ),
        (
            lambda: solvers.solve(
                McKeanVlasov(interaction=Pairs(pull, cutoff=1.0), drift=njit(lambda t, x, m: x)),
                np.ones((4, 2)), 0.0, 1.0, 2, scheme=solvers.schemes.BAOAB(1.0, 1.0),
            ),
            ValueError,
            "BAOAB",
        ),
    ],
)  # fmt: skip
def test_bad_input(work, error, message):
    with pytest.raises(error, match=message) as found:
        work()
    assert "\n" not in str(found.value)
