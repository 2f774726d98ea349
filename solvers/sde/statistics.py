"""What a solve keeps of its particles: statistics at chosen times instead of whole ensembles."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.ensemble.threads import ThreadParticles
from solvers.ranks import on_first
from solvers.results.rows import Rows
from solvers.results.solution import Solution, Variable

Array = NDArray[np.floating]

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
# Names that a solution gives to other things.
_TAKEN = {"times", "moments", "final_particles", "final_time", *dir(Solution), *Solution.__dataclass_fields__}


@dataclass(frozen=True, eq=False)
class Statistic:
    """A function of time and of all particles, (N,) or (N, D), that is saved under a name.

    Attributes
    ----------
    function : callable
        (t, x) → array of fixed shape.
    long_name : str
        What the saved field is said to be.
    axes : tuple of str
        Names of the leading axes of the value; a last axis of length D is called "component".
    labels : (length of the first axis,) array, optional
        Values along the first axis, saved as the field named after it.

    Raises
    ------
    ValueError
        If there are labels and no axes.
    """

    function: Callable[..., Any]
    long_name: str
    axes: tuple[str, ...] = ()
    labels: NDArray[Any] | None = None

    # whether ranks that share the particles send all of them to the first, which calls the function
    gathers: ClassVar[bool] = True
    # whether each rank keeps the value of its own particles
    spread: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.labels is not None and not self.axes:
            raise ValueError("labels belong to the first of the axes, so axes must not be empty")

    def _value(self, t: float, x: Array, scalar: bool, ensemble: ThreadParticles) -> Any:
        """Return the value for all particles, of which x, (D, held), are those of this process."""
        whole = ensemble.gather(x, to_all=False)
        return on_first(lambda: self.function(t, seen(whole, scalar)), ensemble.communicator)


class _Average(Statistic):
    """A mean, whose function takes the particles that are held, (D, held), and their home, and sums over all."""

    gathers = False

    def _value(self, t: float, x: Array, scalar: bool, ensemble: ThreadParticles) -> Any:
        found = self.function(x, ensemble)
        return found.reshape(()) if scalar else found


class _Picked(Statistic):
    """Positions of some particles."""

    gathers = False

    def _value(self, t: float, x: Array, scalar: bool, ensemble: ThreadParticles) -> Any:
        assert self.labels is not None
        if self.labels.max() >= ensemble.particles:
            raise IndexError(f"there is no particle {self.labels.max()} among {ensemble.particles}")
        return seen(ensemble.pick(x, self.labels), scalar).copy()


class _Everyone(Statistic):
    """Positions of all particles, of which each rank keeps its own."""

    gathers, spread = False, True

    def _value(self, t: float, x: Array, scalar: bool, ensemble: ThreadParticles) -> Any:
        return seen(x, scalar).copy()


def seen(x: NDArray[np.floating], scalar: bool) -> NDArray[np.floating]:
    """Return particles, (D, n), as the user gave them, (n,) or (n, D), not to be written to."""
    view = x[0] if scalar else x.T
    view.flags.writeable = False
    return view


def quantiles(levels: Sequence[float] = _LEVELS) -> Statistic:
    """Return what saves the quantiles of every component.

    Parameters
    ----------
    levels : sequence of float
        Probabilities from 0 to 1.

    Returns
    -------
    Statistic
        Its value is (levels,) or (levels, D).

    Raises
    ------
    ValueError, TypeError
        If a level is not a number from 0 to 1.
    """
    wanted = np.atleast_1d(np.asarray(checks.finite("levels", levels), np.float64))
    if wanted.ndim > 1 or wanted.min() < 0 or wanted.max() > 1:
        raise ValueError(f"levels must be numbers from 0 to 1, got {checks.shown(levels)}")
    return Statistic(lambda t, x: np.quantile(x, wanted, axis=0), "quantiles", ("quantile_level",), wanted)


def particles(indices: int | Sequence[int] | None = None) -> Statistic:
    """Return what saves the positions of particles.

    Parameters
    ----------
    indices : int or sequence of int, optional
        These particles, or the first so many; all of them by default.

    Returns
    -------
    Statistic
        Its value is (particles,) or (particles, D).

    Raises
    ------
    ValueError, TypeError
        If an index is not an integer of at least 0, or the number of particles not at least 1.
    """
    if indices is None:
        return _Everyone(lambda t, x: x.copy(), "particles", ("particle",))
    if isinstance(indices, (int, np.integer)):
        wanted = np.arange(checks.positive_integer("particles to save", indices))
    else:
        wanted = np.atleast_1d(checks.numeric("indices of particles", indices, "integers of at least 0"))
        if wanted.dtype.kind not in "iu" or wanted.ndim > 1 or not wanted.size or wanted.min() < 0:
            raise ValueError(f"indices of particles must be integers of at least 0, got {checks.shown(indices)}")
    return _Picked(lambda t, x: x[wanted], "particles", ("particle",), wanted)


def _mean(x: Array, ensemble: ThreadParticles) -> Array:
    return ensemble.average(lambda part: x[:, part].sum(axis=1), x.shape[:1], x.size)


def _variance(x: Array, ensemble: ThreadParticles) -> Array:
    mean = _mean(x, ensemble)[:, None]
    return ensemble.average(lambda part: ((x[:, part] - mean) ** 2).sum(axis=1), x.shape[:1], x.size)


def _covariance(x: Array, ensemble: ThreadParticles) -> Array:
    mean = _mean(x, ensemble)[:, None]

    def summed(part: slice) -> Array:
        centred = x[:, part] - mean
        return centred @ centred.T

    return ensemble.average(summed, (len(x),) * 2, x.size * len(x))


_NAMED = {
    "mean": _Average(_mean, "mean over the particles"),
    "variance": _Average(_variance, "variance over the particles"),
    "covariance": _Average(_covariance, "covariance over the particles", ("row",)),
    "quantiles": quantiles(),
    "particles": particles(),
}

Save = str | Statistic | Callable[..., Any]


def chosen(save: Save | Iterable[Save] | Mapping[str, Save]) -> dict[str, Statistic]:
    """Return what to save by name, from names, statistics and functions, listed or in a mapping.

    Raises
    ------
    ValueError, TypeError
        If a name is unknown or cannot be an attribute, or an entry is neither a name nor a function.
    """
    if isinstance(save, Mapping):
        entries = dict(save)
    else:
        single = isinstance(save, (str, Statistic)) or callable(save)
        if not single and not isinstance(save, Iterable):
            raise TypeError(f"save must hold names, statistics or functions of (t, x), got {save!r}")
        entries = {}
        for entry in [save] if single else list(save):  # type: ignore[arg-type]
            if _name(entry) in entries:
                raise ValueError(f"two entries of save are called {_name(entry)!r}; use save={{'name': entry, …}}")
            entries[_name(entry)] = entry
    found: dict[str, Statistic] = {}
    for name, entry in entries.items():
        if (
            not isinstance(name, str)
            or not name.isidentifier()
            or keyword.iskeyword(name)
            or name in _TAKEN
            or name[0] == "_"
        ):
            raise ValueError(f"a saved quantity cannot be called {name!r}; choose another name")
        if isinstance(entry, str):
            checks.choice("save", entry, tuple(_NAMED))
            found[name] = _NAMED[entry]
        elif isinstance(entry, Statistic):
            found[name] = entry
        elif callable(entry):
            found[name] = Statistic(entry, name)
        else:
            raise TypeError(f"save must hold names, statistics or functions of (t, x), got {entry!r}")
    return found


def _name(entry: Any) -> str:
    if isinstance(entry, str):
        checks.choice("save", entry, tuple(_NAMED))
        return entry
    if isinstance(entry, Statistic):
        return entry.long_name.split()[0]
    name = getattr(entry, "__name__", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"give {entry!r} a name: save={{'name': function}}")
    return name


class Saved:
    """Statistics of particles collected during a solve, at so many times at most."""

    def __init__(self, statistics: dict[str, Statistic], most: int, ensemble: ThreadParticles, scalar: bool) -> None:
        self.statistics, self.ensemble, self.scalar = statistics, ensemble, scalar
        self.steps, self.times, self.moments = Rows(most), Rows(most), Rows(most)
        self.values = {name: Rows(most) for name in statistics}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.order: Sequence[int] | None = None  # of the rows in variables, where it is not theirs

    def add(self, step: int, t: float, x: Array, m: Array) -> None:
        """Evaluate every statistic at a step of the grid; `x` is (D, N).

        Raises
        ------
        TypeError, ValueError
            If a function fails or its value is not an array of real numbers of one shape.
        """
        values = {name: self._value(name, t, x) for name in self.statistics}
        self.steps.append(step)
        self.times.append(t)
        self.moments.append(m)
        for name, value in values.items():
            self.values[name].append(value)

    @property
    def gathers(self) -> bool:
        """Whether ranks that share the particles send all of them to the first."""
        return any(statistic.gathers for statistic in self.statistics.values())

    def rows(self) -> dict[str, tuple[Array, bool]]:
        """Return what has been collected, by name, and whether each rank has that of its own particles."""
        own = {"steps": self.steps, "times": self.times, "moments": self.moments}
        found = {name: (rows.array, False) for name, rows in own.items()}
        return found | {f"of_{name}": (rows.array, self.statistics[name].spread) for name, rows in self.values.items()}

    def restore(self, rows: Mapping[str, Array]) -> None:
        """Take over what `rows` returned."""
        own = {"steps": self.steps, "times": self.times, "moments": self.moments}
        for name, stored in rows.items():
            collected = own[name] if name in own else self.values[name.removeprefix("of_")]
            for row in stored:
                collected.append(row)

    def arrange(self, wanted: Sequence[int]) -> None:
        """Put what was collected into the order of the steps wanted, as far as they were reached."""
        places = {step: place for place, step in enumerate(self.steps.array.tolist())}
        order = [places[step] for step in wanted if step in places]
        self.order = None if order == list(range(len(places))) else order

    def try_out(self, t: float, x: Array) -> float:
        """Evaluate every statistic to learn the shapes of their values; raises as `add` does.

        Returns the bytes that one record takes.
        """
        values = {name: self._value(name, t, x) for name in self.statistics}
        self.shapes = {name: value.shape for name, value in values.items()}
        return float(sum(value.nbytes for value in values.values()))

    def _value(self, name: str, t: float, x: Array) -> Array:
        where, rule = f"{name} failed at t = {t:g}", "; save takes functions of time and all particles, (t, x)"
        given = checks.called(where, self.statistics[name]._value, t, x, self.scalar, self.ensemble, rule=rule)
        value = np.asarray(checks.numeric(f"the value of {name}", given, truth=True))
        if self.shapes.get(name, value.shape) != value.shape:
            raise ValueError(f"{name} must keep its shape, got {self.shapes[name]} and then {value.shape}")
        return value

    def variables(self, component: int | None, moments: int) -> dict[str, Variable]:
        """Return the collected arrays; a last axis of length `component` is named so; m has `moments` entries."""
        times = self._arranged(self.times)
        variables = {"times": Variable(("time",), times, "time")}
        if moments:
            means = self._arranged(self.moments).reshape(len(times), moments)
            variables["moments"] = Variable(("time", "moment"), means, "mean of ψ over the particles")
        for name, statistic in self.statistics.items():
            values = self._arranged(self.values[name]).reshape(len(times), *self.shapes[name])
            axes = list(statistic.axes[: values.ndim - 1])
            for axis in range(len(axes), values.ndim - 1):
                last = axis == values.ndim - 2 and values.shape[-1] == component
                axes.append("component" if last else f"{name}_{axis}")
            if statistic.labels is not None:
                axes[0] = f"{name}_{axes[0]}"
                variables[axes[0]] = Variable(
                    (axes[0],), statistic.labels, f"{statistic.axes[0].replace('_', ' ')} of {name}"
                )
            spread = self.ensemble.spread(1) if statistic.spread else None
            variables[name] = Variable(("time", *axes), values, statistic.long_name, spread=spread)
        return variables

    def _arranged(self, rows: Rows) -> Array:
        return rows.array if self.order is None else rows.array[np.array(self.order, np.intp)]
