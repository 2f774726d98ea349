"""What a particle gets from the others: a kernel of pairs, over all, over those nearby, or over a random batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks

Function = Callable[..., Any]
Matrix = NDArray[np.float64]

PARTNERS = ("position", "index", "field")
# Arguments of the kernel, before the particle's own field and parameters.
_ARGUMENTS = {
    "position": ("x", "y"),
    "index": ("x", "y", "i", "j"),
    "field": ("x", "y", "field", "other field"),
}
SUM_ARGUMENTS = ("t", "x", "m", "s")
# Most components in which distances are looked at.
_MOST = 3


@dataclass(frozen=True, eq=False)
class Pairs:
    """The interaction (1/N) Σ_j K(x_i, x_j) of an equation, j = i included, or a function of such sums.

    Where `solve` has a periodic boundary, y is the image of the partner that is nearest to x. A run with pairs of this
    kind goes step by step.

    Parameters
    ----------
    kernel : callable
        K(x, y[, field of x][, args]), written as coefficients are: D numbers, or with a `function` any. Of a vectorized
        equation it is called with x and y of the same shape, (n,) or (D, n), for n pairs.
    function : callable, optional
        (t, x, m, s[, field][, args]) → what is added to the drift, D numbers, where s is the mean of K over partners: a
        number, or as many as K has.
    cutoff : float, optional
        Only partners nearer than this count, which are found in cells: the time grows like N times their number. The
        mean is still one over all N.
    random_batch : int, optional
        p: particles meet in batches of p, drawn anew in each step, of which none is smaller. K(x, x)/N + (N − 1)/N
        times the mean of K over the others of the batch has the right mean in each step, and the law an error of O(dt).
        The time grows like N p.
    space : int, optional
        Distances are those in so many of the components, the first ones, 3 at most; all of them by default.
    partner : str
        "position", or what else the kernel takes of both: "index", K(x, y, i, j, …) with their numbers among the
        particles, or "field", K(x, y, field of x, field of y[, args]).

    Raises
    ------
    TypeError, ValueError
        If an argument is not valid, or two do not go together.

    References
    ----------
    S. Jin, L. Li, J.-G. Liu, "Random batch methods (RBM) for interacting particle systems", J. Comput. Phys. 400
    (2020). S. Motsch, E. Tadmor, "A new model for self-organized dynamics and its flocking behavior", J. Stat. Phys.
    144 (2011), for a function of sums.
    """

    kernel: Function
    function: Function | None = None
    cutoff: float | None = None
    random_batch: int | None = None
    space: int | None = None
    partner: str = "position"

    def __post_init__(self) -> None:
        for name in ("kernel", "function"):
            given = getattr(self, name)
            if not callable(given) and (name == "kernel" or given is not None):
                raise TypeError(f"{name} of pairs must be a function, got {checks.shown(given)}")
        checks.choice("partner", self.partner, PARTNERS)
        if self.cutoff is not None:
            object.__setattr__(self, "cutoff", checks.positive_number("cutoff", self.cutoff))
        if self.random_batch is not None:
            checks.positive_integer("random_batch", self.random_batch, smallest=2)
            if self.cutoff is not None:
                raise ValueError("cutoff and random_batch are two ways to meet fewer partners: give one of them")
            if self.function is not None:
                raise ValueError("random_batch is right on average for sums, and not for a function of them")
        if self.space is not None:
            checks.positive_integer("space", self.space)
            if self.cutoff is None:
                raise ValueError("space says where the cutoff looks at distances, so it needs a cutoff")

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of the kernel."""
        return _ARGUMENTS[self.partner]

    @property
    def functions(self) -> dict[str, tuple[Function, tuple[str, ...]]]:
        """Functions by what errors call them, with their arguments."""
        found = {"interaction": (self.kernel, self.arguments)}
        return found | ({} if self.function is None else {"function of pairs": (self.function, SUM_ARGUMENTS)})

    def requires(self, particles: int, dimension: int, box: Matrix | None) -> None:
        """Raise ValueError unless `particles` of this `dimension` have such pairs in a `box`, (2, D), or in none."""
        if self.random_batch is not None and self.random_batch > particles:
            raise ValueError(f"random_batch must be at most the {particles} particles, got {self.random_batch}")
        if self.cutoff is None:
            return
        space = self.components(dimension)
        if space > dimension:
            raise ValueError(f"space must be at most the {dimension} components of a particle, got {space}")
        if space > _MOST:
            raise ValueError(f"a cutoff looks at {_MOST} components at most, got {space}: say which with space=")
        if box is not None:
            shortest = float((box[1] - box[0])[:space].min())
            if 2.0 * self.cutoff > shortest:
                raise ValueError(f"cutoff must be at most half the periodic box, {shortest / 2:g}, got {self.cutoff:g}")

    def orders(self) -> tuple[float | None, float | None]:
        """Return the strong and the weak order that a scheme has at most with such pairs; None for no claim.

        Random batches are drawn anew on each grid, and a kernel may jump at the cutoff.
        """
        if self.random_batch is not None:
            return None, 1.0
        return (None, None) if self.cutoff is not None else (math.inf, math.inf)

    def components(self, dimension: int) -> int:
        """Return in how many of the components, as many as the `dimension`, distances are looked at."""
        return dimension if self.space is None else self.space

    def options(self) -> str:
        """Return what is said of these pairs beside their functions."""
        return f"Pairs({', '.join([*['function'] * (self.function is not None), *self._choices])})"

    def __repr__(self) -> str:
        names = [called(self.kernel)] + [f"function={called(self.function)}"] * (self.function is not None)
        return f"Pairs({', '.join([*names, *self._choices])})"

    @property
    def _choices(self) -> list[str]:
        """What is chosen otherwise than by default, but for functions."""
        usual = {"cutoff": None, "random_batch": None, "space": None, "partner": "position"}
        return [f"{name}={getattr(self, name)!r}" for name, value in usual.items() if getattr(self, name) != value]


def called(function: Any) -> str:
    """Return the name of a function."""
    return str(getattr(function, "__qualname__", "?"))
