"""Schemes: how the particles get from one time of the grid to the next, each in a file of its own."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any

from solvers import checks
from solvers.sde.schemes.scheme import Scheme as Scheme
from solvers.sde.schemes.scheme import Stage as Stage
from solvers.sde.schemes.scheme import Step as Step
from solvers.sde.schemes.scheme import check_scheme
from solvers.sde.schemes.terms import common_noise_terms as common_noise_terms
from solvers.sde.schemes.terms import drift_terms as drift_terms
from solvers.sde.schemes.terms import euler_terms as euler_terms
from solvers.sde.schemes.terms import noise_terms as noise_terms

# The file of each scheme and its class; one whose `name` is that of the file has it as short name.
_FILES = {
    "euler_maruyama": "EulerMaruyama",
    "milstein": "Milstein",
    "heun": "Heun",
    "tamed_euler": "TamedEuler",
    "drift_implicit_euler": "DriftImplicitEuler",
    "trapezoidal": "Trapezoidal",
    "sra1": "SRA1",
    "baoab": "BAOAB",
}

_CLASSES: dict[str, type[Scheme]] = {
    name: getattr(import_module(f"{__name__}.{file}"), name) for file, name in _FILES.items()
}
_SHORT_NAMES = {file: _CLASSES[name] for file, name in _FILES.items() if _CLASSES[name].name == file}

_PARTS = "Scheme", "Stage", "Step", "common_noise_terms", "drift_terms", "euler_terms", "noise_terms"

__all__ = sorted([*_CLASSES, *_PARTS])


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module 'solvers.schemes' has no attribute {name!r}; it has {', '.join(__all__)}")
    return _CLASSES[name]


def get_scheme(given: Any) -> Scheme:
    """Return a scheme from its short name or itself.

    Raises
    ------
    ValueError
        If no scheme has this name, or one's own has that of another.
    TypeError
        If it is neither a name nor a scheme, or a scheme without a name or stages.
    """
    if isinstance(given, str):
        if given.lower() in _FILES and given not in _SHORT_NAMES:
            name = _FILES[given.lower()]
            numbers = ", ".join(signature(_CLASSES[name]).parameters)
            raise ValueError(f"scheme {name} has no short name: pass solvers.schemes.{name}({numbers})")
        return _SHORT_NAMES[checks.choice("scheme", given, tuple(_SHORT_NAMES))]()
    if not isinstance(given, Scheme):
        wrong = isinstance(given, type) and issubclass(given, Scheme)
        got = f"the class {given.__name__}; make an object of it: {given.__name__}()" if wrong else checks.shown(given)
        raise TypeError(f"scheme must be one of {', '.join(_SHORT_NAMES)} or a solvers.schemes.Scheme, got {got}")
    check_scheme(given)
    if has_short_name(given.name) and type(given) is not _SHORT_NAMES[given.name]:
        raise ValueError(
            f"scheme must have a name of its own, got {type(given).__name__} with the name of another, "
            f"{given.name!r}; set its attribute `name`"
        )
    return given


def has_short_name(name: str) -> bool:
    """Return whether a scheme of this library has this name for short."""
    return name in _SHORT_NAMES
