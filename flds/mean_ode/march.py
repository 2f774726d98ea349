"""Passes of two-layer perceptrons through all depth nodes, in one compiled call on several threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from flds.mean_ode.blocks import Array
from solvers.ensemble.threads import ThreadParticles

# Parts that units are cut into, at most, and units in the smallest.
_PARTS, _SHORTEST = 16, 512


class March:
    """Units u and v of every node, (nodes, D, units), that a compiled pass takes states or covectors through.

    Parameters
    ----------
    kernels : module
        `flds.mean_ode.perceptron_kernels`.
    ensemble : ThreadParticles
        Whose threads take part; results do not depend on how many.
    u, v : (nodes, D, units) array
        Moved in place.
    alpha : float
        α of the problem.
    """

    def __init__(self, kernels: ModuleType, ensemble: ThreadParticles, u: Array, v: Array, alpha: float) -> None:
        self.kernels, self.ensemble, self.u, self.v, self.alpha = kernels, ensemble, u, v, float(alpha)
        units = u.shape[2]
        parts = min(_PARTS, max(1, units // _SHORTEST))
        self.cuts = np.arange(parts + 1) * units // parts

    def forward(self, inputs: Array, states: list[Array] | None = None) -> Array:
        """Return h(1) of inputs, (…, D); the states at the nodes are appended to `states`."""
        x, passed, rest = self._begin(inputs)
        self._together(lambda control: self.kernels.forward(
            control, self.cuts, self.u, self.v, self.alpha, x, passed, *rest
        ), x)  # fmt: skip
        if states is not None:
            states.extend(passed.reshape(-1, *inputs.shape))
        return x.astype(inputs.dtype).reshape(inputs.shape)

    def back(self, states: list[Array], covector: Array, step_u: float = 0.0, step_v: float = 0.0) -> list[Array]:
        """Return b at the nodes, (…, D) each, from the last covector; units move by −step times their gradients."""
        x, passed, rest = self._begin(covector)
        at = np.ascontiguousarray(np.array(states).reshape(len(states), *x.shape))
        self._together(lambda control: self.kernels.back(
            control, self.cuts, self.u, self.v, self.alpha, step_u, step_v, at, x, passed, *rest
        ), x)  # fmt: skip
        return list(passed[::-1].reshape(-1, *covector.shape))

    def _begin(self, start: Array) -> tuple[Any, Array, tuple[Any, Array]]:
        """Return rows in float64, room for them at all nodes, and room to work in."""
        rows = start.reshape(-1, start.shape[-1])
        passed = np.empty((len(self.u), *rows.shape), start.dtype)
        passed[0] = rows
        fields, sums = np.zeros((3, *rows.shape)), np.empty((len(self.cuts) - 1, *rows.shape), start.dtype)
        return rows.astype(np.float64), passed, (fields, sums)

    def _together(self, work: Callable[[Any], None], x: Array) -> None:
        control = np.zeros(self.kernels.WORDS, np.int64)
        size = math.prod(x.shape) * self.u.shape[2]
        with self.ensemble.whole():
            self.ensemble.together(lambda: work(control), size, len(self.cuts) - 1)
        self.ensemble.check()
