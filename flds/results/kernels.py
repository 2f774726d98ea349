"""Kernels of single steps, out of those across all recorded passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import solvers.results.solution
from solvers import checks

if TYPE_CHECKING:
    import xarray

KERNELS = ("feature_kernel", "gradient_kernel")


def step_kernel(solution: solvers.results.solution.Solution, name: str) -> xarray.DataArray:
    """Return a kernel across the batch of each recorded step, as `flds.Solution.step_kernel` describes it."""
    import xarray

    kernel, steps = getattr(solution, checks.choice("name", name, KERNELS)), solution.steps
    layers, batch = len(kernel), kernel.shape[1] // len(steps)
    blocks = kernel.reshape(layers, len(steps), batch, len(steps), batch)
    own = np.stack([blocks[:, record, :, record] for record in range(len(steps))])
    # Σ_t is that before the layer, Θ_t that after it
    grid = solution.depth_grid[:-1] if name == "feature_kernel" else solution.depth_grid[1:]
    coordinates: dict[str, Any] = {"step": steps, "t": solvers.results.solution.readable(grid)}
    attributes = {"long_name": solution.variables[name].long_name, "units": "1"}
    if "pass_sample" in solution.variables:
        samples = solution.pass_sample.reshape(len(steps), batch)
        if np.all(samples == samples[0]):
            coordinates |= {"sample": samples[0], "other_sample": samples[0]}
            return xarray.DataArray(own, coordinates, ("step", "t", "sample", "other_sample"), name, attributes)
        coordinates["sample"] = (("step", "place"), samples)
    return xarray.DataArray(own, coordinates, ("step", "t", "place", "other_place"), name, attributes)
