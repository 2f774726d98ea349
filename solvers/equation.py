"""McKean–Vlasov equations, as their coefficients.

dX = b(t, X, m) dt + s(t, X, m) dW,    m_t = E[ψ(t, X_t)],    X ∈ R^D per particle.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers import checks

Function = Callable[..., Any]

NOISES = ("additive", "diagonal", "general", "mean_field")

# The arguments of each coefficient; one more, the external field, may follow where `_FIELD` says so.
_ARGUMENTS = {
    "drift": ("t", "x", "m"), "diffusion": ("t", "x", "m"), "moments": ("t", "x"), "covariance": ("t", "x"),
    "common": ("t", "x", "m"), "interaction": ("x", "y"),
}  # fmt: skip
_FIELD = ("drift", "diffusion", "common", "interaction")
# Particles on which coefficients are tried before a run.
_TRIED = 64


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


@dataclass(frozen=True, eq=False)
class McKeanVlasov:
    """An equation for N particles that interact through particle means.

    Coefficients are functions of one particle compiled with ``numba.njit``. Where the particles are an (N,)
    array, x is a number and so are the values; where they are (N, D), x is a (D,) array and the values are
    tuples (fastest) or arrays of D numbers. m is a number if `moments` returns one, else an (M,) array. Drift,
    diffusion, common and interaction may take the external field as one more, last, argument.

    Parameters
    ----------
    drift : callable, optional
        b(t, x, m[, field]); zero if left out.
    diffusion : callable, optional
        s(t, x, m[, field]): D numbers, or with ``noise="general"`` a (D, K) matrix. Zero if left out, or, with
        ``noise="mean_field"``, one.
    moments : callable, optional
        ψ(t, x): a number or M numbers, whose mean over the particles is m. Without it m is 0.
    noise : str
        "diagonal": one Brownian motion for each component. "additive": likewise, and s does not depend on x.
        "general": K Brownian motions mixed by a matrix. "mean_field": each component has one Brownian motion,
        and over components these have the covariance rate E[ψψᵀ].
    covariance : callable, optional
        The ψ(t, x), D numbers, of ``noise="mean_field"``; by default `moments`.
    common : callable, optional
        s⁰(t, x, m[, field]) of a noise s⁰ dW⁰ that all particles share: D numbers, with one Brownian motion
        for each component, or a (D, K⁰) matrix.
    interaction : callable, optional
        K(x, y[, field of x]), D numbers: (1/N) Σ_j K(x_i, x_j) is added to the drift, j = i included. The time is
        O(N²). It must not write into x and y.
    vectorized : bool
        The coefficients are NumPy functions of n particles at once, any n of them and not all, in several
        threads: x is (n,) or (D, n) and read-only, values are numbers, (n,) or (D, n), (D, K, n) for matrices,
        m is a number or (M,), a field that differs between particles is (n,) or (F, n), else a number or (F,),
        and the arguments of `interaction` are x[..., None] and y[..., None, :]. Nothing is compiled.

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
    moments: Function | None = None
    noise: str = "diagonal"
    covariance: Function | None = None
    common: Function | None = None
    interaction: Function | None = None
    vectorized: bool = False

    def __post_init__(self) -> None:
        checks.choice("noise", self.noise, NOISES)
        checks.flag("vectorized", self.vectorized)
        for name in self.given:
            self._check_function(name)
        if self.noise == "mean_field":
            if self.covariance is None and self.moments is None:
                raise ValueError('noise="mean_field" needs moments or covariance, whose E[ψψᵀ] is its covariance')
        elif self.covariance is not None:
            raise ValueError(f'covariance belongs to noise="mean_field", got noise={self.noise!r}')
        elif self.noise == "general" and self.diffusion is None:
            raise ValueError('noise="general" needs a diffusion matrix')
        elif not {"drift", "diffusion", "common", "interaction"} & set(self.given):
            raise ValueError("an equation needs at least one of drift, diffusion, common and interaction")

    @property
    def given(self) -> list[str]:
        """Names of the coefficients that are not left out."""
        return [name for name in _ARGUMENTS if getattr(self, name) is not None]

    @property
    def psi(self) -> Function | None:
        """The ψ whose E[ψψᵀ] is the covariance of the noise, or None."""
        return (self.covariance or self.moments) if self.noise == "mean_field" else None

    def takes_field(self, name: str) -> bool:
        """Whether the coefficient called `name` has the external field among its arguments."""
        return _arity(getattr(self, name)) > len(_ARGUMENTS[name])

    def _check_function(self, name: str) -> None:
        function = getattr(self, name)
        if self.vectorized and not callable(function):
            raise TypeError(f"{name} must be a function, got {function!r}")
        if not self.vectorized and not hasattr(function, "py_func"):
            raise TypeError(
                f"{name} must be compiled with numba.njit, got {_called(function)}; decorate it with @njit, or set "
                "vectorized=True if it takes arrays of particles"
            )
        arguments = _ARGUMENTS[name]
        valid = {len(arguments)} | ({len(arguments) + 1} if name in _FIELD else set())
        if _arity(function) not in valid:
            rule = f"({', '.join(arguments)})" + (
                f" or ({', '.join((*arguments, 'field'))})" if len(valid) == 2 else ""
            )
            raise TypeError(f"{name} must take {rule}, got {inspect.signature(_plain(function))}")

    def form(
        self, t: float, x: NDArray[np.floating], scalar: bool, field: NDArray[np.floating], kind: str,
        per_particle: bool = False,
    ) -> Form:  # fmt: skip
        """Try every coefficient on the first particle and return the sizes.

        Parameters
        ----------
        t : float
            Time.
        x : (D, N) float64
            The particles.
        scalar : bool
            Whether a position is a number.
        field : (N or 1, F) float64
            The external field at time t; F is 0 if there is none.
        kind : str
            "none", "number" or "vector".
        per_particle : bool
            Whether each particle has its own field.

        Returns
        -------
        Form
            Sizes of positions, means and noise.

        Raises
        ------
        TypeError
            If a coefficient fails, or a field is missing or not wanted.
        ValueError
            If a coefficient returns another shape than it should.
        """
        takers = [name for name in self.given if name in _FIELD and self.takes_field(name)]
        if takers and kind == "none":
            raise TypeError(f"{takers[0]} takes an external field: pass field=")
        if not takers and kind != "none":
            raise TypeError("field was given, but no coefficient takes it as its last argument")
        shape = () if scalar else (len(x),)
        # particles from first to last, and a place where there is certainly none
        chosen = np.unique(np.linspace(0, x.shape[1] - 1, _TRIED).astype(int))
        places = [*x[:, chosen].T, x[:, 0] + 0.01 * (1.0 + np.abs(x[:, 0]))]
        outside = _outside(field, kind, self.vectorized and per_particle)
        m: Any = 0.0

        def value(name: str, place: int = 0) -> NDArray[np.float64]:
            return _value(self, name, t, places[place], places[-1], m, outside, scalar)

        def vector(name: str) -> NDArray[np.float64]:
            found = value(name)
            if found.shape != shape and not (self.vectorized and found.ndim == 0):
                raise ValueError(f"{name} must return {_numbers(shape)} a particle, got {_numbers(found.shape)}")
            return found

        def columns(found: NDArray[np.float64]) -> int:
            if found.ndim != 2 or len(found) != len(x) or not found.size:
                raise ValueError(f"a matrix of {len(x)} rows is needed for each particle, got {_numbers(found.shape)}")
            return found.shape[1]

        if self.moments:
            psi = value("moments")
            if psi.ndim > 1 or not psi.size:
                raise ValueError(f"moments must return a number or M numbers a particle, got {_numbers(psi.shape)}")
            psi = np.mean([value("moments", place) for place in range(len(places) - 1)], axis=0)
            m = psi if psi.ndim else float(psi)
        for name in ("drift", "interaction", "diffusion", "covariance"):
            if getattr(self, name) and not (name == "diffusion" and self.noise == "general"):
                vector(name)
        if self.psi is not None and self.psi is self.moments:
            vector("moments")
        if (
            self.noise == "additive"
            and self.diffusion
            and any(np.any(value("diffusion", place) != value("diffusion")) for place in range(1, len(places)))
        ):
            raise ValueError('diffusion depends on x, so it is not noise="additive"; use noise="diagonal"')
        motions = columns(value("diffusion")) if self.noise == "general" else len(x)
        common: tuple[int, ...] = ()
        if self.common:
            common = value("common").shape
            common = (len(x),) if common in ((), shape) else (len(x), columns(value("common")))
        return Form(
            scalar, len(x), np.size(m) if self.moments else 0, np.ndim(m) == 0, motions, common, kind, per_particle
        )


def _value(equation: McKeanVlasov, name: str, t: float, x: NDArray[np.floating], y: NDArray[np.floating], m: Any,
           field: Any, scalar: bool) -> NDArray[np.float64]:  # fmt: skip
    """Return what a coefficient gives for one particle, (), (D,) or (D, K); raises TypeError if it fails."""
    function = getattr(equation, name)
    pair = name == "interaction"
    points = [np.ascontiguousarray(point) for point in (x, y)]
    arguments: list[Any] = [point[0] if scalar else point for point in points]
    if equation.vectorized:
        axes = (..., None, None) if pair else (..., None)
        arguments = [np.asarray(point)[axes] for point in arguments]
        for argument in arguments:
            argument.flags.writeable = False
    arguments = arguments if pair else [t, arguments[0], m][: len(_ARGUMENTS[name])]
    if equation.takes_field(name):
        arguments.append(field)
    try:
        value = function(*arguments)
    except Exception as error:  # whatever a user's function, or its compilation, raises
        raise TypeError(f"{name} failed on the first particle: {reason(error)}") from None
    if not equation.vectorized and isinstance(value, tuple) and len({type(entry) for entry in value}) > 1:
        raise TypeError(f"{name} must return numbers of one type, so write 0.0 instead of 0; got {value}")
    try:
        value = np.asarray("nothing" if value is None else value, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must return numbers, got {value!r}") from None
    if equation.vectorized:
        for _ in range(min(value.ndim, 2 if pair else 1)):
            if value.shape[-1] != 1:
                raise ValueError(f"{name} of one particle must have a last axis of length 1, got {value.shape}")
            value = value[..., 0]
    return value


def _outside(field: NDArray[np.floating], kind: str, stretched: bool) -> Any:
    """Return the external field of the first particle as a coefficient expects it."""
    if kind == "none":
        return None
    if stretched:
        return field[0, 0:1] if kind == "number" else field[0, :, None]
    here = np.ascontiguousarray(field[0])
    return float(here[0]) if kind == "number" else here


def _numbers(shape: tuple[int, ...]) -> str:
    return "a number" if shape == () else f"numbers of shape {shape}"


def reason(error: Exception) -> str:
    """The line of an error that says most; Numba's are long, coloured and begin with the name of a stage."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Failed in nopython mode pipeline")]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _arity(function: Function) -> int:
    return len(inspect.signature(_plain(function)).parameters)


def _plain(function: Function) -> Function:
    return getattr(function, "py_func", function)


def _called(function: Any) -> str:
    return f"the function {function.__name__}" if inspect.isfunction(function) else repr(function)
