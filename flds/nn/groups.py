"""Learning rates that give a network a limit in width, and optimisers that move Gaussian matrices as dense ones."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from flds.nn.linear import gaussian_layers
from solvers import checks

# Modules of torch with hidden matrices that are no `nn.Linear`.
_WITH_MATRICES = (
    nn.Bilinear,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.modules.conv._ConvNd,
)
# Sides and seed of the matrix that an optimiser is tried on, and how many steps it makes.
_SIDES, _SEED, _STEPS, _RATE = (6, 5), 0, 2, 0.01
# Steps may differ by so much of their size: torch's Muon rounds to bfloat16 five times.
_ROUNDING = 0.1


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float = 0.0, *, width: int | None = None
) -> list[dict[str, Any]]:
    """Return the groups of parameters of a network for an optimiser of SGD's kind, with rates that are free of width.

    Matrices (A of `GaussianLinear`, weights of `torch.nn.Linear`) take the rate and the decay as they are; everything
    else (embeddings, biases, gains, readout) takes the rate times n and the decay over n. It is assumed that embeddings
    and a readout are stored with entries of order 1, and that the forward pass divides by n after the readout, as the
    networks of `flds.nn` do; they must not be `torch.nn.Linear`, which counts as a hidden matrix. Under torch's
    optimisers the decay reaches A alone, and not the weights as they were drawn; see `GaussianLinear.decay_weights`.
    Give the width where the first `GaussianLinear` takes something else than the residual stream.

    For Adam on the vectors make the groups by hand: its rate is not multiplied, and its epsilon is divided by n.

    Parameters
    ----------
    model : nn.Module
        The network.
    learning_rate, weight_decay : float
        η and λ.
    width : int, optional
        n, the width of the residual stream; by default `in_features` of the first `GaussianLinear`.

    Returns
    -------
    list of dict
        "params", "lr", "weight_decay" and "name" of the groups "matrices" and "vectors", where there are any.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid, there is no width to be found, or the network has matrices in convolutions,
        `torch.nn.MultiheadAttention`, `torch.nn.Bilinear` or recurrent modules, whose groups are made by hand.

    References
    ----------
    G. Yang, E. J. Hu, "Tensor Programs IV: Feature learning in infinite-width neural networks", ICML 2021.
    """
    gaussian = list(gaussian_layers(model).values())
    rate = checks.positive_number("learning_rate", learning_rate, zero=True)
    decay = checks.positive_number("weight_decay", weight_decay, zero=True)
    if width is None:
        if not gaussian:
            raise ValueError("width must be given, since the network has no GaussianLinear")
        width = gaussian[0].in_features
    width = checks.positive_integer("width", width)
    for name, one in model.named_modules():
        if isinstance(one, _WITH_MATRICES):
            raise ValueError(f"matrices of {type(one).__name__} {name!r} have no rate here: make the groups by hand")
    matrices: list[torch.Tensor] = [one.learned for one in gaussian]
    matrices += [one.weight for one in model.modules() if isinstance(one, nn.Linear)]
    known = {id(one) for one in matrices}
    vectors = [one for one in model.parameters() if id(one) not in known]
    groups = [
        {"params": matrices, "lr": rate, "weight_decay": decay, "name": "matrices"},
        {"params": vectors, "lr": rate * width, "weight_decay": decay / width, "name": "vectors"},
    ]
    return [group for group in groups if group["params"]]


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise unless an optimiser's steps on A are its steps on the weights 𝒲 of every `GaussianLinear` of a network.

    𝒲 moves by Pᵀ(step of A)Q, with P and Q of orthonormal rows up to a factor; so steps must turn as gradients turn,
    which those of SGD, with momentum, and of Muon do and those of Adam, whose entries are divided each by itself, do
    not. The optimiser's class is tried on small matrices, with its own numbers.

    Parameters
    ----------
    model : nn.Module
        The network.
    optimizer : torch.optim.Optimizer
        Left as it is.

    Raises
    ------
    ValueError
        If a step does not turn with its gradient, the optimiser cannot be tried, or it has no parameter of the network;
        the message names the layer.
    TypeError
        If an argument is of another type.
    """
    layers = {id(one.learned): name for name, one in gaussian_layers(model).items()}
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {checks.shown(optimizer)}")
    own = {id(one) for one in model.parameters()}
    if layers and not any(id(one) in own for group in optimizer.param_groups for one in group["params"]):
        raise ValueError("optimizer must have parameters of the network, and has none")
    for group in optimizer.param_groups:
        names = [layers[id(one)] for one in group["params"] if id(one) in layers]
        if names and not _turns(optimizer, group):
            kind = type(optimizer).__name__
            raise ValueError(
                f"{kind} on A is not {kind} on the weights of GaussianLinear {names[0]!r}: it treats entries each for "
                "itself; use SGD or flds.nn.Muon there, and this optimiser for the vectors"
            )


def _turns(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> bool:
    """Return whether steps of an optimiser turn with their gradients."""
    generator = torch.Generator().manual_seed(_SEED)
    turns = [torch.linalg.qr(torch.randn(side, side, dtype=torch.float64, generator=generator))[0] for side in _SIDES]
    gradients = [torch.randn(*_SIDES, dtype=torch.float64, generator=generator) for _ in range(_STEPS)]
    plain = _stepped(optimizer, group, gradients)
    turned = _stepped(optimizer, group, [turns[0] @ one @ turns[1] for one in gradients])
    return bool(torch.linalg.norm(turns[0] @ plain @ turns[1] - turned) <= _ROUNDING * torch.linalg.norm(turned))


def _stepped(optimizer: torch.optim.Optimizer, group: dict[str, Any], gradients: list[torch.Tensor]) -> torch.Tensor:
    """Return where an optimiser of the same kind brings a matrix that begins at 0."""
    matrix = nn.Parameter(torch.zeros_like(gradients[0]))
    taken = inspect.signature(type(optimizer)).parameters
    named = {name: value for name, value in group.items() if name in optimizer.defaults and name in taken}
    if "lr" in named:
        named["lr"] = _RATE  # which may be 0 as yet
    try:
        twin = type(optimizer)([matrix], **named)
        for gradient in gradients:
            matrix.grad = gradient.clone()
            twin.step()
    except Exception as error:
        kind = type(optimizer).__name__
        raise ValueError(f"{kind} cannot be tried on a matrix: {checks.reason(error)}") from None
    return matrix.detach()
