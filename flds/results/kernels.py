"""Kernels of single steps, out of those across all recorded passes, and how well kernels fit targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import solvers.results.solution
from solvers import checks

if TYPE_CHECKING:
    import xarray

KERNELS = ("feature_kernel", "gradient_kernel", "test_feature_kernel")


def step_kernel(solution: solvers.results.solution.Solution, name: str) -> xarray.DataArray:
    """Return a kernel across the batch of each recorded step, as `flds.Solution.step_kernel` describes it."""
    import xarray

    if checks.choice("name", name, KERNELS) not in solution.variables:
        needed = "record_kernels=True and test inputs" if name == "test_feature_kernel" else "record_kernels=True"
        raise AttributeError(f"this solution has no {name}, which takes {needed}")
    kernel, steps = getattr(solution, name), solution.steps
    attributes = {"long_name": solution.variables[name].long_name, "units": "1"}
    # Σ_t is that before the layer, Θ_t that after it
    grid = solution.depth_grid[1:] if name == "gradient_kernel" else solution.depth_grid[:-1]
    coordinates: dict[str, Any] = {"step": steps, "t": solvers.results.solution.readable(grid)}
    if name == "test_feature_kernel":
        dims = ("step", "t", "test_sample", "other_test_sample")
        return xarray.DataArray(kernel, coordinates, dims, name, attributes)
    layers, batch = len(kernel), kernel.shape[1] // len(steps)
    blocks = kernel.reshape(layers, len(steps), batch, len(steps), batch)
    own = np.stack([blocks[:, record, :, record] for record in range(len(steps))])
    if "pass_sample" in solution.variables:
        samples = solution.pass_sample.reshape(len(steps), batch)
        if np.all(samples == samples[0]):
            coordinates |= {"sample": samples[0], "other_sample": samples[0]}
            return xarray.DataArray(own, coordinates, ("step", "t", "sample", "other_sample"), name, attributes)
        coordinates["sample"] = (("step", "place"), samples)
    return xarray.DataArray(own, coordinates, ("step", "t", "place", "other_place"), name, attributes)


def kernel_alignment(kernel: ArrayLike, targets: ArrayLike, *, classes: bool | None = None) -> NDArray[np.float64]:
    """Return the centred alignment of a kernel with targets, ⟨HKH, HYYᵀH⟩ / (‖HKH‖ ‖HYYᵀH‖), from 0 to 1.

    H takes away means over the samples, so that a constant added to all features or targets changes nothing. 1 is the
    kernel that tells samples apart by their targets alone.

    Parameters
    ----------
    kernel : (..., m, m) array
        Positive semidefinite, of one set of samples with itself.
    targets : (m,) or (m, outputs) array
        Y.
    classes : bool, optional
        Whether the targets are classes, (m,). It must be said of more than two different whole numbers of integer type.

    Returns
    -------
    (...,) float64
        NaN where the kernel or the targets do not tell the samples apart.

    Raises
    ------
    ValueError, TypeError
        If shapes do not suit each other or numbers are not finite.

    References
    ----------
    Cortes, Mohri and Rostamizadeh, "Algorithms for learning kernels based on centered alignment", Journal of Machine
    Learning Research 13 (2012), section 2.
    """
    matrices, given = checks.numeric("kernel", kernel, "a square matrix or several"), np.asarray(targets)
    values = np.asarray(checks.numeric("targets", targets, "a number or several for each sample"), np.float64)
    if matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2] or not matrices.size:
        raise ValueError(f"kernel must have the shape (..., m, m), got {matrices.shape}")
    if values.ndim not in (1, 2) or len(values) != matrices.shape[-1]:
        raise ValueError(f"targets must be of {matrices.shape[-1]} samples, as the kernel is, got shape {values.shape}")
    for name, numbers in {"kernel": matrices, "targets": values}.items():
        if not np.isfinite(numbers).all():
            raise ValueError(f"{name} must be finite")
    if not np.allclose(matrices, np.swapaxes(matrices, -1, -2), rtol=1e-6, atol=1e-9 * np.abs(matrices).max()):
        raise ValueError("kernel must be symmetric: that of one set of samples with itself")
    if classes is None:
        classes = False
        if given.dtype.kind in "iu" and len(np.unique(given)) > 2:  # of two, classes and values are the same
            raise ValueError("targets are whole numbers: say with classes=True or classes=False what they are")
    if checks.flag("classes", classes):
        if values.ndim != 1:
            raise ValueError(f"targets must have the shape (samples,) where they are classes, got {values.shape}")
        values = np.asarray(given[:, None] == np.unique(given), np.float64)
    return aligned(np.asarray(matrices, np.float64), values if values.ndim == 2 else values[:, None])


def aligned(kernel: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the alignment of kernels, (..., m, m), with targets, (m, outputs); NaN where a kernel is."""
    # sizes of either cancel
    kernel = kernel / np.maximum(np.abs(kernel).max(axis=(-2, -1), keepdims=True, initial=0.0), np.finfo(float).tiny)
    targets = targets / max(float(np.abs(targets).max(initial=0.0)), np.finfo(float).tiny)
    away = targets - targets.mean(axis=0)
    ideal = away @ away.T
    centred = kernel - kernel.mean(axis=-1, keepdims=True)
    centred = centred - centred.mean(axis=-2, keepdims=True)
    sizes = np.linalg.norm(centred, axis=(-2, -1)), np.linalg.norm(ideal)
    # what is left of equal numbers is rounding
    flat = (sizes[0] <= 1e-12 * np.linalg.norm(kernel, axis=(-2, -1))) | (sizes[1] <= 1e-12 * np.sum(targets**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.sum(centred * ideal, axis=(-2, -1)) / (sizes[0] * sizes[1])
    return np.where(flat, np.nan, found)
