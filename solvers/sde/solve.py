"""Solve a McKean–Vlasov equation with N interacting particles."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.checks import reason
from solvers.ensemble.brownian import BrownianMotion
from solvers.ensemble.particles import partition
from solvers.ensemble.random import NOISE_BLOCK, Stream, require_drawable
from solvers.ensemble.threads import Blocks, thread_count
from solvers.memory import INTERPRETER_BYTES, require_memory
from solvers.results.solution import Field, Solution, library_versions
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.field import ExternalField, as_field
from solvers.sde.integrate import Ensemble, compile_kernels, integrate
from solvers.sde.schemes import SCHEMES
from solvers.sde.statistics import Save, Saved, chosen
from solvers.sde.trial import Trial

Array = NDArray[np.float64]
Sampler = Callable[[np.random.Generator, int], Any]

# Keeps the sampler's generators apart from those that a user makes of the same seed.
_SAMPLER = 0x7830
# Records that are kept by default, evenly over the grid, beside the first.
_RECORDS = 100
# A particle so many times as far from 0 as the farthest at t0 (or as 1) is lost, though its position is finite.
_FAR = 1e100
# Arrays as large as the particles that a solve holds: where they are, where they go, and what a statistic or the copy
# that is returned takes.
_HELD = 3
# Bytes for each time of the grid, for each common motion there, and for each record besides its values.
_GRID, _COMMON, _RECORD = 16, 24, 240


def solve(
    equation: McKeanVlasov,
    x0: Any,
    t0: float,
    t1: float,
    steps: int,
    *,
    scheme: str = "euler_maruyama",
    seed: int = 0,
    save_at: Any = None,
    save: Save | Iterable[Save] | Mapping[str, Save] = ("mean", "variance"),
    particles: int | None = None,
    field: Any = None,
    noise_steps: int | None = None,
    threads: int | None = None,
) -> Solution:
    """Solve dX = b(t, X, m) dt + s(t, X, m) dW with m_t = E[ψ(t, X_t)] by interacting particles.

    Parameters
    ----------
    equation : McKeanVlasov
        The coefficients.
    x0 : (N,) or (N, D) array, or callable
        The particles at t0: numbers, or vectors; float64 whatever is given. Or a sampler, a function of
        (numpy.random.Generator, n) that returns n of them; it is called for blocks of 2,048, so that the first
        particles of a larger run are those of a smaller one.
    t0, t1 : float
        The solve goes from t0 to t1. With t1 < t0 time runs backward: dt is negative, and the Brownian
        increments are those of the forward path, added with the sign they have there. A run that starts where another
        one ended goes on with its paths if dt is the same; `resume` does so in any case.
    steps : int
        Number of equal steps.
    scheme : str
        "euler_maruyama": strong order ½, or 1 for additive noise; weak order 1. "milstein": strong order 1
        for diagonal noise where s_i depends on x_i and not on the other components. "heun": for equations in
        the sense of Stratonovich.
    seed : int
        Seed of the Brownian motions and of the sampler.
    save_at : array of float, optional
        Times of the grid at which to save, and the order of the records; by default all, or about a hundred.
    save : str, Statistic, callable, or several in a list or a mapping from names
        What to save: "mean", "variance", "covariance", "quantiles", "particles", `quantiles` or `particles`
        with arguments, or functions (t, x) → array of all particles x, (N,) or (N, D), which are read-only and
        valid during the call. They are tried once at t0.
    particles : int, optional
        N, where x0 is a sampler.
    field : float, (F,) array or ExternalField, optional
        The external field that the coefficients take as their last argument.
    noise_steps : int, optional
        A multiple of `steps`: the grid on which Brownian paths are drawn. Runs that agree in its step and in the seed
        follow the same paths. Runs with other grids, such as K and 2K steps without it, are independent.
    threads : int, optional
        Up to 4,096; by default all available CPUs. The result does not depend on it.

    Returns
    -------
    Solution
        `times` (records,), what was saved, (records, …) each, `moments` (records, M), `final_particles` as
        x0, and `final_time`. `status` is "completed", "diverged" (a particle not finite or beyond 1e100 times the
        start), "interrupted", or "failed" (a function of the user's raised after the first step).

    Raises
    ------
    TypeError, ValueError
        If an argument is not valid, or a coefficient fails, returns another shape than it should, or would make the run
        wrong without a word: it reads beyond an array, differs from call to call, or depends on x though it is called
        additive. Coefficients are tried on up to 64 of the particles.
    RuntimeError
        If a coefficient raises in the first step.
    MemoryError
        If the particles do not fit in memory.

    Warns
    -----
    RuntimeWarning
        If the solve ended early; the solution keeps all that was saved, and `final_time` says when.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical Solution of Stochastic Differential Equations", 1992, for the schemes.
    A.-S. Sznitman, "Topics in propagation of chaos", 1991, for the limit N → ∞.

    Examples
    --------
    A mean-field Ornstein–Uhlenbeck process, dX = −(X − ½ E X) dt + dW:

    >>> from numba import njit
    >>> import numpy as np, solvers
    >>> equation = solvers.McKeanVlasov(
    ...     drift=njit(lambda t, x, m: -(x - 0.5 * m)),
    ...     diffusion=njit(lambda t, x, m: 1.0),
    ...     moments=njit(lambda t, x: x),
    ...     noise="additive",
    ... )
    >>> run = solvers.solve(equation, np.ones(10_000), 0.0, 1.0, 100)
    >>> bool(abs(run.mean[-1] - np.exp(-0.5)) < 0.04)
    True
    """
    grid = {"t0": t0, "t1": t1, "steps": steps, "seed": seed, "noise_steps": noise_steps}
    run = MeanFieldRun.checked(equation, x0, grid, scheme, particles, field, threads)
    return run.solution(save, save_at)


def _explanation(status: str, t: float, failure: str) -> str:
    if status == "diverged":
        return (
            f"diverged: at t = {t:g} a particle or a mean was not finite, or {_FAR:g} times as far as at the start; "
            "take more steps or look at the drift"
        )
    return f"{status} at t = {t:g}" + (f": {failure}" if failure else "")


def initial_particles(x0: Any, particles: int | None, seed: int) -> Array:
    """Return the particles at t0, (N,) or (N, D), from an array or a sampler.

    Raises
    ------
    TypeError, ValueError
        If they are not finite numbers of this shape, or `particles` is missing or does not fit.
    MemoryError
        If so many particles do not fit in memory.
    """
    if callable(x0):
        if particles is None:
            raise TypeError("x0 is a sampler, so the number of particles is needed: pass particles=")
        count = checks.positive_integer("particles", particles)
        first = _sample(x0, seed, 0)
        require_memory(INTERPRETER_BYTES + _HELD * count * first[0].nbytes, "use fewer particles")
        x = np.empty((count, *first.shape[1:]))
        for block, places in enumerate(partition(count, NOISE_BLOCK)):
            part = first if block == 0 else _sample(x0, seed, block)
            if part.shape != first.shape:
                raise ValueError("x0 must return the same shape whenever it is called")
            x[places] = part[: places.stop - places.start]
    else:
        x = np.asarray(checks.finite("x0", x0), np.float64)
        if x.ndim not in (1, 2):
            raise ValueError(f"x0 must have shape (N,) for numbers or (N, D) for vectors, got {x.shape}")
        if particles is not None and checks.positive_integer("particles", particles) != len(x):
            raise ValueError(f"x0 holds {len(x)} particles, but particles={particles}; leave it out")
    return x


def _sample(sampler: Sampler, seed: int, block: int) -> Array:
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SAMPLER, block)))
    part = checks.called("x0 failed as a function of (generator, n)", sampler, generator, NOISE_BLOCK)
    x = np.asarray(checks.finite("a value of x0", part), np.float64)
    if x.ndim not in (1, 2) or len(x) != NOISE_BLOCK:
        raise ValueError(f"x0(generator, n) must return shape (n,) or (n, D), got {x.shape} for n = {NOISE_BLOCK}")
    return x


def _grid_indices(save_at: Any, brownian: BrownianMotion, first: int) -> list[int]:
    """Return the steps from `first` on at which to save, in the order of the records."""
    steps, t0, t1 = brownian.steps, brownian.t0, brownian.t1
    if save_at is None:
        return sorted({first + round(i * (steps - first) / _RECORDS) for i in range(_RECORDS + 1)})
    times = np.atleast_1d(np.asarray(checks.finite("save_at", save_at), np.float64))
    if times.ndim > 1:
        raise ValueError(f"save_at must be a list of times, got shape {times.shape}")
    places = (times - t0) / (t1 - t0) * steps
    nearest = np.rint(places)
    # a grid time computed in another order of operations differs by rounding, not by more
    fuzz = 1e-6
    outside = (places < first - fuzz) | (places > steps + fuzz)
    if outside.any():
        start = float(brownian.times[first])
        raise ValueError(f"save_at must lie between t0 = {start:g} and t1 = {t1:g}, got {times[outside][0]:g}")
    off = np.abs(places - nearest) > fuzz
    if off.any():
        near = t0 + (t1 - t0) * nearest[off][0] / steps
        raise ValueError(
            f"save_at must hold times of the grid of {steps} steps, got {times[off][0]:g}; the nearest is {near:g}"
        )
    return [int(step) for step in nearest]


@dataclass
class MeanFieldRun:
    """Checked arguments of a solve."""

    equation: McKeanVlasov
    form: Form
    x: Array  # (D, N)
    brownian: BrownianMotion
    common: BrownianMotion | None
    field: ExternalField | None
    scheme: str
    blocks: Blocks
    first: int  # the step that it starts with
    size: float  # of the particles at t0, at least 1
    held: int  # arrays as large as the particles at the same time

    @classmethod
    def checked(
        cls, equation: McKeanVlasov, x0: Any, grid: dict[str, Any], scheme: str, particles: int | None, field: Any,
        threads: int | None, first: int = 0, size: float = 1.0,
    ) -> MeanFieldRun:  # fmt: skip
        """Raise TypeError, ValueError or MemoryError unless the arguments make a solve; `grid` is that of the noise."""
        if not isinstance(equation, McKeanVlasov):
            raise TypeError(f"equation must be a solvers.McKeanVlasov, got {type(equation).__name__}")
        checks.choice("scheme", scheme, SCHEMES)
        if scheme == "milstein" and (equation.noise not in ("additive", "diagonal") or equation.common):
            raise ValueError('scheme="milstein" needs noise="additive" or "diagonal" and no common noise')
        times = BrownianMotion(**grid).times
        threads = thread_count(threads)
        start = initial_particles(x0, particles, grid["seed"])
        held = _HELD + (scheme == "heun") + (not callable(x0))
        require_memory(INTERPRETER_BYTES + held * start.nbytes, "use fewer particles")
        scalar = start.ndim == 1
        x = np.array(np.atleast_2d(start.T), order="C")  # a copy: the solve writes into it
        outside = as_field(field)
        known: tuple[Any, ...] = ()
        if outside is not None:
            outside.check(times[first], times[-1], len(start))
            known = (outside.at(times[first]), outside.kind, outside.per_particle)
        trial = Trial(equation, float(times[first]), x, scalar, *known)
        form = trial.form()
        common = BrownianMotion(**grid, motions=form.common[-1], stream=Stream.COMMON) if form.common else None
        brownian = BrownianMotion(**grid, motions=form.motions)
        require_drawable(form.motions * brownian.steps, len(start), brownian.refinement, threads, "noise_steps")
        size = max(size, float(np.abs(x).max()))
        run = cls(equation, form, x, brownian, common, outside, scheme, Blocks(len(start), threads), first, size, held)
        trial.check(form, times[first:], lambda step: run.outside(first + step))
        return run

    def view(self, x: NDArray[np.floating]) -> Any:
        """Return the particles as the user gave them, (N,) or (N, D), not to be written to."""
        seen = x[0] if self.form.scalar else x.T
        seen.flags.writeable = False
        return seen

    def outside(self, step: int) -> Array:
        """Return the external field at a time of the grid, (N or 1, F)."""
        return np.zeros((1, 0)) if self.field is None else self.field.at(self.brownian.times[step])

    def solution(self, save: Save | Iterable[Save] | Mapping[str, Save], save_at: Any) -> Solution:
        """Solve, warn if it ended early, and return what is to be saved."""
        wanted = _grid_indices(save_at, self.brownian, self.first)
        saved = Saved(chosen(save), len(set(wanted)))
        with self.blocks.running():
            # what a function of the user's cannot do should come out before the work
            record = saved.try_out(float(self.brownian.times[self.first]), self.view(self.x))
            self.require_memory(len(wanted), record)
            compile_seconds = self.compile()
            start = time.perf_counter()
            status, final, failure = self.integrate(saved, set(wanted))
        timings = {"compile": compile_seconds, "solve": time.perf_counter() - start}
        notes = [] if status == "completed" else [_explanation(status, final.t, failure)]
        for note in notes:
            warnings.warn(note, RuntimeWarning, stacklevel=3)
        saved.arrange(wanted)
        fields = saved.fields(None if self.form.scalar else self.form.dimension, self.form.moments)
        axes = ("final_particle",) if self.form.scalar else ("final_particle", "component")
        fields["final_particles"] = Field(axes, self.view(final.x).copy(), "particles where the solve ended")
        fields["final_time"] = Field((), np.array(final.t), "time where the solve ended")
        return Solution(fields, status, timings, self.brownian.seed, self.settings(final), notes, library_versions())

    def require_memory(self, records: int, record: float) -> None:
        """Raise MemoryError if the particles, the grid and so many records of this size do not fit."""
        motions = 0 if self.common is None else self.common.motions
        grid = (_GRID + _COMMON * motions) * len(self.brownian.times)
        needed = INTERPRETER_BYTES + self.held * self.x.nbytes + grid + records * (_RECORD + record)
        require_memory(needed, "use fewer particles or steps, or save less at fewer times")

    def compile(self) -> float:
        """Compile the equation; return the seconds it took."""
        try:
            return compile_kernels(
                self.equation, self.form, self.x, self.outside(self.first), self.brownian, self.scheme
            )
        except Exception as error:  # whatever compilation or a user's function raises
            raise TypeError(f"the equation cannot be solved: {reason(error)}") from None

    def integrate(self, saved: Saved, due: set[int]) -> tuple[str, Ensemble, str]:
        """Go to t1, saving at the steps that are due; return the status, where it ended, and what failed."""
        now = None
        try:
            for now in integrate(
                self.equation, self.form, self.x, self.brownian, common=self.common, field=self.outside,
                scheme=self.scheme, blocks=self.blocks, first=self.first, limit=_FAR * self.size,
            ):  # fmt: skip
                if not now.finite:
                    return "diverged", now, ""
                if now.step in due:
                    saved.add(now.step, now.t, self.view(now.x), now.m)
        except KeyboardInterrupt:
            if now is None:
                raise
            return "interrupted", now, ""
        except Exception as error:  # whatever a coefficient, a field or a statistic of the user's raises
            if now is None or now.step == self.first:  # nothing is lost
                raise RuntimeError(f"the first step failed: {reason(error)}") from None
            return "failed", now, reason(error)
        assert now is not None
        return "completed", now, ""

    def settings(self, final: Ensemble) -> dict[str, Any]:
        """Return what was solved and how, for the file of the solution and for `resume`."""
        named = {name: getattr(getattr(self.equation, name), "__qualname__", "?") for name in self.equation.given}
        grid = self.brownian
        return {
            "solver": "solve", "noise": self.equation.noise, **named, "particles": self.x.shape[1],
            "dimension": self.form.dimension, "t0": grid.t0, "t1": grid.t1, "steps": grid.steps,
            "noise_steps": grid.noise_steps, "scheme": self.scheme, "first_step": self.first, "last_step": final.step,
            "initial_size": self.size,
        }  # fmt: skip
