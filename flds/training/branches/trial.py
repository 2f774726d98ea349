"""What a branch of one's own must do: tried in a small case before any run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation
from flds.training.branches.branch import BranchPull, ResidualBranch
from flds.training.branches.layer import BranchLayer
from solvers import checks
from solvers.ensemble.random import Address, Noise, Stream
from solvers.ensemble.threads import ThreadParticles
from solvers.matrices.dense import DenseOperator
from solvers.matrices.operator import WeightOperator

Array = NDArray[np.float64]

# Neurons of the small case, and samples, of which the backward pass meets some.
_WIDTH, _SAMPLES, _ACTIVE = 6, 3, [0, 2]


def small_layer(branch: ResidualBranch, phi: Activation, width: int = _WIDTH) -> BranchLayer:
    """Return a layer of few neurons, with its matrices held whole, always the same ones."""
    residual, dtype = ThreadParticles(width), np.dtype(np.float64)
    homes = {"residual": residual, "hidden": residual.beside(branch.hidden(width))}
    matrices: dict[str, WeightOperator] = {
        name: DenseOperator(
            homes[one.inputs], Noise(7, part=part), 0, tied=True, dtype=dtype, outputs=homes[one.outputs]
        )
        for part, (name, one) in enumerate(branch.matrices.items())
    }
    return BranchLayer(0, branch.vectors, phi, homes, matrices, dtype)


def try_branch(branch: ResidualBranch, phi: Activation) -> list[float]:
    """Make both passes of a branch in a small case, and return numbers that tell it from others.

    Raises
    ------
    TypeError
        If a pass fails, or does not return what `ResidualBranch` says.
    ValueError
        If it gives other numbers when called again, or for a sample that comes with others.
    """
    label = type(branch).__name__
    width = max(_WIDTH, int(np.ceil(1 / branch.hidden_ratio)))
    layer = small_layer(branch, phi, width)
    h, g = (np.sin(np.arange(_SAMPLES * width) * factor).reshape(_SAMPLES, width) for factor in (1.0, 1.7))
    image, tape = _forward(label, branch, layer, h)
    again, _ = _forward(label, branch, layer, h)
    alone, _ = _forward(label, branch, layer, h[_ACTIVE])
    if not np.array_equal(image, again, equal_nan=True):
        raise ValueError(f"forward of {label} must give the same for the same arguments")
    if not np.allclose(alone, image[_ACTIVE], rtol=1e-9, atol=1e-12, equal_nan=True):
        raise ValueError(f"forward of {label} must treat each sample alone, but depends on which others are there")
    met = {name: one[_ACTIVE] for name, one in tape.items()}
    values = [image, *_pulled(label, branch, layer, g[_ACTIVE], h[_ACTIVE], met)]
    _forward(label, branch, layer, 0.5 * h[_ACTIVE])  # as of another layer, before this one is passed on the way back
    for first, second in zip(values[1:], _pulled(label, branch, layer, g[_ACTIVE], h[_ACTIVE], met), strict=True):
        if not np.array_equal(first, second, equal_nan=True):
            raise ValueError(
                f"backward of {label} must give the same for the same arguments, whatever passes came between: keep on "
                "the tape what it needs, and nothing in the branch"
            )
    if not all(np.isfinite(one).all() for one in values):
        raise ValueError(f"the passes of {label} must give finite numbers, but in a small case do not")
    return [float(number) for one in values for number in (one.sum(), np.abs(one).sum())]


def _address(stream: Stream, count: int) -> Address:
    return Address(stream, 0, tuple(range(count)))


def _forward(label: str, branch: ResidualBranch, layer: BranchLayer, h: Array) -> tuple[Array, dict[str, Array]]:
    here = layer.begin(_address(Stream.FORWARD, len(h)), remember=True)
    given = h.copy()
    found = checks.called(f"forward of {label} failed", branch.forward, given, here)
    _require_untouched(f"forward of {label}", {"h": (given, h)})
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        raise TypeError(f"forward of {label} must return an image and a dictionary, got {checks.shown(found)}")
    image, tape = found
    _require(f"forward of {label} must return an image", image, h.shape)
    for name, operator in layer.matrices.items():
        rule = f"the tape of {label} must hold under {name!r} the coordinates that layer.multiply gave"
        _require(rule, tape.get(name), (len(h), operator.inputs.particles))
    for name, rows in tape.items():
        if not isinstance(rows, np.ndarray) or not rows.ndim or len(rows) != len(h):
            raise TypeError(
                f"the tape of {label} must hold arrays with a row for each sample, got {name!r}: {checks.shown(rows)}"
            )
    return image, tape


def _backward(
    label: str, branch: ResidualBranch, layer: BranchLayer, g: Array, h: Array, tape: dict[str, Array]
) -> BranchPull:
    here = layer.begin(_address(Stream.BACKWARD, len(g)), remember=True)
    met, state = g.copy(), h.copy()
    pull = checks.called(f"backward of {label} failed", branch.backward, met, state, dict(tape), here)
    _require_untouched(f"backward of {label}", {"g": (met, g), "h": (state, h)})
    if not isinstance(pull, BranchPull) or not isinstance(pull.gradients, dict):
        raise TypeError(f"backward of {label} must return a flds.BranchPull, got {checks.shown(pull)}")
    _require(f"backward of {label} must return an image", pull.image, h.shape)
    if pull.slope is not None:
        _require(f"backward of {label} must return a slope", pull.slope, h.shape)
    known = [*branch.matrices, *branch.vectors]
    if set(pull.gradients) != set(known):
        got = ", ".join(map(str, pull.gradients)) or "none"
        raise TypeError(f"backward of {label} must return gradients by {', '.join(known)}, got {got}")
    for name, operator in layer.matrices.items():
        rule = f"the gradient by {name!r} of {label} must be the coordinates that layer.pull gave"
        _require(rule, pull.gradients[name], (len(g), operator.outputs.particles))
    for name, vector in layer.vectors.items():
        rule = f"the gradient by {name!r} of {label} must be that of each sample"
        _require(rule, pull.gradients[name], (len(g), vector.shape[1]))
    return pull


def _pulled(
    label: str, branch: ResidualBranch, layer: BranchLayer, g: Array, h: Array, tape: dict[str, Array]
) -> list[Any]:
    """Return what a backward pass pulls back to h, and all gradients."""
    pull = _backward(label, branch, layer, g, h, {name: one.copy() for name, one in tape.items()})
    whole = pull.image if pull.slope is None else pull.image * pull.slope
    return [whole, *(pull.gradients[name].copy() for name in [*branch.matrices, *branch.vectors])]


def _require_untouched(label: str, arrays: dict[str, tuple[Array, Array]]) -> None:
    for name, (after, before) in arrays.items():
        if not np.array_equal(after, before):
            raise ValueError(f"{label} must not change {name}, which other layers read; work on a new array")


def _require(rule: str, found: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.shape != shape:
        got = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else checks.shown(found)
        raise TypeError(f"{rule}, floating-point numbers of shape {shape} in a small case, got {got}")
