"""Small networks of public parts and plain torch, which show how a network of any width is written.

In all of them embeddings and readout have entries N(0, 1), the readout is divided by the width in the forward pass, and
`linear` makes the hidden matrices: `GaussianLinear`, or `dense_linear` for a dense network of the same law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from flds.nn.linear import GaussianLinear
from solvers import checks

Tensor = torch.Tensor
# Makes a matrix of so many inputs and outputs, without a bias.
Linear = Callable[[int, int], nn.Module]

# ε of norms, as in `flds.TwoLayer`.
_EPSILON = 1e-6


def gaussian(rank: int | tuple[int, int] = 512, **rest: Any) -> Linear:
    """Return what makes `GaussianLinear` of one rank, without biases, for the networks here.

    Parameters
    ----------
    rank : int or (int, int)
        Its largest ranks.
    **rest
        Further arguments of it.

    Returns
    -------
    callable
        (inputs, outputs) → the layer, which raises what `GaussianLinear` does.

    Raises
    ------
    ValueError, TypeError
        If there is a seed; and when it is called, as `GaussianLinear`.
    """

    if rest.get("seed") is not None:
        raise ValueError("seed would give all layers the same noise; seed torch instead, with torch.manual_seed")

    def linear(in_features: int, out_features: int) -> nn.Module:
        return GaussianLinear(in_features, out_features, bias=False, rank=rank, **rest)

    return linear


def dense_linear(
    in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: torch.dtype | None = None
) -> nn.Linear:
    """Return a `torch.nn.Linear` that begins with what `GaussianLinear` samples: weights N(0, 1/in_features), biases 0.

    The own weights of `torch.nn.Linear` have a third of that variance.

    Parameters
    ----------
    in_features, out_features : int
        N and M.
    bias : bool
        Whether there is a bias.
    device, dtype
        As for `torch.nn.Linear`.

    Returns
    -------
    nn.Linear
        The layer, weights (M, N).
    """
    layer = nn.Linear(in_features, out_features, bias, device, dtype)
    with torch.no_grad():
        layer.weight.normal_(0.0, in_features**-0.5)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def _require_sizes(**sizes: Any) -> None:
    for name, size in sizes.items():
        checks.positive_integer(name, size)


def rms_norm(h: Tensor) -> Tensor:
    """Return h over the root of its mean square, (…, n)."""
    return h * torch.rsqrt(h.square().mean(-1, keepdim=True) + _EPSILON)


class ResidualMLP(nn.Module):
    """The network of paper F: h_0 = U x/√d, h_ℓ = h_{ℓ-1} + √(T/L) 𝒲_ℓ φ(h_{ℓ-1}), f = v·h_L/n.

    Its outputs, trained with `parameter_groups`, have the law of those of `flds.simulate_resnet`.

    Parameters
    ----------
    inputs, outputs : int
        d, and how many outputs there are.
    width, depth : int
        n and L.
    horizon : float
        T.
    activation : callable
        φ, of tensors of any shape.
    linear : callable
        Makes hidden matrices of so many inputs and outputs; by default `gaussian()`.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid.

    References
    ----------
    Paper F, eq. (1).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        horizon: float = 1.0,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        linear: Linear | None = None,
    ) -> None:
        super().__init__()
        linear = linear or gaussian()
        _require_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        self.activation, self.scale = activation, math.sqrt(checks.positive_number("horizon", horizon) / depth)
        self.embedding = nn.Parameter(torch.randn(width, inputs))
        self.matrices = nn.ModuleList(linear(width, width) for _ in range(depth))
        self.readout = nn.Parameter(torch.randn(outputs, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, (…, outputs), of inputs x, (…, d)."""
        h = x @ self.embedding.T / math.sqrt(x.shape[-1])
        for matrix in self.matrices:
            h = h + self.scale * matrix(self.activation(h))
        return h @ self.readout.T / h.shape[-1]


class TwoLayerNetwork(nn.Module):
    """Pre-norm blocks of two matrices: h_ℓ = h_{ℓ-1} + s 𝒱 φ(𝒲 ν(h_{ℓ-1}) + b), with ν the RMSNorm and s = (T/L)^e.

    Parameters
    ----------
    inputs, outputs, width, depth, horizon, activation, linear
        As for `ResidualMLP`; φ takes tensors of any shape.
    hidden_ratio : float
        Hidden neurons of a block over the width.
    branch_exponent : float
        e.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        horizon: float = 1.0,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        linear: Linear | None = None,
        hidden_ratio: float = 4.0,
        branch_exponent: float = 0.5,
    ) -> None:
        super().__init__()
        _require_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        linear, hidden = linear or gaussian(), round(checks.positive_number("hidden_ratio", hidden_ratio) * width)
        self.activation = activation
        self.scale = (checks.positive_number("horizon", horizon) / depth) ** branch_exponent
        self.embedding = nn.Parameter(torch.randn(width, inputs))
        self.inner = nn.ModuleList(linear(width, hidden) for _ in range(depth))
        self.bias = nn.ParameterList(torch.zeros(hidden) for _ in range(depth))
        self.outer = nn.ModuleList(linear(hidden, width) for _ in range(depth))
        self.readout = nn.Parameter(torch.randn(outputs, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, (…, outputs), of inputs x, (…, d)."""
        h = x @ self.embedding.T / math.sqrt(x.shape[-1])
        for inner, bias, outer in zip(self.inner, self.bias, self.outer, strict=True):
            h = h + self.scale * outer(self.activation(inner(rms_norm(h)) + bias))
        return h @ self.readout.T / h.shape[-1]


class Transformer(nn.Module):
    """A decoder: learned positions, and pre-norm blocks of causal attention and of two layers.

    There are n/`key_features` heads, whose keys keep their size as the network grows wider.

    Parameters
    ----------
    tokens, context : int
        How many there are to choose from, and in a sequence at most.
    width, depth : int
        n, a multiple of `key_features`, and L.
    key_features : int
        Of one head.
    hidden_ratio : float
        Hidden neurons of a block over the width.
    linear : callable
        As for `ResidualMLP`.

    Raises
    ------
    ValueError, TypeError
        If the width is no multiple of `key_features`, or a size is not valid.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017.
    """

    def __init__(
        self,
        tokens: int,
        context: int,
        width: int,
        depth: int,
        key_features: int = 16,
        hidden_ratio: float = 4.0,
        linear: Linear | None = None,
    ) -> None:
        super().__init__()
        _require_sizes(tokens=tokens, context=context, width=width, depth=depth, key_features=key_features)
        if width % key_features:
            raise ValueError(f"width must be a multiple of key_features ({key_features}), got {width}")
        linear = linear or gaussian()
        self.embedding = nn.Parameter(torch.randn(tokens, width))
        self.positions = nn.Parameter(torch.randn(context, width))
        self.blocks = nn.ModuleList(
            _Block(width, round(hidden_ratio * width), key_features, depth, linear) for _ in range(depth)
        )
        self.readout = nn.Parameter(torch.randn(tokens, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return next-token logits, (batch, length, tokens), of (batch, length); raise ValueError if too long."""
        if tokens.shape[-1] > len(self.positions):
            raise ValueError(f"tokens must be at most {len(self.positions)} in a row, got {tokens.shape[-1]}")
        h = self.embedding[tokens] + self.positions[: tokens.shape[-1]]
        for block in self.blocks:
            h = block(h)
        return rms_norm(h) @ self.readout.T / h.shape[-1]


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, key_features: int, depth: int, linear: Linear) -> None:
        super().__init__()
        self.key_features, self.scale = key_features, (2 * depth) ** -0.5
        self.query, self.key, self.value, self.joined = (linear(width, width) for _ in range(4))
        self.inner, self.outer = linear(width, hidden), linear(hidden, width)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.scale * self.attend(rms_norm(h))
        return h + self.scale * self.outer(functional.gelu(self.inner(rms_norm(h))))

    def attend(self, h: Tensor) -> Tensor:
        """Each token mixes values of those up to itself, a head at a time."""
        query, key, value = (self.heads(one(h)) for one in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        joined: Tensor = self.joined(mixed.transpose(-3, -2).flatten(-2))
        return joined

    def heads(self, h: Tensor) -> Tensor:
        """Return (batch, heads, length, key_features) of (batch, length, width)."""
        return h.reshape(*h.shape[:-1], -1, self.key_features).transpose(-3, -2)
