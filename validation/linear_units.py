"""The exact Mean ODE of linear perceptrons, φ(h, (u, v)) = v (u·h)/D: the training closes on second moments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flds.mean_ode.problem import MeanFieldProblem

Array = NDArray[np.float64]


class _Moments(NamedTuple):
    """E V Uᵀ, E U Uᵀ and E V Vᵀ at every depth point, (points, D, D) each."""

    cross: Array
    inner: Array
    outer: Array


def linear_mean_ode(problem: MeanFieldProblem, depth: int = 64) -> Array:
    """Return the outputs of the Neural Mean ODE with ρ = identity at steps 0 … K, without Monte-Carlo error.

    The equations in depth are integrated by Runge and Kutta's method of order four over pairs of points; states between
    its steps by cubic Hermite interpolation, whose error is of the same order.

    Parameters
    ----------
    problem : MeanFieldProblem
        With block "two_layer_perceptron", activation "identity" and no unembedding.
    depth : int
        Number of steps in depth.

    Returns
    -------
    (steps + 1, samples[, D]) array
        f^(k), without the last axis if D is 1.

    References
    ----------
    Paper H, eqs. (10)–(14), with z = (u, v) and expectations taken.
    """
    dimension, points, alpha = problem.dimension, 2 * depth + 1, problem.alpha
    eye = np.broadcast_to(np.eye(dimension), (points, dimension, dimension))
    moments = _Moments(0 * eye, problem.scales["u"] ** 2 * eye, problem.scales["v"] ** 2 * eye)
    rate_u, rate_v = problem.rate("u", 0) / alpha, problem.rate("v", 0) / alpha
    outputs = []
    for step in range(problem.steps + 1):
        field = alpha * moments.cross / dimension
        states = _integrate(problem.x, field.swapaxes(1, 2), depth)
        outputs.append(states[-1])
        if step == problem.steps:
            break
        back = _integrate(problem.loss_gradient(states[-1]), field[::-1], depth)[::-1]
        gradient = np.einsum("snd,sne->sde", back, states) / (problem.samples * dimension)
        moments = _update(moments, gradient, rate_u, rate_v)
    return problem.squeezed(np.array(outputs))


def _update(moments: _Moments, gradient: Array, rate_u: float, rate_v: float) -> _Moments:
    """Second moments of U − η_u Gᵀ V and V − η_v G U."""
    cross, inner, outer = moments
    turned, crossed = gradient.swapaxes(1, 2), cross.swapaxes(1, 2)
    new_cross = cross - rate_u * outer @ gradient - rate_v * gradient @ inner
    new_cross = new_cross + rate_u * rate_v * gradient @ crossed @ gradient
    mixed = crossed @ gradient
    new_inner = inner - rate_u * (mixed + mixed.swapaxes(1, 2)) + rate_u**2 * turned @ outer @ gradient
    mixed = cross @ turned
    new_outer = outer - rate_v * (mixed + mixed.swapaxes(1, 2)) + rate_v**2 * gradient @ inner @ turned
    return _Moments(new_cross, new_inner, new_outer)


def _integrate(start: Array, field: Array, depth: int) -> Array:
    """x' = x F(s) from s = 0 to 1 with F at 2 depth + 1 points; x at all of them."""
    step, states = 1.0 / depth, [start]
    for index in range(depth):
        x, (first, middle, last) = states[-1], field[2 * index : 2 * index + 3]
        a = x @ first
        b = (x + step / 2 * a) @ middle
        c = (x + step / 2 * b) @ middle
        new = x + step / 6 * (a + 2 * b + 2 * c + (x + step * c) @ last)
        states += [(x + new) / 2 + step / 8 * (a - new @ last), new]
    return np.array(states)
