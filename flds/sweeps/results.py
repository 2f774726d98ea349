"""The result of a sweep: the arrays of all its runs, stacked over the grid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.results.sweep import Sweep, overall
from flds.sweeps.grid import ITEM, Grid, Task
from flds.training.optimizers import Optimizer
from solvers.results.solution import Solution, Variable, load
from solvers.results.versions import library_versions

# Where the result lies in the folder of a sweep.
RESULT = "sweep.nc"
# Dimensions along which a run that ends early is shorter.
_IN_TRAINING = ("step", "every_step")
# Variables that are there once if they are the same in all runs, beside the arrays of the problem.
_CONSTANT = (
    "steps", "recorded_samples", "depth_grid", "pass_step", "pass_sample", "inputs", "targets", "test_inputs",
    "test_targets", "raw_inputs", "raw_test_inputs", "embedding", "unembedding",
)  # fmt: skip


def earlier(folder: Path) -> tuple[Sweep | None, dict[Path, str]]:
    """Return the result in a folder, if there is one, and the fingerprints of runs that have not changed since.

    Their files were looked at when it was written. The time that tells is one that no copy keeps.
    """
    path = folder / RESULT
    try:
        found, written = load(path), path.stat().st_mtime_ns
    except (OSError, ValueError):  # there is none, or none that can be read
        return None, {}
    if not isinstance(found, Sweep) or "fingerprint" not in found.variables:
        return None, {}
    runs = (folder / name for name in found.variables["file"].values.ravel().tolist())
    marks = found.variables["fingerprint"].values.ravel().tolist()
    there = {run: mark for run, mark in zip(runs, marks, strict=True) if mark and run.is_file()}
    return found, {run: mark for run, mark in there.items() if run.stat().st_ctime_ns < written}


def is_of(found: Sweep, tasks: list[Task], known: Mapping[Path, str]) -> bool:
    """Return whether a result is that of these runs, all of which are there as it has them."""
    if any(known.get(task.path) != task.fingerprint for task in tasks):
        return False
    return found.variables["file"].values.ravel().tolist() == [task.path.name for task in tasks]


def collect(tasks: list[Task], plan: Grid, unwritten: Mapping[Path, str], reused: int) -> Sweep:
    """Stack the arrays of all runs over the grid; errors that could not be written are given."""
    shape, dims = tuple(len(values) for values in plan.values.values()), tuple(plan.values)
    found = [load(task.path, groups=False) if task.path.exists() else None for task in tasks]
    errors = [_error(task, unwritten) if one is None else "" for task, one in zip(tasks, found, strict=True)]
    ends = [_status(one, error) for one, error in zip(found, errors, strict=True)]
    variables = {
        name: Variable((name,), _labels(values), name.replace("_", " ")) for name, values in plan.values.items()
    }
    marks = [task.fingerprint if one else "" for task, one in zip(tasks, found, strict=True)]
    texts = {
        "status": (ends, "how the run ended"),
        "error": (errors, "error of a run that failed"),
        "file": ([task.path.name for task in tasks], "file of the run"),
        "fingerprint": (marks, "hash of what decides the numbers"),
    }
    variables |= {name: Variable(dims, np.array(text).reshape(shape), label) for name, (text, label) in texts.items()}
    done = [solution for solution in found if solution is not None]
    for name in dict.fromkeys(name for solution in done for name in solution.variables):
        items = [None if solution is None else solution.variables.get(name) for solution in found]
        item = _stacked(name, items, dims, shape)
        if item is not None:
            variables[f"{name}_values" if name in variables else name] = item
    settings = {"solver": "sweep", "of": plan.solver, "grid": list(dims), "fixed": plan.fixed}
    return Sweep(variables, overall(ends), {}, 0, settings, versions=library_versions(), reused=reused)


def _error(task: Task, unwritten: Mapping[Path, str]) -> str:
    """Return why a run failed, or nothing if nobody has said so."""
    if task.path in unwritten:
        return unwritten[task.path]
    try:
        return str(json.loads(task.failure.read_text(encoding="utf-8"))["error"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, LookupError, TypeError):
        return f"{task.failure.name} cannot be read"


def _status(solution: Solution | None, error: str) -> str:
    if solution is not None:
        return solution.status
    return "failed" if error else "missing"


def _labels(values: list[Any]) -> NDArray[Any]:
    """Return the values of a name as coordinates; what is no word, number or rule by its place."""
    named = [_label(value) for value in values]
    unclear = [one is None or named.count(one) > 1 for one in named]
    return np.array([f"{ITEM}{place}" if unclear[place] else one for place, one in enumerate(named)])


def _label(value: Any) -> int | float | str | None:
    """Return a value, or that of every group in words; None for what has no short ones."""
    if isinstance(value, (int, float, str)):
        return value
    if isinstance(value, Optimizer):
        return str(value)
    if not isinstance(value, Mapping):
        return None
    parts = {name: _label(part) for name, part in value.items()}
    return None if None in parts.values() else ", ".join(f"{name} {part}" for name, part in parts.items())


def _stacked(name: str, items: list[Variable | None], grid: tuple[str, ...], shape: tuple[int, ...]) -> Variable | None:
    """One array over the grid, runs that ended early filled up with NaN; None if others differ, or are not numbers."""
    there = [item for item in items if item is not None]
    if any(item.dims != there[0].dims for item in there):  # runs of older versions have an axis for a single output
        items = [None if item is None else _without_single_output(item) for item in items]
        there = [item for item in items if item is not None]
    first = there[0]
    if any(item.dims != first.dims or item.values.dtype.kind not in "iuf" for item in there):
        return None
    axes = tuple(f"{dim}_axis" if dim in grid else dim for dim in first.dims)
    if name in _CONSTANT or name.startswith("problem_"):
        longest = max(there, key=lambda item: item.values.size)
        if all(_begins(longest, item) for item in there):
            return longest._replace(dims=axes)
    most = np.max([item.values.shape for item in there], axis=0).astype(int) if first.dims else ()
    stacked = np.full((len(items), *most), np.nan)
    for row, item in zip(stacked, items, strict=True):
        if item is None:
            continue
        if any(
            size != full and dim not in _IN_TRAINING
            for dim, size, full in zip(item.dims, item.values.shape, most, strict=True)
        ):
            return None
        row[tuple(slice(size) for size in item.values.shape)] = item.values
    return first._replace(dims=(*grid, *axes), values=stacked.reshape(shape + stacked.shape[1:]))


def _begins(whole: Variable, item: Variable) -> bool:
    """Return whether an array is the other one, or its beginning where a run ended early."""
    if item.dims[:1] and item.dims[0] in _IN_TRAINING:
        return np.array_equal(whole.values[: len(item.values)], item.values)
    return np.array_equal(whole.values, item.values)


def _without_single_output(item: Variable) -> Variable:
    if item.dims[-1:] == ("output",) and item.values.shape[-1] == 1:
        return item._replace(dims=item.dims[:-1], values=item.values[..., 0])
    return item
