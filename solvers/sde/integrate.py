"""The particles of a McKean–Vlasov equation, followed from one end of a grid of times to the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.brownian import BrownianMotion
from solvers.ensemble.random import STRETCH
from solvers.ensemble.threads import SHARE, ThreadParticles
from solvers.matrices.cholesky import rank_revealing_cholesky
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.schemes.passes import stage_pass
from solvers.sde.schemes.scheme import Scheme

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# The largest number that is not infinite.
LARGEST = float(np.finfo(np.float64).max)
# Multiply–adds that a step takes at least for one component of one particle, noise included.
_WORK = 5


class Ensemble(NamedTuple):
    """The particles at one time of the grid."""

    step: int
    t: float
    x: Array  # (D, N); overwritten by later steps
    m: Matrix  # (M,)
    factor: Matrix  # (D, D), or empty without mean-field noise
    finite: bool


def integrate(
    equation: McKeanVlasov,
    form: Form,
    x: Array,
    brownian: BrownianMotion,
    scheme: Scheme,
    *,
    ensemble: ThreadParticles,
    common: BrownianMotion | None = None,
    field: Callable[[int], Array] | None = None,
    first: int = 0,
    limit: float = LARGEST,
) -> Iterator[Ensemble]:
    """Yield the particles at every time of the grid, the first included, until one is lost.

    Parameters
    ----------
    equation, form
        What is solved.
    x : (D, N) array
        The particles at t0; used as working space.
    brownian, common : BrownianMotion
        The grid and the motions of the particles, and the motions they share.
    scheme : Scheme
        The stages of a step.
    ensemble : ThreadParticles
        The partition of the particles, running.
    field : callable, optional
        field(j) is the external field at the j-th time, (N or 1, F).
    first : int
        The step to start with, whose time is that of `x`.
    limit : float
        Particles farther than this from 0, or not finite, are lost.
    """
    run = _Run(equation, form, scheme, ensemble, brownian, limit)
    # The particles of the last time are not written to, so that an interrupted step leaves them whole. Stages write to
    # the other two arrays in turn, the last one to y.
    stages = len(scheme.stages)
    y, between = np.empty_like(x), np.empty_like(x) if stages > 1 else x
    times, steps = brownian.times, brownian.steps
    shared = np.zeros((steps, 0)) if common is None else common.increments()[:, 0]
    outside = field or (lambda step: np.zeros((1, 0)))
    dt = (brownian.t1 - brownian.t0) / steps  # not a difference of times, whose rounding depends on where they are
    now = run.measure(times[first], x)._replace(step=first)
    yield now
    for step in range(first, steps):
        end, layer = times[step + 1], step if dt > 0 else steps - 1 - step
        noise = layer, shared[layer][:, None]
        there = now
        for stage in range(stages):
            target = between if (stages - stage) % 2 == 0 else y
            there = run.advance(stage, there, target, x, dt, end, outside(step + (stage > 0)), *noise)
            if not there.finite:
                break
        x, y = y, x
        now = there._replace(step=step + 1)
        yield now
        if not now.finite:
            return


def compile_kernels(
    equation: McKeanVlasov, form: Form, x: Array, field: Array, brownian: BrownianMotion, scheme: Scheme
) -> float:
    """Compile the equation, or load it from the cache, without calling it; return the seconds it took."""
    start = time.perf_counter()
    run = _Run(equation, form, scheme, ThreadParticles(x.shape[1]), brownian, LARGEST)
    t0, dt = brownian.times[0], brownian.times[1] - brownian.times[0]
    motions = form.common[-1] if form.common else 0
    factor = np.zeros((form.dimension,) * 2 if run.correlated else (0, 0))
    none = Ensemble(0, t0, x[:, :0].copy(), np.zeros(form.moments), factor, True)
    run.measure(t0, none.x)
    for stage in range(len(scheme.stages)):
        run.advance(stage, none, none.x, none.x, dt, t0, field[:0].copy(), 0, np.zeros((motions, 1)))
    return time.perf_counter() - start


class _Run:
    """The passes of a scheme over the particles, on the threads of a solve."""

    def __init__(
        self,
        equation: McKeanVlasov,
        form: Form,
        scheme: Scheme,
        ensemble: ThreadParticles,
        brownian: BrownianMotion,
        limit: float,
    ) -> None:
        self.stages, self.ensemble, self.brownian = scheme.stages, ensemble, brownian
        self.passes = [stage_pass(equation, form, stage) for stage in scheme.stages]
        self.pairs, self.limit = equation.interaction is not None, limit
        self.form, self.correlated = form, equation.noise == "mean_field"
        self.width = form.moments + self.correlated * form.dimension**2 + 1
        self.part_size = min(ensemble.group_size, SHARE) if equation.vectorized else STRETCH
        self.draw = brownian.noise.draw(brownian.address)

    def measure(self, t: float, x: Array) -> Ensemble:
        """Return the particles at t0 with their means."""
        return self._sum(t, x, lambda groups, sums: self.passes[0].measure(x, t, sums, *groups))

    def advance(
        self,
        stage: int,
        start: Ensemble,
        target: Array,
        base: Array,
        dt: float,
        arrival: float,
        field: Array,
        layer: int,
        common: Matrix,
    ) -> Ensemble:
        """Do a stage of the step from `base`; it sets `target` to the particles at the time of arrival."""
        draw = self.draw._replace(finest=self.brownian.noise.finest(layer))
        work, weight = self.passes[stage].advance, float(self.stages[stage].weight)
        here = start.t, dt, arrival, start.m, field, common, start.factor, draw, self.limit
        return self._sum(
            arrival, target, lambda groups, sums: work(start.x, target, weight, base, *here, sums, *groups)
        )

    def _sum(self, t: float, x: Array, work: Callable[[tuple[int, int, int, int], Matrix], None]) -> Ensemble:
        ensemble, form = self.ensemble, self.form
        sums = np.zeros((len(ensemble.groups), self.width))
        size = _WORK * x.size * (x.shape[1] if self.pairs else 1)
        ensemble.on_groups(
            lambda groups: work((groups.start, groups.stop, ensemble.group_size, self.part_size), sums), size
        )
        total = ensemble.total(sums)
        means = total[:-1] / ensemble.particles
        finite = total[-1] == 0 and bool(np.isfinite(total).all())
        factor = np.zeros((0, 0))
        if self.correlated and finite:
            factor = _covariance_factor(means[form.moments :].reshape(form.dimension, form.dimension))
        return Ensemble(0, t, x, means[: form.moments], factor, finite)


def _covariance_factor(covariance: Matrix) -> Matrix:
    """Return (D, D) C with C Cᵀ = covariance; each direction has the motion of the component that revealed it."""
    factor, kept = rank_revealing_cholesky(covariance, np.zeros(len(covariance)))
    full = np.zeros_like(covariance)
    full[:, kept] = factor
    return full
