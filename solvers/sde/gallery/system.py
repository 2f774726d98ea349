"""An equation with parameters, where its particles start, and how it is solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.results.solution import Solution
from solvers.sde.equation import McKeanVlasov
from solvers.sde.solve import solve

Array = NDArray[np.float64]

# How far a step may be from the one that parameters say, as computed in another order.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class System:
    """A ready system of `solvers.equations`.

    Attributes
    ----------
    equation : McKeanVlasov
        The coefficients, compiled.
    args : named tuple
        The parameters; ``system.args._replace(…)`` makes others, which need not be compiled. One that is called `dt` is
        the length of a step.
    start : callable
        Draws n particles, (generator, n) → (n, D) or (n,).
    options : mapping
        What `solvers.solve` is given beside these: a scheme, a boundary, resets.
    components : tuple of str
        What the numbers of a particle are.
    """

    equation: McKeanVlasov
    args: Any
    start: Callable[[np.random.Generator, int], Array]
    components: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def solve(self, t1: float, steps: int, *, particles: int | None = None, **rest: Any) -> Solution:
        """Solve from time 0 to t1.

        Parameters
        ----------
        t1, steps
            As for `solvers.solve`.
        particles : int, optional
            How many; only an array x0 says it itself.
        **rest
            Its other options; x0, args and the system's own may be replaced.

        Returns
        -------
        Solution

        Raises
        ------
        TypeError, ValueError
            As for `solvers.solve`, or if the steps are not those of the parameters.
        """
        t1, steps = checks.interval(0.0, t1)[1], checks.positive_integer("steps", steps)
        given = {"x0": self.start, "args": self.args, "particles": particles, **self.options} | rest
        dt = getattr(given["args"], "dt", None)
        if dt is not None and abs(t1 / steps - dt) > _ROUNDING * dt:
            raise ValueError(f"steps of {t1 / steps:g} are not those of args.dt = {dt:g}: take {t1 / dt:g} steps")
        return solve(self.equation, given.pop("x0"), 0.0, t1, steps, **given)


def positive(**parameters: float) -> None:
    """Raise ValueError unless parameters are above 0."""
    for name, value in parameters.items():
        checks.positive_number(name, value)


@dataclass(frozen=True)
class Normal:
    """A sampler of independent normals around these means, of one deviation, and not above a largest value."""

    means: float | tuple[float, ...]
    deviation: float = 1.0
    largest: float = np.inf

    def __call__(self, generator: np.random.Generator, count: int) -> Array:
        shape = (count, *np.shape(self.means))
        drawn = self.means + self.deviation * generator.standard_normal(shape)
        return np.minimum(drawn, self.largest)


@dataclass(frozen=True)
class Uniform:
    """A sampler of vectors that are uniform between two ends."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __call__(self, generator: np.random.Generator, count: int) -> Array:
        return generator.uniform(self.low, self.high, (count, len(self.low)))
