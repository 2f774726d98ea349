"""The trial of an equation before a run: shapes of its coefficients, and faults that the run would not show.

Coefficients are tried where the run starts, with the means of all its particles, on up to 64 of them and at one
position that no particle has. Called again they must give the same values. They must leave their arguments as they are,
and not read beyond the end of an array, also at later times. And a function of many particles must give each of them a
value that does not depend on the others. What depends on where particles go is tried again on the outermost ones while
the run goes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.checks import reason
from solvers.sde.coefficients import law_function
from solvers.sde.company import IN_OTHER_COMPANY, NOT_ADDITIVE, WRITTEN_TO, partitions
from solvers.sde.counted import later_means, pair_counts
from solvers.sde.equation import Form, McKeanVlasov, extras
from solvers.sde.events import STOP_ARGUMENTS
from solvers.sde.interpret import bounds_checked, interpreted
from solvers.sde.moments.stages import Stage
from solvers.sde.parameters import Args, kind_of, passed

Array = NDArray[np.floating]
Values = NDArray[np.float64]
Function = Callable[..., Any]

# Particles on which coefficients are tried, and of these the ones on which they are interpreted.
_TRIED, _INTERPRETED = 64, 8
# How far a value may differ between two partitions: vectorised functions round ends of arrays in another way.
_ROUNDING = 1e-6
# Shares of the run at whose times coefficients are tried: before it with the particles of the start, then with its own.
_SHARES = (0.0, 0.382, 1.0)
_LOOKS = (0.25, 0.5, 0.75, 1.0)


def tried(particles: int) -> NDArray[np.intp]:
    """Return the places, of so many particles, of those that coefficients are tried on."""
    return np.unique(np.linspace(0, particles - 1, _TRIED).astype(np.intp))


def looks(first: int, steps: int) -> set[int]:
    """Return the steps at which a run from one step to the last looks at its particles."""
    return {first + max(1, round(share * (steps - first))) - 1 for share in _LOOKS}


@dataclass
class Trial:
    """An equation and some particles, (D, n), and their external field, (n or 1, F), that a run starts with at time t.

    `kind` is "none", "number" or "vector", and `per_particle` says whether each particle has its own field; `args` are
    the parameters, and `share`, where there are resets, how often particles were reset in the last step. `more` are
    functions of events and of the scheme, as they give them, and `stop` the condition to stop at; with `force` the
    drift is a force on particles (q, p). `mean` returns the mean of a law function of (t, x, args), (M,), over all
    particles of the run, by default over these, and `later` what a later moment finds in them. `before` is the m that
    functions of later moments see, and `s` the sums that one of pairs sees.
    """

    equation: McKeanVlasov
    t: float
    x: Array
    scalar: bool
    field: Array = dataclasses.field(default_factory=lambda: np.zeros((1, 0)))
    kind: str = "none"
    per_particle: bool = False
    m: Any = 0.0
    args: Args = None
    share: float | None = None
    more: Mapping[str, tuple[Function, tuple[str, ...], int]] = dataclasses.field(default_factory=dict)
    stop: Function | None = None
    force: bool = False
    mean: Callable[[Callable[..., Values], int], Values] | None = None
    later: Callable[[Stage, Values], Values] | None = None
    before: dict[str, Any] = dataclasses.field(default_factory=dict)
    s: Any = 0.0

    @cached_property
    def functions(self) -> dict[str, tuple[Function, tuple[str, ...]]]:
        """The functions by name, each with its own arguments."""
        return self.equation.functions | {
            name: (function, arguments) for name, (function, arguments, _) in self.more.items()
        }

    @cached_property
    def places(self) -> list[Array]:
        """Positions of particles from first to last, and one that no particle has, (D,) each."""
        return [*self.x.T, self.x[:, 0] + 0.01 * (1.0 + np.abs(self.x[:, 0]))]

    def form(self) -> Form:
        """Return the sizes that follow from the values at the first particle; sets m to the means of all.

        Raises
        ------
        TypeError
            If a coefficient fails, or a field or parameters are missing or not wanted.
        ValueError
            If a coefficient returns another shape than it should.
        """
        equation, dimension = self.equation, len(self.x)
        taken = [self.extras(name) for name in self.functions]
        pairs = equation.pairs
        if pairs is not None and pairs.partner == "field":
            if self.kind == "none":
                raise TypeError('partner="field" needs an external field: pass field=')
            taken.append((True, False))
        if self.stop is not None:
            taken.append(extras("stop", self.stop, STOP_ARGUMENTS, False, False, self.args is not None))
        if self.kind != "none" and not any(field for field, _ in taken):
            raise TypeError("field was given, but no coefficient takes it as one more argument")
        if self.args is not None and not any(args for _, args in taken):
            raise TypeError("args was given, but no coefficient takes it as its last argument")
        if self.force and dimension % 2:
            raise ValueError(f"particles must be (q, p), with as many positions as momenta, got {dimension} components")
        shape = () if self.scalar else (dimension,)
        psi = self._means() if equation.plain_moments else 0.0
        plain_number, plain = np.ndim(psi) == 0, np.size(psi) * (equation.plain_moments is not None)
        psi, later = later_means(self, psi)
        self.m = self._with_share(psi)
        sums, only = pair_counts(self)
        for name in ("drift", "diffusion", "covariance"):
            if getattr(equation, name) and not (name == "diffusion" and equation.noise == "general"):
                self._vector(name, self._half(dimension) if self.force and name == "drift" else shape)
        for name in ("interaction",) * (pairs is None or pairs.function is None) + ("function of pairs",):
            if name in self.functions:
                self._vector(name, shape)
        for name, (_, _, axes) in self.more.items():
            self._vector(name, shape * axes)
        if self.stop is not None:
            self._check_stop(self.stop)
        if equation.psi is not None and equation.psi is equation.plain_moments:
            self._vector("moments", shape)
        motions = self._columns("diffusion") if equation.noise == "general" else dimension // (1 + self.force)
        common: tuple[int, ...] = ()
        if equation.common:
            common = self.value("common").shape
            common = (dimension,) if common in ((), shape) else (dimension, self._columns("common"))
        share = self.share is not None
        moments = (np.size(psi) if equation.moments is not None else 0) + share
        return Form(
            self.scalar, dimension, moments, np.ndim(psi) == 0, motions, common, self.kind, self.per_particle,
            kind_of(self.args), share, self.force, later, moments - share - plain, plain_number, sums, only,
        )  # fmt: skip

    def check(self, form: Form, times: Values, outside: Callable[[int], Array]) -> None:
        """Refuse what would make a run at these times wrong without a sign; outside(j) is the field at the j-th time.

        Raises
        ------
        ValueError
            If a value changes when it is asked for again, reads beyond the end of an array, depends on which particles
            are evaluated together, or depends on x though the noise is called additive.
        TypeError
            If a coefficient fails on some of the particles.
        """
        for name in self.functions:
            if not np.array_equal(self.value(name), self.value(name), equal_nan=True):
                raise ValueError(
                    f"{name} gives two values for the same arguments, so a run could not be repeated; noise comes from "
                    "diffusion and common, jumps from jumps, and other random numbers from x0 or field"
                )
        if self.equation.vectorized:
            for name, values in partitions(self, form):
                _compare(name, *values)
        for share in _SHARES:
            step = round(share * (len(times) - 2))
            try:
                later = self if step == 0 else replace(self, t=float(times[step]), field=outside(step))
            except Exception:  # a field of the user's that fails later ends the run with what it has
                continue
            later._check_reach(surely=step == 0)

    def look(self, t: float, x: Array, field: Array, m: Values) -> None:
        """Refuse what particles of a later time show, `x`, (D, n).

        Raises
        ------
        ValueError
            If a coefficient reads beyond the end of an array, or depends on x though the noise is called additive.
        """
        means = float(m[0]) if len(m) and np.ndim(self.m) == 0 else m
        later = replace(self, t=t, x=x.copy(), field=field, m=means if len(m) else self.m)
        later._check_reach(surely=False)

    def value(self, name: str, place: int = 0, function: Callable[..., Any] | None = None) -> Values:
        """Return what a coefficient gives at one of the places, (), (D,) or (D, K); raises TypeError if it fails."""
        own, arguments_of = self.functions[name]
        vectorized = self.equation.vectorized
        pair = name == "interaction" and self.equation.pairs is None
        points = [np.ascontiguousarray(point) for point in (self.places[place], self.places[-1])]
        arguments: list[Any] = [point[0] if self.scalar else point for point in points]
        if vectorized:
            axes = (..., None, None) if pair else (..., None)
            arguments = [np.asarray(point)[axes] for point in arguments]
            for argument in arguments:
                argument.flags.writeable = False
        known = {"t": self.t, "x": arguments[0], "m": self.before.get(name, self.m), "y": arguments[1]}
        known["z"] = np.full(1, 0.5) if vectorized else 0.5
        known |= {"s": self.s, "i": np.zeros(1, np.int64) if vectorized else 0}
        known |= {"j": known["i"]} | dict.fromkeys(("field", "other field"), self._outside(False))
        arguments = [known[one] for one in arguments_of]
        takes_field, takes_args = self.extras(name)
        arguments += [self._outside(pair)] * takes_field + [self.args] * takes_args
        if function is not None:
            return np.asarray(function(*arguments))
        before = [_copy(argument) for argument in arguments]
        try:
            with np.errstate(all="ignore"):  # as in the run
                value = own(*arguments)
        except Exception as error:  # whatever a user's function, or its compilation, raises
            raise TypeError(f"{name} failed on the first particle: {reason(error)}") from None
        names = (*arguments_of, *("field",) * takes_field, "args")
        for old, argument, called in zip(before, arguments, names, strict=False):
            if not _same(old, argument):
                raise ValueError(f"{name} writes into its argument {called}, {WRITTEN_TO}")
        if not vectorized and isinstance(value, tuple) and len({type(entry) for entry in value}) > 1:
            raise TypeError(f"{name} must return numbers of one type, so write 0.0 instead of 0; got {value}")
        try:
            value = np.asarray("nothing" if value is None else value, np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must return numbers, got {value!r}") from None
        if vectorized:
            for _ in range(min(value.ndim, 2 if pair else 1)):
                if value.shape[-1] != 1:
                    raise ValueError(f"{name} of one particle must have a last axis of length 1, got {value.shape}")
                value = value[..., 0]
        return value

    def extras(self, name: str) -> tuple[bool, bool]:
        """Return whether a function takes the external field, and the parameters."""
        given = self.kind != "none", self.args is not None
        if name in self.more:
            return extras(name, *self.functions[name], True, *given)
        return self.equation.extras(name, *given)

    def _with_share(self, psi: Any) -> Any:
        """Return m, whose last entry is the share of the particles that were reset where there are resets."""
        if self.share is None:
            return psi
        return np.append(psi if self.equation.moments is not None else (), self.share)

    def _half(self, dimension: int) -> tuple[int, ...]:
        return () if dimension == 2 else (dimension // 2,)

    def _check_stop(self, stop: Function) -> None:
        """Refuse a condition that does not return a truth value."""
        _, takes = extras("stop", stop, STOP_ARGUMENTS, False, False, self.args is not None)
        try:
            value = stop(self.t, self.m, *[self.args] * takes)
        except Exception as error:  # whatever a user's function, or its compilation, raises
            raise TypeError(f"stop failed at t = {self.t:g}: {reason(error)}") from None
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"stop must return True or False, got {value!r}")

    def _vector(self, name: str, shape: tuple[int, ...]) -> None:
        found = self.value(name)
        if found.shape != shape and not (self.equation.vectorized and found.ndim == 0 and len(shape) < 2):
            raise ValueError(f"{name} must return {_numbers(shape)} a particle, got {_numbers(found.shape)}")

    def _columns(self, name: str) -> int:
        found = self.value(name)
        if found.ndim != 2 or len(found) != len(self.x) or not found.size:
            raise ValueError(f"a matrix of {len(self.x)} rows is needed for each particle, got {_numbers(found.shape)}")
        return found.shape[1]

    def _means(self) -> Any:
        """Return m of all particles, a number or (M,)."""
        psi = self.value("moments")
        if psi.ndim > 1 or not psi.size:
            raise ValueError(f"moments must return a number or M numbers a particle, got {_numbers(psi.shape)}")
        law = law_function(
            self.equation, "moments", (psi.size,), psi.ndim == 0, self.scalar, len(self.x), kind_of(self.args)
        )
        try:
            with np.errstate(all="ignore"):
                if self.mean is None:
                    args = passed(self.args, self.equation.vectorized)
                    mean = law(self.t, np.ascontiguousarray(self.x, np.float64), args).mean(axis=1)
                else:
                    mean = self.mean(law, psi.size)
        except Exception as error:  # whatever a user's function raises
            raise TypeError(f"moments failed on some of the particles: {reason(error)}") from None
        return mean if psi.ndim else float(mean[0])

    def _outside(self, pair: bool) -> Any:
        """Return the external field of the first particle as a coefficient expects it, one of pairs with their axes."""
        if self.equation.vectorized and self.per_particle:
            here = self.field[0, 0] if self.kind == "number" else self.field[0]
            return here[(..., None, None) if pair else (..., None)]
        here = np.ascontiguousarray(self.field[0])
        return float(here[0]) if self.kind == "number" else here

    def _check_reach(self, surely: bool) -> None:
        """Refuse indices beyond an array, and noise that is not additive; at later times coefficients may also fail."""
        if not self.equation.vectorized:
            for name in self.functions:
                self._check_bounds(name)
        if self.equation.noise == "additive" and self.equation.diffusion:
            self._check_additive(surely)

    @property
    def _means_are_there(self) -> bool:
        return self.equation.moments is not None or self.share is not None

    def _check_bounds(self, name: str) -> None:
        """Refuse an index beyond the end of an array, which compiled code reads without a word."""
        function = self.functions[name][0]
        for place in {*range(0, len(self.places), max(1, len(self.places) // _INTERPRETED)), 0}:
            for remade in (interpreted, bounds_checked):
                try:
                    with np.errstate(all="ignore"):
                        self.value(name, place, remade(function))
                    break
                except IndexError as error:
                    sizes = f"x has {len(self.x)} components, m has {np.size(self.m) if self._means_are_there else 0}"
                    sizes += f", args has {np.size(self.args)}" * isinstance(self.args, np.ndarray)
                    raise ValueError(
                        f"{name} reads beyond the end of an array at t = {self.t:g}: {error}; {sizes}"
                    ) from None
                except Exception:  # what only compiled code can do, as 1/0 = inf, is compiled; the rest meets the run
                    continue

    def _check_additive(self, surely: bool) -> None:
        """Refuse a diffusion that depends on x; at later times, with means of another time, it may also fail."""
        diffusion, count = self.equation.diffusion, len(self.places)
        try:
            self.value("diffusion")  # which looks at more than its numbers
            try:
                with np.errstate(all="ignore"):
                    found = np.array([self.value("diffusion", place, diffusion) for place in range(count)])
            except Exception as error:  # whatever a user's function raises
                raise TypeError(f"diffusion failed on some of the particles: {reason(error)}") from None
        except TypeError:
            if surely:
                raise
            return
        if not np.array_equal(found, np.broadcast_to(found[0], found.shape), equal_nan=True):
            raise ValueError(NOT_ADDITIVE)


def _compare(name: str, whole: Values, pieces: Values) -> None:
    finite = np.abs(whole[np.isfinite(whole)])
    if not np.allclose(whole, pieces, rtol=_ROUNDING, atol=_ROUNDING * finite.max(initial=0.0), equal_nan=True):
        raise ValueError(f"{name} {IN_OTHER_COMPANY}")


def _copy(argument: Any) -> Any:
    return tuple(map(np.array, argument)) if isinstance(argument, tuple) else np.array(argument)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, tuple):
        return all(map(_same, old, new))
    return np.array_equal(old, new, equal_nan=True)


def _numbers(shape: tuple[int, ...]) -> str:
    return "a number" if shape == () else f"numbers of shape {shape}"
