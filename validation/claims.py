"""Lines of a report: what is claimed, by whom, what was measured, and a verdict that the numbers decide.

A claim is confirmed only if the measurement could have refuted it: where the margin of four standard errors is wider
than what the claim has to exclude, it stays undecided, and the line says what would decide it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
T = TypeVar("T")

MARGIN = 4.0  # standard errors
LIBRARY, PAPER_F, PAPER_H = "flds", "paper F", "paper H"


@dataclass(frozen=True)
class Claim:
    """One line of the report.

    Attributes
    ----------
    name, measured, expected : str
        What is claimed, the measurement with its error, and what it is held against.
    verdict : str
        "confirmed", "refuted" or "undecided".
    source : str
        Who claims it: this library, or a paper.
    estimate, error : float
        The measured number and its standard error; NaN where the measurement is not one number.
    needed : str
        What would decide an undecided claim.
    """

    name: str
    measured: str
    expected: str
    verdict: str
    source: str = LIBRARY
    estimate: float = math.nan
    error: float = math.nan
    needed: str = ""

    def __str__(self) -> str:
        text = f"{self.verdict:10} {self.source:8} {self.name}: {self.measured} (expected {self.expected})"
        return text + (f"; {self.needed}" if self.needed else "")


@dataclass(frozen=True)
class Picture:
    """A picture of the report, with its caption."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Table:
    """Numbers of the report behind its claims, as lines of Markdown."""

    lines: list[str]


Line = Claim | Picture | Table
Section = Iterator[Line]


@dataclass(frozen=True)
class Scale:
    """How much a validation may spend: "quick" or "full"."""

    name: str

    def pick(self, quick: T, full: T) -> T:
        """Return the size for this scale."""
        return full if self.name == "full" else quick


def check(name: str, measured: str, expected: str, holds: bool, source: str = LIBRARY) -> Claim:
    """A claim that does not depend on chance: rounding, time, memory."""
    return Claim(name, measured, expected, "confirmed" if holds else "refuted", source)


def equal(
    name: str,
    estimate: float,
    error: float,
    expected: float,
    resolution: float,
    slack: float = 0.0,
    note: str = "",
    source: str = LIBRARY,
    margin: float = MARGIN,
) -> Claim:
    """A number is as expected.

    Parameters
    ----------
    estimate, error : float
        What was measured, and its standard error.
    expected : float
        What it should be.
    resolution : float
        The claim is confirmed only if every number within the margin is closer than this to what is expected.
    slack : float
        A systematic distance that is allowed beyond the margin; `note` says where it comes from.
    margin : float
        In standard errors.
    """
    if not resolution > 0:
        raise ValueError(f"resolution must be above 0, got {resolution:g}")
    distance = abs(estimate - expected)
    if not math.isfinite(error):
        verdict = "undecided"
    elif not distance <= slack + margin * error:
        verdict = "refuted"
    else:
        decided = slack < resolution and distance + margin * error <= resolution
        verdict = "confirmed" if decided else "undecided"
    digits = _digits(error)
    z = (estimate - expected) / error if error > 0 else 0.0
    measured = f"{estimate:.{digits}f} ± {error:.{digits}f} (z = {z:+.1f})"
    expected_text = f"{expected:.{digits}f}" + (f", to {slack:.2g} {note}".rstrip() if slack else "")
    needed = _needed(margin * error / (resolution - slack) if slack < resolution else math.inf)
    needed = needed if verdict == "undecided" else ""
    return Claim(name, measured, expected_text, verdict, source, float(estimate), float(error), needed)


def against(name: str, samples: Array, exact: float, resolution: float | None = None, source: str = LIBRARY) -> Claim:
    """The mean of independent replicates equals an exact answer; by default 5 % of it must be resolved."""
    resolution = 0.05 * abs(exact) if resolution is None else resolution
    mean, error = mean_and_error(samples)
    if not error > 0:  # replicates that do not differ are not independent
        error = math.inf
    return equal(name, mean, error, exact, resolution, source=source, margin=margin_of(len(samples)))


def margin_of(replicates: int) -> float:
    """Standard errors, estimated from so few replicates, that are exceeded as rarely as four known ones."""
    from scipy.stats import norm, t

    return float(t.isf(norm.sf(MARGIN), replicates - 1))


def above(name: str, estimate: float, error: float, bound: float, margin: float = MARGIN) -> Claim:
    """A number exceeds a bound by `margin` standard errors."""
    distance = estimate - bound
    if not math.isfinite(error):
        verdict = "undecided"
    elif not math.isfinite(distance):
        verdict = "refuted"
    elif abs(distance) <= margin * error:
        verdict = "undecided"
    else:
        verdict = "confirmed" if distance > 0 else "refuted"
    digits = _digits(error)
    needed = _needed(margin * error / max(abs(distance), 1e-3 * error)) if verdict == "undecided" and error else ""
    expected = f"above {bound:g} by {margin:.2g} standard errors"
    measured = f"{estimate:.{digits}f} ± {error:.{digits}f}"
    return Claim(name, measured, expected, verdict, LIBRARY, float(estimate), float(error), needed)


def at_least(
    name: str,
    estimate: float,
    error: float,
    bound: float,
    excluded: float,
    interval: tuple[float, float],
    margin: float = MARGIN,
) -> Claim:
    """A number may be a bound or more, and a smaller alternative is excluded.

    It is refuted if the bound is beyond the margin, and confirmed if its 95 % interval reaches the bound and the
    alternative is beyond the margin.
    """
    measured = f"{estimate:.2f} ± {error:.2f} (95 % {interval[0]:.2f} to {interval[1]:.2f})"
    expected = f"{bound:g} or more in the interval, with {excluded:g} excluded by {margin:.2g} standard errors"
    needed = ""
    if not math.isfinite(error):
        verdict, needed = "undecided", _needed(math.inf)
    elif not estimate + margin * error >= bound:
        verdict = "refuted"
    elif not interval[1] >= bound:  # the margin alone would call 0.85 ± 0.06 "1 or more"
        verdict, needed = "undecided", _needed(margin * error / (bound - estimate))
    elif estimate - margin * error > excluded:
        verdict = "confirmed"
    else:
        verdict, needed = "undecided", _needed(margin * error / (bound - excluded))
    return Claim(name, measured, expected, verdict, LIBRARY, float(estimate), float(error), needed)


def mean_and_error(samples: Array) -> tuple[Any, Any]:
    """Return the mean of independent samples along the first axis, and its standard error."""
    return np.mean(samples, axis=0), np.std(samples, axis=0, ddof=1) / np.sqrt(len(samples))


def _needed(ratio: float) -> str:
    """An error falls like the root of the number of replicates."""
    if not math.isfinite(ratio):
        return "it takes a more accurate measurement to decide it at all"
    return f"about {max(2, math.ceil(ratio**2))} times as many replicates would decide it"


def _digits(error: float) -> int:
    """Decimals that show two digits of an error."""
    if not (math.isfinite(error) and error > 0):
        return 5
    return int(min(8, max(2, 1 - math.floor(math.log10(error)))))
