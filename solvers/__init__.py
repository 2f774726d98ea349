"""Particle methods for mean-field equations: noise, block sums, Cholesky factors, steppers, weight operators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.blocks import Blocks as Blocks
    from solvers.brownian import BrownianMotion as BrownianMotion
    from solvers.cholesky import IncrementalCholesky as IncrementalCholesky
    from solvers.cholesky import rank_revealing_cholesky as rank_revealing_cholesky
    from solvers.equation import McKeanVlasov as McKeanVlasov
    from solvers.field import ExternalField as ExternalField
    from solvers.functions import tanh as tanh
    from solvers.mean_field import solve as solve
    from solvers.random import Address as Address
    from solvers.random import Noise as Noise
    from solvers.random import Stream as Stream
    from solvers.solution import Solution as Solution
    from solvers.solution import load as load
    from solvers.statistics import Statistic as Statistic
    from solvers.statistics import particles as particles
    from solvers.statistics import quantiles as quantiles
    from solvers.weight_operator import DenseOperator as DenseOperator
    from solvers.weight_operator import LazyOperator as LazyOperator

_HOMES = {
    "Address": "solvers.random",
    "Blocks": "solvers.blocks",
    "BrownianMotion": "solvers.brownian",
    "DenseOperator": "solvers.weight_operator",
    "ExternalField": "solvers.field",
    "IncrementalCholesky": "solvers.cholesky",
    "LazyOperator": "solvers.weight_operator",
    "McKeanVlasov": "solvers.equation",
    "Noise": "solvers.random",
    "Solution": "solvers.solution",
    "Statistic": "solvers.statistics",
    "Stream": "solvers.random",
    "load": "solvers.solution",
    "particles": "solvers.statistics",
    "quantiles": "solvers.statistics",
    "rank_revealing_cholesky": "solvers.cholesky",
    "solve": "solvers.mean_field",
    "tanh": "solvers.functions",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'solvers' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
