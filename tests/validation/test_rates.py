"""Coupled errors and the laws fitted to them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

import flds
from tests.conftest import MARGIN, three_samples, z_score
from validation import coupled, rates
from validation.problems import large_steps
from validation.rates import CoupledErrors, PowerLaw, coupled_errors, fit_power_laws, observe

OPTIONS = {"operator": "lazy", "tolerance": 1e-4, "record_every": 2}


@pytest.fixture
def few_resamples(monkeypatch):
    """What is tested does not depend on the ends of intervals being smooth."""
    monkeypatch.setattr(rates, "_RESAMPLES", 100)


def test_what_is_observed_is_what_the_solver_records():
    problem = three_samples("tanh", steps=2)
    solution = flds.simulate_resnet(problem, width=300, depth=6, seed=4, **OPTIONS)
    seen = observe(problem, 300, 6, (0, 2), 3, 4, OPTIONS)
    for record, step in enumerate((0, 2)):
        h, g, f = seen[step]
        assert h.shape == g.shape == (4, 3, 300)  # depths 0, 2, 4, 6
        np.testing.assert_allclose((h**2).mean(axis=(1, 2)), solution.feature_variance[record, ::2], rtol=1e-12)
        np.testing.assert_allclose((g**2).mean(axis=(1, 2)), solution.gradient_variance[record, ::2], rtol=1e-12)
        np.testing.assert_allclose(f[:, 0], solution.outputs[record], rtol=1e-12)


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_untrained_features_against_the_exact_error(activation):
    problem = large_steps(activation, steps=0, horizon=1.0)
    errors = coupled_errors(problem, (4, 8), (512,), (4096, 32), replicates=8)
    initial = np.mean(problem.x[0] ** 2)
    for row, depth in enumerate((4, 8)):
        exact = coupled.feature_error(activation, initial, 1.0, depth, 32)
        assert z_score(errors.depth_errors("h", 0)[:, row], exact) < MARGIN


def test_exact_error_of_the_identity():
    # σ = h's own root mean square, so σ² = q: (1 + τ)^ℓ on a grid of two against one
    coarse, fine = [1.0, 1.0], [1.0, np.sqrt(1.5)]
    exact = sum((a - b) ** 2 for a, b in zip(coarse, fine, strict=True)) / 2
    assert coupled.feature_error("identity", 1.0, 1.0, 1, 2) == pytest.approx(exact, rel=1e-9)


def test_errors_compare_networks_on_the_same_noise(few_resamples):
    problem = large_steps("tanh", steps=1, horizon=1.0)
    errors = coupled_errors(problem, (2, 4), (64, 128), (256, 8), steps=(0, 1), replicates=3)
    for name, shape in (("total", (2, 2)), ("in_depth", (2, 3)), ("in_width", (3, 2))):
        for values in getattr(errors, name).values():
            assert values.shape == (3, 2, *shape)
            assert np.all(values > 0)
    # without coupling h would differ by twice its variance, about 2
    assert errors.total["h"].max() < 0.5
    # a second seed is other noise, the same one the same
    again = coupled_errors(problem, (2, 4), (64, 128), (256, 8), steps=(0, 1), replicates=3)
    np.testing.assert_array_equal(again.total["g"], errors.total["g"])
    table = errors.table("tanh")
    assert table[0].startswith("| tanh | fit, L^-p + n^-q | n = 64, L = 2 | n = 128, L = 2 | n = 64, L = 4 |")
    assert len(table) == 2 + 6
    assert all(line.count("|") == table[0].count("|") for line in table)
    axes = Figure().subplots(1, 2)
    errors.plot_depth("g", 1, axes[0])
    errors.plot_width("h", 0, axes[1])
    assert [len(ax.get_legend().get_texts()) for ax in axes] == [3, 3]
    assert axes[0].get_xlabel() == "depth L"


DEPTHS, WIDTHS = np.array([8, 16, 32, 64]), np.array([64, 128, 256])


def planted(a, p, b, q, noise=0.1, replicates=60, reference=np.inf):
    x, y = 1 / DEPTHS - 1 / reference, 1 / WIDTHS - 1 / reference
    mean = a * x[:, None] ** p + b * y[None, :] ** q
    samples = np.random.default_rng(3).gamma(1 / noise**2, noise**2, (replicates, 4, 3))
    return mean * samples, x, y


def test_fits_recover_planted_exponents():
    errors, x, y = planted(2.0, 1.4, 3.0, 1.0)
    law = fit_power_laws(errors, x, y)
    assert abs(law.depth_exponent - 1.4) < MARGIN * law.depth_error
    assert abs(law.width_exponent - 1.0) < MARGIN * law.width_error
    for side, exponent in (("depth", 1.4), ("width", 1.0)):
        estimate, low, high = law.identified(side)
        assert low < exponent < high
        assert low < estimate < high
    assert re.fullmatch(r"L\^-1\.\d\d \(95 % 1\.\d\d to 1\.\d\d\), n\^-\d\.\d\d \(95 % .* to .*\)", str(law))
    errors, x, _ = planted(2.0, 0.5, 0.0, 1.0)
    alone = fit_power_laws(errors[:, :, :1], x, None)
    assert abs(alone.depth_exponent - 0.5) < MARGIN * alone.depth_error
    assert np.isnan(alone.width_exponent)


# One of the terms is a millionth of the other even where it is largest against it: at L = 8, n = 256 or L = n = 64.
FAINT = {
    "depth": ((1e-6 * 8 / 256, 1.0, 1.0, 1.0), "L: not identified (the width term dominates; wider or shallower "),
    "width": ((1.0, 1.0, 1e-6, 1.0), "n: not identified (the depth term dominates; deeper or narrower "),
}


@pytest.mark.parametrize("side", FAINT)
@pytest.mark.parametrize("replicates", [4, 60])
def test_a_term_that_is_not_seen_has_no_exponent(side, replicates):
    terms, needed = FAINT[side]
    law = fit_power_laws(*planted(*terms, replicates=replicates))
    assert np.isnan(law.identified(side)).all()
    unknown = next(part for part in str(law).split("), ") if part.startswith(needed))
    assert not re.search(r"\d", unknown)
    for low, high in (law.depth_interval, law.width_interval):  # exponents are sought from 0 to 5
        assert 0 <= low <= high <= 5


def test_the_term_beside_one_that_is_not_seen_keeps_its_exponent():
    law = fit_power_laws(*planted(*FAINT["depth"][0]))
    estimate, low, high = law.identified("width")
    assert low < 1.0 < high
    assert f"n^-{estimate:.2f} (95 % {low:.2f} to {high:.2f})" in str(law)


def test_a_term_that_no_resample_moves_has_no_exponent(few_resamples, monkeypatch):
    """A solver that stays where it starts, with a term of one in a million, gives intervals without a width."""
    errors, x, y = planted(*FAINT["depth"][0], replicates=4)
    stuck = np.array([np.log(1e-6 * 8 / 256), 1.0, 0.0, 1.0])
    monkeypatch.setattr(rates, "_fit", lambda *arguments: stuck)
    law = fit_power_laws(errors, x, y)
    assert law.depth_interval == (0, 5)
    assert np.isnan(law.identified("depth")).all()
    assert law.width_interval == (1, 1)


def law_of(p, depth_interval, q=1.0, width_interval=(0.8, 1.2)):
    return PowerLaw(1.0, p, 1.0, q, depth_interval, width_interval, 0.3, 0.1, 4, "depth")


def test_which_exponents_are_identified():
    assert law_of(1.0, (0.4, 1.8)).identified("depth") == (1.0, 0.4, 1.8)
    for wide in (law_of(1.0, (0.4, 2.0)), law_of(4.6, (3.6, 4.95)), law_of(0.3, (0.0, 0.7))):
        assert np.isnan(wide.identified("depth")).all()
        assert str(wide).startswith("L: not identified (more replicates or a longer range of L would show it), n^-1.00")
        assert wide.identified("width") == (1.0, 0.8, 1.2)


def test_an_exponent_above_a_floor_is_not_identified(few_resamples):
    """How steeply an error falls towards a floor depends on how high the floor is, unless it is low."""
    law = fit_power_laws(*planted(0.5 / 256, 0.0, 1.0, 1.0))
    assert np.isnan([law.identified("depth"), law.identified("width")]).all()
    for height, ends in ((0.5, (0, 5)), (0.05, (0.9, 1.1))):  # of the error of the widest
        fit = [np.array([np.log(height / 256), 0.0, 0.0, one]) for one in (1.0, 0.9, 1.1)]
        low, high = rates._bounded(*fit, 1 / DEPTHS, 1 / WIDTHS)
        assert (low[3], high[3]) == ends


def planted_errors(faint):
    """Equal errors of h, g and f, their depth term seen or not; errors in depth fall and those in width do not."""
    total = planted(*(FAINT["depth"][0] if faint else (2.0, 1.0, 3.0, 1.0)), reference=1024)[0]
    noise = np.random.default_rng(1).gamma(100, 0.01, (2, 60, 5, 4))
    in_depth = noise[0, :, :4] * (1 / DEPTHS - 1 / 1024)[:, None] ** 1.5
    errors = (dict.fromkeys("hgf", one[:, None]) for one in (total, in_depth, noise[1, :, :, :3]))
    return CoupledErrors(DEPTHS, WIDTHS, (1024, 1024), np.array([5]), *errors)


def test_tables_print_no_exponent_that_is_not_identified(few_resamples):
    for faint, start in ((True, " L: not identified (the width term dominates"), (False, " L^-")):
        cells = [line.split("|")[2] for line in planted_errors(faint).table("tanh")[2:]]
        assert len(cells) == 3
        assert all(cell.startswith(start) for cell in cells)


def test_legends_show_intervals():
    errors, axes = planted_errors(faint=False), Figure().subplots(1, 2)
    errors.plot_depth("h", 5, axes[0])
    errors.plot_width("h", 5, axes[1])
    texts = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in axes]
    shown = [re.fullmatch(r"n = \d+, p = \S+ \((\S+) to (\S+)\)", text).groups() for text in texts[0]]
    assert len(shown) == 4
    # 60 replicates with 10 % of noise: logarithms to 0.1/√60, at four depths a factor 2 apart
    error = 0.1 / np.sqrt(60) / np.log(2) / np.sqrt(5)
    for low, high in np.array(shown, float):
        assert abs((low + high) / 2 - 1.5) < MARGIN * error
        # four standard errors, which are themselves known to 1/√120; both ends are rounded
        assert high - low == pytest.approx(4 * error, abs=4 * error * MARGIN / np.sqrt(120) + 0.01)
    assert texts[1] == [f"L = {depth}, not identified" for depth in (*DEPTHS, 1024)]  # an error that does not fall


def test_bootstrap_intervals_cover():
    """95 % intervals of 60 planted samples, each of 40 replicates with a relative error of 1."""
    generator, x = np.random.default_rng(5), 1 / np.array([8.0, 16, 32, 64])
    inside = 0
    for _ in range(60):
        errors = x[None, :, None] ** 1.2 * generator.exponential(size=(40, 4, 1))
        low, high = fit_power_laws(errors, x, None).depth_interval
        inside += low < 1.2 < high
    assert inside >= 50  # 57 expected; fewer has a probability of 5e-4 at 95 %, and bootstrap intervals are a bit short


@pytest.mark.parametrize("replicates", [4, 8])
def test_intervals_of_few_replicates_are_wider(replicates):
    generator, x = np.random.default_rng(6), 1 / np.array([8.0, 16, 32, 64])
    inside = 0
    for _ in range(60):
        errors = x[None, :, None] ** 1.2 * generator.gamma(4.0, 0.25, size=(replicates, 4, 1))
        law = fit_power_laws(errors, x, None)
        inside += law.depth_interval[0] < 1.2 < law.depth_interval[1]
        assert law.replicates == replicates
    assert inside >= 50  # as above


def test_an_error_that_is_lost_in_noise_has_no_exponent():
    errors = np.random.default_rng(7).standard_normal((6, 4, 1))
    law = fit_power_laws(errors, 1 / np.array([8.0, 16, 32, 64]), None)
    assert np.isnan(law.depth_exponent)
    assert np.isinf(law.depth_error)
    assert str(law) == "L: not identified (more replicates or a longer range of L would show it)"


def test_bad_arguments():
    problem = large_steps("tanh", steps=1)
    with pytest.raises(ValueError, match="reference must be wider and deeper than all networks"):
        coupled_errors(problem, (2, 4), (64,), (64, 8))
    with pytest.raises(ValueError, match="depths must divide that of the reference"):
        coupled_errors(problem, (3, 4), (64,), (128, 8))
    with pytest.raises(ValueError, match="steps must be at most the problem's 1, got 5"):
        coupled_errors(problem, (2, 4), (64,), (128, 8), steps=(5,))
    with pytest.raises(ValueError, match="replicates must be at least 3, got 1"):
        coupled_errors(problem, (2, 4), (64,), (128, 8), replicates=1)
    wild = flds.TrainingProblem(np.ones((1, 1)), [1.0], activation="relu", learning_rate=1e6, steps=30)
    with pytest.raises(ValueError, match="ended with status 'diverged'"):
        coupled_errors(wild, (2, 4), (16,), (32, 8), steps=(30,), replicates=3)
