"""How fresh noise vectors are conditioned before they become images of a weight matrix.

By law nothing is done: N particles are then a network of width N, fluctuations included. `solvers.matrices.matched`
makes second moments exact instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Sampling:
    """Fresh vectors by law: independent standard normals, left as they are."""

    unmatched = False  # whether some vectors were left as they were for lack of room

    def condition(self, z: Array, states: Array | None) -> None:
        """Condition the fresh vectors z, (m, N), in place.

        `states`, (b, N), are vectors of the same depth, or None for vectors that will not be remembered.
        """
