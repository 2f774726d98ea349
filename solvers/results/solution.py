"""The result of a solve: named arrays with units, a status, and what is needed to run it again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.ranks import on_first
from solvers.results.arrays import (
    STATE,
    communicator_of,
    find_arrays,
    read_arrays,
    reference_in,
    remove_arrays,
    write_with_arrays,
)
from solvers.results.files import Variable as Variable
from solvers.results.files import holds_inner_groups, read_dataset, read_inner_groups, write_dataset
from solvers.results.tables import long_rows, wide_rows, write_table
from solvers.results.upstairs import upstairs

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

# Attributes of a file that are JSON, and what they hold.
_RECORDS = {"settings": dict, "timings": dict, "notes": list, "versions": dict, "extra": dict}
# How the names of groups begin in files of version 0.1, which held them inside.
_INNER = "state_"
# The group of variables that ranks share, which a file keeps beside it.
_SPREAD = "particles"
# Marks coordinates that are counted, which are made anew for every dataset.
_COUNTED = "counted"
# Results in a folder that an error names.
_NAMED = 5
# A run that ends so needs no explanation.
AS_ASKED = ("completed", "stopped")
STATUSES = ("completed", "diverged", "rank_budget", "interrupted", "failed", "stopped")


@dataclass(repr=False, eq=False)
class Solution:
    """Arrays by name, with status, timings, seed and settings.

    Attributes
    ----------
    variables : dict of Variable
        Arrays by name, each with the names of its axes, a long name and units; they are read as attributes.
    status : str
        "completed", or why the solve ended early: "diverged", "rank_budget", "interrupted", or "failed" where a
        function of the user's raised. Everything computed up to that point is kept.
    timings : dict
        Seconds spent: "compile" apart from "solve".
    seed : int
        Seed of the noise.
    settings : dict
        Solver settings, JSON-serialisable.
    notes : list of str
        What a user should know of how the solve went.
    versions : dict
        Versions of Python and of the libraries that decide the numbers.
    extra : dict
        What else the solver says of its problem, JSON-serialisable.
    groups : dict
        Further variables by name, such as the state of a network; they are saved beside the file.
    missing : str
        Of a solution from a file: why its groups could not be read, or nothing.
    beside : dict of str
        Of a solution from a file whose groups were not read: name and checksum of the file that holds them.

    Raises
    ------
    AttributeError
        On reading a variable that this solver does not produce; the message names those it does.
    """

    variables: dict[str, Variable]
    status: str
    timings: dict[str, float]
    seed: int
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, Variable]] = field(default_factory=dict)
    missing: str = ""
    beside: dict[str, str] = field(default_factory=dict)

    schema: ClassVar[str] = "solvers.Solution/1"
    former_schemas: ClassVar[tuple[str, ...]] = ()
    # Axes whose places are the values of a variable; those of others are counted from 0.
    places: ClassVar[dict[str, str]] = {
        "time": "times", "t": "depth_grid", "field_time": "external_field_times",
    }  # fmt: skip
    # What axes were called in files of version 0.1.
    former_axes: ClassVar[dict[str, str]] = {"depth_point": "t"}

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name.startswith("_") or "variables" not in self.__dict__:
            raise AttributeError(name)
        if name in self.variables:
            return self.variables[name].values
        raise AttributeError(f"this solution has no variable {name!r}; it has {', '.join(self.variables)}")

    @property
    def fields(self) -> dict[str, Variable]:
        """The variables, by the name that they had in version 0.1."""
        return self.variables

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.variables]

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name}{list(f.values.shape)}" for name, f in self.variables.items())
        return f"{type(self).__name__}(status={self.status!r}, seed={self.seed}, {arrays})"

    @property
    def data(self) -> xarray.Dataset:
        """All variables with named dimensions, coordinates, long names and units, and the rest as attributes.

        Times, depths t or s, recorded steps and indices of recorded samples are the coordinates of their dimensions,
        so that ``data["mean"].sel(time=0.3)`` and ``data.outputs.sel(step=10)`` find what is meant; times and depths
        are rounded to twelve digits for it. Others are counted from 0. Of variables that ranks share it has this
        rank's part.
        """
        stored = self._stored().merge(_dataset(self._spread(), {}))
        counted = {
            dim: (dim, np.arange(size), {"long_name": str(dim).replace("_", " "), "units": "1", _COUNTED: "from 0"})
            for dim, size in stored.sizes.items()
            if dim not in stored.coords
        }
        return stored.assign_coords(counted)

    def _stored(self) -> xarray.Dataset:
        """The dataset as it is kept in files, without coordinates that are counted."""
        attributes = {"schema": self.schema, "status": self.status, "seed": self.seed}
        records = {"settings": self.settings, "timings": self.timings, "notes": self.notes}
        records |= {"versions": self.versions, "extra": self.extra}
        attributes |= {name: json.dumps(record) for name, record in records.items()}
        whole = {name: item for name, item in self.variables.items() if item.spread is None}
        # times of trajectories are the places of an axis of their own
        own = {name[:-1]: name for name in whole if name.endswith("_times") and whole[name].dims == (name[:-1],)}
        return _dataset(whole, self.places | own).assign_attrs(attributes)

    def _spread(self) -> dict[str, Variable]:
        """The variables of which each rank of a communicator holds a part."""
        return {name: item for name, item in self.variables.items() if item.spread is not None}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the solution as NetCDF4 to `path` and return it.

        The file is written beside its destination and renamed, so a file of that name is either the old
        one or complete. It is sealed by a checksum. `groups`, such as the state of a network, are written to a file
        beside it, `path`.state, which it names with its checksum: the two belong together. A solution whose groups were
        not read goes on naming theirs. Otherwise those of an older result of this name are removed with it.

        Where ranks of a communicator share particles or states, all of them call this together, and one after the
        other they write what they hold, all of it to `path`.state. The file is read as any other.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist.
        OSError
            If the file cannot be written; what stood there before is kept.
        """
        target, spread = Path(path), self._spread()
        groups = {**self.groups, _SPREAD: spread} if spread else self.groups
        communicator = communicator_of(groups)
        on_first(lambda: _require_folder(target), communicator)
        if groups:
            write_with_arrays(target, groups, lambda beside: self._stored().assign_attrs(state=json.dumps(beside)))
        elif self.beside:
            write_dataset(target, self._stored().assign_attrs(state=json.dumps(self.beside)))
        else:
            older = reference_in(target)
            write_dataset(target, self._stored())
            remove_arrays(target, older)
        return target

    def to_csv(self, path: str | os.PathLike[str], *, long: bool = False) -> Path:
        """Write what changes with the step or the time as a table, and return the path.

        Variables that ranks share are left out.

        Parameters
        ----------
        path : path
            Of the table.
        long : bool
            By default a row for each step or time, whose columns are the variables; those with one or two dimensions
            more become name[0], name[1], … or name[0,0], name[0,1], …, of several runs the run first. With
            ``long=True`` a row for each number of any variable over them: its name, its coordinates, each in a column
            of its own, and its value.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist.
        ValueError
            If no variable changes with the step or the time.
        """
        first = next((f.dims[0] for f in self.variables.values() if f.dims and f.dims[0] in ("step", "time")), None)
        if first is None:
            raise ValueError(
                f"there is nothing to write over steps or times; the variables are {', '.join(self.variables)}"
            )
        checks.flag("long", long)
        whole = {name: item for name, item in self.variables.items() if item.spread is None}
        turned = {name: item.turned() if item.dims[:2] == ("run", first) else item for name, item in whole.items()}
        over = {name: item for name, item in turned.items() if item.dims[:1] == (first,)}
        return write_table(path, long_rows(over, self.data) if long else wide_rows(over))

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw what there is to see in one figure; save it to `path` if given.

        Raises
        ------
        ValueError
            If matplotlib knows no format of that name.
        """
        return upstairs.plot(self, path)

    def summary(self) -> str:
        """Return settings and status as lines of plain text."""
        lines = [f"{name:18} {value}" for name, value in self.settings.items()]
        return "\n".join([*lines, f"{'seed':18} {self.seed}", f"{'status':18} {self.status}", *self.notes])

    @classmethod
    def _from_dataset(cls, dataset: xarray.Dataset) -> Solution:
        attributes = dataset.attrs
        records: dict[str, Any] = {name: json.loads(attributes[name]) for name in _RECORDS}
        for name, kind in _RECORDS.items():
            if not isinstance(records[name], kind):
                raise ValueError(f"its {name} are not a {kind.__name__}")
        if attributes["status"] not in STATUSES:
            raise ValueError(f"its status is {attributes['status']!r}")
        found = cls._read(dataset)
        return cls(found, status=str(attributes["status"]), seed=int(attributes["seed"]), **records)

    @classmethod
    def _read(cls, dataset: xarray.Dataset) -> dict[str, Variable]:
        """Return the variables of a dataset without coordinates that were made for it, and with today's axes."""
        older = set(cls.former_axes) - set(cls.former_axes.values())
        names = cls.former_axes if older & set(dataset.dims) else {}
        made = [
            name
            for name, item in dataset.coords.items()
            if name in cls.places or str(name).endswith("_time") or _COUNTED in item.attrs
        ]
        return _variables(dataset.drop_vars(made), names)


def load(path: str | os.PathLike[str], groups: bool = True, communicator: Any = None) -> Solution:
    """Return the solution that `Solution.save` wrote.

    Parameters
    ----------
    path : path
        The file.
    groups : bool
        Whether to read groups as well, from the file beside it; where that is not there or damaged, `missing` says so.
    communicator : mpi4py.MPI.Comm, optional
        Ranks that share the particles: all call this together, and of what lies beside the file each reads those that
        it holds.

    Returns
    -------
    Solution
        Of the class that wrote it, with all arrays in memory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a saved solution, or is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(_why_no_file(Path(path)))
    try:
        dataset = read_dataset(Path(path))
        classes = {schema: kind for kind in _kinds() for schema in (kind.schema, *kind.former_schemas)}
        kind = classes.get(str(dataset.attrs.get("schema")))
        if kind is not None:
            solution = kind._from_dataset(dataset)
            solution.beside = _reference(dataset.attrs.get("state"))
            if groups:
                _read_groups(solution, Path(path), communicator)
            return solution
    except (OSError, ValueError, LookupError, AttributeError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if Path(path).suffix == STATE:
            reason = f"it looks like the state of {Path(path).stem}, which is the file to load"
        raise ValueError(f"{str(path)!r} is not a readable results file: {reason}") from None
    named = dataset.attrs.get("schema")
    reason = "it names no schema" if named is None else f"this version reads no schema {named!r}"
    if str(named).startswith("flds."):
        reason += " here; use flds.load"
    raise ValueError(f"{str(path)!r} is not a results file of flds: {reason}")


def _require_folder(target: Path) -> None:
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(target.parent)!r} does not exist; create it first")


def _why_no_file(path: Path) -> str:
    """Say that there is no such file, and which results a folder has instead."""
    if not path.is_dir():
        return f"there is no file {str(path)!r}"
    found = sorted(path.glob("*.nc"))
    names = ", ".join(str(one) for one in found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
    return f"{str(path)!r} is a folder" + (f"; results in it are {names}" if found else " without results")


def has_groups(solution: Solution, path: str | os.PathLike[str]) -> bool:
    """Whether the groups of a solution are there, which was loaded from this file without them."""
    if not solution.beside:
        return holds_inner_groups(Path(path), _INNER)
    try:
        return find_arrays(Path(path), solution.beside) is not None
    except (OSError, ValueError):  # they cannot be read, or are named as no file is
        return False


def _reference(text: str | None) -> dict[str, str]:
    """Return what a file says of the one beside it, or nothing; raises ValueError if it is not a name and checksum."""
    if text is None:
        return {}
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in ("file", "sha256")):
        raise ValueError("its state is not named by a file and a checksum")
    return found


def _read_groups(solution: Solution, path: Path, communicator: Any) -> None:
    """Read the groups of a solution from the file beside it, or, as they were written once, from the file itself."""
    if not solution.beside:
        solution.groups = {name: _variables(group) for name, group in read_inner_groups(path, _INNER).items()}
        return
    name, where = f"{path.name}{STATE}", f"which belongs beside {str(path)!r}"
    try:
        place = find_arrays(path, solution.beside)
        if place is None:
            solution.missing = f"{name}, {where}, is missing, damaged at its end or that of another result"
            return
        name = place.name
        solution.groups, solution.beside = read_arrays(place, communicator), {}
        solution.variables |= solution.groups.pop(_SPREAD, {})
    except OSError as error:
        solution.missing = f"{name}, {where}, cannot be read: {error.strerror}"
    except (ValueError, LookupError, TypeError) as error:
        solution.missing = f"{name}, {where}, is damaged: {' '.join(str(error).split())}"


def _dataset(variables: dict[str, Variable], places: dict[str, str]) -> xarray.Dataset:
    import xarray

    named = {name: (f.dims, f.values, {"long_name": f.long_name, "units": f.units}) for name, f in variables.items()}
    there = {dim: named[name] for dim, name in places.items() if name in named and named[name][0] == (dim,)}
    return xarray.Dataset(named, {dim: (dim, readable(values), said) for dim, (_, values, said) in there.items()})


def readable(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers to twelve digits, for coordinates: 0.3 and not 0.30000000000000004."""
    return np.array([float(f"{value:.12g}") for value in values]) if values.dtype.kind == "f" else values


def _variables(dataset: xarray.Dataset, axes: dict[str, str] | None = None) -> dict[str, Variable]:
    """Return the variables of a dataset, with axes called as `axes` has it."""
    called, found = axes or {}, {}
    for name, item in dataset.variables.items():
        dims = tuple(called.get(str(dim), str(dim)) for dim in item.dims)
        values = item.values.astype(str) if item.values.dtype.hasobject else item.values  # texts
        found[str(name)] = Variable(dims, values, item.attrs["long_name"], item.attrs["units"])
    return found


def _kinds(base: type[Solution] = Solution) -> list[type[Solution]]:
    return [base, *(kind for child in base.__subclasses__() for kind in _kinds(child))]
