"""Intervals that components of the particles may not leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers import checks
from solvers.sde.events.event import Event

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Box(Event):
    """An interval for every component."""

    low: ArrayLike
    high: ArrayLike

    def __post_init__(self) -> None:
        ends = [_end("low", self.low), _end("high", self.high)]
        if ends[0].ndim and ends[1].ndim and ends[0].shape != ends[1].shape:
            raise ValueError(f"low and high must have as many components, got {ends[0].shape} and {ends[1].shape}")
        wrong = np.atleast_1d(~(ends[0] < ends[1]))
        if wrong.any():
            low, high = (np.broadcast_to(end, wrong.shape)[wrong][0] for end in ends)
            raise ValueError(f"low must be below high, got {low:g} and {high:g}")
        for name, end in zip(("low", "high"), ends, strict=True):
            object.__setattr__(self, name, float(end) if end.ndim == 0 else tuple(end.tolist()))

    def numbers(self, dimension: int) -> Matrix:
        for name in ("low", "high"):
            size = np.size(getattr(self, name))
            if np.ndim(getattr(self, name)) and size != dimension:
                raise ValueError(f"{name} of the boundary has {size} components, but particles have {dimension}")
        return np.array([np.broadcast_to(end, (dimension,)) for end in (self.low, self.high)], np.float64)

    def check(self, x: Array, first: int) -> None:
        low, high = self.numbers(len(x))[:, :, None]
        out = np.argwhere(~((low <= x) & (x <= high)))
        if len(out):
            i, p = out[out[:, 1].argmin()]
            raise ValueError(
                f"x0 must lie within the boundary, from {low[i, 0]:g} to {high[i, 0]:g}, got {x[i, p]:g} at particle "
                f"{first + p}" + f", component {i}" * (len(x) > 1)
            )


def _end(name: str, given: Any) -> Matrix:
    """Return an end as a number or (D,), which may be infinite."""
    array = np.asarray(checks.numeric(f"{name} of a boundary", given), np.float64)
    if array.ndim > 1 or not array.size or np.isnan(array).any():
        raise ValueError(f"{name} of a boundary must be a number or one for each component, got {checks.shown(given)}")
    return array
