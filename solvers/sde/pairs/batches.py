"""Random batches: a partition of the particles that is drawn anew in each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel
from solvers.ensemble.random import Draw, Stream, fill_uniforms

Places = NDArray[np.int64]


@kernel
def shuffle(order: Any, u: Any) -> None:
    """Exchange each place with a random one up to it (Fisher and Yates), of u uniform on (0, 1)."""
    for p in range(len(order) - 1, 0, -1):
        other = min(int(u[p] * (p + 1)), p)
        order[p], order[other] = order[other], order[p]


def partition_of(particles: int, size: int, draw: Draw) -> tuple[Places, Places, Places]:
    """Return the particles batch after batch, where each batch begins, and the batch of each particle.

    Batches have `size` particles, and a remainder is spread over them. Those of a step are the same in all its stages.
    """
    u, order = np.empty(particles), np.arange(particles)
    fill_uniforms(u, 0, particles, draw.seed, int(Stream.BATCHES), draw.step, 0, draw.finest)
    shuffle(order, u)
    count = particles // size
    begin = np.arange(count + 1) * particles // count
    batch = np.empty(particles, np.int64)
    batch[order] = np.repeat(np.arange(count), np.diff(begin))
    return order, begin, batch
