"""Schemes for `solvers.solve`, and what one's own is made of: `Scheme`, its `Stage`, and terms.

``scheme=solvers.schemes.Heun()`` and ``scheme="heun"`` are the same.
"""

from solvers.sde.schemes import *  # noqa: F403
from solvers.sde.schemes import __all__ as __all__
