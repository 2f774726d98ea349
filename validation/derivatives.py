"""A check of the derivatives of a residual block against differences of its values."""

from __future__ import annotations

import numpy as np

from flds.mean_ode.blocks import Array, Block, Parameters


def check_block(block: Block, dimension: int = 4, seed: int = 0, tolerance: float = 1e-6) -> dict[str, float]:
    """Compare a block's derivatives with central differences, and test that it is what a block has to be.

    Parameters
    ----------
    block : Block
        Of one's own or built in.
    dimension : int
        D.
    seed : int
        Of states, units and directions, which are standard normal.
    tolerance : float
        Largest error, relative to the size of what is compared; central differences leave about 1e-9.

    Returns
    -------
    dict
        Relative errors: "pull" (D1φᵀ b) and "gradient" (D2φᵀ b) against differences; "sum", that value and pull are
        sums over units; "rows", that rows are independent where the block is tokenwise; "flip", that φ changes its sign
        with the `flipped` parameters; where the block has them "tangent" (D2φ ζ), "pull_tangent" (D1 ⟨b, D2φ ζ⟩) and
        its gradient, "gradient again"; "covector", that it is what `pull` says; "descend", that it returns and
        subtracts what `pull` says.

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
    value, (back, gradient) = block.value(h, z), block.pull(h, b, z)
    slope = _difference(lambda e: np.sum(b * block.value(h + e * along, z)))
    units = _difference(lambda e: np.sum(b * block.value(h, _moved(z, change, e))))
    errors = {"pull": _relative(_dot({"h": back}, {"h": along}), slope)}
    errors["gradient"] = _relative(_dot(gradient, change), units)
    parts = [{name: a[..., part] for name, a in z.items()} for part in (slice(2), slice(2, None))]
    pulled = sum(block.pull(h, b, part)[0] for part in parts)
    errors["sum"] = max(
        _relative(np.asarray(sum(block.value(h, part) for part in parts)), value), _relative(np.asarray(pulled), back)
    )
    if block.tokenwise:
        errors["rows"] = _relative(block.value(h[1:3], z), value[1:3])
    if block.flipped:
        turned = {name: -a if name in block.flipped else a for name, a in z.items()}
        errors["flip"] = _relative(-block.value(h, turned), value)
    if type(block).tangent is not Block.tangent:
        moved = _difference(lambda e: block.value(h, _moved(z, change, e)))
        errors["tangent"] = _relative(block.tangent(h, z, change), moved)
    if type(block).pull_tangent is not Block.pull_tangent:
        bent, again = block.pull_tangent(h, b, z, change)
        errors["pull_tangent"] = _relative(bent, _difference(lambda e: block.pull(h, b, _moved(z, change, e))[0]))
        errors["gradient again"] = max(_relative(again[name], gradient[name]) for name in gradient)
    errors["covector"] = _relative(block.covector(h, b, z), back)
    left = {name: a.copy() for name, a in z.items()}
    found = {"": block.descend(h, b, left, dict.fromkeys(z, 1.0))} | {name: z[name] - left[name] for name in z}
    errors["descend"] = max(_relative(a, (gradient | {"": back})[name]) for name, a in found.items())
    for name, error in errors.items():
        if not error <= tolerance:
            raise ValueError(f"{name} of the block {block.name!r} is off by {error:.1e}")
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
