"""Lines of a report: what is claimed, what was measured, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MARGIN = 4.0  # standard errors


@dataclass(frozen=True)
class Claim:
    """One line of the report."""

    name: str
    measured: str
    expected: str
    holds: bool

    @property
    def verdict(self) -> str:
        return "confirmed" if self.holds else "refuted"


def against(name: str, samples: Array, exact: float) -> Claim:
    """Compare the mean of independent replicates with an exact answer."""
    mean, error = samples.mean(), samples.std(ddof=1) / np.sqrt(len(samples))
    z = (mean - exact) / error
    return Claim(name, f"{mean:.5f} ± {error:.5f} (z = {z:+.1f})", f"{exact:.5f}", bool(abs(z) < MARGIN))
