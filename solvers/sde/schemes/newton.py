"""Steps that solve an equation for where each particle arrives, by Newton's method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.accelerate import kernel, merged_kernel
from solvers.sde.coefficients import Coefficients, Function, given_function
from solvers.sde.equation import ARGUMENTS, Form, McKeanVlasov, check_function, extras
from solvers.sde.faults import Fault
from solvers.sde.schemes.euler_maruyama import EulerMaruyama
from solvers.sde.schemes.kernels import add_scaled
from solvers.sde.schemes.scheme import Scheme, Stage, Step, Term
from solvers.sde.schemes.terms import common_noise_terms, interaction_terms, noise_terms

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# Newton's steps at most, and how small the last one must be, relative to 1 + |x|.
_MOST, _SMALL = 50, 1e-10
# Forward differences of b: truncation and rounding are equal near this step.
_DIFFERENCE = 1.5e-8
_UNSOLVED = int(Fault.UNSOLVED)


@kernel
def shift(y: Matrix, ahead: Matrix, k: int) -> None:
    """Set `ahead` to y, (D, n), with its k-th row moved a little."""
    for i in range(y.shape[0]):
        for p in range(y.shape[1]):
            ahead[i, p] = y[i, p]
    for p in range(y.shape[1]):
        ahead[k, p] += _DIFFERENCE * (1.0 + abs(y[k, p]))


@kernel
def slopes(jacobian: Array, k: int, here: Array, there: Array, y: Matrix, ahead: Matrix) -> None:
    """Set column k of the Jacobians, (D, D, n), from b at y and at y shifted."""
    for i in range(y.shape[0]):
        for p in range(y.shape[1]):
            jacobian[i, k, p] = (there[i, p] - here[i, p]) / (ahead[k, p] - y[k, p])


@kernel
def eliminate(a: Matrix, r: Matrix) -> None:
    """Set r to the solution of a x = r by elimination with pivots of rows; a is overwritten."""
    size = len(r)
    for k in range(size):
        pivot = k
        for i in range(k + 1, size):
            if abs(a[i, k]) > abs(a[pivot, k]):
                pivot = i
        if pivot != k:
            for j in range(size):
                a[k, j], a[pivot, j] = a[pivot, j], a[k, j]
            r[k], r[pivot] = r[pivot], r[k]
        for i in range(k + 1, size):
            factor = a[i, k] / a[k, k]
            for j in range(k, size):
                a[i, j] -= factor * a[k, j]
            r[i] -= factor * r[k]
    for i in range(size - 1, -1, -1):
        for j in range(i + 1, size):
            r[i] -= a[i, j] * r[j]
        r[i] /= a[i, i]


@kernel
def improve(y: Matrix, start: Matrix, drift: Array, jacobian: Array, h: float, done: NDArray[np.bool_]) -> int:
    """Do a step of Newton's method for y = start + h b(y), for each particle that is not done; return how many are not.

    What it does to a particle does not depend on the others.
    """
    size, left = y.shape[0], 0
    a, r = np.empty((size, size)), np.empty(size)
    for p in range(y.shape[1]):
        if done[p]:
            continue
        for i in range(size):
            r[i] = y[i, p] - start[i, p] - h * drift[i, p]
            for j in range(size):
                a[i, j] = -h * jacobian[i, j, p]
            a[i, i] += 1.0
        eliminate(a, r)
        moved = 0.0
        for i in range(size):
            y[i, p] -= r[i]
            moved = max(moved, abs(r[i]) / (1.0 + abs(y[i, p])))
            if not math.isfinite(r[i]):
                moved = math.inf
        done[p] = moved <= _SMALL
        left += not done[p]
    return left


@kernel
def note_unsolved(done: NDArray[np.bool_], fault: NDArray[np.int64]) -> None:
    """Note the first particle whose equation was not solved."""
    for p in range(len(done)):
        if not done[p] and fault[0] == 0:
            fault[0] = _UNSOLVED
            fault[1] = p


def implicit_terms(
    equation: McKeanVlasov, coefficients: Coefficients, form: Form, implicit: float, jacobian: Function | None
) -> Iterator[Term]:
    """Return the terms of noise and interaction, of b where the step starts, and the rest of b where it arrives.

    The drift counts with the share `implicit` where the step arrives: x is that of the arrival, and its time; means and
    field are those of the start.
    """
    drift = coefficients.drift
    assert drift is not None
    yield from noise_terms(equation, coefficients, form)
    yield from common_noise_terms(equation, coefficients, form)
    yield from interaction_terms(equation, coefficients, form)
    if implicit < 1.0:
        yield lambda out, s: add_scaled(out, drift(s.t, s.x, s.m, s.field, s.args), (1.0 - implicit) * s.dt)
    yield _solving(equation, form, drift, implicit, jacobian)


def _solving(equation: McKeanVlasov, form: Form, drift: Function, implicit: float, jacobian: Function | None) -> Term:
    """Return the term that moves `out` to the y with y = out + implicit b(y) dt, and notes where there is none."""
    if jacobian is None:
        jacobian_of: Any = _differences(drift)
    else:
        takes = extras("jacobian", jacobian, ARGUMENTS["drift"], True, form.field != "none", form.args is not None)
        jacobian_of = _given(given_function(equation, form, jacobian, takes, 2))
    if not equation.vectorized:
        jacobian_of = merged_kernel(jacobian_of)

    def solve(out: Matrix, s: Step) -> None:
        y, done, h = out.copy(), np.zeros(out.shape[1], np.bool_), implicit * s.dt
        for _ in range(_MOST):
            here = drift(s.t + s.dt, y, s.m, s.field, s.args)
            if improve(y, out, here, jacobian_of(s, y, here), h, done) == 0:
                break
        note_unsolved(done, s.fault)
        out[:, :] = y

    return solve


def _differences(drift: Function) -> Callable[..., Array]:
    def differences(s: Step, y: Matrix, here: Array) -> Array:
        found, ahead = np.empty((y.shape[0], y.shape[0], y.shape[1])), np.empty(y.shape)
        for k in range(y.shape[0]):
            shift(y, ahead, k)
            slopes(found, k, here, drift(s.t + s.dt, ahead, s.m, s.field, s.args), y, ahead)
        return found

    return differences


def _given(jacobian: Function) -> Callable[..., Array]:
    def given(s: Step, y: Matrix, here: Array) -> Array:
        return jacobian(s.t + s.dt, y, s.m, s.field, s.args)

    return given


class Implicit(Scheme):
    """A scheme that is implicit in x and explicit in the means, with the Jacobian of the drift given or differenced."""

    # the share of the drift that is taken where a step arrives
    implicit: float

    def __init__(self, jacobian: Function | None = None) -> None:
        if jacobian is not None and not callable(jacobian):
            raise TypeError(f"jacobian must be a function of (t, x, m), got {checks.shown(jacobian)}")
        self.jacobian = jacobian
        if jacobian is not None:  # without it a run would go on with differences
            self.name = f"{self.name}(jacobian={getattr(jacobian, '__qualname__', '?')})"
        self.stages = (Stage(implicit_terms, settings=(self.implicit, jacobian)),)

    def strong_order(self, equation: McKeanVlasov) -> float:
        """Return that of Euler–Maruyama."""
        return EulerMaruyama().strong_order(equation)

    def weak_order(self, equation: McKeanVlasov) -> float:
        """Return 1, whatever the equation."""
        return 1.0

    def functions(self) -> dict[str, tuple[Function, tuple[str, ...], int]]:
        return {} if self.jacobian is None else {"jacobian": (self.jacobian, ARGUMENTS["drift"], 2)}

    def requires(self, equation: McKeanVlasov) -> None:
        super().requires(equation)
        if equation.drift is None:
            raise ValueError(
                f'scheme="{self.name}" needs a drift, which it is implicit in; use scheme="euler_maruyama"'
            )
        if self.jacobian is not None:
            check_function("jacobian", self.jacobian, ARGUMENTS["drift"], True, equation.vectorized)
