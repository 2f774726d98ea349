"""What a scheme is: the noise it takes, the stages of a step, and the orders it claims."""

from __future__ import annotations

import dis
import re
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

from solvers import checks
from solvers.sde.equation import NOISES, McKeanVlasov

Term = Callable[[Any, Any], Any]
Terms = Callable[..., Iterator[Term]]

# Bytecode that reads and sets local names.
_FAST = re.compile("LOAD_FAST|STORE_FAST")
MOTIONS = ("equation", "integrals", "own", "none")


class Step(NamedTuple):
    """What a term knows of n of the particles where a stage starts; it only reads.

    Parameters
    ----------
    t, dt : float
        The time there, and the length of the step, negative where time runs backward.
    x : (D, n) float64
        The positions.
    m : (M,) float64
        The means over all particles.
    field : (n or 1, F) float64
        The external field; F is 0 where there is none.
    dw : (K, n) float64
        The increments of the particles' Brownian motions over the step.
    common : (K⁰, 1) float64
        The increments of the common ones.
    factor : (D, D) float64
        C with C Cᵀ the covariance rate of mean-field noise; empty for other noise.
    ensemble : (D, N) array, or Partners
        The positions of all particles, or whom the particles meet where the interaction is one of `Pairs`.
    args : float, array or tuple
        The parameters of the equation, as its coefficients take them; () where there are none.
    t0 : float
        The time where the step starts.
    m0 : (M,) float64
        The means there.
    field0 : (n or 1, F) float64
        The external field there.
    dz : (K, n) float64
        The integrals over the step of what the particles' Brownian motions gained since it started; K is 0 unless the
        stage asks for them.
    fault : (2,) int64
        Where the step cannot be done for a particle, a number of `Fault` and the place of the particle among the n,
        unless there is one already: the run then fails in this step.
    first : int
        The number of the first of the n among all particles.
    """

    t: float
    dt: float
    x: Any
    m: Any
    field: Any
    dw: Any
    common: Any
    factor: Any
    ensemble: Any
    args: Any
    t0: float
    m0: Any
    field0: Any
    dz: Any
    fault: Any
    first: int = 0


class Stage(NamedTuple):
    """A pass over the particles, to (1 − weight) · X₀ + weight · (X + change); X₀ is where the step starts.

    The first stage has X = X₀. Each later one starts where the one before led, at its `time`, with the means of the
    particles there. Where the last one leads is the end of the step.

    Parameters
    ----------
    terms : callable
        (equation, coefficients, form, *settings) → terms, whose sum is the change. A term is a function (out, s) that
        adds itself to `out`, (D, n) float64, for the n particles of a `Step` s; what it gives a particle does not
        depend on the others of the n. Terms are called in order, and `out` holds X and what was added before.
        `coefficients` holds the coefficients of the equation for n particles, or None where one is left out:
        `drift(t, x, m, field, args)`, likewise `diffusion` and `common`, and
        `interaction(t, x, m, field, args, ensemble, first)`;
        each returns (D, n), or (D, K, n) where it is a matrix. `form` holds the sizes. Terms are compiled with Numba
        where the coefficients are.
    weight : float
        The share of X + change; the rest is X₀.
    settings : tuple
        What else `terms` takes, hashable. A pass is compiled once for the same equation, terms and settings. A method
        is another function for each object, so let `terms` be a function of a module.
    time : float, optional
        The share of the step after which the stage starts; by default 0 for the first and 1 for others.
    motions : str
        The Brownian motions that its terms get: "equation", those of noise that the equation has; "integrals", their
        integrals over the step as well; "own", one for each component of the drift, of noise that the scheme adds;
        "none".
    """

    terms: Terms
    weight: float = 1.0
    settings: tuple[Hashable, ...] = ()
    time: float | None = None
    motions: str = "equation"


class Scheme:
    """How the particles get from one time of the grid to the next; a scheme of one's own is a subclass.

    Attributes
    ----------
    name : str
        What settings and errors call it; by default the name of the class. `solvers.resume` knows the scheme of a run
        by its name, so numbers that the path depends on belong into it.
    noises : tuple of str
        The kinds of noise that it takes.
    common_noise : bool
        Whether it takes common noise.
    stages : tuple of Stage
        The passes over the particles that make a step.
    phase_space : bool
        Whether a particle is (q, p), positions and then momenta, and the drift is the force: half as many numbers.
    forward : bool
        Whether time must go forward.
    """

    name: str = ""
    noises: tuple[str, ...] = NOISES
    common_noise: bool = True
    stages: tuple[Stage, ...] = ()
    phase_space: bool = False
    forward: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(cls.name, str) and "name" not in vars(cls):
            cls.name = cls.__name__

    def requires(self, equation: McKeanVlasov) -> None:
        """Raise ValueError unless the scheme takes the noise of the equation; a subclass may ask for more."""
        shared = equation.common is not None
        if equation.noise in self.noises and (self.common_noise or not shared):
            return
        needs = " or ".join(f'"{noise}"' for noise in self.noises)
        raise ValueError(
            f'scheme="{self.name}" needs noise={needs}{"" if self.common_noise else " and no common noise"}, got '
            f'noise="{equation.noise}"{" and common noise" if shared else ""}; use scheme="euler_maruyama"'
        )

    def functions(self) -> dict[str, tuple[Callable[..., Any], tuple[str, ...], int]]:
        """Return functions of the user's that the scheme calls, each with its arguments and the axes of its value."""
        return {}

    def strong_order(self, equation: McKeanVlasov) -> float | None:
        """Return the p of E|X^h − X|² ∝ h^2p claimed for an equation with smooth coefficients, or None for no claim."""
        return None

    def weak_order(self, equation: McKeanVlasov) -> float | None:
        """Return the p of |E f(X^h) − E f(X)| ∝ h^p claimed for an equation with smooth coefficients, or None."""
        return None


def check_scheme(scheme: Scheme) -> None:
    """Raise TypeError or ValueError unless a scheme has a name and stages."""
    kind = type(scheme).__name__
    if not isinstance(scheme.name, str) or not scheme.name:
        raise TypeError(
            f"name of the scheme {kind} must be a string that is not empty, got {checks.shown(scheme.name)}"
        )
    if not isinstance(scheme.stages, tuple) or not scheme.stages:
        raise TypeError(
            f"stages of the scheme {kind} must be a tuple of at least one solvers.schemes.Stage, got "
            f"{checks.shown(scheme.stages)}"
        )
    for stage in scheme.stages:
        if not isinstance(stage, Stage) or not callable(stage.terms):
            raise TypeError(
                f"a stage of the scheme {kind} must be a solvers.schemes.Stage of a function, got {checks.shown(stage)}"
            )
        if not isinstance(stage.settings, tuple):
            raise TypeError(
                f"settings of a stage of the scheme {kind} must be a tuple, got {checks.shown(stage.settings)}"
            )
        checks.finite_number(f"weight of a stage of the scheme {kind}", stage.weight)
        if stage.time is not None:
            share = checks.finite_number(f"time of a stage of the scheme {kind}", stage.time)
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"time of a stage of the scheme {kind} must be a share from 0 to 1, got {share:g}")
        checks.choice(f"motions of a stage of the scheme {kind}", stage.motions, MOTIONS)
        try:
            hash(stage)
        except TypeError as error:
            raise TypeError(f"settings of a stage of the scheme {kind} must be hashable: {error}; use tuples") from None
    if scheme.stages[0].time not in (None, 0.0):
        raise ValueError(f"the first stage of the scheme {kind} starts where the step does; leave its time out")


def check_term(term: Term) -> None:
    """Raise ValueError if a term gives its first argument another value, or returns what it should add to it."""
    code = getattr(getattr(term, "py_func", term), "__code__", None)
    if code is None:  # an object that is called: there is nothing to read
        return
    out = code.co_varnames[0] if code.co_argcount else ""
    in_place, returns, used = False, False, out in code.co_cellvars
    before: dis.Instruction | None = None
    for one in dis.get_instructions(code):
        names = one.argval if isinstance(one.argval, tuple) else (one.argval,)  # of two instructions in one
        done = set(zip(_FAST.findall(one.opname), names, strict=False))
        used |= ("LOAD_FAST", out) in done
        if ("STORE_FAST", out) in done and not in_place:
            raise ValueError(f"the term {code.co_name} must add to {out} in place: {out} += …")
        nothing = before is not None and before.opname == "LOAD_CONST" and before.argval is None
        returns |= one.opname == "RETURN_VALUE" and not nothing
        before, in_place = one, one.opname == "BINARY_OP" and one.argrepr.endswith("=")  # += and its like
    if returns and not used:
        raise ValueError(f"the term {code.co_name} must add to its first argument, {out} += …, and returns something")


def stage_times(scheme: Scheme) -> tuple[float, ...]:
    """Return the shares of a step at which its stages start, and 1, where the last one ends."""
    given = [stage.time for stage in scheme.stages]
    return (*(float(number > 0) if time is None else float(time) for number, time in enumerate(given)), 1.0)
