"""What is solved on which grid, and where its particles are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.brownian import BrownianMotion
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.events import NOTHING, Events
from solvers.sde.field import FieldOnGrid
from solvers.sde.parameters import Args, passed
from solvers.sde.schemes.scheme import Scheme

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# The largest number that is not infinite.
LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Course:
    """What is solved and on which grid.

    Parameters
    ----------
    equation, form
        The equation, and its sizes.
    scheme : Scheme
        The stages of a step.
    brownian, common : BrownianMotion
        The grid and the motions of the particles, and the motions they share.
    field : FieldOnGrid
        The external field.
    first : int
        The step to start with.
    limit : float
        Particles farther than this from 0, or not finite, are lost.
    args : float, array or named tuple, optional
        The parameters that coefficients take.
    events : Events, optional
        What happens after each step.
    offset : int
        Particle 0 has the noise of the one of this number.
    """

    equation: McKeanVlasov
    form: Form
    scheme: Scheme
    brownian: BrownianMotion
    field: FieldOnGrid
    common: BrownianMotion | None = None
    first: int = 0
    limit: float = LARGEST
    args: Args = None
    events: Events = NOTHING
    offset: int = 0

    @property
    def parameters(self) -> Any:
        """The parameters as passes take them."""
        return passed(self.args, self.equation.vectorized)

    @cached_property
    def shared(self) -> Matrix:
        """The increments of common noise in increasing time, (steps, K⁰), drawn once for compiling and solving."""
        return np.zeros((self.brownian.steps, 0)) if self.common is None else self.common.increments()[:, 0].copy()


class Ensemble(NamedTuple):
    """The particles at one time of the grid."""

    step: int
    t: float
    state: Array  # (D + marks, N): positions and what particles carry; overwritten by later steps
    m: Matrix  # (M,)
    factor: Matrix  # (D, D), or empty without mean-field noise
    finite: bool
    history: Matrix  # (k, M): the means at the last k times, which have not been given before
    dimension: int
    stopped: bool = False  # the means ask for it
    share: float = 0.0  # of the step from there on that led here, where it is between times of the grid

    @property
    def x(self) -> Array:
        """The positions, (D, N)."""
        return self.state[: self.dimension]


class Span(NamedTuple):
    """A step, or the part of it up to a time between those of the grid: how long, and when it ends."""

    part: float
    dt: float
    t1: float
