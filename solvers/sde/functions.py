"""Elementary functions that a loop over particles can vectorise."""

from __future__ import annotations

import math

import numpy as np

from solvers.accelerate import kernel

_LOG2E = 1.4426950408889634
# ln 2 in two parts, the first with trailing zeros, so that k ln 2 is subtracted without rounding
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# Adding 1.5 · 2^52 rounds a double to an integer, which then stands in its low bits.
_ROUND = 6755399441055744.0


@kernel
def tanh(x):
    """Hyperbolic tangent, for use inside functions compiled with Numba.

    Free of branches and of calls, so loops around it vectorise: about ten times as fast as math.tanh there.
    The relative error stays below 4e-16, two to three units in the last place; NaN stays NaN.

    With e = exp(2|x|) − 1, tanh |x| = e / (e + 2), and e = 2^k (exp(r) − 1) + 2^k − 1 where 2|x| = k ln 2 + r;
    exp(r) − 1 is the Taylor polynomial of degree 14, |r| ≤ ½ ln 2.

    Parameters
    ----------
    x : float64
        One number; not an array.

    Returns
    -------
    float64
        tanh x.
    """
    y = abs(x)
    y = 40.0 if y > 20.0 else 2.0 * y
    shifted = y * _LOG2E + _ROUND
    k = shifted - _ROUND
    r = (y - k * _LN2_HIGH) - k * _LN2_LOW
    power = np.int64((np.float64(shifted).view(np.int64) + 1023) << 52).view(np.float64)
    p = 1.0 / 479001600.0 + r * (1.0 / 6227020800.0 + r * (1.0 / 87178291200.0))
    p = 1.0 / 3628800.0 + r * (1.0 / 39916800.0 + r * p)
    p = 1.0 / 40320.0 + r * (1.0 / 362880.0 + r * p)
    p = 1.0 / 720.0 + r * (1.0 / 5040.0 + r * p)
    p = 1.0 / 24.0 + r * (1.0 / 120.0 + r * p)
    p = 0.5 + r * (1.0 / 6.0 + r * p)
    e = power * (r + r * r * p) + (power - 1.0)
    return math.copysign(e / (e + 2.0), x)
