"""One weight matrix a layer."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from flds.training.branches.branch import BranchPull, ResidualBranch
from flds.training.branches.layer import BranchLayer
from flds.training.branches.parts import BranchMatrix
from solvers.ensemble.particles import Array


class SingleMatrix(ResidualBranch):
    """W φ(h), the branch of paper F, eq. (1)."""

    matrices = MappingProxyType({"hidden": BranchMatrix()})

    def forward(self, h: Array, layer: BranchLayer) -> tuple[Array, dict[str, Array]]:
        """Return W φ(h), and the coordinates of φ(h)."""
        image, met = layer.multiply("hidden", layer.residual.map(layer.phi.value, h), against=h)
        return image, {"hidden": met}

    def backward(self, g: Array, h: Array, tape: dict[str, Array], layer: BranchLayer) -> BranchPull:
        """Return φ'(h) Wᵀg."""
        slope = layer.residual.map(layer.phi.derivative, h)
        # E g² meets fresh noise z̃ through ⟨φ'(h) g, z̃⟩, which matched noise sets to zero
        image, pulled = layer.pull("hidden", g, against=layer.residual.map(np.multiply, slope, g))
        return BranchPull(image, {"hidden": pulled}, slope)
