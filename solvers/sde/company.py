"""Whether NumPy functions of many particles work on each of them alone, as they must: they are called for parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.checks import reason
from solvers.ensemble.random import Draw
from solvers.sde.coefficients import coefficient_functions, given_function, moment_function
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.pairs.pairs import Pairs
from solvers.sde.pairs.partners import partners_of
from solvers.sde.pairs.sums import function_of_sums

Array = NDArray[np.floating]
Values = NDArray[np.float64]
Function = Callable[..., Any]

_NO_DRAW = Draw(0, 0, 0, np.zeros(1, np.int64), 0, 1, 0)


# Why a value that depends on other particles is wrong, after the name of the function.
IN_OTHER_COMPANY = (
    "gives a particle another value in other company: it must work on each particle alone, since it is called for "
    "parts of them; means over all particles are the argument m, through moments"
)
# After the name of the function and of the argument.
WRITTEN_TO = "which all particles share; copy it first"
NOT_ADDITIVE = 'diffusion depends on x, so it is not noise="additive"; use noise="diagonal"'


def partitions(trial: Any, form: Form) -> Iterator[tuple[str, tuple[Values, Values]]]:
    """Yield each function's values on some particles, evaluated together and in two parts.

    They are tried in place and moved apart, because a mean over equal particles has the value of each of them.
    """
    count = max(4, len(trial.places))
    chosen = np.linspace(0, trial.x.shape[1] - 1, count).astype(int)
    here = np.ascontiguousarray(trial.x[:, chosen], np.float64)
    apart = here + (1.0 + np.abs(here)) * np.linspace(0.01, 0.02, count)
    outside = np.asarray(trial.field[chosen] if trial.per_particle else trial.field, np.float64)
    parts, both = (slice(0, count // 3), slice(count // 3, count)), slice(0, count)
    for name, function in _functions(trial, form, outside, count).items():
        for x in (here, apart):
            try:
                with np.errstate(all="ignore"):
                    whole = np.asarray(function(x, both, both))
                    pieces = np.concatenate([function(x, part, both) for part in parts], axis=-1)
                    if name == "interaction":
                        shares = [function(x, both, part) * (part.stop - part.start) / count for part in parts]
                        whole, pieces = np.array([whole, whole]), np.array([pieces, sum(shares)])
            except Exception as error:  # whatever a user's function raises
                if x is here:
                    raise TypeError(f"{name} failed on some of the particles: {reason(error)}") from None
                continue  # no particle of the run is there
            yield name, (whole, pieces)


def _functions(trial: Any, form: Form, outside: Values, count: int) -> dict[str, Function]:
    """Return each function as one of (x, part, partners), whose values are those of a part of the particles x."""
    equation, args, t = trial.equation, trial.args, trial.t
    coefficients = coefficient_functions(_alone(equation), form)
    m, z = np.atleast_1d(trial.m)[: form.moments], np.linspace(0.01, 0.99, count)

    def near(part: slice) -> Values:
        return outside[part] if trial.per_particle else outside

    def local(f: Function, m: Values = m) -> Function:
        return lambda x, part, _: f(t, x[:, part].copy(), m, near(part), args)

    def marked(f: Function, more: Values) -> Function:
        return lambda x, part, _: f(t, x[:, part].copy(), m, more[..., part], near(part), args)

    def of_law(f: Function) -> Function:
        return lambda x, part, _: f(t, x[:, part].copy(), args)

    def of_pairs(f: Function) -> Function:
        def evaluate(x: Array, part: slice, partners: slice) -> Values:
            others: Any = x[:, partners].copy()
            if equation.pairs is not None:
                others = partners_of(Pairs(equation.pairs.kernel), others, near(partners), None, _NO_DRAW)
            return np.asarray(f(t, x[:, part].copy(), m, near(part), args, others, part.start))

        return evaluate

    found: dict[str, Function] = {}
    later = _later(trial, form)
    for name, (written, arguments) in trial.functions.items():
        if name in trial.more:
            with_mark = "z" in arguments
            function = given_function(equation, form, written, trial.extras(name), trial.more[name][2], with_mark)
            found[name] = marked(function, z) if with_mark else local(function)
        elif name in later:
            found[name] = local(*later[name])
        elif name == "function of pairs":
            found[name] = marked(
                function_of_sums(equation, form), np.repeat(np.reshape(trial.s, (-1, 1)), count, axis=1)
            )
        elif name == "interaction":
            if equation.pairs is None or equation.pairs.partner != "index":  # whose values differ by number
                found[name] = of_pairs(coefficients.interaction)  # type: ignore[arg-type]
        else:
            f = getattr(coefficients, name)
            found[name] = of_law(f) if name in ("moments", "covariance") else local(f)
    return found


def _alone(equation: McKeanVlasov) -> McKeanVlasov:
    """Return an equation whose pairs are sums over all partners."""
    pairs = equation.pairs
    return equation if pairs is None else replace(equation, interaction=Pairs(pairs.kernel, partner=pairs.partner))


def _later(trial: Any, form: Form) -> dict[str, tuple[Function, Values]]:
    """Return the functions of later moments, and the entries of m that they see."""
    equation, found = trial.equation, {}
    for place, moment in enumerate(equation.later_moments):
        for name, (count, number) in zip(moment.functions(), form.later[place], strict=True):
            full = equation.name_of(name, place)
            seen = np.atleast_1d(trial.before[full])
            before = len(seen), np.ndim(trial.before[full]) == 0
            found[full] = moment_function(equation, form, full, count, number, before), seen
    return found
