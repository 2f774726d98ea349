"""The particles of an equation on their way: step by step between functions of arrays, or many steps in one call."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.atomic import Words
from solvers.ensemble.random import Draw, fill_path
from solvers.ensemble.threads import SHARE, ThreadParticles
from solvers.matrices.cholesky import square_factor
from solvers.partition import STRETCH
from solvers.ranks import agreed
from solvers.sde.course import Course, Ensemble, Span
from solvers.sde.events.stop import stop_function
from solvers.sde.faults import Fault, StepError
from solvers.sde.march import COMPLETE, LOST, STOPPED, WORDS, Grid, Leg, Means, Track, close, moment
from solvers.sde.moments.stages import moment_stages
from solvers.sde.pairs.partners import none_of, partners_of
from solvers.sde.schemes.kernels import between
from solvers.sde.schemes.passes import Pass, march, stage_passes
from solvers.sde.schemes.scheme import stage_times

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# As Python calls it.
_moment: Callable[..., float] = getattr(moment, "py_func")  # noqa: B009
# Multiply–adds that a step takes at least for one component of one particle, noise included.
_WORK = 5
# Seconds that one call may take, in which nothing can be interrupted, and the most steps of it.
_PATIENCE, _MOST = 0.1, 2**16


class Walk(ABC):
    """The way of the particles from the first time of a grid on.

    Parameters
    ----------
    course : Course
    ensemble : ThreadParticles
        The partition of the particles; running while they go.
    states : (S, D + numbers carried, N) array
        The first holds the particles at t0, their positions and what they carry. The others, of which there is at least
        one, receive those of later times in turn, and the first after the last again. A step does not write to where
        it starts, so one that fails leaves that whole.
    """

    def __init__(self, course: Course, ensemble: ThreadParticles, states: Array) -> None:
        equation, form, brownian = course.equation, course.form, course.brownian
        self.course, self.ensemble, self.states = course, ensemble, states
        self.correlated = equation.noise == "mean_field"
        self.times, self.plan = stage_times(course.scheme), course.events.plan
        self.passes = stage_passes(equation, form, course.scheme.stages, self.plan)
        self.numbers = course.events.numbers(form.dimension)
        self.ahead = max(self.times[:-1]) > 0.0  # whether stages need the field beyond where the step starts
        # Stages write here and to where the step ends in turn, the last one there.
        self.between = np.empty_like(states[0]) if len(self.passes) > 1 else states[0]
        self.args = course.parameters
        self.dt = (brownian.t1 - brownian.t0) / brownian.steps  # no difference of times, whose rounding varies
        self.shared = course.shared
        self.draw = brownian.noise.draw(brownian.address)._replace(first=ensemble.first + course.offset)
        self.over = stop_function(equation, form, course.events.stop)
        self.width = form.summed + self.correlated * form.dimension**2 + 1
        self.later_moments = moment_stages(equation, form)
        self.meet = equation.interaction is not None
        self.size = _WORK * form.dimension * ensemble.held * (ensemble.particles if self.meet else 1)
        self.share = min(ensemble.group_size, SHARE if equation.vectorized else STRETCH)
        none = np.zeros((form.dimension,) * 2 if self.correlated else (0, 0))
        t = brownian.times[course.first]
        means = np.zeros(form.moments)
        self.now = Ensemble(course.first, t, states[0], means, none, True, means[None, :0], form.dimension)
        self.failure: BaseException | None = None
        self.side: Array | None = None  # where steps to times between those of the grid lead

    def start(self) -> Ensemble:
        """Return the particles at the first time with their means."""
        t, x = self.now.t, self.now.state
        m, factor, finite = self._sum(lambda groups, sums: self.passes[0].measure(x, t, self.args, sums, groups), x, t)
        self.now = self.now._replace(m=m, factor=factor, finite=finite, history=m[None])
        return self.now

    @abstractmethod
    def go(self, stop: int) -> Ensemble:
        """Do some steps, at most up to the stop; if one fails, those before it, and raise when called again."""

    def compile(self) -> None:  # noqa: B027
        """Compile what is compiled, or load it from the cache, without calling it."""

    def _sum(
        self, work: Callable[[tuple[int, int, int, int], Matrix], None], x: Array, t: float
    ) -> tuple[Matrix, Matrix, bool]:
        """Return the means and the factor after a stage that leads to x, and whether no particle was lost."""
        ensemble, form = self.ensemble, self.course.form
        sums = np.zeros((len(ensemble.groups), self.width))
        ensemble.on_groups(
            lambda groups: work((groups.start, groups.stop, ensemble.group_size, self.share), sums), self.size
        )
        total = ensemble.total(sums)
        means = total[:-1] / ensemble.particles
        finite = total[-1] == 0 and bool(np.isfinite(total).all())
        factor = np.zeros((0, 0))
        if self.correlated and finite:
            factor = square_factor(means[form.summed :].reshape(form.dimension, form.dimension))
        m = means[: form.summed]
        if self.later_moments:
            m = self._with_later(m, x, t) if finite else np.full(form.moments, np.nan)
        return m, factor, finite and bool(np.isfinite(m).all())

    def _with_later(self, m: Matrix, x: Array, t: float) -> Matrix:
        """Return m with the moments that take passes of their own; the share of resets stays last."""
        plain = len(m) - self.course.form.share
        found, share = m[:plain], m[plain:]
        for stage in self.later_moments:
            more = stage.found(self.ensemble, x, t, found, self.args, self.share, self.size)
            found = np.append(found, more)
        return np.append(found, share)

    def aside(self, share: float) -> Ensemble:
        """Return the particles at a share of the step that starts now, on the same paths; the walk stays."""
        now, course = self.now, self.course
        if self.side is None:
            self.side = np.empty((2, *self.states.shape[1:]), self.states.dtype)
            self.side_passes = stage_passes(course.equation, course.form, course.scheme.stages, self.plan, partly=True)
        t0, t1 = course.brownian.times[now.step : now.step + 2]
        ahead = Span(share, share * self.dt, t0 + share * (t1 - t0))
        end, m, factor, finite, leg = self._step(self.side_passes, self.side[0], self.side[1], ahead)
        if not finite:
            self._failed(leg.faults, now.t)
            if self.failure is not None:
                raise self.failure
        return Ensemble(now.step, ahead.t1, end, m, factor, finite, m[None], now.dimension, share=share)

    def _step(
        self, passes: list[Pass], end: Array, middle: Array, span: Span
    ) -> tuple[Array, Matrix, Matrix, bool, Leg]:
        """Go a step, or part of it, from where the particles are to `end`, by `middle`; return where that led."""
        now, course, count = self.now, self.course, len(passes)
        dimension, base = now.dimension, now.state
        field = later = course.field.at(now.step)
        if span.part < 1.0 or self.ahead:
            later = course.field.at(now.step + 1)
        source, m, factor, finite = base, now.m, now.factor, True
        for stage, work in enumerate(passes):
            target = middle if (count - stage) % 2 == 0 else end
            everyone = self.ensemble.gather(source[:dimension]) if self.meet else source[:dimension]
            leg = self._leg(stage, span, field, later, everyone)._replace(m=m, factor=factor)
            leg = self._meeting(leg)
            advance = partial(work.advance, source, target, float(course.scheme.stages[stage].weight), base, leg)
            m, factor, finite = self._sum(
                lambda groups, sums, advance=advance: advance(sums, groups),  # type: ignore[misc]
                target,
                leg.arrival,
            )
            source = target
            if not finite:
                break
        return source, m, factor, finite, leg

    def _leg(self, stage: int, span: Span, field: Array, later: Array, everyone: Array) -> Leg:
        """Return a stage of the step that starts now, or of a part of it."""
        now, course = self.now, self.course
        steps = len(course.brownian.times) - 1
        layer = now.step if self.dt > 0 else steps - 1 - now.step
        draw = self.draw._replace(finest=self.draw.finest + layer * self.draw.refinement)
        t0, (begin, end) = course.brownian.times[now.step], self.times[stage : stage + 2]
        t, arrival = (_moment(t0, span.t1, span.dt, share) for share in (begin, end))
        common = self.shared[layer] if span.part == 1.0 else self._common(draw, span)
        faults = np.zeros((len(self.ensemble.groups), 2), np.int64)
        return Leg(
            t, span.dt, arrival, now.m, field, later, span.part * begin, common[:, None], now.factor, draw,
            course.limit, everyone, self.args, t0, now.m, self.numbers, faults, span.part, self.dt,
            self.ensemble.first,
        )  # fmt: skip

    def _meeting(self, leg: Leg) -> Leg:
        """Return a stage with the lists of who meets whom, where the interaction needs them."""
        pairs, course = self.course.equation.pairs, self.course
        if pairs is None:
            return leg
        fields = leg.field[:1]
        if pairs.partner == "field":
            fields = between(leg.field, leg.later, leg.share, 0, len(leg.field), True)
            fields = self.ensemble.gather(fields.T).T if course.form.per_particle else fields
        return leg._replace(
            everyone=partners_of(pairs, leg.everyone, fields, course.events.box(self.now.dimension), leg.draw)
        )

    def _common(self, draw: Draw, span: Span) -> Matrix:
        """Return what common noise gains in a part of the step that starts now, (K⁰,)."""
        common = self.course.common
        if common is None:
            return np.zeros(0)
        address, gained = common.address, np.empty((common.motions, 1))
        fill_path(
            gained, 0, 1, 0, draw.seed, int(address.stream), address.step, np.array(address.positions), draw.finest,
            draw.refinement, abs(self.dt), span.part, self.dt < 0.0,
        )  # fmt: skip
        return gained[:, 0]

    def _failed(self, faults: Words, t: float) -> None:
        """Let the step from time t on have failed if there is a fault in it, the first of all particles."""

        def look() -> None:
            found = faults[faults[:, 0] < 0]
            if len(found):
                place = int(found[:, 1].argmin())
                raise StepError(Fault(-found[place, 0]), t, int(found[place, 1]))

        try:
            agreed(look, self.ensemble.communicator)
        except StepError as error:
            self.failure = error


class StepByStep(Walk):
    """A walk one step at a time, for coefficients that are functions of arrays, or particles in several processes."""

    def compile(self) -> None:
        if self.course.equation.vectorized:
            return
        none, now = self.states[0][:, :0].copy(), self.now
        groups, sums, field = (0, 0, 1, 1), np.zeros((0, self.width)), self.course.field.at(now.step)
        self.passes[0].measure(none, now.t, self.args, sums, groups)
        for stage, work in enumerate(self.passes):
            leg = self._leg(stage, self._span(), field, field, none[: now.dimension])
            if self.course.equation.pairs is not None:
                leg = leg._replace(everyone=none_of(now.dimension, field[:1]))
            work.advance(none, none.copy(), 1.0, none, leg, sums, groups)

    def _span(self) -> Span:
        return Span(1.0, self.dt, self.course.brownian.times[self.now.step + 1])

    def go(self, stop: int) -> Ensemble:
        if self.failure is not None:
            raise self.failure
        now, place = self.now, self.now.step - self.course.first
        target = self.states[(place + 1) % len(self.states)]
        end, m, factor, finite, leg = self._step(self.passes, target, self.between, self._span())
        if not finite:
            self._failed(leg.faults, now.t)
            if self.failure is not None:
                raise self.failure
        stopped = finite and self._stops(leg.arrival, m)
        self.now = Ensemble(now.step + 1, leg.arrival, end, m, factor, finite, m[None], now.dimension, stopped)
        return self.now

    def _stops(self, t: float, m: Matrix) -> bool:
        return self.over is not None and bool(self.over(t, m, self.args))


class March(Walk):
    """A walk of a compiled equation, many steps in one call."""

    def __init__(self, course: Course, ensemble: ThreadParticles, states: Array) -> None:
        super().__init__(course, ensemble, states)
        self.march = march(course.equation, course.form, course.scheme.stages, self.times, self.plan, self.over)
        self.seconds = np.inf  # that a step took

    def compile(self) -> None:
        none = self.states[:, :, :0].copy()
        self.passes[0].measure(none[0], self.now.t, self.args, np.zeros((0, self.width)), (0, 0, 1, 1))
        self.march(np.zeros(WORDS, np.int64), *self._along(none, none[0], 0, 1), self.course.limit, self.share)

    def go(self, stop: int) -> Ensemble:
        if self.failure is not None:
            raise self.failure
        self.ensemble.check()
        now, control = self.now, np.zeros(WORDS, np.int64)
        most = min(_MOST, self.course.field.most, max(1, int(_PATIENCE / self.seconds)))
        shares = -(-self.ensemble.particles // self.share)
        track, grid, means = self._along(self.states, self.between, min(stop - now.step, most), shares)

        def work() -> None:
            try:
                self.march(control, track, grid, means, self.course.limit, self.share)
            except BaseException:
                close(control)
                raise

        start, count = time.perf_counter(), len(self.passes)
        try:
            with self.ensemble.whole():
                self.ensemble.together(work, self.size, shares)
        except BaseException as error:  # whatever a coefficient of the user's raises
            if control[COMPLETE] < count:
                raise
            self.failure = error
        complete, lost = int(control[COMPLETE]), bool(control[LOST])
        if lost and (means.faults[:, 0] < 0).any():
            complete, lost = (complete - 1) // count * count, False  # the end of the last step that is whole
            self._failed(means.faults, float(self.course.brownian.times[now.step + complete // count]))
            if self.failure is not None and complete == 0:
                raise self.failure
        self.now = self._arrived(complete, lost, means)._replace(stopped=bool(control[STOPPED]))
        self.seconds = (time.perf_counter() - start) / (self.now.step - now.step)
        return self.now

    def _along(self, states: Array, between: Array, steps: int, shares: int) -> tuple[Track, Grid, Means]:
        """Return what a march of so many steps from here on works with."""
        now, course = self.now, self.course
        field, where, stride = course.field.piece(now.step, now.step + steps - (not self.ahead))
        track = Track(states, between, now.step - course.first, field, where, stride)
        grid = Grid(
            course.brownian.times, self.dt, now.step, steps, self.draw, self.shared, self.args, self.numbers
        )  # fmt: skip
        history, sums = np.empty((steps, course.form.moments)), np.zeros((shares, self.width))
        group, faults = self.ensemble.group_size // self.share, np.zeros((shares, 2), np.int64)
        return (
            track,
            grid,
            Means(now.m.copy(), now.factor.copy(), history, sums, group, np.zeros(self.width), now.m.copy(), faults),
        )

    def _arrived(self, complete: int, lost: bool, means: Means) -> Ensemble:
        """Return the particles after so many stages; those of a step that lost one count as its end."""
        count, first = len(self.passes), self.course.first
        steps, within = divmod(complete, count)
        x, history = self.states[(self.now.step - first + steps) % len(self.states)], means.history[:steps]
        if lost and within > 0:
            steps, history = steps + 1, np.vstack((history, means.m))
            end = self.states[(self.now.step - first + steps) % len(self.states)]
            x = end if (count - within) % 2 == 0 else self.between
        step = self.now.step + steps
        t = self.course.brownian.times[step]
        m = history[-1] if len(history) else self.now.m
        return Ensemble(step, t, x, m, means.factor, not lost, history, self.now.dimension)


def walk(course: Course, ensemble: ThreadParticles, states: Array) -> Walk:
    """Return the walk of the equation of a course."""
    equation = course.equation
    by_step = equation.pairs is not None or equation.later_moments
    alone = equation.vectorized or by_step or not ensemble.marches
    return (StepByStep if alone else March)(course, ensemble, states)
