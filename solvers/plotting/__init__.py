"""Pictures of solutions of `solvers`, and the look that all pictures share: `STYLE` is for `matplotlib.rcParams`."""

from __future__ import annotations

from solvers.plotting.equations import overview
from solvers.plotting.style import ONE_COLUMN, PALETTE, STYLE, TWO_COLUMNS, logarithmic

__all__ = ["ONE_COLUMN", "PALETTE", "STYLE", "TWO_COLUMNS", "logarithmic", "overview"]
