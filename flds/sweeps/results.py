"""The result of a sweep: the arrays of all its runs, stacked over the grid."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flds.sweeps.grid import Task
from solvers.results.solution import Solution, Variable, load

if TYPE_CHECKING:
    import xarray

# Dimensions along which a run that ends early is shorter.
_IN_TRAINING = ("step", "every_step")


def collect(tasks: list[Task], grid: dict[str, list[Any]], failed: Collection[Path]) -> xarray.Dataset:
    """Stack the arrays of all runs over the grid; the paths of some that failed are known, others left their errors."""
    import xarray

    shape = tuple(len(values) for values in grid.values())
    found = [load(task.path, groups=False) if task.path.exists() else None for task in tasks]
    status = [_status(task, solution, task.path in failed) for task, solution in zip(tasks, found, strict=True)]
    dims = tuple(grid)
    described = {"long_name": "how the run ended", "units": "1"}
    variables: dict[str, Any] = {"status": (dims, np.array(status).reshape(shape), described)}
    done = [solution for solution in found if solution is not None]
    for name in dict.fromkeys(name for solution in done for name in solution.variables):
        stacked = _stack(found, name, shape)
        if stacked is None:
            continue
        item = next(solution.variables[name] for solution in done if name in solution.variables)
        renamed = [f"{dim}_axis" if dim in dims else dim for dim in item.dims]
        attributes = {"long_name": item.long_name, "units": item.units}
        variables[f"{name}_values" if name in dims else name] = ((*dims, *renamed), stacked, attributes)
    coordinates = {}
    for name, values in grid.items():
        plain = [value if isinstance(value, (int, float, str)) else index for index, value in enumerate(values)]
        coordinates[name] = (name, plain, {"long_name": name.replace("_", " "), "units": "1"})
    return xarray.Dataset(variables, coords=coordinates, attrs={"schema": "flds.sweep/1"})


def _status(task: Task, solution: Solution | None, failed: bool) -> str:
    if solution is not None:
        return solution.status
    return "failed" if failed or task.failure.exists() else "missing"


def _stack(found: list[Solution | None], name: str, shape: tuple[int, ...]) -> Any:
    """One array over the grid, runs that ended early filled up with NaN; None if others differ, or are not numbers."""
    items = [None if solution is None else solution.variables.get(name) for solution in found]
    there = [item for item in items if item is not None]
    if any(item.dims != there[0].dims for item in there):  # runs of older versions have an axis for a single output
        items = [None if item is None else _without_single_output(item) for item in items]
        there = [item for item in items if item is not None]
    if any(item.dims != there[0].dims or item.values.dtype.kind not in "iuf" for item in there):
        return None
    most = np.max([item.values.shape for item in there], axis=0).astype(int) if there[0].dims else ()
    stacked = np.full((len(found), *most), np.nan)
    for row, item in zip(stacked, items, strict=True):
        if item is None:
            continue
        if any(
            size != full and dim not in _IN_TRAINING
            for dim, size, full in zip(item.dims, item.values.shape, most, strict=True)
        ):
            return None
        row[tuple(slice(size) for size in item.values.shape)] = item.values
    return stacked.reshape(shape + stacked.shape[1:])


def _without_single_output(item: Variable) -> Variable:
    if item.dims[-1:] == ("output",) and item.values.shape[-1] == 1:
        return item._replace(dims=item.dims[:-1], values=item.values[..., 0])
    return item
