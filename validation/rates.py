"""How fast networks reach their limit: coupled errors in depth and width, and laws a L^-p + b n^-q fitted to them.

Networks of different depth follow the same Brownian paths and networks of different width are the first neurons of
the widest, because noise is addressed; so E|h^{n,L} − h^{N,L*}|² is the error of the synchronous coupling in
Propositions 2 and 3 of paper F. Errors are taken against a reference (N, L*) that is itself finite. Where the error
of the limit is c L^-p with p = 1 (independent increments) or p = 2 (a bias), the error against L* is
c (1/L − 1/L*)^p, and likewise in n, so this is what is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flds.training.options import Options
from flds.training.problem import TrainingProblem
from solvers import checks
from solvers.ensemble.random import replicate_seed
from solvers.plotting.style import logarithmic, sizes_axis
from validation.claims import mean_and_error
from validation.observed import Observation, observe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

QUANTITIES = ("h", "g", "f")
_SYMBOLS = {"depth": "L", "width": "n"}
# What makes the other term smaller, or this one larger.
_UNCOVERED = {"depth": "wider or shallower", "width": "deeper or narrower"}
_LABELS = {"h": "mean-square error of $h$", "g": "mean-square error of $g$", "f": "mean-square error of $f$"}
# Relative to a vector's norm: far below the errors measured, so that what is dropped does not matter.
_TOLERANCE = 1e-4
_RESAMPLES = 400
# Of two terms, one that is too small to be seen runs into a bound of its exponent, or stops a little short of it.
_BOUNDS = (-np.inf, 0.0, -np.inf, 0.0), (np.inf, 5.0, np.inf, 5.0)
_SHORT = 0.1
# Theory knows exponents from ½, where φ' jumps, to 2, a bias. A wider interval tells none of them from another.
_WIDEST = 1.5


@dataclass(frozen=True)
class PowerLaw:
    """error = a (1/L − 1/L*)^p + b (1/n − 1/N)^q, or one of the two terms; the other has NaN.

    Attributes
    ----------
    depth_factor, depth_exponent, width_factor, width_exponent : float
        a, p, b, q.
    depth_interval, width_interval : (float, float)
        95 % bootstrap intervals of p and q over replicates.
    depth_error, width_error : float
        Bootstrap standard errors of p and q.
    replicates : int
        What they were estimated from.
    dominant : str
        The term that most of the fall of the error comes from, "depth" or "width"; empty for one term alone.
    """

    depth_factor: float = np.nan
    depth_exponent: float = np.nan
    width_factor: float = np.nan
    width_exponent: float = np.nan
    depth_interval: tuple[float, float] = (np.nan, np.nan)
    width_interval: tuple[float, float] = (np.nan, np.nan)
    depth_error: float = np.nan
    width_error: float = np.nan
    replicates: int = 0
    dominant: str = ""

    def identified(self, side: str) -> tuple[float, float, float]:
        """Return p or q, as `side` is "depth" or "width", and the ends of its interval; NaN where it is not identified.

        It is if the interval lies inside 0.1 … 4.9 and is at most 1.5 wide. One that comes closer to 0 leaves open
        whether the term falls at all, and one that comes closer to 5, the bound of the fit, whether it is there at all
        beyond the coarsest networks. One wider than 1.5 can hold all exponents that theory knows, ½ to 2.
        """
        low, high = getattr(self, f"{side}_interval")
        known = low > _BOUNDS[0][1] + _SHORT and high < _BOUNDS[1][1] - _SHORT and high - low <= _WIDEST
        return (getattr(self, f"{side}_exponent"), low, high) if known else (np.nan, np.nan, np.nan)

    def __str__(self) -> str:
        return ", ".join(self._term(side) for side in ("depth", "width") if getattr(self, f"{side}_error") >= 0)

    def _term(self, side: str) -> str:
        """An exponent with its interval, or what would identify it."""
        symbol, (exponent, low, high) = _SYMBOLS[side], self.identified(side)
        if np.isfinite(exponent):
            return f"{symbol}^-{exponent:.2f} (95 % {low:.2f} to {high:.2f})"
        needed = f"more replicates or a longer range of {symbol} would show it"
        if self.dominant and self.dominant != side:
            needed = f"the {self.dominant} term dominates; {_UNCOVERED[side]} networks would show it"
        return f"{symbol}: not identified ({needed})"


@dataclass(frozen=True)
class CoupledErrors:
    """Mean-square errors of networks against wider and deeper ones on the same noise.

    In its methods `quantity` is "h", "g" or "f", and `step` is one of `steps`.

    Attributes
    ----------
    depths, widths : (L,), (n,) int
        The grid of networks.
    reference : (int, int)
        N and L*.
    steps : (k,) int
        Training steps.
    total : dict of (replicates, k, L, n) float64
        For "h" and "g" (largest over depth of the mean over neurons) and "f": error of the network (n, L)
        against (N, L*).
    in_depth : dict of (replicates, k, L, n + 1) float64
        Error of (n, L) against (n, L*); the last width is N.
    in_width : dict of (replicates, k, L + 1, n) float64
        Error of (n, L) against (N, L); the last depth is L*.
    """

    depths: NDArray[np.int64]
    widths: NDArray[np.int64]
    reference: tuple[int, int]
    steps: NDArray[np.int64]
    total: dict[str, Array]
    in_depth: dict[str, Array]
    in_width: dict[str, Array]

    def depth_errors(self, quantity: str, step: int, width: int | None = None) -> Array:
        """Return the error in depth of networks of one width, of the grid or N, (replicates, L).

        Without a width, that of infinite width: errors in depth are linear in 1/n, because particles see each
        other's fluctuations, so the widest of the grid and N are extrapolated.
        """
        errors = self.in_depth[quantity][:, self._at(step)]
        if width is not None:
            return np.asarray(errors[:, :, [*self.widths, self.reference[0]].index(width)])
        n, most = self.widths[-1], self.reference[0]
        return np.asarray((most * errors[:, :, -1] - n * errors[:, :, -2]) / (most - n))

    def depth_law(self, quantity: str, step: int, width: int | None = None) -> PowerLaw:
        """Fit a (1/L − 1/L*)^p to these errors, likewise with or without a width."""
        errors = self.depth_errors(quantity, step, width)
        return fit_power_laws(errors[:, :, None], 1 / self.depths - 1 / self.reference[1], None)

    def width_law(self, quantity: str, step: int, depth: int) -> PowerLaw:
        """Fit b (1/n − 1/N)^q to the error in width of networks of one depth, of the grid or L*."""
        errors = self.in_width[quantity][:, self._at(step), [*self.depths, self.reference[1]].index(depth)]
        return fit_power_laws(errors[:, None, :], None, 1 / self.widths - 1 / self.reference[0])

    def joint_law(self, quantity: str, step: int) -> PowerLaw:
        """Fit the sum of both to the total error."""
        errors = self.total[quantity][:, self._at(step)]
        return fit_power_laws(errors, 1 / self.depths - 1 / self.reference[1], 1 / self.widths - 1 / self.reference[0])

    def table(self, title: str) -> list[str]:
        """Return total errors, mean ± standard error over replicates, and joint fits, in Markdown with a title."""
        networks = [f"n = {n}, L = {depth}" for depth in self.depths for n in self.widths]
        lines = [f"| {title} | fit, L^-p + n^-q | " + " | ".join(networks) + " |"]
        lines += ["|---" * (2 + len(networks)) + "|"]
        for index, step in enumerate(self.steps):
            for quantity in QUANTITIES:
                errors = self.total[quantity][:, index].reshape(len(self.total[quantity]), -1)
                mean, error = mean_and_error(errors)
                cells = (f"{m:.2e} ± {e:.0e}" for m, e in zip(mean, error, strict=True))
                law = self.joint_law(quantity, int(step))
                lines.append(f"| {quantity}, k = {step} | {law} | " + " | ".join(cells) + " |")
        return lines

    def plot_depth(self, quantity: str, step: int, ax: Axes) -> None:
        """Draw the error in depth at every width, with the fits, into `ax`."""
        widths = [*self.widths, self.reference[0]]
        curves = np.moveaxis(self.in_depth[quantity][:, self._at(step)], 2, 0)
        laws = [self.depth_law(quantity, step, int(width)) for width in widths]
        self._plot(ax, quantity, "depth", curves, laws, [f"n = {width}" for width in widths])

    def plot_width(self, quantity: str, step: int, ax: Axes) -> None:
        """Draw the error in width at every depth, with the fits, into `ax`."""
        depths = [*self.depths, self.reference[1]]
        curves = np.moveaxis(self.in_width[quantity][:, self._at(step)], 1, 0)
        laws = [self.width_law(quantity, step, int(depth)) for depth in depths]
        self._plot(ax, quantity, "width", curves, laws, [f"L = {depth}" for depth in depths])

    def _plot(self, ax: Axes, quantity: str, side: str, curves: Array, laws: list[PowerLaw], labels: list[str]) -> None:
        import matplotlib as mpl

        levels, most = (self.depths, self.reference[1]) if side == "depth" else (self.widths, self.reference[0])
        symbol, shades = _SYMBOLS[side], mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(labels)))
        for errors, label, law, colour in zip(curves, labels, laws, shades, strict=True):
            mean, error = mean_and_error(errors)
            exponent, low, high = law.identified(side)
            label += f", p = {exponent:.2f} ({low:.2f} to {high:.2f})" if np.isfinite(exponent) else ", not identified"
            ax.errorbar(levels, mean, 2 * error, fmt="o", markersize=3, color=colour, label=label)
            fitted = getattr(law, f"{side}_factor") * (1 / levels - 1 / most) ** getattr(law, f"{side}_exponent")
            ax.plot(levels, fitted, color=colour, linewidth=1)
        ax.set(xlabel=f"{side} {symbol}", ylabel=_LABELS[quantity])
        sizes_axis(ax, "x", levels)
        logarithmic(ax, "y")
        low, high = ax.get_ylim()
        ax.set_ylim(low * (low / high) ** 0.8, high)  # room for the legend
        title = f"fit $(1/{symbol} - 1/{most})^p$, 95 % interval of $p$"
        small = {"fontsize": "x-small", "title_fontsize": "x-small", "labelspacing": 0.3}
        ax.legend(frameon=False, loc="lower left", title=title, alignment="left", **small)

    def _at(self, step: int) -> int:
        return list(self.steps).index(step)


def coupled_errors(
    problem: TrainingProblem,
    depths: Sequence[int],
    widths: Sequence[int],
    reference: tuple[int, int],
    *,
    steps: Sequence[int] = (0,),
    backward_weights: str = "tied",
    replicates: int = 8,
    seed: int = 0,
) -> CoupledErrors:
    """Train networks of every depth and width and the references on the same noise, and compare them.

    Parameters
    ----------
    problem : TrainingProblem
        What is trained, at least as many steps as the last of `steps`.
    depths, widths : sequence of int
        The grid; every depth divides the reference's, and all are multiples of the smallest.
    reference : (int, int)
        N and L*, beyond the grid.
    steps : sequence of int
        Training steps at which h, g and f are compared.
    backward_weights : str
        "tied" or "independent", of both.
    replicates : int
        Independent seeds, at least 3.
    seed : int
        The seeds of the runs follow from it.

    Returns
    -------
    CoupledErrors

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid or training diverges.
    MemoryError
        If the reference does not fit in memory.

    References
    ----------
    Paper F, Propositions 2 and 3.
    """
    checks.positive_integer("replicates", replicates, smallest=3)
    most_width, most_depth = reference
    if max(widths) >= most_width or max(depths) >= most_depth:
        raise ValueError(f"reference must be wider and deeper than all networks, got {reference}")
    if any(most_depth % depth or depth % min(depths) for depth in depths):
        raise ValueError(f"depths must divide that of the reference and be multiples of the smallest, got {depths}")
    if max(steps) > problem.steps:
        raise ValueError(f"steps must be at most the problem's {problem.steps}, got {max(steps)}")
    options: Options = {
        "backward_weights": backward_weights,
        "operator": "lazy",
        "tolerance": _TOLERANCE,
        "noise_depth": most_depth,
        "record_every": max(problem.steps, 1),
        "recorded_samples": [0],
    }
    levels = [*depths, most_depth], [*widths, most_width]
    shape = (replicates, len(steps), *map(len, levels))
    total, in_depth, in_width = ({q: np.zeros(shape) for q in QUANTITIES} for _ in range(3))
    for replicate in range(replicates):
        one = replicate_seed(seed, replicate)
        seen = [[observe(problem, n, L, steps, min(depths), one, options) for n in levels[1]] for L in levels[0]]
        for row, column, index in np.ndindex(*map(len, levels), len(steps)):
            at = replicate, index, row, column
            for errors, other in ((total, seen[-1][-1]), (in_depth, seen[-1][column]), (in_width, seen[row][-1])):
                for quantity, error in _distance(seen[row][column][steps[index]], other[steps[index]]).items():
                    errors[quantity][at] = error
    return CoupledErrors(
        np.array(depths),
        np.array(widths),
        reference,
        np.array(steps),
        {q: e[..., :-1, :-1] for q, e in total.items()},
        {q: e[..., :-1, :] for q, e in in_depth.items()},
        {q: e[..., :-1] for q, e in in_width.items()},
    )


def fit_power_laws(errors: Array, depth_gap: Array | None, width_gap: Array | None) -> PowerLaw:
    """Fit a x^p + b y^q to the mean over replicates, by least squares of logarithms, with bootstrap intervals.

    Parameters
    ----------
    errors : (replicates, L, n) float64
        Positive errors.
    depth_gap, width_gap : (L,), (n,) float64 or None
        x and y; None leaves the term out.

    Returns
    -------
    PowerLaw
        With NaN exponents and infinite errors if the mean of a resample is not positive.
    """
    from scipy.stats import t

    count, generator = len(errors), np.random.default_rng(0)
    means = errors.mean(0), *(errors[generator.integers(count, size=count)].mean(0) for _ in range(_RESAMPLES))
    if min(mean.min() for mean in means) <= 0:  # an extrapolated error that is lost in noise has no power law
        depth_error, width_error = (np.nan if gap is None else np.inf for gap in (depth_gap, width_gap))
        return PowerLaw(replicates=count, depth_error=depth_error, width_error=width_error)
    best = _fit(np.log(means[0]), depth_gap, width_gap, None)
    resampled = np.array([_fit(np.log(mean), depth_gap, width_gap, best) for mean in means[1:]])
    # resampling a few replicates misses a share 1/count of the variance, and that this is itself uncertain
    wider = np.sqrt(count / (count - 1))
    student = float(t.ppf(0.975, count - 1)) / 1.96
    low, high = best + (np.percentile(resampled, [2.5, 97.5], axis=0) - best) * wider * student
    dominant = ""
    if depth_gap is not None and width_gap is not None:
        low, high = _bounded(best, low, high, depth_gap, width_gap)
        dominant = _dominant(np.log(means[0]), depth_gap, width_gap)
    spread = resampled.std(axis=0, ddof=1) * wider
    return PowerLaw(
        float(np.exp(best[0])),
        float(best[1]),
        float(np.exp(best[2])),
        float(best[3]),
        (float(low[1]), float(high[1])),
        (float(low[3]), float(high[3])),
        float(spread[1]),
        float(spread[3]),
        count,
        dominant,
    )


def _bounded(best: Array, low: Array, high: Array, depth_gap: Array, width_gap: Array) -> tuple[Array, Array]:
    """Keep intervals within the bounds of the fit, and open those of exponents that resampling cannot judge.

    That is so where the term is below 1/1000 of the other all over the grid: its exponent then stays where it starts.
    And where the other term does not fall but reaches 1/10 of this one: how steeply an error falls to a floor depends
    on how high the floor is. A lower floor moves an exponent by less than 1/10 over a range of 4.
    """
    low, high = np.clip(low, *_BOUNDS), np.clip(high, *_BOUNDS)
    depth, width = best[0] + best[1] * np.log(depth_gap), best[2] + best[3] * np.log(width_gap)
    for place, one, other, across in ((1, depth, width, best[3]), (3, width, depth, best[1])):
        if one.max() < other.min() + np.log(1e-3) or (across < _SHORT and other.max() > one.min() + np.log(0.1)):
            low[place], high[place] = _BOUNDS[0][place], _BOUNDS[1][place]
    return low, high


def _dominant(logs: Array, depth_gap: Array, width_gap: Array) -> str:
    """Return "depth" or "width", whose slope is larger: a term's exponent times its share of the error."""
    in_depth = np.polyfit(np.log(depth_gap), logs.mean(axis=1), 1)[0]
    in_width = np.polyfit(np.log(width_gap), logs.mean(axis=0), 1)[0]
    return "depth" if in_depth > in_width else "width"


def _fit(logs: Array, depth_gap: Array | None, width_gap: Array | None, start: Array | None) -> Array:
    """Return log a, p, log b, q."""
    if width_gap is None or depth_gap is None:
        gap = width_gap if depth_gap is None else depth_gap
        slope, level = np.polyfit(np.log(gap), logs.ravel(), 1)  # type: ignore[arg-type]
        line = np.array([level, slope])
        nothing = np.full(2, np.nan)
        return np.concatenate([nothing, line] if depth_gap is None else [line, nothing])
    from scipy.optimize import least_squares
    from scipy.special import expit

    x, y = np.log(depth_gap)[:, None], np.log(width_gap)[None, :]

    def residual(parameters: Array) -> Array:
        a, p, b, q = parameters
        return np.asarray(np.logaddexp(a + p * x, b + q * y) - logs).ravel()

    def slopes(parameters: Array) -> Array:
        a, p, b, q = parameters
        share = expit(a + p * x - b - q * y)  # of the first term
        return np.stack([part.ravel() for part in (share, share * x, 1 - share, (1 - share) * y)], axis=1)

    if start is None:  # the edges of the grid are dominated by one term each
        start = np.array([logs[0, -1] - x[0, 0], 1.0, logs[-1, 0] - y[0, 0], 1.0])
    return np.asarray(least_squares(residual, start, slopes, bounds=_BOUNDS).x)


def _distance(a: Observation, b: Observation) -> dict[str, float]:
    """Mean-square differences: over neurons and batch, largest over depth; and of the outputs."""
    count = min(a.h.shape[-1], b.h.shape[-1])
    largest = {
        name: float(((x[..., :count] - y[..., :count]) ** 2).mean(axis=(1, 2)).max())
        for name, x, y in (("h", a.h, b.h), ("g", a.g, b.g))
    }
    return largest | {"f": float(((a.f - b.f) ** 2).mean())}
