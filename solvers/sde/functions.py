"""Elementary functions that a loop over particles can vectorise."""

from __future__ import annotations

import math

import numpy as np

from solvers.accelerate import inlined_kernel

_LOG2E = 1.4426950408889634
# ln 2 in two parts, the first with trailing zeros, so that k ln 2 is subtracted without rounding
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# Adding 1.5 · 2^52 rounds a double to an integer, which then stands in its low bits.
_ROUND = 6755399441055744.0


# Beyond these exp is infinite, or 2^(k − 1) is no normal number.
_OVERFLOW, _UNDERFLOW = 709.782712893384, -708.0


@inlined_kernel
def _halves(y):
    """Return 2^(k − 1) and exp(r) − 1 where y = k ln 2 + r with |r| ≤ ½ ln 2, by the Taylor polynomial of degree 14."""
    shifted = y * _LOG2E + _ROUND
    k = shifted - _ROUND
    r = (y - k * _LN2_HIGH) - k * _LN2_LOW
    half = np.int64((np.float64(shifted).view(np.int64) + 1022) << 52).view(np.float64)
    p = 1.0 / 479001600.0 + r * (1.0 / 6227020800.0 + r * (1.0 / 87178291200.0))
    p = 1.0 / 3628800.0 + r * (1.0 / 39916800.0 + r * p)
    p = 1.0 / 40320.0 + r * (1.0 / 362880.0 + r * p)
    p = 1.0 / 720.0 + r * (1.0 / 5040.0 + r * p)
    p = 1.0 / 24.0 + r * (1.0 / 120.0 + r * p)
    p = 0.5 + r * (1.0 / 6.0 + r * p)
    return half, r + r * r * p


@inlined_kernel
def exp(x):
    """Exponential function, for use inside functions compiled with Numba, where loops around it vectorise.

    The relative error stays below 4e-16. Below −708, where it is 3e-308, it is 0; NaN stays NaN.

    Parameters
    ----------
    x : float64
        One number; not an array.

    Returns
    -------
    float64
        e^x.

    References
    ----------
    W. J. Cody, W. Waite, "Software manual for the elementary functions", 1980, for the reduction of the argument.
    """
    y = _OVERFLOW if x > _OVERFLOW else x
    y = _UNDERFLOW if y < _UNDERFLOW else y
    half, rest = _halves(y)
    value = 2.0 * (half * rest + half)
    value = math.inf if x > _OVERFLOW else value
    return 0.0 if x < _UNDERFLOW else value


@inlined_kernel
def tanh(x):
    """Hyperbolic tangent, for use inside functions compiled with Numba.

    Free of branches and of calls, so loops around it vectorise: about ten times as fast as math.tanh there.
    The relative error stays below 4e-16, two to three units in the last place; NaN stays NaN.

    With e = exp(2|x|) − 1, tanh |x| = e / (e + 2).

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
    half, rest = _halves(40.0 if y > 20.0 else 2.0 * y)
    e = 2.0 * half * rest + (2.0 * half - 1.0)
    return math.copysign(e / (e + 2.0), x)


@inlined_kernel
def erf(x):
    """Error function, for use inside functions compiled with Numba, where loops around it vectorise.

    The relative error stays below 1e-15; NaN stays NaN.

    erf |x| = 1 − exp(−|x| p(|x|)) with p the polynomial of degree 21 whose largest relative error in erf on [0, 6]
    is smallest; beyond 6, erf is 1.

    Parameters
    ----------
    x : float64
        One number; not an array.

    Returns
    -------
    float64
        erf x.

    References
    ----------
    W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969), for minimax
    approximations; the one here was made by Lawson's iteration.
    """
    y = abs(x)
    y = 6.0 if y > 6.0 else y
    u = y / 3.0 - 1.0
    p = -0.0020459692073947085 + u * -0.00018436280932041836
    p = -0.019556313726919915 + u * (-0.008677763957578664 + u * p)
    p = -0.01895213012625912 + u * (-0.02589371217446347 + u * p)
    p = 0.007078545015939979 + u * (-0.0034240034288352907 + u * p)
    p = 0.0023719722029009603 + u * (0.007365598780400976 + u * p)
    p = -0.0010422463956685792 + u * (2.322640961448862e-05 + u * p)
    p = 0.0007336386741862942 + u * (-7.943090040516682e-05 + u * p)
    p = 0.008271792653644363 + u * (-0.0030623898150469683 + u * p)
    p = 0.03863680251911162 + u * (-0.018735611643327203 + u * p)
    p = 0.14188331423225828 + u * (-0.07517630612205564 + u * p)
    p = 3.573454347329603 + u * (2.7302993417369072 + u * p)
    half, rest = _halves(-y * p)
    return math.copysign((1.0 - 2.0 * half) - 2.0 * half * rest, x)
