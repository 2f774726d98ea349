"""What solutions can do with rooms above them: be drawn.

Solutions lie below the pictures and do not know them. The package that has the pictures attaches them when it is
imported, which is why nothing that takes time is imported here.
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
    """

    plot: Callable[..., Any]


upstairs = Upstairs()
