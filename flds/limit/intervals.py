"""What the intervals of a round allow for: Student's quantile, and biases of which only differences are seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_CONFIDENCE = 0.95


def student(freedom: int) -> float:
    """Return the quantile of the 95 % interval of a mean."""
    from scipy.stats import t

    return float(t.ppf((1 + _CONFIDENCE) / 2, freedom))


def allowance(differences: Array, noise: Array, quantile: float) -> Array:
    """Return what to allow for a bias that was seen in `differences`, (…, records, points, outputs), with this noise.

    Of an output it is what exceeds its own noise, or the root mean square over all outputs of this or an earlier
    record, if that is more.
    """
    own = _beyond(differences, quantile * noise)
    pooled, blur = (np.sqrt((part**2).mean(axis=(-2, -1))) for part in (differences, noise))
    return _with_earlier(own, _beyond(pooled, quantile * blur))


def bias_allowance(seen: Array, noise: Array, quantile: float) -> Array:
    """Return what to allow for a bias that is not taken off, where its estimate has a noise as large as the result's.

    As `allowance`, but noise is taken off as squares are: none of it is in the error of the result.
    """
    own = _beyond(seen, quantile * noise)
    squares = (seen**2).mean(axis=(-2, -1)) - (noise**2).mean(axis=(-2, -1))
    return _with_earlier(own, np.sqrt(np.maximum(0.0, squares)))


def _with_earlier(own: Array, pooled: Array) -> Array:
    """Return that of each output, or the largest over all outputs, (…, records), up to the same record."""
    return np.maximum(own, np.maximum.accumulate(pooled, axis=-1)[..., None, None])


def _beyond(seen: Array, noise: Array) -> Array:
    """Return by how much |seen| exceeds its noise."""
    return np.maximum(0.0, np.abs(seen) - noise)
