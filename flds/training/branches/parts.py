"""The parameters of a residual branch."""

from __future__ import annotations

from typing import NamedTuple

# Homes of vectors: what layers hand on, n wide, and what is inside branches.
SPACES = ("residual", "hidden")


class BranchMatrix(NamedTuple):
    """A weight matrix of a branch, with entries N(0, σ²/inputs).

    Attributes
    ----------
    outputs, inputs : str
        The spaces it maps to and from: "residual", of the states, or "hidden".
    group : str
        Its group of parameters, whose learning rate, rule, decay and standard deviation it has.

    References
    ----------
    Paper F, eq. (1), for W.
    """

    outputs: str = "residual"
    inputs: str = "residual"
    group: str = "hidden"


class BranchVector(NamedTuple):
    """A trainable vector of a branch.

    Attributes
    ----------
    space : str
        Its space, "residual" or "hidden".
    group : str
        Its group of parameters.
    initial : float
        All its entries before training.

    References
    ----------
    Paper H, eq. (2), for perceptrons that have them.
    """

    space: str
    group: str
    initial: float = 0.0
