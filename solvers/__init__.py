"""Particle methods for mean-field equations: noise, sums, Cholesky factors, schemes, weight operators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from solvers.results.upstairs import upstairs

if TYPE_CHECKING:
    from solvers import equations as equations
    from solvers import plotting as plotting
    from solvers import schemes as schemes
    from solvers.ensemble.brownian import BrownianMotion as BrownianMotion
    from solvers.ensemble.random import Address as Address
    from solvers.ensemble.random import Noise as Noise
    from solvers.ensemble.random import Stream as Stream
    from solvers.ensemble.threads import Blocks as Blocks
    from solvers.matrices.cholesky import rank_revealing_cholesky as rank_revealing_cholesky
    from solvers.matrices.dense import DenseOperator as DenseOperator
    from solvers.matrices.lazy import LazyOperator as LazyOperator
    from solvers.results.solution import Solution as Solution
    from solvers.results.solution import load as load
    from solvers.sde.continuation import resume as resume
    from solvers.sde.convergence import ConvergenceStudy as ConvergenceStudy
    from solvers.sde.convergence import particle_order as particle_order
    from solvers.sde.convergence import strong_order as strong_order
    from solvers.sde.convergence import weak_order as weak_order
    from solvers.sde.equation import McKeanVlasov as McKeanVlasov
    from solvers.sde.events.absorbing import Absorbing as Absorbing
    from solvers.sde.events.jumps import Jumps as Jumps
    from solvers.sde.events.periodic import Periodic as Periodic
    from solvers.sde.events.reflecting import Reflecting as Reflecting
    from solvers.sde.events.reset import Reset as Reset
    from solvers.sde.field import ExternalField as ExternalField
    from solvers.sde.functions import erf as erf
    from solvers.sde.functions import exp as exp
    from solvers.sde.functions import tanh as tanh
    from solvers.sde.many import solve_many as solve_many
    from solvers.sde.moments.groups import GroupMeans as GroupMeans
    from solvers.sde.moments.largest import Largest as Largest
    from solvers.sde.moments.moment import Moment as Moment
    from solvers.sde.moments.weighted import WeightedMean as WeightedMean
    from solvers.sde.multilevel.mlmc import MultilevelEstimate as MultilevelEstimate
    from solvers.sde.multilevel.mlmc import mlmc as mlmc
    from solvers.sde.pairs.pairs import Pairs as Pairs
    from solvers.sde.solve import solve as solve
    from solvers.sde.statistics import Statistic as Statistic
    from solvers.sde.statistics import density as density
    from solvers.sde.statistics import particles as particles
    from solvers.sde.statistics import quantiles as quantiles
    from solvers.sde.statistics import trajectories as trajectories
    from solvers.sde.tensors import TensorRun as TensorRun
    from solvers.sde.tensors import solve_tensors as solve_tensors

_HOMES = {
    "GroupMeans": "solvers.sde.moments.groups",
    "Largest": "solvers.sde.moments.largest",
    "Moment": "solvers.sde.moments.moment",
    "MultilevelEstimate": "solvers.sde.multilevel.mlmc",
    "mlmc": "solvers.sde.multilevel.mlmc",
    "Pairs": "solvers.sde.pairs.pairs",
    "WeightedMean": "solvers.sde.moments.weighted",
    "Reset": "solvers.sde.events.reset",
    "Reflecting": "solvers.sde.events.reflecting",
    "Periodic": "solvers.sde.events.periodic",
    "Jumps": "solvers.sde.events.jumps",
    "Absorbing": "solvers.sde.events.absorbing",
    "Address": "solvers.ensemble.random",
    "Blocks": "solvers.ensemble.threads",
    "BrownianMotion": "solvers.ensemble.brownian",
    "ConvergenceStudy": "solvers.sde.convergence",
    "DenseOperator": "solvers.matrices.dense",
    "ExternalField": "solvers.sde.field",
    "LazyOperator": "solvers.matrices.lazy",
    "McKeanVlasov": "solvers.sde.equation",
    "Noise": "solvers.ensemble.random",
    "Solution": "solvers.results.solution",
    "Statistic": "solvers.sde.statistics",
    "Stream": "solvers.ensemble.random",
    "density": "solvers.sde.statistics",
    "erf": "solvers.sde.functions",
    "exp": "solvers.sde.functions",
    "load": "solvers.results.solution",
    "particle_order": "solvers.sde.convergence",
    "particles": "solvers.sde.statistics",
    "quantiles": "solvers.sde.statistics",
    "rank_revealing_cholesky": "solvers.matrices.cholesky",
    "resume": "solvers.sde.continuation",
    "solve": "solvers.sde.solve",
    "TensorRun": "solvers.sde.tensors",
    "solve_tensors": "solvers.sde.tensors",
    "solve_many": "solvers.sde.many",
    "strong_order": "solvers.sde.convergence",
    "tanh": "solvers.sde.functions",
    "trajectories": "solvers.sde.statistics",
    "weak_order": "solvers.sde.convergence",
}

_MODULES = ("equations", "plotting", "schemes")

__all__ = sorted([*_HOMES, *_MODULES])


def _plot(*arguments: Any) -> Any:
    from solvers.plotting.equations import picture

    return picture(*arguments)


upstairs.plot = _plot  # loaded when first used, as well


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"solvers.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'solvers' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
