"""Pictures of a `solution`, fresh or from a file.

Functions draw into the matplotlib axes `ax`, or into new ones, and return the artists in a list. Bands are ± 2 standard
errors, where there are replicates, or the intervals of a `LimitEstimate`. Colours are safe for any colour vision.
"""

from __future__ import annotations

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
from flds.plotting.overview import mean_field_overview, overview

__all__ = [
    "mean_field_overview",
    "overview",
    "plot_accuracy",
    "plot_against_limit",
    "plot_kernel",
    "plot_kernel_movement",
    "plot_loss",
    "plot_outputs",
    "plot_particles",
    "plot_rank",
    "plot_replicates",
    "plot_spectrum",
    "plot_travel",
    "plot_variance",
]
