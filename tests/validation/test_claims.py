"""Verdicts follow from the numbers, and nothing is confirmed that could not have been refuted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from validation.claims import MARGIN, PAPER_F, Scale, above, against, at_least, check, equal, margin_of, mean_and_error


@pytest.mark.parametrize(
    ("estimate", "error", "verdict"),
    [
        (1.03, 0.01, "confirmed"),
        (1.05, 0.01, "refuted"),
        (1.05, 0.05, "undecided"),
        (1.5, 0.1, "refuted"),
        (1.07, 0.02, "undecided"),  # 1.15 is within the margin, and further from 1 than the resolution
    ],
)
def test_equality(estimate, error, verdict):
    claim = equal("x", estimate, error, 1.0, resolution=0.1)
    assert claim.verdict == verdict
    assert bool(claim.needed) == (verdict == "undecided")


def test_what_an_undecided_equality_needs():
    # four errors of 0.05 have to shrink from 0.2 to 0.1: half the error, four times the replicates
    assert equal("x", 1.0, 0.05, 1.0, resolution=0.1).needed == "about 4 times as many replicates would decide it"


def test_slack_is_allowed_and_shown():
    claim = equal("x", 1.06, 0.001, 1.0, resolution=0.1, slack=0.0625, note="for the coarsest step", source=PAPER_F)
    assert claim.verdict == "confirmed"
    assert "to 0.062 for the coarsest step" in claim.expected
    assert equal("x", 1.07, 0.001, 1.0, resolution=0.1, slack=0.0625).verdict == "refuted"
    assert claim.source == "paper F"
    # a slack as large as what has to be excluded leaves nothing to confirm
    assert equal("x", 1.0, 0.001, 1.0, resolution=0.1, slack=0.1).verdict == "undecided"


@pytest.mark.parametrize("error", [math.inf, math.nan])
@pytest.mark.parametrize("estimate", [1.0, math.nan])
def test_a_fit_that_failed_decides_nothing(estimate, error):
    assert equal("x", estimate, error, 1.0, 0.1).verdict == "undecided"
    assert above("x", estimate, error, 0.0).verdict == "undecided"
    assert at_least("x", estimate, error, 1.0, 0.5, (math.nan, math.nan)).verdict == "undecided"


def test_numbers_that_are_none_are_refuted():
    assert equal("x", math.nan, 0.1, 1.0, 0.1).verdict == "refuted"
    assert above("x", math.nan, 0.1, 0.0).verdict == "refuted"


@pytest.mark.parametrize(("estimate", "verdict"), [(0.5, "confirmed"), (0.3, "undecided"), (-0.5, "refuted")])
def test_one_sided(estimate, verdict):
    assert above("x", estimate, 0.1, 0.0).verdict == verdict


@pytest.mark.parametrize(
    ("exponent", "error", "verdict"),
    [
        (1.3, 0.05, "confirmed"),
        (0.95, 0.05, "confirmed"),
        (0.7, 0.05, "refuted"),
        (0.9, 0.12, "undecided"),
        (0.85, 0.06, "undecided"),  # 1 is within the margin, but not in the interval
    ],
)
def test_rates_not_below_one(exponent, error, verdict):
    interval = exponent - 1.96 * error, exponent + 1.96 * error
    claim = at_least("x", exponent, error, 1.0, 0.5, interval)
    assert claim.verdict == verdict
    assert bool(claim.needed) == (verdict == "undecided")


def test_margin_grows_for_few_replicates():
    assert margin_of(10**6) == pytest.approx(MARGIN, abs=1e-3)
    assert 8 < margin_of(8) < 9  # Student's law with 7 degrees of freedom
    # the share of samples of eight that are refuted wrongly is twice the tail, not ten times as much
    samples = np.random.default_rng(0).standard_normal((200_000, 8))
    z = np.abs(samples.mean(1)) / (samples.std(1, ddof=1) / np.sqrt(8))
    tail = 2 * norm.sf(MARGIN)
    assert (z > margin_of(8)).mean() < 3 * tail
    assert (z > MARGIN).mean() > 10 * tail


def test_means_against_exact_answers():
    samples = np.random.default_rng(1).normal(2.0, 0.1, 400)
    assert against("x", samples, 2.0).verdict == "confirmed"
    assert against("x", samples, 2.1).verdict == "refuted"
    assert against("x", samples[:4], 2.0, resolution=0.05).verdict == "undecided"
    assert against("x", np.ones(5), 1.0).verdict == "undecided"  # a seed that is ignored
    with pytest.raises(ValueError, match="resolution must be above 0, got 0"):
        against("x", samples, 0.0)
    mean, error = mean_and_error(samples)
    assert abs(mean - 2.0) < MARGIN * 0.1 / 20
    assert error == pytest.approx(0.005, rel=0.15)  # 1/sqrt(800) of it, four times


def test_lines_say_what_was_found():
    claim = equal("gap", 0.19949, 0.00036, 0.2, 0.05)
    assert str(claim) == "confirmed  flds     gap: 0.19949 ± 0.00036 (z = -1.4) (expected 0.20000)"
    assert check("size", "3 GB", "below 8 GB", False).verdict == "refuted"
    # papers and this library may claim the same, with other verdicts
    assert str(check("gap", "0", "0", True, source=PAPER_F)) == "confirmed  paper F  gap: 0 (expected 0)"


def test_scales():
    assert Scale("quick").pick(1, 2) == 1
    assert Scale("full").pick(1, 2) == 2
