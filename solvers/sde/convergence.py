"""Orders of convergence, measured: in the step, strong and weak, and in the number of particles.

Runs that differ in the step follow the same Brownian path, and runs that differ in the number of particles
share the first of them. Where no exact path is known, each level is compared with the next finer one, whose
difference falls with the same power; so there is no reference solution whose own error would bend the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.ensemble.random import replicate_seed
from solvers.plotting.style import PALETTE, legend, logarithmic, new_axes, styled
from solvers.sde.equation import McKeanVlasov
from solvers.sde.events import CARRIED, EVENTS, Events, Periodic
from solvers.sde.field import as_field
from solvers.sde.run import MeanFieldRun
from solvers.sde.schemes import get_scheme
from solvers.sde.solve import solve
from solvers.sde.start import initial_particles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
ExactPath = Callable[[Array, Array], Array]

# An error within so many standard errors of zero has no logarithm worth fitting.
_RESOLVED = 3.0


@dataclass(frozen=True)
class ConvergenceStudy:
    """Errors at several levels and the power law fitted to them.

    Attributes
    ----------
    kind : str
        "strong", "weak" or "particles".
    levels : (L,) float64
        Step lengths, or numbers of particles.
    errors, standard_errors : (L,) float64
        Root mean square of |X − X'| ("strong"), |E f(X) − E f(X')| ("weak") or mean square of |X − X'|
        ("particles"), over particles and replicates, and its standard error over replicates.
    resolved : (L,) bool
        Levels whose error exceeds three standard errors.
    order : float
        p of errors ∝ step^p, or ∝ particles^-p; NaN unless all levels are resolved, which more replicates or
        particles would do.
    interval : (float, float)
        95 % confidence interval of `order`, infinite if there is no fit. It covers chance, not the next
        order of the error, which shifts the fit by about the length of the coarsest step; finer steps show how far.
    factor : float
        The fitted errors are factor · step^p, or factor · particles^-p.
    claimed : float or None
        The order that scheme, boundary, jumps and resets claim together for smooth coefficients, or None for no claim.
    """

    kind: str
    levels: Array
    errors: Array
    standard_errors: Array
    resolved: NDArray[np.bool_]
    order: float
    interval: tuple[float, float]
    factor: float
    claimed: float | None = None

    def __str__(self) -> str:
        low, high = self.interval
        claim = "" if self.claimed is None else f", claimed {self.claimed:g}"
        return f"{self.kind} order {self.order:.3f} (95 % interval {low:.3f} to {high:.3f}{claim})"

    @styled
    def plot(self, ax: Axes | None = None, label: str = "measured", color: str = PALETTE[0]) -> Axes:
        """Draw errors with 95 % bars and the fitted line on logarithmic axes; return the axes.

        Without `ax` there is a new figure. `label` and `color` are those of the bars.
        """
        ax = new_axes(ax)
        if np.isfinite(self.order):
            power = -self.order if self.kind == "particles" else self.order
            label += ", order {:.2f} ({:.2f} to {:.2f})".format(self.order, *self.interval)
            ax.plot(self.levels, self.factor * self.levels**power, color=color, lw=1)
        ax.errorbar(
            self.levels, self.errors, 1.96 * self.standard_errors, fmt="o", ms=4, color=color, capsize=3, label=label
        )
        across = "particles N" if self.kind == "particles" else "step length"
        up = {"strong": "root mean square error", "weak": "|error of the mean|", "particles": "mean square error"}
        ax.set(xlabel=across, ylabel=up[self.kind])
        logarithmic(ax, "x", "y")
        legend(ax, loc="upper right" if self.kind == "particles" else "upper left")
        return ax


def strong_order(
    equation: McKeanVlasov,
    x0: Any,
    t0: float,
    t1: float,
    steps: Sequence[int] = (8, 16, 32, 64, 128),
    *,
    exact: ExactPath | None = None,
    replicates: int = 16,
    seed: int = 0,
    **options: Any,
) -> ConvergenceStudy:
    """Measure the order p of E|X^h − X|² ∝ h^2p at t1, on shared Brownian paths.

    Parameters
    ----------
    equation, x0, t0, t1
        As for `solve`.
    steps : sequence of int
        Numbers of steps, each twice the one before; at least three.
    exact : callable, optional
        (x0, w) → the exact particles at t1, where w, (grid + 1, N, K), is the Brownian path of the particles
        on the finest grid in increasing time. By default each level is compared with the next finer one.
    replicates : int
        Independent runs, at least 3, for standard errors and the confidence interval.
    seed : int
        The seeds of the runs follow from it.
    **options
        `scheme`, `particles`, `field`, `args`, `boundary`, `jumps`, `reset`, `threads` of `solve`.

    Returns
    -------
    ConvergenceStudy
        Errors by level, (levels,) each, and the order fitted to them.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid, or a run diverges.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical Solution of Stochastic Differential Equations", 1992, chapters 9 and 10.
    """
    found = _refine(equation, x0, t0, t1, steps, exact, replicates, seed, options, _distance(options))
    claim = _claim(0, equation, options)
    return _study("strong", abs(t1 - t0) / np.array(steps, float), found, root=True, claimed=claim)


def weak_order(
    equation: McKeanVlasov,
    x0: Any,
    t0: float,
    t1: float,
    steps: Sequence[int] = (4, 8, 16, 32),
    *,
    function: Callable[[Array], Array] | str = lambda x: x,
    exact: ExactPath | None = None,
    replicates: int = 16,
    seed: int = 0,
    **options: Any,
) -> ConvergenceStudy:
    """Measure the order p of |E f(X^h) − E f(X)| ∝ h^p at t1; shared paths reduce the variance.

    Parameters
    ----------
    function : callable or str
        f, of the particles (N,) or (N, D), returning one number for each particle; by default the particles
        themselves, which must then be numbers. Or "hitting_times", t1 for particles that were not absorbed, or
        "resets", which a solution has for each particle.
    equation, x0, t0, t1, steps, exact, replicates, seed, **options
        As for `strong_order`.

    Returns
    -------
    ConvergenceStudy
        Errors by level, (levels,) each, and the order fitted to them.

    Raises
    ------
    ValueError, TypeError
        As for `strong_order`, or if f does not return one number for each particle.

    References
    ----------
    D. Talay, L. Tubaro, "Expansion of the global error for numerical schemes solving stochastic differential
    equations", Stoch. Anal. Appl. 8 (1990).
    """

    def difference(x: Array, y: Array) -> float:
        if isinstance(function, str):
            return float(np.mean(x - y))
        values = [np.asarray(_value("function", function, z), np.float64) for z in (x, y)]
        if values[0].shape != (len(x),):
            raise ValueError(f"function must return one number for each particle, got shape {values[0].shape}")
        return float(np.mean(values[0] - values[1]))

    carried = function if isinstance(function, str) else None
    if carried is not None:
        checks.choice("function", carried, tuple(CARRIED))
        if exact is not None:
            raise ValueError(f'exact gives particles, but function is "{carried}"; leave exact out')
    found = _refine(equation, x0, t0, t1, steps, exact, replicates, seed, options, difference, carried)
    return _study("weak", abs(t1 - t0) / np.array(steps, float), found, claimed=_claim(1, equation, options))


def particle_order(
    equation: McKeanVlasov,
    x0: Any,
    t0: float,
    t1: float,
    steps: int,
    particles: Sequence[int] = (32, 64, 128, 256, 512),
    *,
    replicates: int = 64,
    seed: int = 0,
    **options: Any,
) -> ConvergenceStudy:
    """Measure the order p of E|X^N − X|² ∝ N^-p at t1: propagation of chaos under the synchronous coupling.

    Each level is compared with the run of twice as many particles, whose first half has the same Brownian
    paths and initial positions.

    Parameters
    ----------
    equation, t0, t1, steps
        As for `solve`.
    x0 : sampler, or (2 N, …) array
        As for `solve`; an array holds twice as many particles as the largest number here.
    particles : sequence of int
        Numbers of particles N, each twice the one before; at least three.
    replicates : int
        Independent runs, at least 3.
    seed : int
        The seeds of the runs follow from it.
    **options
        `scheme`, `field`, `args`, `boundary`, `jumps`, `reset`, `noise_steps`, `threads` of `solve`; a field of each
        particle's own has twice as many particles as the largest number here.

    Returns
    -------
    ConvergenceStudy
        Errors by level, (levels,) each, and the order fitted to them.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid, or a run diverges.

    References
    ----------
    A.-S. Sznitman, "Topics in propagation of chaos", 1991, theorem 1.4.
    """
    if isinstance(equation, McKeanVlasov) and equation.pairs is not None and equation.pairs.random_batch is not None:
        raise ValueError("particle_order needs the same partners in all runs: leave random_batch out")
    counts, field = _doubling("particles", particles), as_field(options.get("field"))
    checks.positive_integer("replicates", replicates, smallest=3)
    found = np.empty((replicates, len(counts)))
    for replicate in range(replicates):
        one = replicate_seed(seed, replicate)
        start = initial_particles(x0, 2 * counts[-1] if callable(x0) else None, one)
        if len(start) < 2 * counts[-1]:
            raise ValueError(f"x0 must hold {2 * counts[-1]} particles, twice the largest number, got {len(start)}")
        ends = [
            _end(
                equation, start[:count], t0, t1, steps, {**options, "seed": one, "field": field and field.first(count)}
            )
            for count in (*counts, 2 * counts[-1])
        ]
        for level, count in enumerate(counts):
            found[replicate, level] = _distance(options)(ends[level], ends[level + 1][:count])
    return _study("particles", np.array(counts, float), found, claimed=1.0)


def _distance(options: dict[str, Any]) -> Callable[[Array, Array], float]:
    """Return the mean of |x − y|² over particles, the shortest way round where there is a period."""
    boundary = options.get("boundary")

    def mean_square(x: Array, y: Array) -> float:
        apart = (x - y).reshape(len(x), -1)
        if isinstance(boundary, Periodic):
            period = np.subtract(*boundary.numbers(apart.shape[1])[::-1])
            apart = apart - np.where(np.isfinite(period), period * np.rint(apart / period), 0.0)
        return float(np.mean(np.sum(apart**2, axis=1)))

    return mean_square


def _refine(
    equation: McKeanVlasov, x0: Any, t0: float, t1: float, steps: Sequence[int], exact: ExactPath | None,
    replicates: int, seed: int, options: dict[str, Any], compare: Callable[[Array, Array], float],
    carried: str | None = None,
) -> Array:  # fmt: skip
    """Return what `compare` says of each level and its reference, (replicates, levels)."""
    levels = _doubling("steps", steps)
    checks.positive_integer("replicates", replicates, smallest=3)
    finest = levels[-1] if exact else 2 * levels[-1]
    found = np.empty((replicates, len(levels)))
    for replicate in range(replicates):
        one = replicate_seed(seed, replicate)
        same = {**options, "seed": one, "noise_steps": finest}
        ends = [_end(equation, x0, t0, t1, level, same, carried) for level in (*levels, *([] if exact else [finest]))]
        references = ends[1:]
        if exact:
            references = [_exact(exact, equation, x0, t0, t1, finest, one, options)] * len(levels)
        for level in range(len(levels)):
            found[replicate, level] = compare(ends[level], references[level])
    return found


def _exact(
    exact: ExactPath, equation: McKeanVlasov, x0: Any, t0: float, t1: float, steps: int, seed: int,
    options: dict[str, Any],
) -> Array:  # fmt: skip
    grid = {"t0": t0, "t1": t1, "steps": steps, "seed": seed, "noise_steps": None}
    rest = options.get("scheme", "euler_maruyama"), options.get("particles"), options.get("field"), None
    run = MeanFieldRun.checked(equation, x0, grid, *rest, args=options.get("args"))
    start = run.view(run.x)
    dw = run.course.brownian.increments(slice(0, len(start)))
    path = np.concatenate([np.zeros_like(dw[:1]), np.cumsum(dw, axis=0)])
    end = np.asarray(_value("exact", exact, start, path), np.float64)
    if end.shape != start.shape:
        raise ValueError(f"exact must return particles of shape {start.shape}, got {end.shape}")
    return end


def _value(name: str, function: Callable[..., Any], *arguments: Any) -> NDArray[np.generic]:
    return checks.numeric(f"a value of {name}", checks.called(f"{name} failed", function, *arguments), truth=True)


def _end(
    equation: McKeanVlasov, x0: Any, t0: float, t1: float, steps: int, options: dict[str, Any],
    carried: str | None = None,
) -> Array:  # fmt: skip
    """Return the particles at t1, or a number that each of them carries, t1 where there is none."""
    if options.get("communicator") is not None:
        raise ValueError("orders are measured by one process; leave communicator out")
    if options.get("stop") is not None:
        raise ValueError("orders are measured where all runs end; leave stop out")
    run = solve(equation, x0, t0, t1, steps, save_at=[t1], save=[], **options)
    if run.status != "completed":
        raise ValueError(f"a run of {steps} steps did not complete: {'; '.join(run.notes)}")
    if carried is None:
        return run.final_particles
    if carried not in run.variables:
        raise ValueError(f'function is "{carried}", which this solve does not have; pass boundary= or reset=')
    return np.where(np.isnan(run.variables[carried].values), t1, run.variables[carried].values)


def _doubling(name: str, numbers: Sequence[int]) -> list[int]:
    if not np.iterable(numbers):
        raise TypeError(
            f"{name} must be at least three numbers, each twice the one before, got {checks.shown(numbers)}"
        )
    counts = [checks.positive_integer(f"an entry of {name}", number) for number in numbers]
    if len(counts) < 3 or any(b != 2 * a for a, b in pairwise(counts)):
        raise ValueError(f"{name} must be at least three numbers, each twice the one before, got {list(numbers)}")
    return counts


def _claim(which: int, equation: McKeanVlasov, options: dict[str, Any]) -> float | None:
    """Return the strong (0) or weak (1) order that is claimed."""
    scheme = get_scheme(options.get("scheme", "euler_maruyama"))
    claims = [(scheme.strong_order, scheme.weak_order)[which](equation)]
    claims += [event.orders()[which] for event in Events.checked(*(options.get(name) for name in EVENTS))]
    claims += [] if equation.pairs is None else [equation.pairs.orders()[which]]
    known = [claim for claim in claims if claim is not None]
    return min(known) if len(known) == len(claims) else None


def _study(
    kind: str, levels: Array, found: Array, root: bool = False, claimed: float | None = None
) -> ConvergenceStudy:
    """Fit a power of the levels to the means over replicates by least squares of logarithms.

    The standard error of the exponent follows from the covariance of the means by the delta method; the
    interval uses Student's t. A fit of some levels only, chosen by what was measured, would be biased.
    """
    from scipy.stats import t as student

    count, scale, sign = len(found), 0.5 if root else 1.0, -1.0 if kind == "particles" else 1.0
    mean = found.mean(axis=0)
    error = found.std(axis=0, ddof=1) / np.sqrt(count)
    resolved = np.abs(mean) > _RESOLVED * error
    order, interval, factor = np.nan, (-np.inf, np.inf), np.nan
    if resolved.all():
        x, y = np.log(levels), np.log(np.abs(mean))
        influence = sign * scale * (x - x.mean()) / np.sum((x - x.mean()) ** 2)
        order = float(influence @ y)
        spread = np.std((found / mean) @ influence, ddof=1) / np.sqrt(count)
        half = float(student.ppf(0.975, count - 1) * spread)
        interval = (order - half, order + half)
        factor = float(np.exp(scale * y.mean() - sign * order * x.mean()))
    values, errors = np.abs(mean), error
    if root:
        values = np.sqrt(values)
        errors = np.divide(error, 2 * values, out=np.zeros_like(error), where=values > 0)
    return ConvergenceStudy(kind, levels, values, errors, resolved, order, interval, factor, claimed)
