"""Laws of initial parameters, by their quantile functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks

Array = NDArray[np.float64]
Quantile = Callable[[Array], Array]


def gaussian(uniforms: Array) -> Array:
    """Return the quantiles of the standard Gaussian law."""
    from scipy.special import ndtri

    return np.asarray(ndtri(uniforms))


def checked_law(name: str, law: Any) -> Quantile:
    """Return a quantile function of mean 0 and variance 1; raises TypeError or ValueError for anything else."""
    if not callable(law):
        raise TypeError(f"{name} must be a quantile function from (0, 1) to the line, got {checks.shown(law)}")
    grid = (np.arange(100_000) + 0.5) / 100_000
    given = checks.called(f"{name} must be a function of arrays on (0, 1), but failed on one", law, grid)
    values = np.asarray(checks.numeric(f"the value of {name}", given), np.float64)
    if values.shape != grid.shape or not np.all(np.isfinite(values)) or np.any(np.diff(values) < 0):
        raise ValueError(f"{name} must be an increasing, finite function of arrays on (0, 1)")
    # the midpoint rule misses tails of order 1e-3 of the variance at this many points
    if abs(values.mean()) > 1e-3 or abs(values.var() - 1) > 1e-2:
        raise ValueError(f"{name} must have mean 0 and variance 1, got {values.mean():.3g} and {values.var():.3g}")
    return law
