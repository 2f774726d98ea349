"""The particles of an equation on their way: step by step between functions of arrays, or many steps in one call."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.brownian import BrownianMotion
from solvers.ensemble.threads import SHARE, ThreadParticles
from solvers.matrices.cholesky import square_factor
from solvers.partition import STRETCH
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.field import FieldOnGrid
from solvers.sde.march import COMPLETE, LOST, WORDS, Grid, Leg, Means, Track, close
from solvers.sde.parameters import Args, plain
from solvers.sde.schemes.passes import march, stage_pass
from solvers.sde.schemes.scheme import Scheme

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# The largest number that is not infinite.
LARGEST = float(np.finfo(np.float64).max)
# Multiply–adds that a step takes at least for one component of one particle, noise included.
_WORK = 5
# Seconds that one call may take, in which nothing can be interrupted, and the most steps of it.
_PATIENCE, _MOST = 0.1, 2**16


@dataclass(frozen=True)
class Course:
    """What is solved and on which grid.

    Parameters
    ----------
    equation, form
        The equation, and its sizes.
    scheme : Scheme
        The stages of a step.
    brownian, common : BrownianMotion
        The grid and the motions of the particles, and the motions they share.
    field : FieldOnGrid
        The external field.
    first : int
        The step to start with.
    limit : float
        Particles farther than this from 0, or not finite, are lost.
    args : float, array or named tuple, optional
        The parameters that coefficients take.
    """

    equation: McKeanVlasov
    form: Form
    scheme: Scheme
    brownian: BrownianMotion
    field: FieldOnGrid
    common: BrownianMotion | None = None
    first: int = 0
    limit: float = LARGEST
    args: Args = None

    @property
    def parameters(self) -> Any:
        """The parameters as passes take them: coefficients of arrays as they are, kernels as a plain tuple."""
        return () if self.args is None else self.args if self.equation.vectorized else plain(self.args)

    @cached_property
    def shared(self) -> Matrix:
        """The increments of common noise in increasing time, (steps, K⁰), drawn once for compiling and solving."""
        return np.zeros((self.brownian.steps, 0)) if self.common is None else self.common.increments()[:, 0].copy()


class Ensemble(NamedTuple):
    """The particles at one time of the grid."""

    step: int
    t: float
    x: Array  # (D, N); overwritten by later steps
    m: Matrix  # (M,)
    factor: Matrix  # (D, D), or empty without mean-field noise
    finite: bool
    history: Matrix  # (k, M): the means at the last k times, which have not been given before


class Walk(ABC):
    """The way of the particles from the first time of a grid on.

    Parameters
    ----------
    course : Course
    ensemble : ThreadParticles
        The partition of the particles; running while they go.
    states : (S, D, N) array
        The first holds the particles at t0. The others, of which there is at least one, receive those of later times in
        turn, and the first after the last again. A step does not write to where it starts, so one that fails leaves
        that whole.
    """

    def __init__(self, course: Course, ensemble: ThreadParticles, states: Array) -> None:
        equation, form, brownian = course.equation, course.form, course.brownian
        self.course, self.ensemble, self.states = course, ensemble, states
        self.correlated = equation.noise == "mean_field"
        self.passes = [stage_pass(equation, form, stage) for stage in course.scheme.stages]
        # Stages write here and to where the step ends in turn, the last one there.
        self.between = np.empty_like(states[0]) if len(self.passes) > 1 else states[0]
        self.args = course.parameters
        self.dt = (brownian.t1 - brownian.t0) / brownian.steps  # no difference of times, whose rounding varies
        self.shared = course.shared
        self.draw = brownian.noise.draw(brownian.address)._replace(first=ensemble.first)
        self.width = form.moments + self.correlated * form.dimension**2 + 1
        self.pairs = equation.interaction is not None
        self.size = _WORK * states[0].size * (ensemble.particles if self.pairs else 1)
        self.share = min(ensemble.group_size, SHARE if equation.vectorized else STRETCH)
        none = np.zeros((form.dimension,) * 2 if self.correlated else (0, 0))
        t = brownian.times[course.first]
        self.now = Ensemble(course.first, t, states[0], np.zeros(form.moments), none, True, np.zeros((0, form.moments)))

    def start(self) -> Ensemble:
        """Return the particles at the first time with their means."""
        t, x = self.now.t, self.now.x
        m, factor, finite = self._sum(lambda groups, sums: self.passes[0].measure(x, t, self.args, sums, groups))
        self.now = self.now._replace(m=m, factor=factor, finite=finite, history=m[None])
        return self.now

    @abstractmethod
    def go(self, stop: int) -> Ensemble:
        """Do some steps, at most up to the stop; if one fails, those before it, and raise when called again."""

    def compile(self) -> None:  # noqa: B027
        """Compile what is compiled, or load it from the cache, without calling it."""

    def _sum(self, work: Callable[[tuple[int, int, int, int], Matrix], None]) -> tuple[Matrix, Matrix, bool]:
        """Return the means and the factor after a stage, and whether no particle was lost."""
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
            factor = square_factor(means[form.moments :].reshape(form.dimension, form.dimension))
        return means[: form.moments], factor, finite


class StepByStep(Walk):
    """A walk one step at a time, for coefficients that are functions of arrays, or particles in several processes."""

    def compile(self) -> None:
        if self.course.equation.vectorized:
            return
        none, course = self.states[0][:, :0].copy(), self.course
        groups, sums, now = (0, 0, 1, 1), np.zeros((0, self.width)), self.now
        self.passes[0].measure(none, now.t, self.args, sums, groups)
        common, field = np.zeros((self.shared.shape[1], 1)), course.field.at(now.step)
        leg = Leg(now.t, self.dt, now.t, now.m, field, common, now.factor, self.draw, course.limit, none, self.args)
        for work in self.passes:
            work.advance(none, none.copy(), 1.0, none, leg, sums, groups)

    def go(self, stop: int) -> Ensemble:
        now, course, count = self.now, self.course, len(self.passes)
        step, times = now.step, course.brownian.times
        place = step - course.first
        base, end = (self.states[index % len(self.states)] for index in (place, place + 1))
        layer = step if self.dt > 0 else len(times) - 2 - step
        draw = self.draw._replace(finest=self.draw.finest + layer * self.draw.refinement)
        common, arrival = self.shared[layer][:, None], times[step + 1]
        source, t, m, factor, finite = now.x, now.t, now.m, now.factor, True
        for stage, work in enumerate(self.passes):
            target = self.between if (count - stage) % 2 == 0 else end
            weight, field = float(course.scheme.stages[stage].weight), course.field.at(step + (stage > 0))
            everyone = self.ensemble.gather(source) if self.pairs else source
            leg = Leg(t, self.dt, arrival, m, field, common, factor, draw, course.limit, everyone, self.args)
            advance = partial(work.advance, source, target, weight, base, leg)
            m, factor, finite = self._sum(lambda groups, sums, advance=advance: advance(sums, groups))  # type: ignore[misc]
            source, t = target, arrival
            if not finite:
                break
        self.now = Ensemble(step + 1, arrival, source, m, factor, finite, m[None])
        return self.now


class March(Walk):
    """A walk of a compiled equation, many steps in one call."""

    def __init__(self, course: Course, ensemble: ThreadParticles, states: Array) -> None:
        super().__init__(course, ensemble, states)
        self.march = march(course.equation, course.form, course.scheme.stages)
        self.seconds = np.inf  # that a step took
        self.failure: BaseException | None = None

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

        start = time.perf_counter()
        try:
            with self.ensemble.whole():
                self.ensemble.together(work, self.size, shares)
        except BaseException as error:  # whatever a coefficient of the user's raises
            if control[COMPLETE] < len(self.passes):
                raise
            self.failure = error
        self.now = self._arrived(int(control[COMPLETE]), bool(control[LOST]), means)
        self.seconds = (time.perf_counter() - start) / (self.now.step - now.step)
        return self.now

    def _along(self, states: Array, between: Array, steps: int, shares: int) -> tuple[Track, Grid, Means]:
        """Return what a march of so many steps from here on works with."""
        now, course, count = self.now, self.course, len(self.passes)
        field, where, stride = course.field.piece(now.step, now.step + steps - (count == 1))
        track = Track(states, between, now.step - course.first, field, where, stride)
        grid = Grid(course.brownian.times, self.dt, now.step, steps, self.draw, self.shared, self.args)
        history, sums = np.empty((steps, course.form.moments)), np.zeros((shares, self.width))
        group = self.ensemble.group_size // self.share
        return track, grid, Means(now.m.copy(), now.factor.copy(), history, sums, group)

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
        return Ensemble(step, t, x, history[-1], means.factor, not lost, history)


def walk(course: Course, ensemble: ThreadParticles, states: Array) -> Walk:
    """Return the walk of the equation of a course."""
    alone = course.equation.vectorized or not ensemble.marches
    return (StepByStep if alone else March)(course, ensemble, states)
