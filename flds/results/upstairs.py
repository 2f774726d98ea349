"""What solutions can do with rooms above them: be drawn, and be evaluated at new inputs.

Solutions lie below the solvers and the pictures, so they know neither. The package attaches both when it is imported,
which is why nothing that takes time is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Upstairs:
    """Functions of a solution that other rooms provide.

    Attributes
    ----------
    plot : callable
        (solution, path or None) → figure, which is also saved if there is a path.
    predict : callable
        (solution, inputs, problem or None) → outputs of each replicate, (replicates, samples, …).
    """

    plot: Callable[..., Any]
    predict: Callable[..., Any]


upstairs = Upstairs()
