"""Forward pass, backward pass and update of N particles at depth L: the coupled system, discretised.

With lazily sampled tied weights and noise by law, the N particles are a ResNet of width N in training, exactly in law.
With independent weights they follow the Euler–Maruyama scheme of Definition 1, F-(7)–(9). The passes do not know which
of these, whether the weights are held as a matrix, what a branch is, or where the particles live.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.branches import BranchLayer, BranchMatrix
from flds.training.narrow import NarrowPasses
from flds.training.optimizers import Gradient
from flds.training.options import Settings
from flds.training.parameters import Matrix, Parameter, Vectors, clipped
from flds.training.problem import TrainingProblem
from solvers.ensemble.homes import home_on
from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.random import Address, Noise, Stream
from solvers.matrices.dense import DenseOperator
from solvers.matrices.lazy import LazyOperator
from solvers.matrices.matched import MatchedAllSampling, MatchedSampling, orthonormalise
from solvers.matrices.operator import WeightOperator
from solvers.matrices.sampling import Sampling

# Vectors that passes went through, what they left at each layer, and second moments, as they went.
Passed = tuple[list[Array], list[dict[str, Array]], list[float]]

# Probes share their fresh noise within a chunk; the size bounds memory and the cost of factoring.
PROBE_CHUNK = 64


@dataclass
class ForwardPass:
    """States of a batch at all depths, the tapes of the branches, and the outputs."""

    states: list[Array]  # h_0 … h_L, each (b, N); h_L alone where only outputs were asked for
    tapes: list[dict[str, Array]]
    variance: NDArray[np.float64]  # E h_ℓ², mean over the batch, (L + 1,)
    outputs: NDArray[np.float64]  # f, (b, outputs)


@dataclass
class BackwardPass:
    """Gradients of the samples that train, and their weights."""

    active: NDArray[np.intp]  # batch positions with L' ≠ 0
    weights: NDArray[np.float64]  # L', or its norm with several outputs, (active,)
    bottom: Array  # g_0, (active, N)
    gradients: list[dict[str, Array]]  # of each layer, by the names of its parameters, with the rows of `active`
    variance: NDArray[np.float64]  # E g_ℓ², mean over the samples that train, (L + 1,)


class Network:
    """N particles at depth L, with the trainable U, the parameters of L branches, and v.

    In its methods `step` is k; `inputs` are (b, d), `slopes` L', (b, outputs), h and g (b, N). `address`
    says where fresh noise is found; `forward` and `backward` are the passes of the batch.

    Parameters
    ----------
    problem : TrainingProblem
        Supplies d, the number of outputs, φ, T, and the rules of all parameters.
    settings : Settings
        Supplies N, L, the operator, the sampling and the precision.
    seed : int
        Seed of all noise.
    first : int
        The particles take the noise that those from `first` on of a larger network take.
    sign : float
        -1.0 for the network with the same U and v and the opposite dense matrices, which is as likely.
    ensemble : Particles, optional
        Where the particles live; by default in this process, on its threads.
    """

    def __init__(
        self,
        problem: TrainingProblem,
        settings: Settings,
        seed: int,
        first: int = 0,
        sign: float = 1.0,
        ensemble: Particles | None = None,
    ) -> None:
        self.problem, self.settings, self.sign = problem, settings, sign
        self.ensemble = ensemble or home_on(settings.device, settings.particles, settings.threads)
        self.noise = Noise(seed, settings.noise_depth // settings.depth, first=first)
        self.branch = problem.branch
        self.homes = {"residual": self.ensemble, "hidden": self._hidden()}
        tau, root = problem.horizon / settings.depth, math.sqrt(problem.horizon / settings.depth)
        # s = τ^e, and τ^(1−e)
        self.scale, self.inside = (root, root) if problem.branch_exponent == 0.5 else (tau, 1.0)

    def initialise(self) -> None:
        """Draw U, v and what is to be known of the weight matrices in advance."""
        self._prepare(draw=True)

    def _hidden(self) -> Particles:
        """Return the home of what is inside branches, which is that of the states where there are as many."""
        count = self.branch.hidden(self.ensemble.particles)
        return self.ensemble if count == self.ensemble.particles else self.ensemble.beside(count)

    def forward(
        self, inputs: Array, address: Address, *, probe: bool = False, kernels: list[Array] | None = None
    ) -> ForwardPass:
        """h_0 = U x/√d, h_ℓ = h_{ℓ-1} + s forward(h_{ℓ-1}), f = ⟨v, h_L⟩: F-(1), and F-(7) in the limit.

        A probe leaves the network as it was and keeps no tapes, and no states but the last. To `kernels` are added
        those of what the first matrix of every branch meets, (b, b).
        """
        h = self._combination(inputs / math.sqrt(inputs.shape[1]), self.input_weights)
        narrow = self.narrow if kernels is None and len(h) else None
        states, tapes, variance = self._up(h, address, probe, kernels) if narrow is None else narrow.forward(h, probe)
        outputs = self.ensemble.inner(states[-1], self.readout)
        return ForwardPass(states, tapes, np.array([self._second_moment(h), *variance]), outputs)

    def _up(self, h: Array, address: Address, probe: bool, kernels: list[Array] | None) -> Passed:
        """Return h_0 … h_L, or h_L alone of a probe, the tapes, and E h² of all but the first."""
        first = next(iter(self.branch.matrices))
        states, tapes, variance = [h], [], []
        for layer in self.layers:
            begun = layer.begin(address, not probe, watched=None if kernels is None else first)
            image, tape = self.branch.forward(h, begun)
            if kernels is not None:
                kernels.append(layer.matrices[first].inputs.inner(layer.met, layer.met))
                del layer.met  # as large as a state
            h = self._step(h, image)
            states = [h] if probe else [*states, h]
            if not probe:
                tapes.append(tape)
            variance.append(self._second_moment(h))
        return states, tapes, variance

    def backward(self, forward: ForwardPass, slopes: NDArray[np.float64], step: int) -> BackwardPass:
        """g_L = v, g_{ℓ-1} = g_ℓ + s backward(g_ℓ): F-(4), and F-(8) in the limit.

        `slopes` are L', (b, outputs). With several outputs a sample carries the one combination
        Σ_c L'_c g_c / ‖L'‖ that its update needs, with weight ‖L'‖.
        """
        norms = slopes[:, 0] if slopes.shape[1] == 1 else np.linalg.norm(slopes, axis=1)
        active = np.flatnonzero(norms)
        weights = norms[active]
        g = self._combination(slopes[active] / weights[:, None], self.readout)
        address = Address(Stream.BACKWARD, step, tuple(int(i) for i in active))
        narrow = self.narrow if len(g) else None
        down = self._down(g, forward, active, address) if narrow is None else narrow.backward(g, forward.states, active)
        states, gradients, variance = down
        variance = [self._second_moment(g), *variance]
        return BackwardPass(active, weights, states[-1], gradients[::-1], np.array(variance[::-1]))

    def _down(self, g: Array, forward: ForwardPass, active: NDArray[np.intp], address: Address) -> Passed:
        """Return g_0, what is pulled by parameters, from the output to the input, and E g² of all but the first."""
        gradients, variance = [], []
        for layer, h, tape in zip(self.layers[::-1], forward.states[-2::-1], forward.tapes[::-1], strict=True):
            met = {name: rows[active] for name, rows in tape.items()}
            pull = self.branch.backward(g, h[active], met, layer.begin(address, remember=True))
            g = self._step(g, pull.image, pull.slope)
            gradients.append(pull.gradients)
            variance.append(self._second_moment(g))
        return [g], gradients, variance

    def update(
        self, inputs: Array, slopes: NDArray[np.float64], forward: ForwardPass, backward: BackwardPass, step: int
    ) -> None:
        """Update `step` of all parameters, from the gradient of the batch mean."""
        gradients = list(zip(self.parameters, self._gradients(inputs, slopes, forward, backward), strict=True))
        on_host: list[tuple[Parameter, Gradient]] = []
        for parameter, gradient in clipped(gradients, self.problem.gradient_clip):
            if parameter.on_host:
                on_host.append((parameter, gradient))
            else:
                parameter.move(gradient, step)
        self.ensemble.each(lambda one: one[0].move(one[1], step), on_host)

    def _gradients(
        self, inputs: Array, slopes: NDArray[np.float64], forward: ForwardPass, backward: BackwardPass
    ) -> Iterator[Gradient]:
        """Yield n times the gradient by vectors, in branches over s, and the gradients by matrices over s.

        They come as `parameters` go.
        """
        batch, active, weights = len(inputs), backward.active, backward.weights
        root = math.sqrt(inputs.shape[1])
        yield Gradient(weights[:, None] * inputs[active], backward.bottom, batch=batch, divisor=root)
        yield Gradient(slopes, forward.states[-1], batch=batch)
        shapes = {name: self.shape(matrix) for name, matrix in self.branch.matrices.items()}
        for tape, pulled in zip(forward.tapes, backward.gradients, strict=True):
            for name, shape in shapes.items():
                yield Gradient(pulled[name], tape[name][active], weights, batch, multiplier=shape)
            for name in self.branch.vectors:
                yield Gradient(weights[:, None], pulled[name], batch=batch)

    def shape(self, matrix: BranchMatrix) -> float:
        """Return √(M N)/n of a `matrix`, with which Σ dᵀc is the gradient by A of 𝒲 = … + Pᵀ A Q/√(M N)."""
        sizes = (self.homes[space].particles / self.ensemble.particles for space in (matrix.outputs, matrix.inputs))
        return math.prod(map(math.sqrt, sizes))

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

    def feature_kernels(self, inputs: Array, positions: Sequence[int]) -> NDArray[np.float64]:
        """Return the kernels across inputs that are not trained on, (depth, inputs, inputs).

        Their noise is at `positions`, as for `probe`; they meet each other all at once.
        """
        kernels: list[Array] = []
        self.forward(inputs, Address(Stream.PROBE, 0, tuple(positions)), probe=True, kernels=kernels)
        return np.array(kernels, np.float64)

    @property
    def operators(self) -> list[WeightOperator]:
        """All weight matrices, from the input to the output; none before the network is drawn."""
        return [operator for layer in getattr(self, "layers", []) for operator in layer.matrices.values()]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return U, (d, N), v, (outputs, N), and the state of every layer, by name: own memory, not copies."""
        state: dict[str, NDArray[Any]] = {"input_weights": self.input_weights, "readout": self.readout}
        for layer in self.layers:
            state |= {f"layer_{layer.number}_{name}": array for name, array in layer.state().items()}
        for parameter in self.parameters:
            state |= parameter.state()
        return state

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state of a network of the same problem, settings and seed; the arrays are left as they are."""
        self._prepare(draw=False)
        self.ensemble.put(self.input_weights, state["input_weights"])
        self.ensemble.put(self.readout, state["readout"])
        layers: list[dict[str, NDArray[Any]]] = [{} for _ in self.layers]
        for name, array in state.items():
            if name.startswith("layer_"):
                _, number, part = name.split("_", 2)
                layers[int(number)][part] = array
        for layer, arrays in zip(self.layers, layers, strict=True):
            layer.restore(arrays)
        for parameter in self.parameters:
            parameter.restore(state)

    def mark(self) -> list[Any]:
        """Return what `forget` needs to come back to here."""
        return [operator.mark() for operator in self.operators]

    def forget(self, marks: list[Any]) -> None:
        """Undo what passes have revealed since these `marks`, if there was no update."""
        for operator, mark in zip(self.operators, marks, strict=True):
            operator.forget(mark)

    def unmatched(self) -> bool:
        """Whether some noise that was to be matched was drawn by law, for lack of room."""
        return any(isinstance(one, LazyOperator) and one.unmatched for one in self.operators)

    def _prepare(self, draw: bool) -> None:
        problem, settings = self.problem, self.settings
        inputs, outputs = problem.x.shape[1], problem.outputs
        constants = self.ensemble.allocate(outputs + inputs, settings.numpy_dtype)
        self.readout, self.input_weights = constants[:outputs], constants[outputs:]  # v, U as rows
        draws = replace(self.noise, refinement=1)  # U and v have no depth, so refinement does not touch them
        for part, stream in ((self.readout, Stream.READOUT), (self.input_weights, Stream.INPUT)):
            self.ensemble.fill(part, draws, Address(stream, positions=tuple(range(len(part)))))
        if settings.sampling != "law":
            orthonormalise(self.ensemble, constants)
        matched = settings.sampling != "law" and settings.operator == "lazy"
        drawn = self.ensemble.copy(constants) if matched else constants
        samplings = self._samplings(drawn)
        self.layers = [self._layer(number, samplings, draw) for number in range(settings.depth)]
        self.narrow = NarrowPasses.of(self.operators, self.branch, self.ensemble, problem.phi, self.scale)
        self.parameters = list(self._parameters())
        if draw:
            for parameter in self.parameters[:2]:
                deviation = parameter.group.standard_deviation
                if deviation != 1.0:
                    parameter.shrink(deviation)

    def _parameters(self) -> Iterator[Parameter]:
        """Yield U, v and the parameters of all branches, from the input to the output."""
        groups, ensemble, factors = self.problem.groups, self.ensemble, (self.scale, self.inside)
        yield Vectors("input", groups["input"], ensemble, self.input_weights)
        yield Vectors("readout", groups["readout"], ensemble, self.readout)
        width, dtype = ensemble.particles, self.settings.numpy_dtype
        for layer in self.layers:
            for index, (name, matrix) in enumerate(self.branch.matrices.items()):
                group, label = groups[matrix.group], f"layer_{layer.number}_{index}"
                yield Matrix(label, group, layer.matrices[name], *factors, width, dtype)
            for name, vector in self.branch.vectors.items():
                home, label = self.homes[vector.space], f"layer_{layer.number}_{name}"
                share = home.particles / width
                yield Vectors(label, groups[vector.group], home, layer.vectors[name], *factors, share)

    def _samplings(self, constants: Array) -> dict[str, Sampling]:
        """Return how fresh noise is drawn in each space; constants are U and v as they were drawn."""
        if self.settings.sampling == "matched":
            hidden = self.homes["hidden"]
            none = hidden.allocate(0, constants.dtype)
            return {
                "residual": MatchedSampling(self.ensemble, constants),
                "hidden": MatchedSampling(hidden, none),
            }
        matched_all = self.settings.sampling == "matched_all"
        shared = MatchedAllSampling(self.ensemble, constants) if matched_all else Sampling()
        return {"residual": shared, "hidden": shared}

    def _layer(self, number: int, samplings: Mapping[str, Sampling], draw: bool) -> BranchLayer:
        """Return a layer, with its matrices drawn, or to be restored."""
        dtype = self.settings.numpy_dtype
        matrices = {
            name: self._weight_matrix(number, index, matrix, samplings, draw)
            for index, (name, matrix) in enumerate(self.branch.matrices.items())
        }
        return BranchLayer(number, self.branch.vectors, self.problem.phi, self.homes, matrices, dtype)

    def _weight_matrix(
        self, layer: int, index: int, matrix: BranchMatrix, samplings: Mapping[str, Sampling], draw: bool
    ) -> WeightOperator:
        settings, noise = self.settings, replace(self.noise, part=index)
        inputs, outputs = self.homes[matrix.inputs], self.homes[matrix.outputs]
        deviation, tied = self.problem.groups[matrix.group].standard_deviation, settings.backward_weights == "tied"
        dtype = settings.numpy_dtype
        if settings.operator == "dense":
            return DenseOperator(
                inputs,
                noise,
                layer,
                tied=tied,
                dtype=dtype,
                draw=draw,
                deviation=self.sign * deviation,
                outputs=outputs,
            )
        return LazyOperator(
            inputs,
            noise,
            layer,
            tied=tied,
            tolerance=settings.tolerance,
            budget=settings.rank_budget,
            dtype=dtype,
            sampling=samplings[matrix.outputs],
            backward_sampling=samplings[matrix.inputs],
            deviation=deviation,
            outputs=outputs,
        )

    def _combination(self, coefficients: Array, vectors: Array) -> Array:
        out = self.ensemble.allocate(len(coefficients), vectors.dtype)
        self.ensemble.combine(out, [(coefficients, vectors)])
        return out

    def _step(self, state: Array, image: Array, slope: Array | None = None) -> Array:
        """Return state + s image, or state + s slope · image, in the memory of `image`."""

        def work(image: Array, state: Array, *slope: Array) -> None:
            image *= self.scale
            for factor in slope:
                image *= factor
            image += state

        self.ensemble.apply(work, image, state, *([] if slope is None else [slope]))
        return image

    def _second_moment(self, x: Array) -> float:
        return float(np.add.reduce(self.ensemble.mean_squares(x))) / len(x) if len(x) else math.nan
