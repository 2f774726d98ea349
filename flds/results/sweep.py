"""The result of a sweep: the arrays of all its runs over the grid."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import solvers.results.solution
from solvers import checks
from solvers.results.tables import long_rows, write_table

if TYPE_CHECKING:
    import xarray

# What a point is judged by, the first that there is.
_MEASURES = ("test_loss", "loss", "batch_loss")
# Points, and errors, that a summary lists.
_SHOWN = 5
_OVER_TRAINING = ("step", "every_step")
_ENDS = {"completed": "completed", "diverged": "some runs diverged", "failed": "some runs failed or are missing"}


@dataclass(repr=False, eq=False)
class Sweep(solvers.results.solution.Solution):
    """Runs at every point of a grid, as `sweep` returns them and writes them to ``sweep.nc`` in its folder.

    ``data`` is an `xarray.Dataset` with the grid's names as first dimensions and its values as coordinates:
    ``found.data.loss.sel(learning_rate=0.5)``.

    Attributes
    ----------
    status : str
        "completed" if all runs are, "diverged" if some diverged and none failed, else "failed".
    settings : dict
        ``of``, the solver, ``grid``, the names that vary, and ``fixed``, what else decides the numbers.
    variables : dict of Variable
        Every array that has one shape in all runs, with the grid's dimensions first and NaN where a run is missing or
        ended early; what does not vary, such as inputs and depths, is there once. ``data.status`` says how each run
        ended, "completed", "diverged", …, "failed" or "missing", and `error` why it failed.
    reused : int
        Number of runs that were there before; 0 from a file.
    """

    reused: int = 0

    schema: ClassVar[str] = "flds.Sweep/1"
    former_schemas: ClassVar[tuple[str, ...]] = ("flds.sweep/1",)
    places: ClassVar[dict[str, str]] = {
        "step": "steps", "sample": "recorded_samples", "t": "depth_grid", "s": "depth_grid",
    }  # fmt: skip
    former_axes: ClassVar[dict[str, str]] = {
        "record": "step", "step": "every_step", "depth_point": "t", "node": "s",
    }  # fmt: skip

    @property
    def grid(self) -> dict[str, list[Any]]:
        """The values of each name that varies."""
        return {name: self.variables[name].values.tolist() for name in self.settings["grid"]}

    def final(self, name: str | None = None) -> xarray.DataArray:
        """Return a quantity at the last step of every run that completed, over the grid, and NaN elsewhere.

        Parameters
        ----------
        name : str, optional
            A variable over training, such as "accuracy"; by default the test loss, or without one the loss.

        Returns
        -------
        xarray.DataArray
            (values of the first name, values of the second, …) float64.

        Raises
        ------
        ValueError
            If there is no such variable, or it has other dimensions than the grid's and that of training.
        """
        data, dims = self.data, tuple(self.settings["grid"])
        over = [str(one) for one, item in data.items() if item.dims[:-1] == dims and item.dims[-1] in _OVER_TRAINING]
        if not over:
            raise ValueError("the sweep has nothing over training to compare: no run has ended with a record")
        chosen = next((one for one in _MEASURES if one in over), over[0])
        item = data[checks.choice("name", chosen if name is None else name, tuple(over))]
        last = np.maximum(np.isfinite(item.values).sum(axis=-1, keepdims=True) - 1, 0)  # runs may have fewer steps
        found = item.isel({item.dims[-1]: 0}, drop=True).copy(data=np.take_along_axis(item.values, last, -1)[..., 0])
        return found.where(data["status"] == "completed")

    def best(self, count: int = 5, name: str | None = None) -> list[tuple[dict[str, Any], float]]:
        """Return up to `count` points with the smallest values of `final`, the largest for an accuracy.

        Errors are those of `final`. Points whose runs did not complete are left out.
        """
        found = self.final(name)
        values = found.values.ravel()
        order = np.argsort(-values if "accuracy" in str(found.name) else values, kind="stable")
        chosen = [int(index) for index in order if np.isfinite(values[index])]
        return [
            (self._point(index), float(values[index])) for index in chosen[: checks.positive_integer("count", count)]
        ]

    def summary(self) -> str:
        """Return what was swept, how the runs ended, the best points, and the errors of runs that failed."""
        ended = self.variables["status"].values.ravel().tolist()
        counts = ", ".join(f"{count} {status}" for status, count in Counter(ended).items())
        sizes = " × ".join(f"{len(values)} {name}" for name, values in self.grid.items())
        lines = [f"sweep      of {self.settings['of']}", f"grid       {sizes}", f"runs       {counts}"]
        if self.reused:
            lines.append(f"reused     {self.reused} that were there")
        try:
            name, best = str(self.final().name).replace("_", " "), self.best()
        except ValueError:
            name, best = "", []
        for place, (point, value) in enumerate(best):
            lines.append(f"{'best' if place == 0 else '':10} {name} {value:.4g} at {_shown(point)}")
        errors = self.variables["error"].values.ravel() if "error" in self.variables else np.empty(0)
        failed = np.flatnonzero(errors != "").tolist()
        for index in failed[:_SHOWN]:
            lines.append(f"failed     {_shown(self._point(index))}: {' '.join(str(errors[index]).split())}")
        if len(failed) > _SHOWN:
            lines.append(f"           … and {len(failed) - _SHOWN} more")
        return "\n".join([*lines, f"status     {_ENDS[self.status]}"])

    def to_csv(self, path: str | os.PathLike[str], *, long: bool = False) -> Path:
        """Write a table and return the path: a row for each run, with its point, status and all that `final` has.

        With ``long=True`` there is a row for each number over the grid, with its coordinates.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist.
        """
        dims = tuple(self.settings["grid"])
        over = {name: item for name, item in self.variables.items() if item.dims[: len(dims)] == dims}
        if checks.flag("long", long):
            return write_table(path, long_rows(over, self.data))
        columns = {name: item.values.ravel() for name, item in over.items() if item.dims == dims and name not in dims}
        for name, item in over.items():
            if len(item.dims) == len(dims) + 1 and item.dims[-1] in _OVER_TRAINING:
                columns[name] = self.final(name).values.ravel()
        points = (self._point(index).values() for index in range(int(np.prod([len(v) for v in self.grid.values()]))))
        rows = ([*point, *row] for point, row in zip(points, zip(*columns.values(), strict=True), strict=True))
        return write_table(path, [[*dims, *columns], *rows])

    def _point(self, index: int) -> dict[str, Any]:
        """Return the point of a run, by its place among all."""
        grid = self.grid
        places = np.unravel_index(index, [len(values) for values in grid.values()])
        return {name: values[place] for (name, values), place in zip(grid.items(), places, strict=True)}

    @classmethod
    def _from_dataset(cls, dataset: xarray.Dataset) -> Sweep:
        if "settings" in dataset.attrs:
            return super()._from_dataset(dataset)  # type: ignore[return-value]
        grid = [str(dim) for dim in dataset["status"].dims]  # the dataset itself, as it was once written
        found = cls({}, "completed", {}, 0, {"solver": "sweep", "of": "unknown", "grid": grid, "fixed": {}})
        found.variables = cls._read(dataset)
        found.status = overall(found.variables["status"].values)
        return found


def overall(statuses: Any) -> str:
    """Return the status of a sweep, by those of its runs."""
    ended = set(np.ravel(statuses).tolist())
    return "completed" if ended == {"completed"} else "diverged" if ended <= {"completed", "diverged"} else "failed"


def _shown(point: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in point.items()
    )
