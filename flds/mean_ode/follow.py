"""Single units that follow the limit: the coupling between a finite network and the Mean ODE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from flds.mean_ode.blocks import Parameters
from flds.mean_ode.problem import MeanFieldProblem
from solvers import checks

if TYPE_CHECKING:
    from flds.results.mean_ode import MeanFieldSolution


def follow_units(
    problem: MeanFieldProblem, solution: MeanFieldSolution, units: list[Parameters], depths: ArrayLike
) -> list[Parameters]:
    """Move units by the gradients of the limit, which they do not influence.

    Started from the initial units of a finite network at s = (ℓ−1)/L, they are the Z_k^{jℓ}(s) that Theorems 1 and 2
    of paper H compare its units with.

    Parameters
    ----------
    problem : MeanFieldProblem
        What was trained.
    solution : MeanFieldSolution
        Its solution, with ``record_features=True`` and ``record_every=1``.
    units : list of dict
        For each block, initial parameters (depths, *shape, units) by name.
    depths : (depths,) array
        s of the units, in [0, 1].

    Returns
    -------
    list of dict
        Z_k for k = 0 … K, or ζ_k for the tangent ODE, arrays (K + 1, depths, *shape, units) by name.

    Raises
    ------
    ValueError, TypeError
        If the solution lacks features at every step, is of another problem, the units do not fit, or depths are not
        numbers in [0, 1].

    Notes
    -----
    With several replicates, units follow the mean of their states and covectors.

    References
    ----------
    Paper H, eqs. (14) and (20), Theorems 1 and 2.
    """
    from scipy.interpolate import CubicSpline

    if "features" not in solution.variables or len(solution.steps) != solution.steps[-1] + 1:
        raise ValueError("solution must have features at every step: solve with record_features=True, record_every=1")
    if not problem.rule.plain or any(problem.decays.values()):
        raise ValueError("problem must be trained by plain SGD without weight_decay for units to follow it")
    places = np.asarray(checks.finite("depths", depths), np.float64)
    if places.ndim != 1 or places.min() < 0 or places.max() > 1:
        raise ValueError(f"depths must be a list of numbers in [0, 1], got {checks.shown(depths)}")
    units = _checked_units(problem, units, len(places))
    if solution.inputs.shape != problem.x.shape or not np.array_equal(solution.inputs, problem.x):
        raise ValueError("problem must be the one that was solved, got other inputs than those of solution")
    tangent = solution.settings["solver"] == "solve_tangent_ode"
    count = len(solution.steps)
    moved = [{name: np.zeros((count, *a.shape)) for name, a in z.items()} for z in units]
    if not tangent:
        for start, z in zip(units, moved, strict=True):
            for name, a in start.items():
                z[name][0] = a
    factor = 1.0 if tangent else 1 / problem.alpha
    rows = problem.x.size // problem.dimension
    for step in solution.steps[:-1]:
        h = CubicSpline(solution.depth_grid, solution.features[step])(places)
        b = CubicSpline(solution.depth_grid, solution.covectors[step])(places)
        for block, start, z in zip(problem.blocks, units, moved, strict=True):
            shape = (-1, problem.dimension) if block.tokenwise else problem.x.shape
            for layer in range(len(places)):
                at = {name: start[name][layer] if tangent else z[name][step, layer] for name in z}
                gradient = block.pull(h[layer].reshape(shape), b[layer].reshape(shape), at)[1]
                for name, change in gradient.items():
                    z[name][step + 1, layer] = z[name][step, layer] - problem.rate(name, step) * factor / rows * change
    return moved


def _checked_units(problem: MeanFieldProblem, units: list[Parameters], depths: int) -> list[Parameters]:
    """Return the units as arrays; refuse those that do not have the blocks' parameters at these depths."""
    if not isinstance(units, (list, tuple)) or len(units) != len(problem.blocks):
        raise ValueError(f"units must be a list with a dictionary for each of {len(problem.blocks)} blocks")
    checked: list[Parameters] = []
    for z, shapes in zip(units, problem.shapes, strict=True):
        given = {name: checks.finite(f"units: {name!r}", z[name]) for name in shapes if name in z}
        checked.append({name: np.asarray(values, np.float64) for name, values in given.items()})
        for name, shape in shapes.items():
            found = checked[-1][name].shape if name in z else None
            if found is None or found[:-1] != (depths, *shape):
                raise ValueError(f"units: {name!r} must have shape {(depths, *shape)} and the units last, got {found}")
    return checked
