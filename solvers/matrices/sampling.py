"""How fresh noise vectors are conditioned before they become images of a weight matrix.

By law nothing is done: N particles are then a network of width N, fluctuations included. `solvers.matrices.matched`
makes second moments exact instead.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import merged_kernel

Array = NDArray[np.floating]


class Sampling:
    """Fresh vectors by law: independent standard normals, left as they are.

    Attributes
    ----------
    constants : (k, N) array or None
        What vectors are conditioned on besides the states of a batch.
    """

    constants: Array | None = None

    def condition(self, z: Array, states: Array) -> bool:
        """Condition the fresh vectors z, (m, N), in place; return whether there was room for it.

        `states`, (b, N), are vectors of the same depth, none for vectors that will not be remembered.
        """
        return True

    def compiled(self, dtype: np.dtype) -> Callable[..., bool] | None:
        """Return `condition` for kernels, or None if there is none.

        It is a function (cut, z, states, constants) that returns whether there was room.
        """
        return _left_alone


@merged_kernel
def _left_alone(cut, z, states, constants):  # type: ignore[no-untyped-def]
    return True
