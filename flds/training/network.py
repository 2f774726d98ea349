"""Forward pass, backward pass and update of N particles at depth L: the coupled system, discretised.

With lazily sampled tied weights and noise by law, the N particles are a ResNet of width N under SGD,
exactly in law. With independent weights they follow the Euler–Maruyama scheme of Definition 1,
F-(7)–(9). The passes do not know which of these, or whether the weights are held as a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.cost import PROBE_CHUNK
from flds.training.options import Settings
from flds.training.problem import TrainingProblem
from solvers.ensemble.random import Address, Noise, Stream
from solvers.ensemble.threads import Blocks
from solvers.matrices.dense import DenseOperator
from solvers.matrices.lazy import Coordinates, LazyOperator, WeightOperator
from solvers.matrices.sampling import MatchedAllSampling, MatchedSampling, Sampling, orthonormalise

Array = NDArray[np.floating]


@dataclass
class ForwardPass:
    """States of a batch at all depths, coordinates of its features, and the outputs."""

    states: list[Array]  # h_0 … h_L, each (b, N); h_L alone where only outputs were asked for
    coordinates: list[Coordinates]
    variance: NDArray[np.float64]  # E h_ℓ², mean over the batch, (L + 1,)
    outputs: NDArray[np.float64]  # f, (b, outputs)


@dataclass
class BackwardPass:
    """Gradients of the samples that train, their weights, and coordinates at all depths."""

    active: NDArray[np.intp]  # batch positions with L' ≠ 0
    weights: NDArray[np.float64]  # L', or its norm with several outputs, (active,)
    bottom: Array  # g_0, (active, N)
    coordinates: list[Coordinates]
    variance: NDArray[np.float64]  # E g_ℓ², mean over the samples that train, (L + 1,)


class Network:
    """N particles at depth L, with the trainable U, W_1 … W_L and v.

    In its methods `layer` is ℓ − 1, `step` is k and `rate` η_c; `inputs` are (b, d), `slopes` L', (b, outputs), h and g
    (b, N), and `slope` is φ'(h), (b, N). `address` says where fresh noise is found; `forward` and `backward` are
    the passes of the batch.

    Parameters
    ----------
    problem : TrainingProblem
        Supplies d, the number of outputs, φ and T.
    settings : Settings
        Supplies N, L, the operator, the sampling and the precision.
    seed : int
        Seed of all noise.
    first : int
        The particles take the noise that those from `first` on of a larger network take.
    """

    def __init__(self, problem: TrainingProblem, settings: Settings, seed: int, first: int = 0) -> None:
        self.problem, self.settings = problem, settings
        self.blocks = Blocks(settings.particles, settings.threads)
        self.noise = Noise(seed, settings.noise_depth // settings.depth, first=first)
        self.root_tau = math.sqrt(problem.horizon / settings.depth)

    def initialise(self) -> None:
        """Draw U, v and what is to be known of every W_ℓ in advance."""
        self._prepare(draw=True)

    def _prepare(self, draw: bool) -> None:
        problem, settings = self.problem, self.settings
        inputs, outputs = problem.x.shape[1], problem.outputs
        constants = np.empty((outputs + inputs, settings.particles), settings.numpy_dtype)
        self.readout, self.input_weights = constants[:outputs], constants[outputs:]  # v, U as rows
        draws = replace(self.noise, refinement=1)  # U and v have no depth, so refinement does not touch them
        for part, stream in ((self.readout, Stream.READOUT), (self.input_weights, Stream.INPUT)):
            self.blocks.fill(part, draws, Address(stream, positions=tuple(range(len(part)))))
        if settings.sampling != "law":
            orthonormalise(self.blocks, constants)
        self.layers = list(self._layers(constants, draw))

    def _layers(self, constants: Array, draw: bool) -> Iterator[WeightOperator]:
        settings = self.settings
        tied = settings.backward_weights == "tied"
        drawn = constants.copy() if settings.sampling != "law" else constants
        shared = MatchedAllSampling(self.blocks, drawn) if settings.sampling == "matched_all" else Sampling()
        for layer in range(settings.depth):
            if settings.operator == "dense":
                yield DenseOperator(self.blocks, self.noise, layer, tied=tied, dtype=settings.numpy_dtype, draw=draw)
                continue
            matched = settings.sampling == "matched"
            yield LazyOperator(
                self.blocks, self.noise, layer, tied=tied, tolerance=settings.tolerance,
                budget=settings.rank_budget, dtype=settings.numpy_dtype,
                sampling=MatchedSampling(self.blocks, drawn) if matched else shared,
            )  # fmt: skip

    def forward(self, inputs: Array, address: Address, *, probe: bool = False) -> ForwardPass:
        """h_0 = U x/√d, h_ℓ = h_{ℓ-1} + √τ 𝒲_ℓ φ(h_{ℓ-1}), f = ⟨v, h_L⟩: F-(1), and F-(7) in the limit.

        A probe leaves the network as it was and keeps no coordinates, and no states but the last.
        """
        h = self._combination(inputs / math.sqrt(inputs.shape[1]), self.input_weights)
        states, coordinates, variance = [h], [], [self._second_moment(h)]
        for layer in range(len(self.layers)):
            image, c = self.forward_image(layer, h, address, probe)
            h = self._step(h, image)
            states = [h] if probe else [*states, h]
            if not probe:
                coordinates.append(c)
            variance.append(self._second_moment(h))
        outputs = self.blocks.inner(h, self.readout)
        return ForwardPass(states, coordinates, np.array(variance), outputs)

    def backward(self, forward: ForwardPass, slopes: NDArray[np.float64], step: int) -> BackwardPass:
        """g_L = v, g_{ℓ-1} = g_ℓ + √τ φ'(h_{ℓ-1}) 𝒲_ℓᵀ g_ℓ: F-(4), and F-(8) in the limit.

        `slopes` are L', (b, outputs). With several outputs a sample carries the one combination
        Σ_c L'_c g_c / ‖L'‖ that its update needs, with weight ‖L'‖.
        """
        norms = slopes[:, 0] if slopes.shape[1] == 1 else np.linalg.norm(slopes, axis=1)
        active = np.flatnonzero(norms)
        weights = norms[active]
        g = self._combination(slopes[active] / weights[:, None], self.readout)
        address = Address(Stream.BACKWARD, step, tuple(int(i) for i in active))
        coordinates, variance = [], [self._second_moment(g)]
        for layer in reversed(range(len(self.layers))):
            slope = self._apply(self.problem.phi.derivative, forward.states[layer][active])
            image, d = self.backward_image(layer, g, slope, address)
            g = self._step(g, image, slope)
            coordinates.append(d)
            variance.append(self._second_moment(g))
        return BackwardPass(active, weights, g, coordinates[::-1], np.array(variance[::-1]))

    def forward_image(self, layer: int, h: Array, address: Address, probe: bool) -> tuple[Array, Coordinates]:
        """𝒲_ℓ φ(h), (b, N), and the coordinates of φ(h), for ℓ = layer + 1; a probe is not remembered."""
        features = self._apply(self.problem.phi.value, h)
        return self.layers[layer].forward(features, address, h, remember=not probe)

    def backward_image(self, layer: int, g: Array, slope: Array, address: Address) -> tuple[Array, Coordinates]:
        """𝒲_ℓᵀ g, (b, N), and the coordinates of g, for ℓ = layer + 1."""
        # E g² meets fresh noise z̃ through ⟨φ'(h) g, z̃⟩, which matched noise sets to zero
        return self.layers[layer].backward(g, address, slope * g)

    def update(self, inputs: Array, slopes: NDArray[np.float64], forward: ForwardPass, backward: BackwardPass,
               rate: float) -> None:  # fmt: skip
        """One step of SGD with rate η_c n on U, every W_ℓ and v; the gradient is the batch mean."""
        rate = rate / len(inputs)
        active = backward.active
        scaled = backward.weights[:, None] * inputs[active] * (-rate / math.sqrt(inputs.shape[1]))
        self.blocks.combine(self.input_weights, [(scaled.T, backward.bottom)], add=True)
        self.blocks.combine(self.readout, [(-rate * slopes.T, forward.states[-1])], add=True)
        for operator, c, d in zip(self.layers, forward.coordinates, backward.coordinates, strict=True):
            operator.update(-rate * self.root_tau * backward.weights[:, None] * d, c[active])

    def probe(self, inputs: Array, positions: Sequence[int]) -> NDArray[np.float64]:
        """Return the outputs of inputs that are not trained on, (inputs, outputs).

        Each input keeps the noise at its own one of `positions` throughout a run, so that its output changes with
        the network and not with the draw.
        """
        outputs = [np.empty((0, self.problem.outputs))]
        for start in range(0, len(inputs), PROBE_CHUNK):
            chunk = slice(start, start + PROBE_CHUNK)
            address = Address(Stream.PROBE, 0, tuple(positions[chunk]))
            outputs.append(self.forward(inputs[chunk], address, probe=True).outputs)
        return np.concatenate(outputs)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return U, (d, N), v, (outputs, N), and the state of every layer, by name: own memory, not copies."""
        state: dict[str, NDArray[Any]] = {"input_weights": self.input_weights, "readout": self.readout}
        for layer, operator in enumerate(self.layers):
            state |= {f"layer_{layer}_{name}": array for name, array in operator.state().items()}
        return state

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state of a network of the same problem, settings and seed; the arrays are left as they are."""
        self._prepare(draw=False)
        self.input_weights[...], self.readout[...] = state["input_weights"], state["readout"]
        layers: list[dict[str, NDArray[Any]]] = [{} for _ in self.layers]
        for name, array in state.items():
            if name.startswith("layer_"):
                _, layer, part = name.split("_", 2)
                layers[int(layer)][part] = array
        for operator, arrays in zip(self.layers, layers, strict=True):
            operator.restore(arrays)

    def mark(self) -> list[Any]:
        """Return what `forget` needs to come back to here."""
        return [operator.mark() for operator in self.layers]

    def forget(self, marks: list[Any]) -> None:
        """Undo what passes have revealed since these `marks`, if there was no update."""
        for operator, mark in zip(self.layers, marks, strict=True):
            operator.forget(mark)

    def unmatched(self) -> bool:
        """Whether some noise that was to be matched was drawn by law, for lack of room."""
        return any(isinstance(layer, LazyOperator) and layer.sampling.unmatched for layer in self.layers)

    def _combination(self, coefficients: Array, vectors: Array) -> Array:
        out = np.empty((len(coefficients), self.settings.particles), vectors.dtype)
        self.blocks.combine(out, [(coefficients, vectors)])
        return out

    def _apply(self, function, x: Array) -> Array:  # type: ignore[no-untyped-def]
        out = np.empty_like(x)

        def work(block: slice) -> None:
            out[:, block] = function(x[:, block])

        self.blocks.each(work)
        return out

    def _step(self, state: Array, image: Array, slope: Array | None = None) -> Array:
        """Return state + √τ image, or state + √τ slope · image, in the memory of `image`."""

        def work(block: slice) -> None:
            part = image[:, block]
            part *= self.root_tau
            if slope is not None:
                part *= slope[:, block]
            part += state[:, block]

        self.blocks.each(work)
        return image

    def _second_moment(self, x: Array) -> float:
        return float(self.blocks.mean_squares(x).mean()) if len(x) else math.nan
