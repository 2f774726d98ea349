"""Euler–Maruyama for McKean–Vlasov equations of scalar particles.

    dX = b(t, X, m) dt + s(t, X, m) dW,    m_t = E[ψ(t, X_t)],

with the expectation replaced by the mean over N particles that share nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.blocks import Blocks
from solvers.random import Address, Noise, Stream

Array = NDArray[np.floating]


@dataclass(frozen=True)
class McKeanVlasov:
    """Coefficients of an equation, as functions of arrays over a block of particles.

    Attributes
    ----------
    moments : callable
        ψ(t, x) → (M, n) for x of shape (n,).
    diffusion : callable
        s(t, x, m, field) → (n,) or a number; m is (M,), and `field` the external field of the step, or None.
    drift : callable, optional
        b(t, x, m, field) → (n,) or a number.
    """

    moments: Callable[[float, Array], Array]
    diffusion: Callable[[float, Array, NDArray[np.float64], Array | None], Array | float]
    drift: Callable[[float, Array, NDArray[np.float64], Array | None], Array | float] | None = None


def euler_maruyama(
    equation: McKeanVlasov,
    x: Array,
    times: NDArray[np.float64],
    *,
    blocks: Blocks,
    noise: Noise,
    stream: Stream,
    field: Callable[[int, slice], Array] | None = None,
    observe: Callable[[int, Array], None] | None = None,
) -> NDArray[np.float64]:
    """Advance the particles in place along `times`, which may increase or decrease.

    Parameters
    ----------
    equation : McKeanVlasov
        The coefficients.
    x : (N,) array
        The particles at times[0]; overwritten by those at times[-1].
    times : (steps + 1,) float64
        Monotone grid. The noise of the interval between grid points j and j + 1 in increasing time is
        read at layer j, so a solve that runs backward sees the same intervals.
    blocks, noise, stream
        The partition, and where the normals come from (step and position 0).
    field : callable, optional
        `field(step, block)` gives the external field per particle for the step that starts at times[step].
    observe : callable, optional
        Called as `observe(step, x)` for every grid point, 0 first.

    Returns
    -------
    moments : (steps + 1, M) float64
        Particle means of ψ at every grid point.
    """
    steps = len(times) - 1
    address = Address(stream)
    means = [blocks.mean(lambda block: _sums(equation, times[0], x[block]))]
    if observe is not None:
        observe(0, x)
    for step in range(steps):
        t, dt = times[step], times[step + 1] - times[step]
        layer = step if dt > 0 else steps - 1 - step

        def advance(block: slice, step: int = step, t: float = t, dt: float = dt, layer: int = layer) -> Array:
            normals = np.empty((1, block.stop - block.start))
            noise.fill(normals, slice(block.start, block.stop), address, layer, offset=block.start)
            outside = None if field is None else field(step, block)
            part, m = x[block], means[step]
            change = equation.diffusion(t, part, m, outside) * math.sqrt(abs(dt)) * normals[0]
            if equation.drift is not None:
                change += equation.drift(t, part, m, outside) * dt
            x[block] = part + change
            return _sums(equation, t + dt, x[block])

        means.append(blocks.mean(advance))
        if observe is not None:
            observe(step + 1, x)
    return np.array(means)


def _sums(equation: McKeanVlasov, t: float, part: Array) -> Array:
    return np.asarray(equation.moments(t, part).sum(axis=-1, dtype=np.float64))
