"""Particle methods for mean-field equations: noise, block sums, Cholesky factors, steppers, weight operators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.blocks import Blocks as Blocks
    from solvers.cholesky import IncrementalCholesky as IncrementalCholesky
    from solvers.cholesky import rank_revealing_cholesky as rank_revealing_cholesky
    from solvers.euler_maruyama import McKeanVlasov as McKeanVlasov
    from solvers.random import Address as Address
    from solvers.random import Noise as Noise
    from solvers.random import Stream as Stream
    from solvers.solution import Solution as Solution
    from solvers.weight_operator import DenseOperator as DenseOperator
    from solvers.weight_operator import LazyOperator as LazyOperator

_HOMES = {
    "Address": "solvers.random",
    "Blocks": "solvers.blocks",
    "DenseOperator": "solvers.weight_operator",
    "IncrementalCholesky": "solvers.cholesky",
    "LazyOperator": "solvers.weight_operator",
    "McKeanVlasov": "solvers.euler_maruyama",
    "Noise": "solvers.random",
    "Solution": "solvers.solution",
    "Stream": "solvers.random",
    "rank_revealing_cholesky": "solvers.cholesky",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'solvers' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
