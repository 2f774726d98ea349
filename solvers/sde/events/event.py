"""What happens to particles after each step of a scheme: boundaries, jumps, resets."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.sde.equation import McKeanVlasov

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]
Function = Callable[..., Any]


class Act(NamedTuple):
    """A pass over n particles where a step ends.

    Parameters
    ----------
    make : callable
        (equation, coefficients, form, *settings) → act(moved, s, arrival, numbers, old, new, held, draw). It changes
        `moved`, (D, n), where the particles are at the end, at time `arrival`, of the `Step` s, which is given as it
        was known at the start; `numbers` are those of the event, (R, D); `old` and `new`, (numbers carried, n), hold
        what each particle carries, before and after, and are the same where nothing changed yet; particles with `held`,
        (n,), stay where they are; `draw` says where random numbers are found. Acts are compiled with Numba where the
        coefficients are.
    settings : tuple
        What else `make` takes, hashable.
    """

    make: Function
    settings: tuple[Hashable, ...] = ()


class Plan(NamedTuple):
    """What happens after a step: acts, each with the place of its numbers and the rows of its marks, and the share.

    `share` is the row, after the D components, whose mean over the particles is the last entry of m, or −1.
    """

    acts: tuple[tuple[Act, int, int, int], ...] = ()
    share: int = -1


NO_PLAN = Plan()


class Event:
    """What may happen to a particle after a step.

    Attributes
    ----------
    carries : tuple of str
        Names of the numbers that each particle carries for it, beside its position.
    forward : bool
        Whether time must go forward.
    on_grid : bool
        Whether particles are known at times of the grid only.
    share : int or None
        The carried number whose mean over the particles becomes the last entry of m.
    """

    carries: tuple[str, ...] = ()
    forward: bool = False
    on_grid: bool = False
    share: int | None = None

    def crossing(self) -> Act | None:
        """What may have happened on the way of a step, before jumps."""
        return None

    def landing(self, jumps: bool) -> Act | None:
        """What happens where the step ends, after jumps if there are any."""
        return None

    def numbers(self, dimension: int) -> Matrix:
        """Return the numbers of the event, (R, D) for particles of D = `dimension` components; raises ValueError."""
        return np.zeros((0, dimension))

    def orders(self) -> tuple[float | None, float | None]:
        """Return the strong and the weak order that a scheme has at most with the event; None for no claim."""
        return None, None

    def functions(self) -> dict[str, tuple[Function, tuple[str, ...], int]]:
        """Return functions of the user's by name, each with its arguments and the axes of its value for one particle.

        The external field and parameters may follow the arguments; an axis has as many entries as x.
        """
        return {}

    def requires(self, equation: McKeanVlasov, finest: float) -> None:
        """Raise ValueError or TypeError unless the event goes with an `equation`, and steps of `finest` length."""

    def check(self, x: Array, first: int) -> None:
        """Raise ValueError if one of the particles `x` at the start, (D, n), number `first` on, is out of place."""

    def initial(self, x: Array, t: float) -> Matrix:
        """Return what each particle carries at the start, (numbers carried, n), where `x`, (D, n), is at time `t`."""
        return np.zeros((len(self.carries), x.shape[1]))
