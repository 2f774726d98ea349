"""What a network of Gaussian matrices will need before it is trained."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from flds.nn.linear import gaussian_layers
from solvers import checks
from solvers.ensemble.homes import has_memory
from solvers.matrices.lazy import FIRST_ROWS, GROWTH

# Vectors of a token beside a layer: of each input and output those that are kept for the gradient, with its own, and
# those that a pass works with.
_KEPT, _AT_WORK = 4, 12
# Bytes of what torch loads when it first computes.
_FIRST = 60e6
# A parameter, its gradient, and what an optimiser remembers of it.
_COPIES = 3


class _Basis(NamedTuple):
    """Bytes of the directions of one side of a layer and of their images, and of a row of the longer of both."""

    rank: int
    budget: int
    row: int
    longest: int

    def bytes(self, reserved: bool) -> int:
        """Of what is used, or of all that is reserved."""
        return self.row * (self._room if reserved else self.rank)

    @property
    def copied(self) -> int:
        """Bytes of what is copied when room is made for the last time."""
        return self.longest * min(self._room // GROWTH, self.rank) if self._room > FIRST_ROWS else 0

    @property
    def _room(self) -> int:
        room = min(FIRST_ROWS, self.budget)
        while room < self.rank:
            room = min(self.budget, GROWTH * room)
        return room


def estimate_memory(model: nn.Module, tokens: int, steps: int) -> float:
    """Return the bytes that training a network will need at its peak, beside what it takes now.

    Directions and images of its `GaussianLinear` are counted as they grow, with the gradients of parameters and what an
    optimiser with momentum remembers, and with the vectors of one pass; what else a network computes is not. Where a
    batch that is always the same repeats itself it is a bound. Layers on a GPU count there.

    Parameters
    ----------
    model : nn.Module
        The network.
    tokens : int
        Vectors that each layer meets in a step: samples times tokens.
    steps : int
        Steps to come.

    Returns
    -------
    float
        Bytes.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid.
    """
    layers = gaussian_layers(model).values()
    tokens, steps = checks.positive_integer("tokens", tokens), checks.positive_integer("steps", steps)
    total, working = 0.0, 0.0
    for layer in layers:
        itemsize, reserved = layer.learned.element_size(), has_memory(layer.learned.device.type)
        sides = layer.in_features, layer.out_features
        for used, budget, most in zip(layer.used, reversed(layer.learned.shape), sides, strict=True):
            rank = min(used + tokens * steps, budget, most)
            basis = _Basis(rank, min(budget, most), sum(sides) * itemsize, max(sides) * itemsize)
            total += basis.bytes(reserved) - used * basis.row
            working = max(working, basis.copied)
        total += _KEPT * tokens * sum(sides) * itemsize
        working = max(working, _AT_WORK * tokens * max(sides) * itemsize)
    parameters = sum(one.nbytes for one in model.parameters() if one.requires_grad)
    return _FIRST + total + working + (_COPIES - 1) * parameters
