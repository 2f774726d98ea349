"""A solve of a McKean–Vlasov equation: its checked arguments, and how it goes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.checks import reason
from solvers.ensemble.brownian import BrownianMotion
from solvers.ensemble.homes import home
from solvers.ensemble.random import Stream, require_drawable
from solvers.ensemble.threads import ThreadParticles
from solvers.memory import INTERPRETER_BYTES, require_memory
from solvers.partition import STRETCH, most_held, partition
from solvers.progress import step_bar
from solvers.ranks import (
    agreed,
    check_communicator,
    is_shared,
    memory_of_rank,
    require_same,
    shared,
    threads_of_rank,
)
from solvers.results.checkpoint import Checkpoint
from solvers.results.solution import AS_ASKED, Solution, Variable
from solvers.results.versions import library_versions
from solvers.sde import kept
from solvers.sde.course import Course, Ensemble
from solvers.sde.equation import McKeanVlasov, kinds_of, names_of
from solvers.sde.events import CARRIED, NOTHING, Events
from solvers.sde.field import ExternalField, FieldOnGrid, as_field
from solvers.sde.integrate import compile_kernels, integrate
from solvers.sde.moments.stages import Stage
from solvers.sde.parameters import args_settings, args_variables, as_args, passed
from solvers.sde.places import between, places
from solvers.sde.saved import Saved
from solvers.sde.schemes import get_scheme
from solvers.sde.schemes.scheme import Scheme
from solvers.sde.start import HELD, Start, placed
from solvers.sde.statistics import Save, chosen, seen
from solvers.sde.trial import Trial, looks, tried

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# The types that particles may be held in.
DTYPES = ("float64", "float32")
# A particle this many times as far from 0 as the farthest one at t0, or as 1, is lost even if its position is finite.
_FAR = 1e100
# Bytes for each time of the grid, for each common motion there, and for each record besides its values.
_GRID, _COMMON, _RECORD = 16, 24, 240
# Arrays as large as the particles that lists of pairs take, with images and numbers.
_LISTS = 4


@dataclass
class MeanFieldRun:
    """Checked arguments of a solve."""

    course: Course
    field: ExternalField | None
    states: Array  # (2, D, N), of which the first is where it starts
    ensemble: ThreadParticles
    size: float  # of the particles at t0, at least 1
    held: int  # arrays as large as the particles at the same time
    available: float  # bytes
    trial: Trial

    @classmethod
    def checked(
        cls,
        equation: McKeanVlasov,
        x0: Any,
        grid: dict[str, Any],
        scheme: str | Scheme,
        particles: int | None,
        field: Any,
        threads: int | None,
        communicator: Any = None,
        first: int = 0,
        size: float = 1.0,
        args: Any = None,
        events: Events = NOTHING,
        dtype: str = "float64",
    ) -> MeanFieldRun:
        """Raise TypeError, ValueError or MemoryError unless the arguments make a solve; `grid` is that of the noise.

        x0 may be a run, whose particles go on from where it ended.
        """
        if not isinstance(equation, McKeanVlasov):
            raise TypeError(f"equation must be a solvers.McKeanVlasov, got {type(equation).__name__}")
        scheme = get_scheme(scheme)
        scheme.requires(equation)
        motion, args = BrownianMotion(**grid), as_args(args)
        times = motion.times
        if scheme.forward and motion.t1 < motion.t0:
            raise ValueError(f'scheme="{scheme.name}" goes forward in time, but t1 is before t0')
        events.requires(equation, motion.t1 - motion.t0, motion.dt / motion.refinement)
        check_communicator(communicator)
        threads = threads_of_rank(threads, communicator)
        resumed = isinstance(x0, Solution)
        start = Start.of_end(x0, events.carries) if resumed else Start.checked(x0, particles, grid["seed"])
        dimension = start.shape[0] if start.shape else 1
        events.numbers(dimension)
        if equation.pairs is not None:
            equation.pairs.requires(start.count, dimension, events.box(dimension))
        told = {
            **grid,
            "scheme": scheme.name,
            "particles": start.count,
            "args": repr(args),
            "events": events.settings(),
        }
        require_same(communicator, told | {"x0": start.shape if start.held else start.first})
        ensemble, available = home(start.count, threads, communicator), memory_of_rank(communicator)
        held = HELD + (len(scheme.stages) > 1) + (not callable(x0)) + _LISTS * (equation.pairs is not None)
        most = most_held(start.count, 1 if communicator is None else communicator.Get_size())
        each = start.bytes_each + 8 * len(events.carries)
        checks.choice("dtype", dtype, DTYPES)
        require_memory(INTERPRETER_BYTES + held * most * each, "use fewer particles", available)
        here, t = slice(ensemble.first, ensemble.first + ensemble.held), float(times[first])
        states = np.empty((2, dimension + len(events.carries), ensemble.held), dtype)
        with np.errstate(over="ignore"):  # of numbers that dtype does not hold, which are looked for below
            states[0] = agreed(lambda: placed(start, here, events, t), communicator)  # the solve writes into it
        outside = as_field(field)
        if outside is not None:
            outside.check(times[first], times[-1], ensemble.held if start.held else start.count)
        on_grid = FieldOnGrid(outside, times, slice(None) if start.held else here)
        chosen_ones, x = tried(start.count), states[0, :dimension]

        def picked(step: int) -> Array:
            own = outside is not None and outside.per_particle
            return ensemble.pick(on_grid.at(step).T, chosen_ones).T if own else on_grid.at(step)

        trial = Trial(
            equation,
            t,
            ensemble.pick(x, chosen_ones),
            not start.shape,
            args=args,
            share=_mean_of_share(ensemble, states[0, dimension:], events),
            more={**events.functions, **scheme.functions()},
            stop=events.stop,
            force=scheme.phase_space,
            mean=_mean_over(ensemble, x, t, passed(args, equation.vectorized)),
            later=_later_over(ensemble, x, t, passed(args, equation.vectorized)),
        )
        if outside is not None:
            trial = replace(trial, field=picked(first), kind=outside.kind, per_particle=outside.per_particle)
        form = trial.form()
        common = BrownianMotion(**grid, motions=form.common[-1], stream=Stream.COMMON) if form.common else None
        brownian = BrownianMotion(**grid, motions=form.motions)
        require_drawable(form.motions * brownian.steps, start.count, brownian.refinement, threads, "noise_steps")
        size = max(size, float(np.abs(ensemble.pick(x, ensemble.extremes(x))).max()))
        if not np.isfinite(size):
            raise ValueError(f"x0 has numbers that {dtype} cannot hold")
        limit = min(_FAR * size, float(np.finfo(dtype).max))
        course = Course(equation, form, scheme, brownian, on_grid, common, first, limit, args, events)
        trial.check(form, times[first:], lambda step: picked(first + step))
        return cls(course, outside, states, ensemble, size, held, available, trial)

    @property
    def x(self) -> Array:
        """The particles at t0, (D, N), until the solve writes over them."""
        return self.states[0, : self.course.form.dimension]

    def view(self, x: NDArray[np.floating]) -> Any:
        """Return the particles as the user gave them, (N,) or (N, D), not to be written to."""
        return seen(x, self.course.form.scalar)

    def solution(
        self, save: Save | Iterable[Save] | Mapping[str, Save], save_at: Any, progress: bool, checkpoint: Checkpoint
    ) -> Solution:
        """Solve, warn if it ended early, and return what is to be saved."""
        begin, steps, ensemble = self.course.first, self.course.brownian.steps, self.ensemble
        wanted = places(save_at, self.course, begin)
        saved = Saved(chosen(save), len(set(wanted)), ensemble, self.course.form.scalar, steps + 1)
        self.held += 2 * any(place != int(place) for place in wanted)
        with ensemble.running():
            compile_seconds = agreed(lambda: self.prepare(saved, len(wanted)), ensemble.communicator)
            start, settings = time.perf_counter(), self.settings()
            known = partial(kept.described, settings, self.course, ensemble, self.x, saved, wanted)
            require_same(ensemble.communicator, {"checkpoint": str(checkpoint.path)})
            with checkpoint.opened(known, ensemble.communicator):
                self.course, continued = kept.stored(checkpoint, self.course, self.states, saved)
                with step_bar(steps - self.course.first, progress and ensemble.speaks) as count:
                    status, final, failure = self.integrate(saved, set(wanted), count, checkpoint, begin)
                checkpoint.settle(status)
        timings = {"compile": compile_seconds, "solve": time.perf_counter() - start}
        notes = [] if status in AS_ASKED else [_explanation(status, final.t, failure)]
        for note in notes if ensemble.speaks else ():
            warnings.warn(note, RuntimeWarning, stacklevel=3)
        saved.arrange(wanted)
        settings |= {"last_step": final.step, **continued}
        return Solution(
            self.variables(saved, final),
            status,
            timings,
            self.course.brownian.seed,
            settings,
            notes + checkpoint.notes,
            library_versions(),
        )

    def variables(self, saved: Saved, final: Ensemble) -> dict[str, Variable]:
        """Return what was saved, and where the solve ended."""
        form = self.course.form
        variables = saved.variables(None if form.scalar else form.dimension, form.moments)
        axes = ("final_particle",) if form.scalar else ("final_particle", "component")
        variables["final_particles"] = Variable(
            axes, self.view(final.x).copy(), "particles where the solve ended", spread=self.ensemble.spread(0)
        )
        for row, name in enumerate(self.course.events.carries):
            values = final.state[form.dimension + row].copy()
            variables[name] = Variable(("final_particle",), values, CARRIED[name], spread=self.ensemble.spread(0))
        variables["final_time"] = Variable((), np.array(final.t), "time where the solve ended")
        given = {} if self.field is None else self.field.variables(self.ensemble, self.course.field.part)
        return given | args_variables(self.course.args) | variables

    def prepare(self, saved: Saved, records: int) -> float:
        """Find out before the work what a function of the user's cannot do; return the seconds of compiling."""
        kept = saved.try_out(float(self.course.brownian.times[self.course.first]), self.x)
        self.require_memory(kept + _RECORD * records, saved.gathers)
        return self.compile()

    def require_memory(self, records: float, gathers: bool) -> None:
        """Raise MemoryError if the particles, the grid and records of so many bytes do not fit.

        Where a statistic `gathers`, one rank has all particles for a while.
        """
        motions = 0 if self.course.common is None else self.course.common.motions
        grid = (_GRID + _COMMON * motions) * len(self.course.brownian.times)
        ensemble, each = self.ensemble, self.states.itemsize * len(self.states[0])
        most = most_held(ensemble.particles, ensemble.ranks)
        needed = INTERPRETER_BYTES + self.held * most * each + grid + records
        needed += 2 * ensemble.particles * each if gathers and ensemble.ranks > 1 else 0
        require_memory(needed, "use fewer particles or steps, or save less at fewer times", self.available)

    def compile(self) -> float:
        """Compile the equation; return the seconds it took."""
        try:
            return compile_kernels(self.course, self.ensemble, self.states)
        except Exception as error:  # whatever compilation or a user's function raises
            raise TypeError(f"the equation cannot be solved: {reason(error)}") from None

    def integrate(
        self, saved: Saved, due: set[float], count: Callable[[int], Any], checkpoint: Checkpoint, begin: int
    ) -> tuple[str, Ensemble, str]:
        """Go to t1, saving at the steps that are due and counting those done; return how and where it ended.

        `begin` is the step at which an earlier process may have begun.
        """
        course, now = self.course, None
        first, steps = course.first, course.brownian.steps
        looked_at = looks(begin, steps)
        often = range(first + 1, steps + 1) if saved.often else ()
        stops = sorted({one for one in {*map(int, due), *looked_at, *often, steps} if one > first})
        try:
            for one in integrate(course, self.ensemble, self.states, stops, between(due)):
                if one.share > 0.0:
                    if not one.finite:
                        return "diverged", now or one, ""
                    if not saved.has(one.step + one.share):  # an earlier process may have done it
                        self.save(one, saved)
                    continue
                now = one
                if not now.finite:
                    return "diverged", now, ""
                if now.step == first > begin:  # where an earlier process has done the rest
                    continue
                with self.ensemble.whole():  # an interrupt in between would leave a time without its record
                    self.record(now, saved, looked_at, due)
                    if begin < now.step < steps and checkpoint.due():
                        kept.keep(checkpoint, now, saved, self.ensemble)
                if now.step > first:
                    count(len(now.history))
                if now.stopped:
                    return "stopped", now, ""
            self.ensemble.check()  # one that came while the last time was recorded
        except KeyboardInterrupt:
            if now is None:
                raise
            if now.step > begin:
                kept.keep(checkpoint, now, saved, self.ensemble)
            return "interrupted", now, ""
        except Exception as error:  # whatever a coefficient, a field or a statistic of the user's raises
            if self.ensemble.ranks > 1 and not is_shared(error):
                raise
            if now is None or now.step == begin:  # nothing is lost
                raise shared(RuntimeError(f"the first step failed: {reason(error)}")) from None
            return "failed", now, reason(error)
        assert now is not None
        return "completed", now, ""

    def record(self, now: Ensemble, saved: Saved, looked_at: set[int], due: set[float]) -> None:
        """Look at the particles, and save what is to be saved of them, if it is time for it."""
        communicator = self.ensemble.communicator
        if now.step in looked_at:
            agreed(lambda: self.look(now), communicator)
        if now.step in due:
            self.save(now, saved)
        if saved.often:
            agreed(lambda: saved.add_often(now.t, now.x), communicator)

    def save(self, now: Ensemble, saved: Saved) -> None:
        """Save what is to be saved of the particles at a time."""
        agreed(lambda: saved.add(now.step + now.share, now.t, now.x, now.m), self.ensemble.communicator)

    def look(self, now: Ensemble) -> None:
        """Try the coefficients on the outermost particles of this time, and the first."""
        ensemble, field = self.ensemble, self.course.field.at(now.step)
        places = np.unique([0, *ensemble.extremes(now.x)])
        if self.trial.per_particle:
            field = ensemble.pick(field.T, places).T
        self.trial.look(now.t, ensemble.pick(now.x, places), field, now.m)

    def settings(self) -> dict[str, Any]:
        """Return what was solved and how, for the file of the solution and for `resume`."""
        course, grid = self.course, self.course.brownian
        equation = course.equation
        named = {name: names_of(getattr(equation, name)) for name in equation.given}
        return {
            "solver": "solve",
            "noise": equation.noise,
            **named,
            "particles": self.ensemble.particles,
            "dimension": course.form.dimension,
            "t0": grid.t0,
            "t1": grid.t1,
            "steps": grid.steps,
            "noise_steps": grid.noise_steps,
            "scheme": course.scheme.name,
            "first_step": course.first,
            "initial_size": self.size,
            "dtype": self.states.dtype.name,
            **kinds_of(equation),
            **args_settings(course.args),
            **course.events.settings(),
        }


def _mean_of_share(ensemble: ThreadParticles, carried: Array, events: Events) -> float | None:
    """Return the last entry of m at the start, or None if there are no resets."""
    row = events.plan.share
    return None if row < 0 else float(ensemble.average(lambda part: carried[row, part].sum(), (1,))[0])


def _mean_over(
    ensemble: ThreadParticles, x: Array, t: float, args: Any
) -> Callable[[Callable[..., Matrix], int], Matrix]:
    """Return what takes the mean of a law function of so many numbers over all particles."""

    def mean(law: Callable[..., Matrix], size: int) -> Matrix:
        def summed(part: slice) -> Matrix:
            pieces = (x[:, part][:, one] for one in partition(part.stop - part.start, STRETCH))
            return np.sum([law(t, np.ascontiguousarray(one), args).sum(axis=1) for one in pieces], axis=0)

        return ensemble.average(summed, (size,))

    return mean


def _later_over(ensemble: ThreadParticles, x: Array, t: float, args: Any) -> Callable[[Stage, Matrix], Matrix]:
    """Return what finds a later moment in all particles, of the entries of m before it."""
    return lambda stage, m: stage.found(ensemble, x, t, m, args, STRETCH, x.size)


def _explanation(status: str, t: float, failure: str) -> str:
    if status == "diverged":
        return (
            f"diverged: at t = {t:g} a particle or a mean was not finite, or {_FAR:g} times as far as at the start; "
            "take more steps or look at the drift"
        )
    return f"{status} at t = {t:g}" + (f": {failure}" if failure else "")
