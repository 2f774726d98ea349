"""What the solvers are checked against: closed forms, dense networks and other libraries."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "branches",
    "closed_forms",
    "coupled",
    "coverage",
    "derivatives",
    "figures",
    "linear_units",
    "networks",
    "peers",
    "rates",
    "report",
    "tensor_program",
    "unit_networks",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'validation' has no attribute {name!r}; it has {', '.join(__all__)}")
    return import_module(f"validation.{name}")
