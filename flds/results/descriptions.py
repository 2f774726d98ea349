"""Descriptions of problems in results: what they are compared by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What names the class of a rule or a branch, beside its settings.
RULE = "rule"


def difference(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return the first entry in which two descriptions of a problem differ, or None.

    Functions are compared by the numbers that they give, the entry "check", up to the rounding of another machine.
    What the first one does not say is not compared.
    """
    for name in then:
        if name != "check" and then[name] != now.get(name):
            return name
    return None if same_functions(then, now["check"]) else "activation, block, branch, initial law or optimizer"


def same_functions(then: dict[str, Any], values: list[float]) -> bool:
    """Whether functions that give these values are those of a description, as far as it says."""
    stored = then.get("check", values)
    return len(stored) == len(values) and np.allclose(stored, values, rtol=1e-9, atol=1e-12)


def is_array(described: Any) -> bool:
    """Whether a description is that of an array, by its hash."""
    return isinstance(described, Mapping) and "sha256" in described


def by_name(described: Any) -> dict[str, Any] | None:
    """Return descriptions by group or parameter, or None where there is one for all."""
    single = not isinstance(described, Mapping) or is_array(described) or RULE in described
    return None if single else dict(described)


def of_each(described: Any, function: Callable[[str, Any], Any]) -> Any:
    """Return function("", description), or a dictionary of function(name, description) where there is one by name."""
    named = by_name(described)
    return function("", described) if named is None else {name: function(name, one) for name, one in named.items()}


def array_name(name: str, group: str) -> str:
    """Return what the array of a group is called, or that of all, which is the group ""."""
    return f"{name}_{group}" if group else name


def digest(array: NDArray[Any]) -> str:
    """Return the SHA-256 of the numbers of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
