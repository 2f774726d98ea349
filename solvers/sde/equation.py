"""McKean–Vlasov equations, as their coefficients.

dX = b(t, X, m) dt + s(t, X, m) dW,    m_t = E[ψ(t, X_t)],    X ∈ R^D per particle.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from solvers import checks
from solvers.sde.moments.mean import Mean
from solvers.sde.moments.moment import Moment
from solvers.sde.pairs.pairs import Pairs, called

Function = Callable[..., Any]

NOISES = ("additive", "diagonal", "general", "mean_field")

# The arguments of each coefficient. The external field may follow where `TAKE_FIELD` says so, and `args` last of all.
ARGUMENTS = {
    "drift": ("t", "x", "m"),
    "diffusion": ("t", "x", "m"),
    "moments": ("t", "x"),
    "covariance": ("t", "x"),
    "common": ("t", "x", "m"),
    "interaction": ("x", "y"),
}
TAKE_FIELD = ("drift", "diffusion", "common", "interaction", "function of pairs")


class Form(NamedTuple):
    """Sizes that follow from an equation, its particles and its external field."""

    scalar: bool  # the position of a particle is a number
    dimension: int
    moments: int
    number: bool  # m is a number
    motions: int
    common: tuple[int, ...]  # shape that the coefficient of the common noise returns
    field: str  # "none", "number" or "vector"
    per_particle: bool  # each particle has its own field
    args: type | None = None  # of the parameters: float, np.ndarray or a named tuple, or None for none
    share: bool = False  # the last entry of m is the share of particles that were reset, whatever `number` says
    force: bool = False  # particles are (q, p), and the drift has half as many numbers
    # of the functions of each later moment: how many numbers they return, and whether these are numbers and not vectors
    later: tuple[tuple[tuple[int, bool], ...], ...] = ()
    later_moments: int = 0  # entries of m that come from later moments
    plain_number: bool = False  # the function of the first entries of m returns a number
    sums: int = 0  # numbers that a kernel of pairs returns
    sum: bool = False  # it returns a number

    @property
    def summed(self) -> int:
        """Entries of m that are means of what one pass over the particles finds: those that are not later moments."""
        return self.moments - self.later_moments


@dataclass(frozen=True, eq=False)
class McKeanVlasov:
    """An equation for N particles that interact through particle means.

    Coefficients are functions of one particle compiled with ``numba.njit``. Where the particles are an (N,)
    array, x is a number and so are the values; where they are (N, D), x is a (D,) array and the values are
    tuples (fastest) or arrays of D numbers. m is a number if `moments` returns one, else an (M,) array. Drift,
    diffusion, common and interaction may take the external field as one more argument, and every coefficient may take
    the parameters `args` of a solve as its last one; where both are given, one that takes a single argument more is
    refused.

    Parameters
    ----------
    drift : callable, optional
        b(t, x, m[, field][, args]); zero if left out.
    diffusion : callable, optional
        s(t, x, m[, field][, args]): D numbers, or with ``noise="general"`` a (D, K) matrix. Zero if left out, or, with
        ``noise="mean_field"``, one.
    moments : callable, Moment, or a sequence of these, optional
        ψ(t, x[, args]): a number or M numbers, whose mean over the particles is m. Without it m is 0. Or another kind
        of moment, such as `Largest`, `WeightedMean` or `GroupMeans`. Of a sequence, m holds what all give, one after
        the other, and functions of later ones, (t, x, m[, args]), see what those before them gave. Each but a first
        function takes another pass over the particles.
    noise : str
        "diagonal": one Brownian motion for each component. "additive": likewise, and s does not depend on x.
        "general": K Brownian motions mixed by a matrix. "mean_field": each component has one Brownian motion,
        and over components these have the covariance rate E[ψψᵀ].
    covariance : callable, optional
        The ψ(t, x[, args]), D numbers, of ``noise="mean_field"``; by default `moments`.
    common : callable, optional
        s⁰(t, x, m[, field][, args]) of a noise s⁰ dW⁰ that all particles share: D numbers, with one Brownian motion
        for each component, or a (D, K⁰) matrix.
    interaction : callable or Pairs, optional
        K(x, y[, field of x][, args]), D numbers: (1/N) Σ_j K(x_i, x_j) is added to the drift, j = i included. The
        time is O(N²). It must not write into x and y. `Pairs` has partners that are near, or random, and functions of
        sums.
    vectorized : bool
        The coefficients are NumPy functions of n particles at once, which are any of the particles but not all of
        them, and are called in several threads: x is (n,) or (D, n) and read-only, values are numbers, (n,) or
        (D, n), (D, K, n) for matrices, m is a number or (M,), a field that differs between particles is (n,) or
        (F, n), else a number or (F,). `interaction` is called with x[..., None], y[..., None, :], and a field that
        differs between particles as field[..., None]. Nothing is compiled.

    Raises
    ------
    TypeError
        If a coefficient is not compiled with numba.njit, or takes other arguments.
    ValueError
        If the noise is not valid, or the coefficients leave nothing to solve.

    References
    ----------
    A.-S. Sznitman, "Topics in propagation of chaos", 1991. The noise "mean_field" is that of paper F,
    F-(7)–(9), where several inputs share one network.
    """

    drift: Function | None = None
    diffusion: Function | None = None
    moments: Function | Moment | Sequence[Function | Moment] | None = None
    noise: str = "diagonal"
    covariance: Function | None = None
    common: Function | None = None
    interaction: Function | Pairs | None = None
    vectorized: bool = False

    def __post_init__(self) -> None:
        checks.choice("noise", self.noise, NOISES)
        checks.flag("vectorized", self.vectorized)
        if isinstance(self.moments, (tuple, list)):
            if not self.moments:
                raise ValueError("moments must not be empty; leave them out")
            object.__setattr__(self, "moments", tuple(self.moments))
        for one in self.moments if isinstance(self.moments, tuple) else (self.moments,):
            if isinstance(one, type):
                raise TypeError(f"moments must be functions or moments, got the class {one.__name__}")
        for name, (function, arguments) in self.functions.items():
            check_function(name, function, arguments, self._may_field(name), self.vectorized)
        if self.noise == "mean_field":
            if self.covariance is None and self.plain_moments is None:
                raise ValueError('noise="mean_field" needs moments or covariance, whose E[ψψᵀ] is its covariance')
        elif self.covariance is not None:
            raise ValueError(f'covariance belongs to noise="mean_field", got noise={self.noise!r}')
        elif self.noise == "general" and self.diffusion is None:
            raise ValueError('noise="general" needs a diffusion matrix')
        elif not {"drift", "diffusion", "common", "interaction"} & set(self.given):
            raise ValueError(
                "an equation needs at least one of drift, diffusion, common and interaction; for jumps or resets alone "
                "give a drift of zeros"
            )

    @property
    def given(self) -> list[str]:
        """Names of the coefficients that are not left out."""
        return [name for name in ARGUMENTS if getattr(self, name) is not None]

    @property
    def psi(self) -> Function | None:
        """The ψ whose E[ψψᵀ] is the covariance of the noise, or None."""
        return (self.covariance or self.plain_moments) if self.noise == "mean_field" else None

    @property
    def plain_moments(self) -> Function | None:
        """The function whose mean is the first part of m, or None."""
        first = self.moments[0] if isinstance(self.moments, tuple) else self.moments
        return None if isinstance(first, Moment) else first  # type: ignore[return-value]

    @property
    def later_moments(self) -> tuple[Moment, ...]:
        """The moments that take passes of their own, in order."""
        given = self.moments if isinstance(self.moments, tuple) else () if self.moments is None else (self.moments,)
        own = given if self.plain_moments is None else given[1:]
        return tuple(one if isinstance(one, Moment) else Mean(one) for one in own)

    @property
    def pairs(self) -> Pairs | None:
        """The interaction where it is one of `Pairs`."""
        return self.interaction if isinstance(self.interaction, Pairs) else None

    @cached_property
    def functions(self) -> dict[str, tuple[Function, tuple[str, ...]]]:
        """All functions by what errors call them, with their arguments before the field and the parameters."""
        plain = {"moments": self.plain_moments}
        if self.pairs is None:
            plain["interaction"] = self.interaction  # type: ignore[assignment]
        found = {
            name: (plain.get(name, getattr(self, name)), arguments)
            for name, arguments in ARGUMENTS.items()
            if plain.get(name, getattr(self, name)) is not None
        }
        if self.pairs is not None:
            found |= self.pairs.functions
        before = self.plain_moments is not None
        for place, moment in enumerate(self.later_moments):
            arguments = ("t", "x", "m") if before or place else ("t", "x")
            found |= {self.name_of(name, place): (one, arguments) for name, one in _functions_of(moment).items()}
        return found

    def name_of(self, function: str, place: int) -> str:
        """Return what errors call a function of the later moment at this place."""
        number = place + (self.plain_moments is not None)
        return f"moments[{number}]" if function == "moments" else f"{function} of moments[{number}]"

    def extras(self, name: str, field: bool, args: bool) -> tuple[bool, bool]:
        """Return whether the function called `name` takes the external field, and the parameters, if given.

        Raises
        ------
        TypeError
            If it takes more than what is given, or one of two without a sign which.
        """
        return extras(name, *self.functions[name], self._may_field(name), field, args)

    def _may_field(self, name: str) -> bool:
        """Whether a function may take the external field as one argument more."""
        both = name == "interaction" and self.pairs is not None and self.pairs.partner == "field"
        return name in TAKE_FIELD and not both


def check_function(name: str, function: Any, arguments: tuple[str, ...], field: bool, vectorized: bool) -> None:
    """Raise TypeError unless a function is one of an equation that may be `vectorized`, and takes these arguments.

    The external field may follow where `field` says so, and then parameters.
    """
    if vectorized and not callable(function):
        raise TypeError(f"{name} must be a function, got {function!r}")
    if not vectorized and not hasattr(function, "py_func"):
        raise TypeError(
            f"{name} must be compiled with numba.njit, got {_called(function)}; decorate it with @njit, or set "
            "vectorized=True if it takes arrays of particles"
        )
    most = len(arguments) + 1 + field
    if not len(arguments) <= _arity(function) <= most:
        rule = f"({', '.join(arguments)}{'[, field]' * field}[, args])"
        raise TypeError(f"{name} must take {rule}, got {inspect.signature(_plain(function))}")


def extras(
    name: str, function: Function, arguments: tuple[str, ...], may_field: bool, field: bool, args: bool
) -> tuple[bool, bool]:
    """Return whether a function takes the external field, and the parameters, where given; raises TypeError."""
    more, own = _arity(function) - len(arguments), ", ".join(arguments)
    field = field and may_field
    if more == 0:
        return False, False
    if more == 1 and field and args:
        raise TypeError(
            f"{name} takes one argument more than ({own}), which may be the field or args: as both are given, let it "
            "take both, or neither"
        )
    if more > field + args:
        missing = ["field="] * (may_field and not field) + ["args="] * (not args)
        needed, count = (" and " if more == 2 else " or ").join(missing), ("one argument", "two arguments")[more - 1]
        raise TypeError(f"{name} takes {count} more than ({own}): pass {needed}")
    return (field, args) if more == 2 else (field, not field)


@lru_cache(maxsize=256)
def _arity(function: Function) -> int:
    return len(inspect.signature(_plain(function)).parameters)


def _plain(function: Function) -> Function:
    return getattr(function, "py_func", function)


def _called(function: Any) -> str:
    return f"the function {function.__name__}" if inspect.isfunction(function) else repr(function)


def _functions_of(moment: Moment) -> dict[str, Function]:
    """Return the functions of a moment; raises TypeError or ValueError unless there are one or two, with kernels."""
    found, kind = moment.functions(), type(moment).__name__
    if not 1 <= len(found) <= 2:
        raise ValueError(f"functions of {kind} must be one or two, got {len(found)}")
    if not all(hasattr(kernel, "py_func") for kernel in moment.kernels):
        raise TypeError(f"kernels of {kind} must be compiled with numba.njit")
    return found


def kinds_of(equation: McKeanVlasov) -> dict[str, str]:
    """Return what a run says of moments and pairs, where they are more than functions, which are not compared."""
    given = {"moment_kinds": equation.moments if equation.later_moments else None, "pairs": equation.pairs}
    return {name: _kind_of(one) for name, one in given.items() if one is not None}


def _kind_of(given: Any) -> str:
    if isinstance(given, tuple):
        return f"({', '.join(map(_kind_of, given))})"
    if isinstance(given, Pairs):
        return given.options()
    return type(given).__name__ if isinstance(given, Moment) else "function"


def names_of(given: Any) -> str:
    """Return what settings call a coefficient."""
    if isinstance(given, tuple):
        return f"({', '.join(map(names_of, given))})"
    if isinstance(given, Moment):
        return f"{type(given).__name__}({', '.join(called(one) for one in given.functions().values())})"
    return repr(given) if isinstance(given, Pairs) else called(given)
