"""What a deep residual network becomes, during training, when its width and depth go to infinity."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flds.results.upstairs import upstairs
from solvers.results.upstairs import upstairs as drawn

if TYPE_CHECKING:
    from flds.datasets import Dataset as Dataset
    from flds.datasets import from_torch as from_torch
    from flds.datasets import load_cifar10 as load_cifar10
    from flds.datasets import load_digits as load_digits
    from flds.datasets import load_npz as load_npz
    from flds.frozen.kernel import tangent_kernel as tangent_kernel
    from flds.frozen.solve import solve_frozen as solve_frozen
    from flds.limit.estimate import estimate_limit as estimate_limit
    from flds.mean_ode.attention import Attention as Attention
    from flds.mean_ode.blocks import Block as Block
    from flds.mean_ode.blocks import GatedLinearUnit as GatedLinearUnit
    from flds.mean_ode.blocks import MatrixAfterActivation as MatrixAfterActivation
    from flds.mean_ode.blocks import MatrixBeforeActivation as MatrixBeforeActivation
    from flds.mean_ode.blocks import TwoLayerPerceptron as TwoLayerPerceptron
    from flds.mean_ode.draws import draw_units as draw_units
    from flds.mean_ode.follow import follow_units as follow_units
    from flds.mean_ode.options import MeanOptions as MeanOptions
    from flds.mean_ode.problem import MeanFieldProblem as MeanFieldProblem
    from flds.mean_ode.regimes import Regime as Regime
    from flds.mean_ode.regimes import residual_regime as residual_regime
    from flds.mean_ode.solve import solve_mean_ode as solve_mean_ode
    from flds.mean_ode.solve import solve_tangent_ode as solve_tangent_ode
    from flds.replay import rerun as rerun
    from flds.replay import resume as resume
    from flds.results.comparison import Comparison as Comparison
    from flds.results.comparison import compare as compare
    from flds.results.files import load as load
    from flds.results.kernels import kernel_alignment as kernel_alignment
    from flds.results.limit import LimitEstimate as LimitEstimate
    from flds.results.mean_ode import MeanFieldSolution as MeanFieldSolution
    from flds.results.solution import Solution as Solution
    from flds.results.sweep import Sweep as Sweep
    from flds.sweeps import sweep as sweep
    from flds.training.activations import Activation as Activation
    from flds.training.branches import BranchLayer as BranchLayer
    from flds.training.branches import BranchMatrix as BranchMatrix
    from flds.training.branches import BranchPull as BranchPull
    from flds.training.branches import BranchVector as BranchVector
    from flds.training.branches import ResidualBranch as ResidualBranch
    from flds.training.callbacks import TrainingRecord as TrainingRecord
    from flds.training.cost import CostEstimate as CostEstimate
    from flds.training.optimizers import SGD as SGD
    from flds.training.optimizers import Adam as Adam
    from flds.training.optimizers import Muon as Muon
    from flds.training.optimizers import Optimizer as Optimizer
    from flds.training.options import Options as Options
    from flds.training.problem import TrainingProblem as TrainingProblem
    from flds.training.solve import estimate_cost as estimate_cost
    from flds.training.solve import simulate_resnet as simulate_resnet
    from flds.training.solve import solve_flds as solve_flds
    from flds.training.untrained import solve_backward as solve_backward
    from flds.training.untrained import solve_forward as solve_forward

__version__ = "0.2.0"

# Names load when first used, because numba, xarray and matplotlib take a second or more to import.
_HOMES = {
    "Activation": "flds.training.activations",
    "Adam": "flds.training.optimizers",
    "Attention": "flds.mean_ode.attention",
    "Block": "flds.mean_ode.blocks",
    "BranchLayer": "flds.training.branches",
    "BranchMatrix": "flds.training.branches",
    "BranchPull": "flds.training.branches",
    "BranchVector": "flds.training.branches",
    "Comparison": "flds.results.comparison",
    "CostEstimate": "flds.training.cost",
    "Dataset": "flds.datasets",
    "GatedLinearUnit": "flds.mean_ode.blocks",
    "LimitEstimate": "flds.results.limit",
    "MatrixAfterActivation": "flds.mean_ode.blocks",
    "MatrixBeforeActivation": "flds.mean_ode.blocks",
    "MeanFieldProblem": "flds.mean_ode.problem",
    "MeanFieldSolution": "flds.results.mean_ode",
    "MeanOptions": "flds.mean_ode.options",
    "Muon": "flds.training.optimizers",
    "Optimizer": "flds.training.optimizers",
    "Options": "flds.training.options",
    "Regime": "flds.mean_ode.regimes",
    "ResidualBranch": "flds.training.branches",
    "SGD": "flds.training.optimizers",
    "Solution": "flds.results.solution",
    "Sweep": "flds.results.sweep",
    "TrainingProblem": "flds.training.problem",
    "TrainingRecord": "flds.training.callbacks",
    "TwoLayerPerceptron": "flds.mean_ode.blocks",
    "compare": "flds.results.comparison",
    "draw_units": "flds.mean_ode.draws",
    "estimate_cost": "flds.training.solve",
    "estimate_limit": "flds.limit.estimate",
    "from_torch": "flds.datasets",
    "follow_units": "flds.mean_ode.follow",
    "kernel_alignment": "flds.results.kernels",
    "load": "flds.results.files",
    "load_cifar10": "flds.datasets",
    "load_digits": "flds.datasets",
    "load_npz": "flds.datasets",
    "rerun": "flds.replay",
    "residual_regime": "flds.mean_ode.regimes",
    "resume": "flds.replay",
    "simulate_resnet": "flds.training.solve",
    "solve_backward": "flds.training.untrained",
    "solve_flds": "flds.training.solve",
    "solve_forward": "flds.training.untrained",
    "solve_frozen": "flds.frozen.solve",
    "solve_mean_ode": "flds.mean_ode.solve",
    "solve_tangent_ode": "flds.mean_ode.solve",
    "sweep": "flds.sweeps",
    "tangent_kernel": "flds.frozen.kernel",
}

__all__ = sorted(_HOMES)


def _plot(*arguments: Any) -> Any:
    from flds.plotting.overview import picture

    return picture(*arguments)


def _predict(*arguments: Any) -> Any:
    from flds.replay import predict

    return predict(*arguments)


# What solutions can do with the rooms above them; loaded when first used, as well.
drawn.plot, upstairs.predict = _plot, _predict


def __getattr__(name: str) -> Any:
    if name == "nn":  # which needs torch
        return import_module("flds.nn")
    if name not in _HOMES:
        raise AttributeError(f"module 'flds' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
