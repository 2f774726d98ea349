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
from solvers.results.solution import Solution

Array = NDArray[np.floating]

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
# Names that a solution gives to other things.
_TAKEN = {"times", "moments", "final_particles", "final_time", *dir(Solution), *Solution.__dataclass_fields__}
_TAKEN |= {"args", "external_field", "hitting_times", "resets", "last_resets", "seeds"}


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
    labels : (length of the first axis,) array or a tuple of arrays, optional
        Values along the first axis, or along the first axes, saved as fields named after them.

    Raises
    ------
    ValueError
        If there are labels and no axes.
    """

    function: Callable[..., Any]
    long_name: str
    axes: tuple[str, ...] = ()
    labels: NDArray[Any] | tuple[NDArray[Any], ...] | None = None

    # whether ranks that share the particles send all of them to the first, which calls the function
    gathers: ClassVar[bool] = True
    # whether each rank keeps the value of its own particles
    spread: ClassVar[bool] = False
    # whether it is saved at all times of the grid
    often: ClassVar[bool] = False

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


class _Counted(_Average):
    """A sum over the particles whose shape does not follow from theirs."""

    def _value(self, t: float, x: Array, scalar: bool, ensemble: ThreadParticles) -> Any:
        return self.function(x, ensemble)


class _Picked(Statistic):
    """Positions of some particles."""

    gathers = False

    def _value(self, t: float, x: Array, scalar: bool, ensemble: ThreadParticles) -> Any:
        assert isinstance(self.labels, np.ndarray)
        if self.labels.max() >= ensemble.particles:
            raise IndexError(f"there is no particle {self.labels.max()} among {ensemble.particles}")
        return seen(ensemble.pick(x, self.labels), scalar).copy()


class _Followed(_Picked):
    """Positions of some particles at all times of the grid."""

    often = True


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
    wanted = _chosen_particles(indices)
    return _Picked(lambda t, x: x[wanted], "particles", ("particle",), wanted)


def trajectories(indices: int | Sequence[int]) -> Statistic:
    """Return what saves the positions of some particles at all times of the grid, whatever `save_at` says.

    The solution has them as `trajectories`, or the name they are given, and `trajectories_times`, the grid.

    Parameters
    ----------
    indices : int or sequence of int
        These particles, or the first so many.

    Returns
    -------
    Statistic
        Its value is (particles,) or (particles, D).

    Raises
    ------
    ValueError, TypeError
        As for `particles`.
    """
    wanted = _chosen_particles(indices)
    return _Followed(lambda t, x: x[wanted], "trajectories", ("particle",), wanted)


def _chosen_particles(indices: Any) -> NDArray[Any]:
    if isinstance(indices, (int, np.integer)):
        wanted = np.arange(checks.positive_integer("particles to save", indices))
    else:
        wanted = np.atleast_1d(checks.numeric("indices of particles", indices, "integers of at least 0"))
        if wanted.dtype.kind not in "iu" or wanted.ndim > 1 or not wanted.size or wanted.min() < 0:
            raise ValueError(f"indices of particles must be integers of at least 0, got {checks.shown(indices)}")
    return wanted


def density(edges: Any, component: int = 0) -> Statistic:
    """Return what saves an estimate of the density of a component, or of two, by counting particles in bins.

    The integral over all bins is the share of the particles that are in one.

    Parameters
    ----------
    edges : (B + 1,) array, or two of them
        Ends of the bins in ascending order; two for the joint density of a component and the next one.
    component : int
        The component, or the first of the two.

    Returns
    -------
    Statistic
        Its value is (B,), or (B, B') for two; the middles of the bins are saved beside it.

    Raises
    ------
    ValueError, TypeError
        If the edges are not at least two numbers in ascending order, or the component is not an integer of at least 0.
    """
    component = checks.positive_integer("component", component, smallest=0)
    joint = isinstance(edges, (tuple, list)) and len(edges) == 2 and all(np.ndim(one) == 1 for one in edges)
    axes = [_bin_edges(one) for one in (edges if joint else [edges])]
    volume = axes[0][1:] - axes[0][:-1] if not joint else np.multiply.outer(*(np.diff(one) for one in axes))

    def counted(x: Array, ensemble: ThreadParticles) -> Array:
        if component + len(axes) > len(x):
            raise IndexError(f"there are no components {component} to {component + len(axes) - 1} among {len(x)}")
        wanted = x[component : component + len(axes)]

        def summed(part: slice) -> Array:
            found, _ = np.histogramdd(wanted[:, part].T, bins=axes)
            return found.ravel()

        share = ensemble.average(summed, (volume.size,), x.shape[1] * len(axes))
        return share.reshape(volume.shape) / volume

    middles = tuple(0.5 * (one[1:] + one[:-1]) for one in axes)
    return _Counted(counted, "density", ("bin", "other_bin")[: len(axes)], middles)


def _bin_edges(given: Any) -> Array:
    edges = np.asarray(checks.finite("edges", given), np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"edges must be at least two numbers in ascending order, got {checks.shown(given)}")
    return edges


def _mean(x: Array, ensemble: ThreadParticles) -> Array:
    return ensemble.average(lambda part: x[:, part].sum(axis=1, dtype=np.float64), x.shape[:1], x.size)


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
            or name.startswith("args_")
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
    for name, statistic in found.items():
        if statistic.often and f"{name}_times" in found:
            raise ValueError(
                f"a saved quantity cannot be called '{name}_times', the times of {name!r}; choose another name"
            )
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
