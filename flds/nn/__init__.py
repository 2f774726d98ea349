"""Gaussian weight matrices of any width as modules of PyTorch: trained exactly in law, and never stored.

Where a network says `torch.nn.Linear(n, n)`, with weights of variance 1/n, it says `flds.nn.GaussianLinear(n, n)`.
Memory and time of a pass then grow like n times the number of directions that training has looked in, and no longer
like n².
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise ImportError("flds.nn needs torch, which is not installed: pip install 'flds[nn]'") from None

from flds.nn.coordinates import CoordinateCheck, LayerCheck, coordinate_check
from flds.nn.groups import check_optimizer, parameter_groups
from flds.nn.linear import GaussianLinear
from flds.nn.memory import estimate_memory
from flds.nn.models import ResidualMLP, Transformer, TwoLayerNetwork, dense_linear, gaussian
from flds.nn.muon import Muon

__all__ = [
    "CoordinateCheck",
    "GaussianLinear",
    "LayerCheck",
    "Muon",
    "ResidualMLP",
    "Transformer",
    "TwoLayerNetwork",
    "check_optimizer",
    "coordinate_check",
    "dense_linear",
    "estimate_memory",
    "gaussian",
    "parameter_groups",
]
