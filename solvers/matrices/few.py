"""The passes through a matrix, compiled for few particles."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from solvers.accelerate import composed_kernel, merged_kernel
from solvers.ensemble import few
from solvers.matrices.cholesky import inverse_of_triangle, revealing_factor
from solvers.matrices.reveal import Algebra, Matrix, Passes, passes


@lru_cache
def compiled_passes(condition: Callable[..., bool], correction: Callable[..., Matrix], precision: float) -> Passes:
    """Return the passes for a `Cut` of particles and a `Draw`; each is compiled, or loaded from disk, when called."""
    algebra = Algebra(
        few.inner,
        few.gram,
        few.project,
        few.combine,
        few.fill,
        few.empty,
        few.copy,
        condition,
        revealing_factor,
        inverse_of_triangle,
    )
    reveal, probe = passes(algebra, correction, precision, merged_kernel)
    return Passes(composed_kernel(reveal), composed_kernel(probe))
