"""Absorption at the ends of an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers import checks
from solvers.accelerate import kernel
from solvers.ensemble.random import Draw, Stream, fill_uniforms
from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.events.box import Box
from solvers.sde.events.crossing import find_crossings, variance_rate
from solvers.sde.events.event import Act
from solvers.sde.schemes.scheme import Step

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

_STREAM = int(Stream.CROSSINGS)


@kernel
def hold(moved: Matrix, x: Matrix, times: Array, held: NDArray[np.bool_]) -> None:
    """Leave those that were absorbed before, whose time is a number, where they are."""
    for p in range(moved.shape[1]):
        if times[p] == times[p]:
            held[p] = True
            for i in range(moved.shape[0]):
                moved[i, p] = x[i, p]


@kernel
def absorb(
    moved: Matrix, i: int, which: NDArray[np.int64], box: Matrix, t: float, times: Array, held: NDArray[np.bool_]
) -> None:
    """Put those that met an end in component i there, from now on."""
    for p in range(moved.shape[1]):
        if which[p] > 0 and not held[p]:
            moved[i, p] = box[which[p] - 1, i]
            times[p], held[p] = t, True


def _absorbing(
    equation: McKeanVlasov, coefficients: Coefficients, form: Form, bridge: bool, begins: bool
) -> Callable[..., None]:
    add_variance = variance_rate(equation, coefficients, form)

    def act(
        moved: Matrix, s: Step, arrival: float, box: Matrix, old: Array, new: Array, held: NDArray[np.bool_], draw: Draw
    ) -> None:
        n = moved.shape[1]
        which, u, variance = np.zeros(n, np.int64), np.zeros(n), np.zeros(moved.shape)
        if begins:
            hold(moved, s.x, old[0], held)
        if bridge:
            add_variance(variance, s)
            variance *= abs(s.dt)
        for i in range(moved.shape[0]):
            if box[0, i] > -np.inf or box[1, i] < np.inf:
                if bridge:
                    fill_uniforms(u, draw.first, draw.first + n, draw.seed, _STREAM, draw.step, i, draw.finest)
                find_crossings(which, s.x[i], moved[i], box[0, i], box[1, i], variance[i], u)
                absorb(moved, i, which, box, arrival, new[0], held)

    return act


@dataclass(frozen=True)
class Absorbing(Box):
    """Particles stay where they first meet an end of an interval, in any component.

    They go on to count in means and interactions. The solution holds `hitting_times`, (N,), the end of the step in
    which each was absorbed, NaN where it was not: on average half a step late. With common noise the motions of
    particles within a step are taken as independent of each other.

    Parameters
    ----------
    low, high : float or (D,) array
        The ends, for all components or for each; infinite where there is none.
    bridge : bool
        Whether a particle that is inside at both ends of a step may have met an end in between, with the probability
        of a Brownian bridge: mean hitting times then have order 1 in the step, and order ½ without it.

    Raises
    ------
    TypeError, ValueError
        If the ends are not numbers in order, or `bridge` is not True or False.

    References
    ----------
    E. Gobet, "Weak approximation of killed diffusion using Euler schemes", Stoch. Proc. Appl. 87 (2000).
    """

    low: ArrayLike
    high: ArrayLike
    bridge: bool = True

    carries = ("hitting_times",)
    on_grid = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.flag("bridge", self.bridge)

    def orders(self) -> tuple[None, float]:
        """Return a weak order of 1, or ½ without the bridge."""
        return None, 1.0 if self.bridge else 0.5

    def crossing(self) -> Act | None:
        return Act(_absorbing, (self.bridge, True))

    def landing(self, jumps: bool) -> Act | None:
        return Act(_absorbing, (False, False)) if jumps else None

    def initial(self, x: Array, t: float) -> Matrix:
        low, high = self.numbers(len(x))[:, :, None]
        return np.where(((x <= low) | (x >= high)).any(axis=0), t, np.nan)[None]
