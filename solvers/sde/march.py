"""Many steps of a scheme in one compiled call, on any number of threads that call it at the same time.

The work of a stage is cut into shares of the particles, and shares are handed out in the order of a counter, stage
after stage. Whoever ends the last share of a stage adds the sums up, in the order of the particles, and opens the next
stage; so threads may join late, and the result does not depend on who did what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import part_kernel
from solvers.ensemble.atomic import APART, Words, fetch_add, give_way, load, store
from solvers.ensemble.borrow import borrowed
from solvers.ensemble.random import Draw
from solvers.matrices.cholesky import square_factor
from solvers.sde.equation import Form

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]
Function = Callable[..., Any]

# Words that threads share: the next share to be handed out, how many are done, the stage that is open, or _CLOSED where
# none will be any more, the stages that are complete, whether a particle was lost in the last of these, and whether the
# means were such that the run is to stop.
NEXT, DONE, OPEN, COMPLETE, LOST, STOPPED = (APART * place for place in range(6))
WORDS = APART * 6
_CLOSED = -1


def close(control: Words) -> None:
    """Let no stage be opened any more, so that nobody waits for one that failed."""
    control[OPEN] = _CLOSED


class Leg(NamedTuple):
    """A stage of a step: from when to when, what is known there, its noise, and how far particles may be from 0.

    The external field is that between `field` and `later`, where the step starts and ends, at `share` of the way.
    `everyone` are the positions of all particles, (D, N), where the stage starts, or whom they meet, and `args` the
    parameters of the equation, () where there are none. A step to a time between those of the grid, which begins at one
    of them, does a `part` of a step `whole` long. `t0` and `m0` are time and means where the step starts, and `numbers`
    those of what happens after it. Each row of `faults` takes what went wrong in a group of particles: a number and a
    particle. The first particle that is held has this `number` among all.
    """

    t: float
    dt: float
    arrival: float
    m: Matrix
    field: Array
    later: Array
    share: float
    common: Matrix
    factor: Matrix
    draw: Draw
    limit: float
    everyone: Any
    args: Any
    t0: float
    m0: Matrix
    numbers: tuple[Matrix, ...]
    faults: Words
    part: float
    whole: float
    number: int


class Track(NamedTuple):
    """Where the particles are at the times of a march: step k starts from states[(from_state + k) mod S].

    Parameters
    ----------
    states : (S, D, N) array
    between : (D, N) array
        Where stages before the last may write.
    fields : (F, N or 1, components) array
        The external field; it is fields[from_field + k · field_stride] where step k starts.
    """

    states: Array
    between: Array
    from_state: int
    fields: Array
    from_field: int
    field_stride: int


class Grid(NamedTuple):
    """The steps of a march, and the noise there.

    Parameters
    ----------
    times : (steps + 1,) float64
        All times of the grid.
    dt : float
        Length of a step, negative where time runs backward.
    first, steps : int
        The step to begin with, and how many there are.
    draw : Draw
        Where the noise of layer 0 is found.
    shared : (steps, K) float64
        Increments of common noise, in increasing time.
    args : float, array or tuple
        The parameters of the equation.
    numbers : tuple of arrays
        Those of what happens after each step.
    """

    times: Matrix
    dt: float
    first: int
    steps: int
    draw: Draw
    shared: Matrix
    args: Any
    numbers: tuple[Matrix, ...]


class Means(NamedTuple):
    """What is known of all particles.

    Parameters
    ----------
    m : (M,) float64
        The means that are current; written to, as is what follows.
    factor : (D, D) float64
        That of mean-field noise, empty for other noise.
    history : (steps, M) float64
        The means where each step of a march ends.
    sums : (shares, width) float64
        Sums over each share, zero between stages; the last counts the particles that were lost.
    group : int
        Shares that are added up before these sums are.
    total : (width,) float64
        Room for the sums over all.
    first : (M,) float64
        The means where the current step starts.
    faults : (shares, 2) int64
        What went wrong in each share, as in `Leg`.
    """

    m: Matrix
    factor: Matrix
    history: Matrix
    sums: Matrix
    group: int
    total: Matrix
    first: Matrix
    faults: Words


def marching(
    stages: Sequence[tuple[Function, float]],
    times: tuple[float, ...],
    compiled: Callable[[Function], Function],
    form: Form,
    correlated: bool,
    stop: Function | None,
) -> Function:
    """Return march(control, track, grid, means, limit, share).

    Parameters
    ----------
    stages : sequence of (callable, float)
        The pass of each stage over a part of the particles, and its weight.
    times : tuple of float
        The shares of a step at which stages start, and 1.
    compiled : callable
        Compiles the parts of a march, but not the march itself.
    form : Form
        Sizes.
    correlated : bool
        Whether the noise has the covariance of the sums.
    stop : callable, optional
        (t, m, args) → whether the run is to stop where a step ends.
    """
    stage_count, moments, dimension = len(stages), form.moments, form.dimension
    do_stage = _choice(stages, compiled)
    factor_of = compiled(_factor if correlated else _no_factor)
    is_over = compiled(_never if stop is None else stop)

    @compiled
    def settle(means, particles):  # type: ignore[no-untyped-def]
        """Add up the sums of a stage, and clear them; return whether a particle was lost."""
        sums = means.sums
        shares, width = sums.shape
        total, lost = means.total, False
        for i in range(width):
            total[i] = 0.0
            for first in range(0, shares, means.group):
                subtotal = 0.0
                for share in range(first, min(first + means.group, shares)):
                    subtotal += sums[share, i]
                    sums[share, i] = 0.0
                total[i] += subtotal
            lost |= not abs(total[i]) < np.inf
        lost |= total[width - 1] != 0.0
        for i in range(moments):
            means.m[i] = total[i] / particles
        if not lost:
            factor_of(total, moments, particles, means.factor)
        return lost

    @compiled
    def end_stage(control, index, track, grid, means):  # type: ignore[no-untyped-def]
        """Settle the stage of this index, and open the next or none."""
        lost, over = settle(means, track.states.shape[2]), False
        if (index + 1) % stage_count == 0:
            for i in range(moments):
                means.history[index // stage_count, i] = means.m[i]
                means.first[i] = means.m[i]
            if not lost:
                over = is_over(grid.times[grid.first + index // stage_count + 1], means.m, grid.args)
        store(control, COMPLETE, index + 1)
        store(control, LOST, np.int64(lost))
        store(control, STOPPED, np.int64(over))
        store(control, OPEN, _CLOSED if lost or over else index + 1)

    def march(control: Words, track: Track, grid: Grid, means: Means, limit: float, share: int) -> None:
        """Take part in steps until the last share was handed out, a particle was lost, or the run is to stop."""
        control, track, grid, means = borrowed((control, track, grid, means))
        shares, slots = len(means.sums), len(track.states)
        last = len(grid.times) - 2
        while True:
            ticket = fetch_add(control, NEXT, 1)
            index, mine = ticket // shares, ticket % shares
            if index >= grid.steps * stage_count:
                return
            while True:
                stage_open = load(control, OPEN)
                if stage_open == _CLOSED:
                    return
                if stage_open >= index:
                    break
                give_way()
            k, stage = index // stage_count, index % stage_count
            step = grid.first + k
            layer = step if grid.dt > 0 else last - step
            base = track.states[(track.from_state + k) % slots]
            end = track.states[(track.from_state + k + 1) % slots]
            source = base if stage == 0 else end if (stage_count - stage) % 2 == 0 else track.between
            target = track.between if (stage_count - stage) % 2 == 0 else end
            here = track.from_field + k * track.field_stride
            there = here if stage == 0 else here + track.field_stride
            seed, stream, key, positions, finest, refinement, particle = grid.draw
            draw = Draw(seed, stream, key, positions, finest + layer * refinement, refinement, particle)
            common = grid.shared[layer].reshape((-1, 1))
            t0, t1 = grid.times[step], grid.times[step + 1]
            leg = Leg(
                moment(t0, t1, grid.dt, times[stage]),
                grid.dt,
                moment(t0, t1, grid.dt, times[stage + 1]),
                means.m,
                track.fields[here],
                track.fields[there],
                times[stage],
                common,
                means.factor,
                draw,
                limit,
                source[:dimension],
                grid.args,
                t0,
                means.first,
                grid.numbers,
                means.faults,
                1.0,
                grid.dt,
                0,
            )
            do_stage(stage, source, target, base, leg, means.sums, (mine, mine + 1, share, share))
            if fetch_add(control, DONE, 1) + 1 == (index + 1) * shares:
                end_stage(control, index, track, grid, means)

    return march


@part_kernel
def moment(t0: float, t1: float, dt: float, share: float) -> float:
    """The time at a share of the step from t0 to t1; the ends are those of the grid."""
    return t0 if share == 0.0 else t1 if share == 1.0 else t0 + share * dt


def _choice(stages: Sequence[tuple[Function, float]], compiled: Callable[[Function], Function]) -> Function:
    """Return a function that does the stage of the number it is given."""
    (advance, weight), *others = stages

    @compiled
    def this(stage, source, target, base, leg, sums, groups):  # type: ignore[no-untyped-def]
        advance(source, target, weight, base, leg, sums, groups)

    if not others:
        return this
    later = _choice(others, compiled)

    @compiled
    def one_of(stage, source, target, base, leg, sums, groups):  # type: ignore[no-untyped-def]
        if stage == 0:
            this(stage, source, target, base, leg, sums, groups)
        else:
            later(stage - 1, source, target, base, leg, sums, groups)

    return one_of


def _factor(total, first, particles, factor):  # type: ignore[no-untyped-def]
    """Set (D, D) C with C Cᵀ the covariance; each direction has the motion of the component that revealed it."""
    size = len(factor)
    covariance = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            covariance[i, j] = total[first + size * i + j] / particles
    found = square_factor(covariance)
    for i in range(size):
        for j in range(size):
            factor[i, j] = found[i, j]


def _no_factor(total, first, particles, factor):  # type: ignore[no-untyped-def]
    pass


def _never(t, m, args):  # type: ignore[no-untyped-def]
    return False
