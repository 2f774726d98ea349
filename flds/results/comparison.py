"""One's own networks against a limit: how far they are from it, and how much of that is chance."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flds.results.limit import LimitEstimate
from flds.results.solution import Solution
from solvers import checks
from solvers.results.upstairs import upstairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# Of a half width of 95 % over a standard error.
_NORMAL = 1.959963984540054


@dataclass(frozen=True)
class Comparison:
    """Distances of networks from a limit, at each record.

    A distance is the root of the mean over samples (and outputs) of the square. That of the mean of all seeds is
    corrected for what chance adds to it: its square may come out below 0, and is then drawn as 0.

    Attributes
    ----------
    steps : (records,) int64
        Training steps.
    distance : (records,) float64
        Of the mean over all possible seeds from the limit.
    interval : (records, 2) float64
        95 % interval of it, by the jackknife over seeds, with what the limit itself is uncertain by.
    spread : (records,) float64
        Standard deviation over seeds, of one network about the mean.
    scores : (records, samples[, outputs]) float64
        Differences of the mean from the limit in standard errors; 0 where both do not scatter and agree.
    seeds : int
        How many networks there are.

    References
    ----------
    As for `compare`.
    """

    steps: NDArray[np.int64]
    distance: Array
    interval: Array
    spread: Array
    scores: Array
    seeds: int

    def summary(self) -> str:
        """Return the distances as lines of plain text."""
        lines = [f"{self.seeds} networks; root mean squares over samples"]
        lines.append("  step  mean from limit  95 % interval     spread")
        for step, distance, (low, high), spread in zip(
            self.steps, self.distance, self.interval, self.spread, strict=True
        ):
            interval = f"{low:.3g} to {high:.3g}"
            lines.append(f"{step:6d}  {distance:<15.3g}  {interval:<16}  {spread:.3g}")
        if self.seeds < 3:
            lines.append("an interval takes three networks at least")
        lines.append(f"largest of {self.scores.size} |scores|: {np.abs(self.scores).max():.2f}")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the distances against the step, and the scores; save the figure to `path` if given."""
        return upstairs.plot(self, path)


def compare(limit: Solution | LimitEstimate, outputs: ArrayLike, *, test: bool = False) -> Comparison:
    """Compare the outputs of networks of your own, trained from several seeds, with a limit.

    Parameters
    ----------
    limit : Solution or LimitEstimate
        Of `solve_flds`, `estimate_limit`, `solve_frozen`, or any with `outputs` over steps and samples. With replicates
        or intervals, what it is uncertain by is allowed for; otherwise it counts as exact.
    outputs : (seeds, records, samples[, outputs]) array or tensor
        Outputs at the steps and samples that the limit has recorded, of two seeds at least, and three for intervals.
    test : bool
        Whether they are those of the test samples.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError, TypeError
        If the outputs are not finite numbers of that shape, or the limit has no such outputs.

    References
    ----------
    B. Efron and C. Stein, "The jackknife estimate of variance", Ann. Stat. 9 (1981).
    """
    if not isinstance(limit, (Solution, LimitEstimate)):
        raise TypeError(f"limit must be a Solution or a LimitEstimate, got {checks.shown(limit)}")
    name = "test_outputs" if checks.flag("test", test) else "outputs"
    if name not in limit.variables or not len(limit.steps):
        raise ValueError(f"limit has no {name}; it has {', '.join(limit.variables)}")
    expected = np.asarray(limit.variables[name].values, np.float64)
    values = np.asarray(checks.finite("outputs", _on_host(outputs)), np.float64)
    if values.ndim == expected.ndim + 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.shape[1:] != expected.shape or len(values) < 2:
        sizes = ", ".join(map(str, expected.shape))
        raise ValueError(
            f"outputs must have shape (seeds, {sizes}), with two seeds at least, as the {name} of the limit at steps "
            f"{checks.shown(np.asarray(limit.steps).tolist())}, got {values.shape}"
        )
    seeds, records = len(values), len(expected)
    error = _error_of(limit, name, expected).reshape(records, -1)
    away = (values - expected).reshape(seeds, records, -1)
    squares, errors = _square_of_the_mean(away)
    # what the limit is uncertain by adds its square, and widens the interval
    mean = away.mean(axis=0)
    squares = squares - np.mean(error**2, axis=1)
    own = np.sqrt(4 * np.sum(mean**2 * error**2, axis=1) + 2 * np.sum(error**4, axis=1)) / error.shape[1]
    half = _student(seeds - 1) * np.hypot(errors, own)
    interval = np.sqrt(np.maximum(np.stack([squares - half, squares + half], axis=1), 0.0))
    spread = np.sqrt(away.var(axis=0, ddof=1).mean(axis=1))
    deviation = np.sqrt(away.var(axis=0, ddof=1) / seeds + error**2)
    certain = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))  # where neither scatters
    scores = np.divide(mean, deviation, out=certain, where=deviation > 0)
    distance, steps = np.sqrt(np.maximum(squares, 0.0)), np.asarray(limit.steps)
    return Comparison(steps, distance, interval, spread, scores.reshape(expected.shape), seeds)


def _on_host(outputs: Any) -> Any:
    """Return a tensor, wherever it is and whatever it remembers, as NumPy takes it."""
    for step in ("detach", "cpu", "numpy"):
        if hasattr(outputs, step):
            outputs = getattr(outputs, step)()
    return outputs


def _error_of(limit: Solution | LimitEstimate, name: str, like: Array) -> Array:
    """Return the standard error of the limit's outputs, 0 where nothing is said of it."""
    if f"{name}_half_width" in limit.variables:
        return np.asarray(limit.variables[f"{name}_half_width"].values / _NORMAL)
    item = limit.variables.get(f"{name}_standard_error")
    return np.zeros_like(like) if item is None else np.asarray(item.values)


def _square_of_the_mean(away: Array) -> tuple[Array, Array]:
    """Return the mean over samples of the squared mean over seeds, without bias, and its standard error, (records,).

    It is the mean over pairs of different seeds of their products.
    """
    seeds, _, samples = away.shape
    total, own = away.sum(axis=0), np.sum(away**2, axis=2)  # (records, samples), (seeds, records)
    pairs = np.sum(total**2, axis=1) - own.sum(axis=0)
    with_one = np.sum(away * total, axis=2) - own
    found = pairs / (seeds * (seeds - 1) * samples)
    if seeds < 3:
        return found, np.full_like(found, np.inf)
    left_out = (pairs - 2 * with_one) / ((seeds - 1) * (seeds - 2) * samples)
    return found, np.sqrt((seeds - 1) / seeds * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0))


def _student(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
