"""Particles that are reset when they reach a threshold, as neurons are that fire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.accelerate import kernel
from solvers.ensemble.random import Draw, Stream, fill_uniforms
from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.events.crossing import find_crossings, variance_rate
from solvers.sde.events.event import Act, Event
from solvers.sde.schemes.scheme import Step

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

_STREAM = int(Stream.CROSSINGS)
# Where the random numbers of resets are found, beyond those of any component.
_POSITION = 2**32


@kernel
def reset(
    row: Array, which: NDArray[np.int64], value: float, counts: Array, fired: Array, held: NDArray[np.bool_]
) -> None:
    """Put those that met the threshold to the value, and count them."""
    for p in range(len(row)):
        if which[p] == 2 and not held[p]:
            row[p] = value
            counts[p] += 1.0
            fired[p] += 1.0


def _resetting(
    equation: McKeanVlasov, coefficients: Coefficients, form: Form, component: int, bridge: bool, begins: bool
) -> Callable[..., None]:
    add_variance = variance_rate(equation, coefficients, form)

    def act(
        moved: Matrix, s: Step, arrival: float, numbers: Matrix, old: Array, new: Array, held: NDArray[np.bool_],
        draw: Draw,
    ) -> None:  # fmt: skip
        n, threshold, value = moved.shape[1], numbers[0, 0], numbers[1, 0]
        which, u, variance = np.zeros(n, np.int64), np.zeros(n), np.zeros(moved.shape)
        if begins:
            new[1, :] = 0.0
        if bridge:
            add_variance(variance, s)
            variance *= abs(s.dt)
            fill_uniforms(u, draw.first, draw.first + n, draw.seed, _STREAM, draw.step, _POSITION, draw.finest)
        find_crossings(which, s.x[component], moved[component], -np.inf, threshold, variance[component], u)
        reset(moved[component], which, value, new[0], new[1], held)

    return act


@dataclass(frozen=True)
class Reset(Event):
    """A component that reaches a threshold from below is put to a value, as of neurons that integrate and fire.

    m is then an array whose last entry, after the moments, is the number of resets in the last step, averaged over the
    particles: divided by the step it is the firing rate. The solution holds `resets`, (N,), how often each particle was
    reset, and `last_resets`, in the last step. Each reset comes half a step late on average. A particle resets at the
    end of a step, and once at most, or twice where a jump takes it there again.

    Parameters
    ----------
    threshold, value : float
        Where it is reset, and to what, below the threshold.
    component : int
        Which component.
    bridge : bool
        Whether a particle that is below at both ends of a step may have met the threshold in between, with the
        probability of a Brownian bridge: firing rates then have order 1 in the step, and order ½ without it.

    Raises
    ------
    TypeError, ValueError
        If the numbers are not finite, or the value is not below the threshold.

    References
    ----------
    M. T. Giraudo, L. Sacerdote, "An improved technique for the simulation of first passage times for diffusion
    processes", Commun. Stat. Simul. Comput. 28 (1999).
    """

    threshold: float
    value: float
    component: int = 0
    bridge: bool = True

    carries = ("resets", "last_resets")
    forward = True
    on_grid = True
    share = 1

    def __post_init__(self) -> None:
        for name in ("threshold", "value"):
            object.__setattr__(self, name, checks.finite_number(f"{name} of a reset", getattr(self, name)))
        if not self.value < self.threshold:
            raise ValueError(f"value must be below threshold, got {self.value:g} and {self.threshold:g}")
        component = checks.positive_integer("component of a reset", self.component, smallest=0)
        object.__setattr__(self, "component", component)
        checks.flag("bridge", self.bridge)

    def orders(self) -> tuple[None, float]:
        """Return a weak order of 1, or ½ without the bridge."""
        return None, 1.0 if self.bridge else 0.5

    def crossing(self) -> Act | None:
        return Act(_resetting, (self.component, self.bridge, True))

    def landing(self, jumps: bool) -> Act | None:
        return Act(_resetting, (self.component, False, False)) if jumps else None

    def numbers(self, dimension: int) -> Matrix:
        if self.component >= dimension:
            raise ValueError(f"component of a reset must be below {dimension}, got {self.component}")
        return np.array([[self.threshold] * dimension, [self.value] * dimension])

    def check(self, x: Array, first: int) -> None:
        out = np.flatnonzero(~(x[self.component] < self.threshold))
        if len(out):
            raise ValueError(
                f"x0 must be below the threshold {self.threshold:g}, got {x[self.component, out[0]]:g} at particle "
                f"{first + out[0]}"
            )
