"""Jumps of particles at random times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.accelerate import kernel, merged_kernel
from solvers.ensemble.random import Draw, Stream, fill_normals, fill_uniforms
from solvers.sde.coefficients import Coefficients, given_function
from solvers.sde.equation import Form, McKeanVlasov, check_function, extras
from solvers.sde.events.event import Act, Event
from solvers.sde.faults import Fault
from solvers.sde.schemes.scheme import Step

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]
Function = Callable[..., Any]

RATE, SIZE = "rate of jumps", "size of jumps"
LOCAL, MARKED = ("t", "x", "m"), ("t", "x", "m", "z")
_MARKS = ("none", "uniform", "normal")
_STREAM = int(Stream.JUMPS)
_ABOVE, _BELOW = int(Fault.RATE), int(Fault.NEGATIVE_RATE)
# Candidates that a particle may have in a finest step on average.
_MOST = 20.0
# A rate may be above its bound by rounding.
_ROUNDING = 1.0 + 1e-12


@kernel
def count_candidates(counts: NDArray[np.int64], u: Array, mean: float) -> int:
    """Set counts[p] to the number of a Poisson law with this mean that belongs to u[p]; return the largest."""
    largest = 0
    for p in range(len(u)):
        weight = math.exp(-mean)
        total, count = weight, 0
        while u[p] > total and weight > 0.0:
            count += 1
            weight *= mean / count
            total += weight
        counts[p] = count
        largest = max(largest, count)
    return largest


@kernel
def check_rates(rates: Array, bound: float, held: NDArray[np.bool_], fault: NDArray[np.int64]) -> None:
    """Note the first particle with a rate beyond its bounds."""
    for p in range(len(rates)):
        if fault[0] == 0 and not held[p] and not 0.0 <= rates[p] <= bound * _ROUNDING:
            fault[0] = _ABOVE if rates[p] > bound else _BELOW
            fault[1] = p


@kernel
def jump(
    moved: Matrix, sizes: Array, counts: NDArray[np.int64], number: int, rates: Array, u: Array, bound: float,
    held: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Add the size of the candidate of this number, where there is one that is taken."""
    for p in range(moved.shape[1]):
        if counts[p] >= number and u[p] * bound < rates[p] and not held[p]:
            for i in range(moved.shape[0]):
                moved[i, p] += sizes[i, p]


def _jumping(
    equation: McKeanVlasov,
    coefficients: Coefficients,
    form: Form,
    rate: Function,
    size: Function,
    marks: str,
) -> Callable[..., None]:
    given = form.field != "none", form.args is not None
    marked = marks != "none"
    rate_of = given_function(equation, form, rate, extras(RATE, rate, LOCAL, True, *given), 0)
    takes = extras(SIZE, size, MARKED if marked else LOCAL, True, *given)
    size_of = given_function(equation, form, size, takes, 1, marked)
    normal = marks == "normal"

    def marked_sizes(s: Step, z: Array, draw: Draw, fine: int, number: int) -> Array:
        low, high = draw.first, draw.first + len(z)
        if normal:
            rows, place = z.reshape((1, -1)), np.array([3 * number])
            fill_normals(  # type: ignore[no-untyped-call]
                rows, low, high, low, draw.seed, _STREAM, draw.step, place, fine, 1, 1.0
            )
        else:
            fill_uniforms(z, low, high, draw.seed, _STREAM, draw.step, 3 * number, fine)
        return size_of(s.t, s.x, s.m, z, s.field, s.args)

    def plain_sizes(s: Step, z: Array, draw: Draw, fine: int, number: int) -> Array:
        return size_of(s.t, s.x, s.m, s.field, s.args)

    sizes_of: Any = marked_sizes if marked else plain_sizes
    if not equation.vectorized:
        sizes_of = merged_kernel(sizes_of)

    def act(
        moved: Matrix, s: Step, arrival: float, numbers: Matrix, old: Array, new: Array, held: NDArray[np.bool_],
        draw: Draw,
    ) -> None:  # fmt: skip
        n, bound = moved.shape[1], numbers[0, 0]
        low, high, mean = draw.first, draw.first + n, bound * abs(s.dt) / draw.refinement
        u, z, counts = np.empty(n), np.empty(n), np.empty(n, np.int64)
        rates = rate_of(s.t, s.x, s.m, s.field, s.args)[0]
        check_rates(rates, bound, held, s.fault)
        for fine in range(draw.finest, draw.finest + draw.refinement):
            fill_uniforms(u, low, high, draw.seed, _STREAM, draw.step, 0, fine)
            most = count_candidates(counts, u, mean)
            for number in range(1, most + 1):
                sizes = sizes_of(s, z, draw, fine, number)
                fill_uniforms(u, low, high, draw.seed, _STREAM, draw.step, 3 * number + 1, fine)
                jump(moved, sizes, counts, number, rates, u, bound, held)

    return act


@dataclass(frozen=True, eq=False)
class Jumps(Event):
    """Jumps at random times: in unit time a particle jumps with a rate, by a size, both as where the step starts.

    Candidates come at the largest rate there may be, `rate_bound`, in each of the finest steps of the noise, and each
    is taken with probability rate/rate_bound: weak order 1, and runs on other grids follow the same jumps, as far as
    their rates agree.

    Parameters
    ----------
    rate : callable
        λ(t, x, m[, field][, args]) ≥ 0 in unit time, a number; written as the coefficients of the equation are.
    size : callable
        (t, x, m[, z][, field][, args]) → what is added to x, D numbers.
    rate_bound : float
        The rate is never larger; the run fails where it is.
    marks : str
        What z is, which makes sizes random: a number for each jump, "uniform" on (0, 1) or a standard "normal" one; or
        "none", for sizes without z.

    Raises
    ------
    TypeError, ValueError
        If the functions are none of coefficients, or the bound is not a number above 0.

    References
    ----------
    P. A. W. Lewis, G. S. Shedler, "Simulation of nonhomogeneous Poisson processes by thinning", Nav. Res. Logist. Q. 26
    (1979).
    """

    rate: Function
    size: Function
    rate_bound: float
    marks: str = "none"

    forward = True
    on_grid = True

    def __post_init__(self) -> None:
        for name in ("rate", "size"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name} of jumps must be a function, got {checks.shown(getattr(self, name))}")
        object.__setattr__(self, "rate_bound", checks.positive_number("rate_bound", self.rate_bound))
        checks.choice("marks", self.marks, _MARKS)

    def orders(self) -> tuple[None, float]:
        """Return a weak order of 1."""
        return None, 1.0

    def landing(self, jumps: bool) -> Act | None:
        return Act(_jumping, (self.rate, self.size, self.marks))

    def numbers(self, dimension: int) -> Matrix:
        return np.full((1, dimension), self.rate_bound)

    def functions(self) -> dict[str, tuple[Function, tuple[str, ...], int]]:
        return {RATE: (self.rate, LOCAL, 0), SIZE: (self.size, LOCAL if self.marks == "none" else MARKED, 1)}

    def requires(self, equation: McKeanVlasov, finest: float) -> None:
        for name, (function, arguments, _) in self.functions().items():
            check_function(name, function, arguments, True, equation.vectorized)
        if self.rate_bound * finest > _MOST:
            raise ValueError(
                f"rate_bound times a step must be at most {_MOST:g}, got {self.rate_bound * finest:g}; take more steps "
                "or a finer noise_steps"
            )

    def __repr__(self) -> str:
        names = (getattr(function, "__qualname__", "?") for function in (self.rate, self.size))
        return f"Jumps({', '.join(names)}, rate_bound={self.rate_bound!r}, marks={self.marks!r})"
