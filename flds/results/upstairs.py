"""What solutions can do with rooms above them: be evaluated at new inputs.

Solutions lie below the solvers and do not know them. The package attaches them when it is imported, which is why
nothing that takes time is imported here.
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
    predict : callable
        (solution, inputs, problem or None) → outputs of each replicate, (replicates, samples, …).
    """

    predict: Callable[..., Any]


upstairs = Upstairs()
