"""The condition on the means under which a run stops."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from solvers.sde.adapted import array_means_of, means_of, parameters_of
from solvers.sde.equation import Form, McKeanVlasov, extras
from solvers.sde.events import STOP_ARGUMENTS

Function = Callable[..., Any]


@lru_cache(maxsize=32)
def stop_function(equation: McKeanVlasov, form: Form, stop: Function | None) -> Function | None:
    """Return a condition as a function of (t, m, args), m (M,), to be compiled where coefficients are, or None."""
    if stop is None:
        return None
    _, takes = extras("stop", stop, STOP_ARGUMENTS, False, False, form.args is not None)
    mean, parameters = means_of(form), parameters_of(form.args)
    if equation.vectorized:
        mean, parameters = array_means_of(form), _as_they_are
    if takes:
        return lambda t, m, args: bool(stop(t, mean(m), parameters(args)))
    return lambda t, m, args: bool(stop(t, mean(m)))


def _as_they_are(args: Any) -> Any:
    return args
