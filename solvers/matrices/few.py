"""The passes through a matrix, compiled for few particles."""

from __future__ import annotations

from functools import lru_cache

from solvers.accelerate import composed_kernel, merged_kernel
from solvers.matrices.algebra import OF_FEW, Function
from solvers.matrices.reveal import Passes, passes


@lru_cache
def compiled_passes(condition: Function, correction: Function, precision: float) -> Passes:
    """Return the passes for two `Cut`s and a `Draw`; each is compiled, or loaded from disk, when called."""
    reveal, probe = passes(OF_FEW, condition, correction, precision, merged_kernel)
    return Passes(composed_kernel(reveal), composed_kernel(probe))
