"""What a deep residual network becomes, during training, when its width and depth go to infinity."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flds.activations import Activation as Activation
    from flds.cost import CostEstimate as CostEstimate
    from flds.datasets import Dataset as Dataset
    from flds.datasets import load_cifar10 as load_cifar10
    from flds.datasets import load_digits as load_digits
    from flds.datasets import load_npz as load_npz
    from flds.first_pass import solve_backward as solve_backward
    from flds.first_pass import solve_forward as solve_forward
    from flds.limit import estimate_limit as estimate_limit
    from flds.problem import TrainingProblem as TrainingProblem
    from flds.settings import Options as Options
    from flds.solution import LimitEstimate as LimitEstimate
    from flds.solution import Solution as Solution
    from flds.solution import load as load
    from flds.solve import estimate_cost as estimate_cost
    from flds.solve import simulate_resnet as simulate_resnet
    from flds.solve import solve_flds as solve_flds

__version__ = "0.1.0"

# Names load when first used, because numba, xarray and matplotlib take a second or more to import.
_HOMES = {
    "Activation": "flds.activations",
    "CostEstimate": "flds.cost",
    "Dataset": "flds.datasets",
    "LimitEstimate": "flds.solution",
    "Options": "flds.settings",
    "Solution": "flds.solution",
    "TrainingProblem": "flds.problem",
    "estimate_cost": "flds.solve",
    "estimate_limit": "flds.limit",
    "load": "flds.solution",
    "load_cifar10": "flds.datasets",
    "load_digits": "flds.datasets",
    "load_npz": "flds.datasets",
    "simulate_resnet": "flds.solve",
    "solve_backward": "flds.first_pass",
    "solve_flds": "flds.solve",
    "solve_forward": "flds.first_pass",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flds' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
