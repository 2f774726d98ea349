"""Lazy networks with given initial matrices: they reveal what dense networks hold, so that outputs can be compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flds.training.network import Network
from solvers.matrices.dense import DenseOperator
from solvers.matrices.lazy import LazyOperator
from solvers.matrices.sampling import Sampling


class HeldOperator(LazyOperator):
    """A lazy operator whose images of new directions are those of matrices that are held, (M, N) each."""

    def hold(self, forward, backward):
        self.held = forward, backward

    def _multiply(self, domain, codomain, vectors, address, states):
        known = domain.rank
        _, coordinates = super()._multiply(domain, codomain, vectors, address, states)
        forward, backward = self.held
        matrix = forward if domain is self.features else backward.T
        domain.images[known:] = domain.directions[known:] @ matrix.T
        learned, ratio = self._facing(domain, self.learned), self._sizes(domain).ratio
        image = self.share * coordinates @ domain.images + ratio * coordinates @ learned @ codomain.directions
        return image, coordinates


class HeldNetwork(Network):
    """The lazy twin of the dense network of the same seed."""

    def _weight_matrix(self, layer, index, matrix, samplings, draw):
        tied, noise = self.settings.backward_weights == "tied", replace(self.noise, part=index)
        inputs, outputs = self.homes[matrix.inputs], self.homes[matrix.outputs]
        dense = DenseOperator(inputs, noise, layer, tied=tied, dtype=np.dtype(float), outputs=outputs)
        most = max(inputs.particles, outputs.particles)
        lazy = HeldOperator(
            inputs, noise, layer, tied=tied, tolerance=0.0, budget=(most, most), sampling=Sampling(), outputs=outputs,
            dtype=np.dtype(float), deviation=self.problem.groups[matrix.group].standard_deviation,
        )  # fmt: skip
        lazy.tolerance = 1e-9  # features that move little are near those before them
        lazy.hold(dense.weights, dense.backward_weights)
        return lazy
