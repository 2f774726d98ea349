"""Schemes for `solvers.solve`, and what one's own is made of: `Scheme`, its `Stage`, and terms.

``scheme=solvers.schemes.Heun()`` and ``scheme="heun"`` are the same.
"""

from typing import TYPE_CHECKING, Any

from solvers.sde.schemes import *  # noqa: F403
from solvers.sde.schemes import __all__ as __all__

if TYPE_CHECKING:  # the classes of schemes are found by the table of their files

    def __getattr__(name: str) -> Any: ...
