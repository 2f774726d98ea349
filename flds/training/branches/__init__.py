"""Residual branches: what a layer adds to its state, each in a file of its own."""

from __future__ import annotations

from flds.training.branches.branch import BranchPull as BranchPull
from flds.training.branches.branch import ResidualBranch as ResidualBranch
from flds.training.branches.branch import check_branch as check_branch
from flds.training.branches.layer import BranchLayer as BranchLayer
from flds.training.branches.normalization import NORMALIZATIONS as NORMALIZATIONS
from flds.training.branches.parts import BranchMatrix as BranchMatrix
from flds.training.branches.parts import BranchVector as BranchVector
from flds.training.branches.single_matrix import SingleMatrix as SingleMatrix
from flds.training.branches.trial import small_layer as small_layer
from flds.training.branches.trial import try_branch as try_branch
from flds.training.branches.two_layer import TwoLayer as TwoLayer

# By the names that users give.
SHORT_NAMES: dict[str, type[ResidualBranch]] = {"single_matrix": SingleMatrix, "two_layer": TwoLayer}
