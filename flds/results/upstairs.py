"""What solutions can do with rooms above them: be drawn, and be evaluated at new inputs.

Solutions lie below the solvers and the pictures, so they know neither. The package attaches both when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Upstairs:
    """Functions of a solution that other rooms provide.

    Attributes
    ----------
    plot : callable
        (solution, path or None) → figure, which is also saved if there is a path.
    predict : callable
        (solution, inputs, problem or None) → outputs of each replicate, (replicates, samples, …).
    """

    plot: Callable[..., Any] = NotImplemented
    predict: Callable[..., Any] = NotImplemented


upstairs = Upstairs()
