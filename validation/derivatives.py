"""A check of the derivatives of a residual block against differences of its values."""

from __future__ import annotations

import numpy as np

from flds.mean_ode.blocks import Array, Block, Parameters


def check_block(block: Block, dimension: int = 4, seed: int = 0, tolerance: float = 1e-6) -> dict[str, float]:
    """Compare a block's derivatives with central differences at random states and units.

    Parameters
    ----------
    block : Block
        Of one's own or built in.
    dimension : int
        D.
    seed : int
        Of states, units and directions, which are standard normal.
    tolerance : float
        Largest difference, relative to the size of what is compared; central differences leave about 1e-9.

    Returns
    -------
    dict
        Relative error of "pull" (D1φᵀ b), of "gradient" (D2φᵀ b) and, where the block has them, of "tangent" (D2φ ζ),
        "pull_tangent" (D1 ⟨b, D2φ ζ⟩) and its gradient, "gradient again".

    Raises
    ------
    ValueError
        If one exceeds the tolerance; the message names it.
    """
    generator = np.random.default_rng(seed)
    h = generator.standard_normal((2, 3, dimension))
    h = h.reshape(-1, dimension) if block.tokenwise else h
    b, along = generator.standard_normal(h.shape), generator.standard_normal(h.shape)
    z = {name: generator.standard_normal((*shape, 5)) for name, shape in block.shapes(dimension).items()}
    change = {name: generator.standard_normal(a.shape) for name, a in z.items()}
    back, gradient = block.pull(h, b, z)
    slope = _difference(lambda e: np.sum(b * block.value(h + e * along, z)))
    units = _difference(lambda e: np.sum(b * block.value(h, _moved(z, change, e))))
    errors = {
        "pull": _relative(np.asarray(np.sum(back * along)), slope),
        "gradient": _relative(_dot(gradient, change), units),
    }
    if type(block).tangent is not Block.tangent:
        moved = _difference(lambda e: block.value(h, _moved(z, change, e)))
        errors["tangent"] = _relative(block.tangent(h, z, change), moved)
    if type(block).pull_tangent is not Block.pull_tangent:
        bent, again = block.pull_tangent(h, b, z, change)
        errors["pull_tangent"] = _relative(bent, _difference(lambda e: block.pull(h, b, _moved(z, change, e))[0]))
        errors["gradient again"] = max(_relative(again[name], gradient[name]) for name in gradient)
    for name, error in errors.items():
        if not error <= tolerance:
            raise ValueError(f"{name} of the block {block.name!r} differs from differences of values by {error:.1e}")
    return errors


def _difference(function, step: float = 1e-4) -> Array:  # type: ignore[no-untyped-def]
    """Central difference of order four at 0."""
    first, second = (function(k * step) - function(-k * step) for k in (1, 2))
    return np.asarray((8 * first - second) / (12 * step))


def _moved(z: Parameters, change: Parameters, step: float) -> Parameters:
    return {name: a + step * change[name] for name, a in z.items()}


def _dot(left: Parameters, right: Parameters) -> Array:
    return np.asarray(sum(np.sum(left[name] * right[name]) for name in left))


def _relative(found: Array, expected: Array) -> float:
    return float(np.max(np.abs(found - expected)) / max(1e-3, np.max(np.abs(expected))))
