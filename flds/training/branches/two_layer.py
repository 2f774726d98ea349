"""Two weight matrices a layer, with normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from flds.training.branches.branch import BranchPull, ResidualBranch
from flds.training.branches.layer import BranchLayer
from flds.training.branches.normalization import NORMALIZATIONS, Normalized
from flds.training.branches.parts import BranchMatrix, BranchVector
from solvers import checks
from solvers.ensemble.particles import Array

_MATRICES = MappingProxyType(
    {
        "inner": BranchMatrix(outputs="hidden", inputs="residual", group="inner"),
        "outer": BranchMatrix(outputs="residual", inputs="hidden", group="outer"),
    }
)


@dataclass(frozen=True)
class TwoLayer(ResidualBranch):
    """V φ(W ν(h) + b), with W (H, n), V (n, H) and b (H,).

    Parameters
    ----------
    hidden_ratio : float
        H/n.
    normalization : str, optional
        "rms_norm", ν = h/√(⟨h,h⟩ + ε), or "layer_norm", the same of h − ⟨h⟩, with ε = 10⁻⁶; by default ν = h.
    gain : bool
        Whether ν is multiplied by a trainable vector, 1 at first; with a normalisation only.
    bias : bool
        Whether there is b, 0 at first.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks these rules.

    References
    ----------
    Paper H, eq. (2), for two-layer perceptrons; Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).
    """

    hidden_ratio: float = 1.0
    normalization: str | None = None
    gain: bool = False
    bias: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_ratio", checks.positive_number("hidden_ratio", self.hidden_ratio))
        if self.normalization is not None:
            checks.choice("normalization", self.normalization, tuple(NORMALIZATIONS))
        if checks.flag("gain", self.gain) and self.normalization is None:
            raise ValueError(f"gain needs a normalization, one of {', '.join(NORMALIZATIONS)}")
        checks.flag("bias", self.bias)

    @property
    def matrices(self) -> Mapping[str, BranchMatrix]:  # type: ignore[override]
        """W and V."""
        return _MATRICES

    @property
    def vectors(self) -> dict[str, BranchVector]:  # type: ignore[override]
        """The gains and b, as far as there are."""
        found = {"gain": BranchVector("residual", "gain", 1.0)} if self.gain else {}
        return found | ({"bias": BranchVector("hidden", "bias")} if self.bias else {})

    def forward(self, h: Array, layer: BranchLayer) -> tuple[Array, dict[str, Array]]:
        """Return V φ(a), with a = W ν(h) + b, which the tape keeps with the coordinates."""
        a, inner = layer.multiply("inner", self._gained(self._normalized(h, layer).states, layer))
        if self.bias:
            layer.hidden.apply(_add, a, layer.vectors["bias"])
        image, outer = layer.multiply("outer", layer.hidden.map(layer.phi.value, a), against=h)
        return image, {"inner": inner, "outer": outer, "preactivations": a}

    def backward(self, g: Array, h: Array, tape: dict[str, Array], layer: BranchLayer) -> BranchPull:
        """Return ν'ᵀ(γ Wᵀ(φ'(a) Vᵀg)), with gradients φ'(a) Vᵀg by b and ν Wᵀ(…) by the gains."""
        a, outer = layer.pull("outer", g)
        derivative = layer.phi.derivative
        layer.hidden.apply(lambda a, met: np.multiply(a, derivative(met), out=a), a, tape["preactivations"])
        pulled, inner = layer.pull("inner", a, against=g)
        gradients = {"inner": inner, "outer": outer} | ({"bias": a} if self.bias else {})
        if self.normalization is None:
            return BranchPull(pulled, gradients)
        normalized = self._normalized(h, layer)
        if self.gain:
            gradients["gain"] = layer.residual.map(np.multiply, pulled, normalized.states)
        pulled = self._gained(pulled, layer)
        return BranchPull(NORMALIZATIONS[self.normalization].pull(layer.residual, pulled, normalized), gradients)

    def _normalized(self, h: Array, layer: BranchLayer) -> Normalized:
        if self.normalization is None:
            return Normalized(h, np.ones(len(h)))
        return NORMALIZATIONS[self.normalization].value(layer.residual, h)

    def _gained(self, states: Array, layer: BranchLayer) -> Array:
        return layer.residual.map(np.multiply, states, layer.vectors["gain"]) if self.gain else states


def _add(part: Array, vector: Array) -> None:
    part += vector
