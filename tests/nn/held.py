"""Gaussian layers that reveal given matrices, so that networks can be compared with dense ones to rounding."""

from __future__ import annotations

import torch

from flds.nn import GaussianLinear
from solvers.matrices.lazy import LazyOperator


class HeldOperator(LazyOperator):
    """An operator whose images of new directions are those of matrices that are held, (M, N) each."""

    held: tuple[torch.Tensor, torch.Tensor]

    def _multiply(self, domain, codomain, vectors, address, states):
        known = domain.rank
        image, coordinates = super()._multiply(domain, codomain, vectors, address, states)
        if states is None:
            return image, coordinates
        forward, backward = self.held
        matrix = forward if domain is self.features else backward.T
        domain.images[known:] = domain.directions[known:] @ matrix.T
        learned, ratio = self._facing(domain, self.learned), self._sizes(domain).ratio
        own, pull = (torch.as_tensor(one, dtype=vectors.dtype) for one in (coordinates, coordinates @ learned))
        return self.share * own @ domain.images + ratio * pull @ codomain.directions, coordinates


def hold(network, dense):
    """Let Gaussian layers of a network hold the weights of a dense one of the same names, and copy the rest.

    Layers that are not tied take an independent copy for gradients, which is returned by name.
    """
    copies = {}
    for name, module in network.named_modules():
        if isinstance(module, GaussianLinear):
            weights = dense.get_submodule(name).weight.detach().clone()
            copies[name] = weights if module.tied else torch.randn_like(weights) * weights.shape[1] ** -0.5
            operator = module.matrix.operator
            operator.__class__ = HeldOperator
            operator.held = weights, copies[name]
            if module.bias is not None:
                module.bias.data.copy_(dense.get_submodule(name).bias.data)
    own = dict(network.named_parameters())
    for name, values in dense.named_parameters():
        if name in own and own[name].shape == values.shape:
            own[name].data.copy_(values.data)
    return copies
