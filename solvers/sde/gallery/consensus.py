"""Consensus-based optimisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from numba import njit

from solvers import checks
from solvers.sde.equation import McKeanVlasov
from solvers.sde.gallery.system import Normal, System, positive
from solvers.sde.moments.weighted import WeightedMean


class ConsensusArgs(NamedTuple):
    """α, λ and σ."""

    steepness: float
    pull: float
    volatility: float


@njit
def rastrigin(x):  # type: ignore[no-untyped-def]
    """Return Σ_i (x_i² − 10 cos 2πx_i + 10) of x, (D,): the lowest of very many valleys is at 0."""
    total = 0.0
    for i in range(len(x)):
        total += x[i] * x[i] - 10.0 * math.cos(2.0 * math.pi * x[i]) + 10.0
    return total


def consensus(
    objective: Callable[..., Any] = rastrigin,
    dimension: int = 20,
    steepness: float = 1e5,
    pull: float = 1.0,
    volatility: float = 7.0,
) -> System:
    """Return particles that look for the minimum of f: dX = −λ (X − c) dt + σ (X − c) ⊙ dW.

    The consensus is c = E[X e^{−αf}]/E[e^{−αf}], which m holds, followed by ln E e^{−αf}. Each component has a noise of
    its own, as large as its distance from c. Weights do not overflow, whatever α.

    Parameters
    ----------
    objective : callable
        f(x) of a (D,) array, compiled with numba.njit; by default Rastrigin's.
    dimension : int
        D, at least 2.
    steepness, pull, volatility : float
        α, λ and σ. A large σ looks far: distances from c fall almost surely whatever it is, and their squares on
        average where σ² < 2λ.

    Returns
    -------
    System
        Starts from N(0, 9) in each component.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number, or the objective is not compiled.

    References
    ----------
    R. Pinnau, C. Totzeck, O. Tse, S. Martin, "A consensus-based model for global optimization and its mean-field
    limit", Math. Models Methods Appl. Sci. 27 (2017). J. A. Carrillo, S. Jin, L. Li, Y. Zhu, "A consensus-based global
    optimization method for high dimensional machine learning problems", ESAIM COCV 27 (2021), for noise by components.
    """
    args = ConsensusArgs(*checks.finite_numbers(steepness=steepness, pull=pull, volatility=volatility))
    positive(steepness=steepness)
    dimension = checks.positive_integer("dimension", dimension, smallest=2)
    if not hasattr(objective, "py_func"):
        raise TypeError(f"objective must be compiled with numba.njit, got {checks.shown(objective)}")

    @njit
    def weight(t, x, args):  # type: ignore[no-untyped-def]
        return -args.steepness * objective(x)

    equation = McKeanVlasov(_drift, _diffusion, WeightedMean(weight, _place))
    return System(
        equation,
        args,
        Normal((0.0,) * dimension, 3.0),
        tuple(f"x{i}" for i in range(dimension)),
    )


@njit
def _place(t, x, args):  # type: ignore[no-untyped-def]
    return x


@njit
def _drift(t, x, m, args):  # type: ignore[no-untyped-def]
    return -args.pull * (x - m[: len(x)])


@njit
def _diffusion(t, x, m, args):  # type: ignore[no-untyped-def]
    return args.volatility * (x - m[: len(x)])
