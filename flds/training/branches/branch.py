"""A residual branch: its parameters, its forward pass, and its backward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from flds.training.branches.layer import BranchLayer
from flds.training.branches.parts import SPACES, BranchMatrix, BranchVector
from solvers import checks
from solvers.ensemble.particles import Array

# Groups of parameters outside of branches.
OUTSIDE = ("input", "readout")
# What arrays of a matrix are called in a kept state, in which a matrix "hidden" alone has no name of its own.
_TAKEN = ("learned", "mass", "response", "share", "weights")


class BranchPull(NamedTuple):
    """What a backward pass hands back.

    Attributes
    ----------
    image : (b, n) array
        The gradients pulled back to h, or what `slope` is still to be multiplied with.
    gradients : dict
        By the names of the branch's parameters: of matrices the coordinates that `BranchLayer.pull` gave, of vectors
        the gradient of each sample, (b, n) or (b, H).
    slope : (b, n) array, optional
        The pulled-back gradients are slope · image.

    References
    ----------
    Paper F, eq. (4).
    """

    image: Array
    gradients: dict[str, Array]
    slope: Array | None = None


class ResidualBranch(ABC):
    """What a layer adds to its state: h ← h + s forward(h), with s = (T/L)^e.

    Subclass it for a branch of your own. One object serves all layers, which differ in the `BranchLayer` that passes
    are given: its weight matrices, vectors and homes of particles. States h and gradients g = n ∂f/∂h are (b, n) arrays
    of a batch. A pass calls each matrix once. It must not look at single particles: what is not elementwise goes
    through the homes, `layer.residual` and `layer.hidden`.

    Attributes
    ----------
    matrices : dict of BranchMatrix
        Its weight matrices by name, letters and digits, in the order in which states meet them.
    vectors : dict of BranchVector
        Its trainable vectors by name.
    hidden_ratio : float
        H/n; the hidden space has H = round(hidden_ratio · n) neurons.

    References
    ----------
    Paper F, eq. (1), for a branch of one matrix.
    """

    matrices: Mapping[str, BranchMatrix]
    vectors: Mapping[str, BranchVector] = {}
    hidden_ratio: float = 1.0

    @abstractmethod
    def forward(self, h: Array, layer: BranchLayer) -> tuple[Array, dict[str, Array]]:
        """Return what is added to h, (b, n), over s, and a tape of what the backward pass needs.

        The tape holds arrays with a row for each sample, by name: under the name of each matrix the coordinates that
        `BranchLayer.multiply` gave, and whatever else the backward pass wants to find.
        """

    @abstractmethod
    def backward(self, g: Array, h: Array, tape: dict[str, Array], layer: BranchLayer) -> BranchPull:
        """Pull the gradients g back to the states h that the branch met, over s.

        h and the tape have the rows of the samples that g has.
        """

    @property
    def groups(self) -> dict[str, bool]:
        """The groups of its parameters, and whether they are matrices."""
        found = {matrix.group: True for matrix in self.matrices.values()}
        return found | {vector.group: False for vector in self.vectors.values()}

    @property
    def has_inside(self) -> bool:
        """Whether a matrix maps to the hidden space, or from it."""
        return any("hidden" in (matrix.outputs, matrix.inputs) for matrix in self.matrices.values())

    def hidden(self, width: int) -> int:
        """Return H where n is `width`, at least 1.

        Raises
        ------
        ValueError
            If the ratio gives no neuron.
        """
        count = round(self.hidden_ratio * width)
        if count < 1:
            raise ValueError(
                f"hidden_ratio {self.hidden_ratio:g} gives no hidden neuron at width {width}; raise either"
            )
        return count


def check_branch(given: Any) -> ResidualBranch:
    """Return a branch whose parameters are as `ResidualBranch` says.

    Raises
    ------
    TypeError, ValueError
        If it is none, or they are not.
    """
    if not isinstance(given, ResidualBranch):
        raise TypeError(
            f'residual must be "single_matrix", "two_layer" or an object of a subclass of flds.ResidualBranch, '
            f"got {checks.shown(given)}"
        )
    label = type(given).__name__
    for kind, items, form in (
        ("matrices", getattr(given, "matrices", None), BranchMatrix),
        ("vectors", given.vectors, BranchVector),
    ):
        if not isinstance(items, Mapping) or not all(isinstance(one, form) for one in items.values()):
            raise TypeError(
                f"{kind} of {label} must be a dictionary of flds.{form.__name__}, got {checks.shown(items)}"
            )
        for name, one in items.items():
            if not isinstance(name, str) or not name.isalnum() or not name.isascii():
                raise ValueError(f"{kind} of {label} must have names of letters and digits, got {checks.shown(name)}")
            if name in _TAKEN:
                raise ValueError(f"{kind} of {label} must not be called {name!r}, as arrays of a kept state are")
            for space in (one.outputs, one.inputs) if isinstance(one, BranchMatrix) else (one.space,):
                checks.choice(f"a space of {name!r} of {label}", space, SPACES)
            if not isinstance(one.group, str) or not one.group.isidentifier() or one.group in OUTSIDE:
                raise ValueError(
                    f"group of {name!r} of {label} must be a name other than {' and '.join(OUTSIDE)}, got "
                    f"{checks.shown(one.group)}"
                )
    if not given.matrices:
        raise ValueError(f"{label} must have a matrix at least")
    twice = set(given.matrices) & set(given.vectors)
    twice |= {one.group for one in given.matrices.values()} & {one.group for one in given.vectors.values()}
    if twice:
        raise ValueError(f"{label} must not give a matrix and a vector one name or one group, got {min(twice)!r}")
    for name, vector in given.vectors.items():
        checks.finite_number(f"initial of {name!r} of {label}", vector.initial)
    checks.positive_number(f"hidden_ratio of {label}", given.hidden_ratio)
    return given
