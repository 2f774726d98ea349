"""Pictures of a `solution`, fresh or from a file.

Functions draw into the matplotlib axes `ax`, or into new ones as wide as a column of a paper, and return them;
overviews return figures. Bands are ± 2 standard errors, where there are replicates, or the intervals of a
`LimitEstimate`. Colours are safe for any colour vision. `STYLE` has the settings of all pictures, for
`matplotlib.rcParams`; `ONE_COLUMN` and `TWO_COLUMNS` are widths in inches.
"""

from __future__ import annotations

from flds.plotting.comparison import comparison_overview, plot_comparison, plot_scores
from flds.plotting.curves import (
    plot_accuracy,
    plot_against_limit,
    plot_loss,
    plot_outputs,
    plot_rank,
    plot_replicates,
    plot_travel,
    plot_variance,
)
from flds.plotting.kernels import plot_kernel, plot_kernel_movement, plot_particles, plot_spectrum
from flds.plotting.overview import limit_overview, mean_field_overview, overview
from flds.plotting.phases import plot_phase_diagram
from flds.plotting.transfer import plot_transfer, sweep_overview
from solvers.plotting.style import ONE_COLUMN, PALETTE, STYLE, TWO_COLUMNS, logarithmic

__all__ = [
    "ONE_COLUMN",
    "PALETTE",
    "STYLE",
    "TWO_COLUMNS",
    "comparison_overview",
    "limit_overview",
    "logarithmic",
    "mean_field_overview",
    "overview",
    "plot_accuracy",
    "plot_against_limit",
    "plot_comparison",
    "plot_kernel",
    "plot_kernel_movement",
    "plot_loss",
    "plot_outputs",
    "plot_particles",
    "plot_phase_diagram",
    "plot_rank",
    "plot_replicates",
    "plot_scores",
    "plot_spectrum",
    "plot_transfer",
    "plot_travel",
    "plot_variance",
    "sweep_overview",
]
