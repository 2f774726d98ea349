"""All of a solution in one figure."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import solvers.plotting.equations
from flds.plotting.comparison import comparison_overview
from flds.plotting.curves import plot_accuracy, plot_loss, plot_outputs, plot_rank, plot_travel, plot_variance
from flds.plotting.kernels import plot_kernel, plot_spectrum
from flds.plotting.transfer import sweep_overview
from flds.results.comparison import Comparison
from flds.results.limit import LimitEstimate
from flds.results.mean_ode import MeanFieldSolution
from flds.results.solution import Solution
from flds.results.sweep import Sweep
from solvers.plotting.style import panels, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def overview(solution: Solution) -> Figure:
    """Return a figure with loss, accuracy or outputs, feature and gradient norms over depth, and rank if it is lazy.

    With ``record_kernels=True`` there are also heat maps of Σ and Θ, and the spectrum of Σ.
    """
    recorded = len(solution.steps) > 0  # otherwise it ended before the first record
    draws: list[Callable[..., Any]] = []
    if recorded:
        second = plot_accuracy if "accuracy" in solution.variables else plot_outputs
        draws = [partial(plot_loss, solution), partial(second, solution)]
        if solution.settings.get("operator", "lazy") == "lazy" and "rank_by_step" in solution.variables:
            draws.append(partial(plot_rank, solution))
        over_depth = [name for name in ("feature_variance", "gradient_variance") if name in solution.variables]
        draws += [partial(plot_variance, solution, name) for name in over_depth]
        if "feature_kernel" in solution.variables:
            ends = sorted({int(solution.steps[0]), int(solution.steps[-1])})
            draws += [partial(plot_kernel, solution, name, step=ends) for name in ("feature_kernel", "gradient_kernel")]
            draws.append(partial(plot_spectrum, solution, "feature_kernel"))
    return panels(draws, solution.summary())


def mean_field_overview(solution: MeanFieldSolution) -> Figure:
    """Return a figure with the loss against the step and the travel of the units over depth."""
    draws: list[Callable[..., Any]] = []
    if len(solution.steps):
        draws = [partial(plot_loss, solution), partial(plot_travel, solution)]
    return panels(draws, solution.summary())


def limit_overview(solution: LimitEstimate) -> Figure:
    """Return a figure with the outputs of the limit and their intervals, the loss, and what the intervals allow for."""
    draws: list[Callable[..., Any]] = []
    if len(solution.steps):
        draws = [partial(plot_outputs, solution), partial(plot_loss, solution)]
    return panels(draws, solution.summary())


def picture(solution: Any, path: str | os.PathLike[str] | None = None) -> Figure:
    """Return the overview of a solution of any kind; save it if there is a path."""
    kinds: tuple[tuple[type, Callable[[Any], Figure]], ...] = (
        (Comparison, comparison_overview),
        (MeanFieldSolution, mean_field_overview), (Solution, overview), (LimitEstimate, limit_overview),
        (Sweep, sweep_overview), (object, solvers.plotting.equations.overview),
    )  # fmt: skip
    figure = next(draw for kind, draw in kinds if isinstance(solution, kind))(solution)
    if path is not None:
        save(figure, path)
    return figure
