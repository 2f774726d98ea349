"""Means over replicates and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.results.solution import Variable


def mean_and_error(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of independent samples along the first axis, and its standard error."""
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples))


def average_replicates(parts: list[dict[str, Variable]], averaged: tuple[str, ...]) -> dict[str, Variable]:
    """Combine replicates: the mean of every variable named in `averaged`, its standard error, and all outputs."""
    variables: dict[str, Variable] = {}
    replicates: dict[str, Variable] = {}
    for name in list(parts[0]):
        first = parts[0][name]
        if name not in averaged or len(parts) == 1:
            variables[name] = first
            continue
        stacked = np.stack([part.pop(name).values for part in parts])  # so that little is held twice
        mean, error = mean_and_error(stacked)
        variables[name] = first._replace(values=mean)
        variables[f"{name}_standard_error"] = first._replace(
            values=error, long_name=f"standard error of {first.long_name} over replicates"
        )
        if name == "outputs":
            dims = ("replicate", *first.dims)
            replicates["replicate_outputs"] = Variable(dims, stacked, "network outputs of each replicate")
    return variables | replicates


def all_states(states: list[dict[str, Variable]], replicates: int) -> dict[str, dict[str, Variable]]:
    """Return the states of all replicates as groups, or none: there is no going on from some of them."""
    complete = len(states) == replicates and all(states)
    return {f"state_{index}": one for index, one in enumerate(states)} if complete else {}


def completed(settings: Mapping[str, Any]) -> str:
    """Say in two words or three how many replicates variables are of, by the settings of a solution."""
    count, replicates = settings["replicates_completed"], settings["replicates"]
    return f"replicates {count or 1}" if count or replicates == 1 else f"none of {replicates} replicates completed"
