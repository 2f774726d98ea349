"""Networks of one's own against a limit: intervals that cover, and what is refused."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest

import flds
from flds.plotting import plot_comparison
from tests.conftest import MARGIN, three_samples

LIMIT = flds.solve_frozen(three_samples(steps=4), depth=4)
RNG = np.random.default_rng(0)


def networks(seeds, bias, spread=0.2, rng=RNG):
    """Outputs that scatter about the limit moved by a bias, with errors that samples share in part."""
    shape = seeds, *LIMIT.outputs.shape
    noise = spread * (0.6 * rng.standard_normal((*shape[:2], 1)) + 0.8 * rng.standard_normal(shape))
    return LIMIT.outputs + bias + noise


@pytest.mark.parametrize("bias", [0.1, 0.4])
def test_intervals_cover_the_distance(bias):
    """The distance is the bias, and of 400 intervals about 95 % hold it.

    The mean square is skewed where the bias is near its error, 0.04, and 92 % hold it then; both by 4 standard errors.
    """
    held, found = [], []
    for _ in range(80):
        comparison = flds.compare(LIMIT, networks(25, bias))
        held.append((comparison.interval[:, 0] <= bias) & (bias <= comparison.interval[:, 1]))
        found.append(comparison.distance**2)
    assert 0.87 < np.mean(held) < 0.99
    squares = np.array(found)
    assert abs(squares.mean() - bias**2) < MARGIN * squares.mean(axis=1).std(ddof=1) / 80**0.5 + 1e-3


def test_where_there_is_no_distance():
    comparison = flds.compare(LIMIT, networks(400, 0.0))
    assert comparison.distance.max() < 0.03
    assert comparison.interval[:, 0].max() < 0.02
    assert np.abs(comparison.scores).max() < 4.5
    np.testing.assert_allclose(comparison.spread, 0.2, rtol=0.15)
    assert np.abs(flds.compare(LIMIT, networks(400, 0.1)).scores).min() > 3


def test_what_the_limit_is_uncertain_by_is_allowed_for():
    """A limit of few particles is off by its own scatter, which its replicates tell."""
    problem = three_samples(steps=2)
    limit = flds.solve_flds(problem, particles=100, depth=2, sampling="law", replicates=12, operator="lazy")
    other = flds.solve_flds(problem, particles=100, depth=2, sampling="law", replicates=12, operator="lazy", seed=9)
    comparison = flds.compare(limit, other.replicate_outputs)
    assert np.abs(comparison.scores).max() < 4.5
    assert comparison.interval[:, 0].max() < comparison.spread.max() / 2
    exact = flds.compare(limit, other.replicate_outputs).scores
    alone = flds.solve_flds(problem, particles=100, depth=2, sampling="law", operator="lazy")
    assert np.abs(flds.compare(alone, other.replicate_outputs).scores).max() > np.abs(exact).max()


def test_tensors_and_networks_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    outputs = networks(5, 0.3)
    tensor = torch.tensor(outputs[..., None], requires_grad=True)
    one, other = flds.compare(LIMIT, tensor), flds.compare(LIMIT, outputs)
    np.testing.assert_array_equal(one.distance, other.distance)
    assert "5 networks" in one.summary()
    one.plot(tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 10_000
    plt.close("all")


def test_tests_and_two_seeds(classes):
    limit = flds.solve_frozen(classes, depth=2)
    outputs = limit.test_outputs + RNG.standard_normal((2, *limit.test_outputs.shape))
    comparison = flds.compare(limit, outputs, test=True)
    assert comparison.scores.shape == limit.test_outputs.shape
    assert np.isinf(comparison.interval[:, 1]).all()  # two seeds do not tell how uncertain they are
    assert "an interval takes three networks at least" in comparison.summary()
    figure = comparison.plot()
    plt.close(figure)


def test_networks_that_do_not_scatter_give_no_warnings():
    limit = flds.solve_frozen(three_samples(), depth=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not flds.compare(limit, [limit.outputs] * 3).scores.any()
        assert np.all(flds.compare(limit, [limit.outputs - 1] * 3).scores == -np.inf)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: flds.compare(3, [1.0]), TypeError, "^limit must be a Solution or a LimitEstimate, got 3$"),
        (
            lambda: flds.compare(LIMIT, networks(1, 0)),
            ValueError,
            r"^outputs must have shape \(seeds, 5, 3\), with",
        ),
        (
            lambda: flds.compare(LIMIT, networks(3, 0)[:, 1:]),
            ValueError,
            r"\[0, 1, 2, 3, 4\], got \(3, 4, 3\)$",
        ),
        (lambda: flds.compare(LIMIT, np.full((2, 5, 3), np.nan)), ValueError, "^outputs must be finite"),
        (lambda: flds.compare(LIMIT, "many"), (ValueError, TypeError), "^outputs must"),
        (
            lambda: flds.compare(LIMIT, networks(3, 0), test=True),
            ValueError,
            "^limit has no test_outputs; it has",
        ),
        (lambda: flds.compare(LIMIT, networks(3, 0), test=1), TypeError, "^test must be True or False"),
        (lambda: plot_comparison(LIMIT), TypeError, r"^comparison must be that of flds\.compare, got Solution$"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message) as found:
        call()
    assert "\n" not in str(found.value)
