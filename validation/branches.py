"""Whether the backward pass of a residual branch is that of its forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation, get_activation
from flds.training.branches import BranchLayer, ResidualBranch, check_branch, small_layer, try_branch
from solvers import checks
from solvers.ensemble.random import Address, Stream
from solvers.matrices.dense import DenseOperator

Array = NDArray[np.floating]
Twin = Callable[[Any, dict[str, Any], dict[str, Any]], Any]

_SAMPLES, _STEP = 3, 1e-6
# Relative to the largest entry: rounding over the step and the square of the step, or rounding alone.
_BY_DIFFERENCES, _BY_AUTOGRAD = 1e-7, 1e-10


def check_residual_branch(
    branch: ResidualBranch, twin: Twin | None = None, *, activation: str | Activation = "tanh", width: int = 7
) -> dict[str, float]:
    """Compare the backward pass of a branch with derivatives of its forward pass, in a small case.

    Parameters
    ----------
    branch : flds.ResidualBranch
        The branch.
    twin : callable, optional
        The same branch in torch, twin(h, matrices, vectors) with h (samples, n) and the matrices 𝒲, (outputs, inputs),
        and vectors by name; it is differentiated by autograd. Without it the branch's own forward pass is, by central
        differences.
    activation : str or Activation
        φ.
    width : int
        n.

    Returns
    -------
    dict
        The largest difference for "h" and for each parameter, over the largest entry.

    Raises
    ------
    ValueError
        If a pulled-back gradient or a gradient by a parameter is not that of the forward pass, or the twin's forward
        pass is another one; it names which.
    TypeError
        If the branch is none, or its passes do not return what they should.

    References
    ----------
    Paper F, eq. (4), for the backward pass of one matrix.
    """
    check_branch(branch)
    phi = get_activation(activation)
    try_branch(branch, phi)
    layer = small_layer(branch, phi, checks.positive_integer("width", width))
    h, g = np.random.default_rng(0).standard_normal((2, _SAMPLES, width))
    for vector in layer.vectors.values():
        vector += 0.3 * np.sin(np.arange(vector.size))
    found = _backward(branch, layer, h, g)
    label = type(branch).__name__
    if twin is None:
        expected, allowed = _by_differences(branch, layer, h, g), _BY_DIFFERENCES
    else:
        image, expected = _by_autograd(twin, layer, h, g)
        allowed = _BY_AUTOGRAD
        apart = _apart(image, _forward(branch, layer, h))
        if not apart <= allowed:
            raise ValueError(f"forward of {label} differs from its twin by {apart:.1e} of the largest entry")
    differences = {name: _apart(found[name], one) for name, one in expected.items()}
    for name, apart in differences.items():
        if not apart <= allowed:
            what = "the gradient pulled back to h" if name == "h" else f"the gradient by {name!r}"
            raise ValueError(
                f"backward of {label}: {what} differs from that of its forward pass by {apart:.1e} of the largest entry"
            )
    return differences


def _apart(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(float).tiny))


def _begin(layer: BranchLayer, stream: Stream, count: int) -> BranchLayer:
    return layer.begin(Address(stream, 0, tuple(range(count))), remember=True)


def _forward(branch: ResidualBranch, layer: BranchLayer, h: Array) -> Array:
    return branch.forward(h.copy(), _begin(layer, Stream.FORWARD, len(h)))[0]


def _weights(layer: BranchLayer) -> dict[str, Array]:
    found = {}
    for name, operator in layer.matrices.items():
        assert isinstance(operator, DenseOperator)
        found[name] = operator.weights
    return found


def _backward(branch: ResidualBranch, layer: BranchLayer, h: Array, g: Array) -> dict[str, Array]:
    """Return the gradients of Σ g · forward(h) that the backward pass gives."""
    tape = branch.forward(h.copy(), _begin(layer, Stream.FORWARD, len(h)))[1]
    pull = branch.backward(g.copy(), h.copy(), dict(tape), _begin(layer, Stream.BACKWARD, len(g)))
    found = {"h": pull.image if pull.slope is None else pull.image * pull.slope}
    for name, weights in _weights(layer).items():
        found[name] = np.sqrt(weights.size) * pull.gradients[name].T @ tape[name]
    return found | {name: pull.gradients[name].sum(axis=0, keepdims=True) for name in layer.vectors}


def _by_differences(branch: ResidualBranch, layer: BranchLayer, h: Array, g: Array) -> dict[str, Array]:
    h = h.copy()
    found = {}
    for name, values in {"h": h, **_weights(layer), **layer.vectors}.items():
        gradient = found[name] = np.empty_like(values)
        for place in np.ndindex(values.shape):
            here, sides = values[place], []
            for side in (here + _STEP, here - _STEP):
                values[place] = side
                sides.append(float(np.sum(g * _forward(branch, layer, h))))
            values[place] = here
            gradient[place] = (sides[0] - sides[1]) / (2 * _STEP)
    return found


def _by_autograd(twin: Twin, layer: BranchLayer, h: Array, g: Array) -> tuple[Array, dict[str, Array]]:
    import torch

    def leaf(values: Array) -> Any:
        return torch.tensor(values, requires_grad=True)

    matrices = {name: leaf(one) for name, one in _weights(layer).items()}
    leaves = {"h": leaf(h), **matrices} | {name: leaf(one[0]) for name, one in layer.vectors.items()}
    vectors = {name: leaves[name] for name in layer.vectors}
    image = checks.called("the twin failed", twin, leaves["h"], matrices, vectors)
    if not isinstance(image, torch.Tensor) or image.shape != h.shape or not image.requires_grad:
        got = f"one of shape {tuple(image.shape)}" if isinstance(image, torch.Tensor) else checks.shown(image)
        raise TypeError(f"the twin must return a tensor of shape {h.shape} that depends on its arguments, got {got}")
    slopes = torch.autograd.grad(image, list(leaves.values()), torch.tensor(g), materialize_grads=True)
    found = {name: one.numpy() for name, one in zip(leaves, slopes, strict=True)}
    return image.detach().numpy(), found | {name: found[name][None] for name in vectors}
