"""Means over groups of particles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.accelerate import kernel
from solvers.sde.moments.mean import merge_sums
from solvers.sde.moments.moment import Function, Moment, function_of

Matrix = NDArray[np.float64]


@kernel
def add_groups(values: Any, out: Any) -> None:
    """Add particles with labels values[0] and values[1:] to (count, Σ v) of their groups; one with none leaves NaN."""
    rows = values.shape[0]
    groups = len(out) // rows
    for p in range(values.shape[1]):
        label = values[0, p]
        if not (0.0 <= label < groups and label == np.floor(label)):
            out[:] = np.nan
            return
        first = int(label) * rows
        out[first] += 1.0
        for i in range(1, rows):
            out[first + i] += values[i, p]


@dataclass(frozen=True, eq=False)
class GroupMeans(Moment):
    """The mean of a function over each of some groups: m[g · M + i] is that of number i over group g.

    A label may be a component of x that does not move. Where a group has no particle, or a label is not one of the
    groups, m is not finite: such a run is refused, or ends as diverged.

    Parameters
    ----------
    value : callable
        v(t, x[, m][, args]), a number or M numbers, written as coefficients are; m holds what earlier moments gave, and
        is left out in the first.
    label : callable
        (t, x[, m][, args]) → the group, from 0 on, as a float.
    groups : int
        How many there are.

    Raises
    ------
    TypeError, ValueError
        If one is no function, or the number not at least 1.
    """

    value: Function
    label: Function
    groups: int

    hint = ": each group needs a particle, and labels are whole numbers from 0 to one below the number of groups"
    kernels = (add_groups, merge_sums)

    def __post_init__(self) -> None:
        function_of("value", self.value)
        function_of("label", self.label)
        object.__setattr__(self, "groups", checks.positive_integer("groups", self.groups))

    def functions(self) -> dict[str, Function]:
        return {"label": self.label, "value": self.value}

    def check(self, counts: tuple[tuple[int, bool], ...]) -> None:
        if counts[0][0] != 1:
            raise ValueError(f"label must return a number, got {counts[0][0]}")

    def width(self, rows: int) -> int:
        return self.groups * rows

    def size(self, rows: int) -> int:
        return self.groups * (rows - 1)

    def finish(self, total: Matrix, particles: int) -> Matrix:
        found = total.reshape(self.groups, -1)
        with np.errstate(all="ignore"):
            return (found[:, 1:] / found[:, :1]).ravel()
