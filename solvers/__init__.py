"""Particle methods for mean-field equations: noise, block sums, Cholesky factors, steppers, weight operators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers import equations as equations
    from solvers.blocks import Blocks as Blocks
    from solvers.brownian import BrownianMotion as BrownianMotion
    from solvers.cholesky import IncrementalCholesky as IncrementalCholesky
    from solvers.cholesky import rank_revealing_cholesky as rank_revealing_cholesky
    from solvers.continuation import resume as resume
    from solvers.convergence import ConvergenceStudy as ConvergenceStudy
    from solvers.convergence import particle_order as particle_order
    from solvers.convergence import strong_order as strong_order
    from solvers.convergence import weak_order as weak_order
    from solvers.dense_operator import DenseOperator as DenseOperator
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
    from solvers.weight_operator import LazyOperator as LazyOperator

_HOMES = {
    "Address": "solvers.random",
    "Blocks": "solvers.blocks",
    "BrownianMotion": "solvers.brownian",
    "ConvergenceStudy": "solvers.convergence",
    "DenseOperator": "solvers.dense_operator",
    "ExternalField": "solvers.field",
    "IncrementalCholesky": "solvers.cholesky",
    "LazyOperator": "solvers.weight_operator",
    "McKeanVlasov": "solvers.equation",
    "Noise": "solvers.random",
    "Solution": "solvers.solution",
    "Statistic": "solvers.statistics",
    "Stream": "solvers.random",
    "load": "solvers.solution",
    "particle_order": "solvers.convergence",
    "particles": "solvers.statistics",
    "quantiles": "solvers.statistics",
    "rank_revealing_cholesky": "solvers.cholesky",
    "resume": "solvers.continuation",
    "solve": "solvers.mean_field",
    "strong_order": "solvers.convergence",
    "tanh": "solvers.functions",
    "weak_order": "solvers.convergence",
}

_MODULES = ("equations",)

__all__ = sorted([*_HOMES, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"solvers.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'solvers' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
