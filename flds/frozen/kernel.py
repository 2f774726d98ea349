"""The tangent kernel: how much a step of gradient descent on one input moves the output of another."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flds.frozen.quadrature import product_means
from flds.results.family import problem_of
from flds.results.solution import Solution
from flds.training.branches import BranchLayer, SingleMatrix
from flds.training.family import TrainingFamily
from flds.training.inside import require_features
from flds.training.method import decide
from flds.training.network import ForwardPass, Network
from flds.training.options import BACKWARD_WEIGHTS, Settings, stored_settings
from flds.training.problem import TrainingProblem
from flds.training.snapshot import stored_network
from solvers import checks
from solvers.ensemble.random import Address, Stream, replicate_seed

Array = NDArray[np.float64]
# By groups of parameters; their sum is the kernel at equal rates.
Kernels = dict[str, Array]

# Depths whose kernels are extrapolated to L → ∞, each twice the last, and the depth and number of particles by default.
_DEPTHS, _DEPTH, _PARTICLES = (32, 64, 128), 64, 20_000
# Where passes find noise of their own: beyond that of any step of training, and of probes.
_FRESH = 2**40


def tangent_kernel(
    problem_or_solution: TrainingProblem | Solution,
    a: ArrayLike,
    b: ArrayLike | None = None,
    *,
    backward_weights: str = "tied",
    depth: int | None = None,
    particles: int = _PARTICLES,
    seed: int = 0,
    problem: TrainingProblem | None = None,
) -> Array:
    """Return the tangent kernel K between inputs: f_a changes by −η_c Σ_b K_ab L'_b in a small step of SGD on inputs b.

    Of an untrained network of infinite width it is found by quadrature where branches have one matrix, and else from
    particles. Of a trained one it is that of the particles in a kept state.

    Parameters
    ----------
    problem_or_solution : TrainingProblem or Solution
        A problem, for the untrained network, or a solution with ``keep_state=True`` and tied weights.
    a, b : (m, d) and (k, d) arrays
        Inputs; b is a by default.
    backward_weights : str
        Of the untrained network, "tied" or "independent".
    depth : int, optional
        L of the untrained network; by default L → ∞, to 10⁻⁵, for one matrix a layer, and 64 for other branches.
    particles, seed : int
        Of the untrained network whose branches are others.
    problem : TrainingProblem, optional
        That of the solution, where it cannot be read back.

    Returns
    -------
    (m, k) float64
        All learning rates are η_c; with several outputs, of each of them, which do not mix before training. Of a
        trained network with several outputs (m, k, outputs, outputs): how the slope of the last output moves the first.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid, the solution has no state, or its backward weights are independent copies.
    MemoryError
        If particles do not fit in memory.

    References
    ----------
    Jacot, Gabriel and Hongler, "Neural Tangent Kernel" (2018); paper F, eqs. (1) and (4), for the gradients.
    """
    if isinstance(problem_or_solution, Solution):
        for name, given, default in (
            ("backward_weights", backward_weights, "tied"),
            ("depth", depth, None),
            ("particles", particles, _PARTICLES),
            ("seed", seed, 0),
        ):
            if given != default:
                raise ValueError(f"{name} is of an untrained network, and a solution has its own; leave it out")
        trained, settings = _of_solution(problem_or_solution, problem)
        points, rows, columns = _points(trained, a, b)
        found = total(_of_states(trained, settings, problem_or_solution, points))[rows, columns]
        return found[..., 0, 0] if trained.outputs == 1 else found
    if not isinstance(problem_or_solution, TrainingProblem):
        raise TypeError(
            f"tangent_kernel takes a flds.TrainingProblem or a Solution, got {checks.shown(problem_or_solution)}"
        )
    if problem is not None:
        raise ValueError("problem= is for a solution; leave it out")
    points, rows, columns = _points(problem_or_solution, a, b)
    return total(untrained_kernels(problem_or_solution, points, backward_weights, depth, particles, seed))[
        rows, columns
    ]


def total(kernels: Kernels) -> Array:
    """Return the sum over all groups of parameters."""
    return np.sum(list(kernels.values()), axis=0)


def _points(problem: TrainingProblem, a: Any, b: Any) -> tuple[Array, slice, slice]:
    """Return the inputs, and which of them are rows and columns of the kernel."""
    given = {"a": checks.matrix("a", a)} | ({} if b is None else {"b": checks.matrix("b", b)})
    for name, points in given.items():
        if points.shape[1] != problem.x.shape[1]:
            raise ValueError(
                f"{name} must have as many columns as the inputs ({problem.x.shape[1]}), got {points.shape[1]}"
            )
        require_features(problem, name, points)
    rows = len(given["a"])
    return np.concatenate(list(given.values())), slice(0, rows), slice(0 if b is None else rows, None)


def untrained_kernels(
    problem: TrainingProblem, points: Array, weights: str, depth: int | None, particles: int, seed: int
) -> Kernels:
    """Return the kernels (m, m) of each group of parameters, at infinite width, of the first output."""
    checks.choice("backward_weights", weights, BACKWARD_WEIGHTS)
    checks.positive_integer("particles", particles)
    checks.seed_number("seed", seed)
    if depth is not None:
        depth = checks.positive_integer("depth", depth)
    if not by_quadrature(problem):
        depth = _DEPTH if depth is None else depth
        return _of_particles(problem, points, weights, depth, particles, seed)
    if depth is not None:
        return _quadrature(problem, points, weights, depth)
    found = [_quadrature(problem, points, weights, one) for one in _DEPTHS]
    while len(found) > 1:  # each round takes another power of 1/L away
        order = len(_DEPTHS) - len(found) + 1
        found = [
            {name: (2**order * fine[name] - coarse[name]) / (2**order - 1) for name in fine}
            for coarse, fine in pairwise(found)
        ]
    return found[0]


def by_quadrature(problem: TrainingProblem) -> bool:
    """Whether the kernel needs no particles."""
    return type(problem.branch) is SingleMatrix


def _quadrature(problem: TrainingProblem, points: Array, weights: str, depth: int) -> Kernels:
    """E h_a h_b forward and E g_a g_b backward: F, Propositions 2 and 3, for several inputs, at depth L."""
    groups, tau = problem.groups, problem.horizon / depth
    squares = tau ** (2 * problem.branch_exponent) * groups["hidden"].standard_deviation ** 2
    gram = points @ points.T / points.shape[1]
    states = [groups["input"].standard_deviation ** 2 * gram]
    features = []
    for _ in range(depth):
        features.append(product_means(problem.phi, False, states[-1]))
        states.append(states[-1] + squares * features[-1])
    gradient = np.full_like(gram, groups["readout"].standard_deviation ** 2)
    hidden = np.zeros_like(gram)
    for state, feature in zip(states[-2::-1], features[::-1], strict=True):
        hidden += tau * feature * gradient
        if weights == "tied":  # else what pulls back is independent of what moves the output
            gradient = gradient * (1 + squares * product_means(problem.phi, True, state))
    return {"input": gram * gradient, "hidden": hidden, "readout": states[-1]}


def _of_particles(
    problem: TrainingProblem, points: Array, weights: str, depth: int, particles: int, seed: int
) -> Kernels:
    """Kernels of an untrained network with noise of exact second moments."""
    asked = replace(
        problem, inputs=points, targets=np.zeros(len(points)), loss="squared", steps=0, learning_rate=0.5,
        batch_size=None, batch_order="sequential", test_inputs=None, test_targets=None, optimizer="sgd",
        weight_decay=0.0, gradient_clip=None,
    )  # fmt: skip
    options: Any = {"backward_weights": weights, "operator": "lazy", "seed": seed, "dtype": "float64"}
    settings = decide(asked, particles, depth, "matched", options).settings
    networks = [Network(asked, settings, seed) for _ in range(1 if weights == "tied" else 2)]
    found = []
    for step, network in enumerate(networks):  # their matrices are the same, their independent copies are not
        with network.ensemble.running():
            network.initialise()
            found.append((network, _Slopes(network, points, _forward(network, points), 0, step)))
    kernels = _products(*found[0], *found[-1])
    return {name: 0.5 * (one + one.T) for name, one in kernels.items()}


def _of_solution(solution: Solution, problem: TrainingProblem | None) -> tuple[TrainingProblem, Settings]:
    if solution.settings.get("solver") not in TrainingFamily.solvers:
        raise ValueError("tangent_kernel needs a solution of solve_flds or simulate_resnet")
    if not solution.states:
        raise ValueError("tangent_kernel needs a solution with keep_state=True")
    settings = stored_settings(Settings, solution.settings)
    if settings.backward_weights != "tied":
        raise ValueError(
            'tangent_kernel of a trained network needs backward_weights "tied": with independent copies what moves an '
            "output is not what is pulled back"
        )
    return problem_of(TrainingFamily(), solution, problem), settings


def _of_states(problem: TrainingProblem, settings: Settings, solution: Solution, points: Array) -> Kernels:
    """Kernels of trained networks, (m, m, outputs, outputs), mean over replicates."""
    means: Kernels = {}
    further = len(points) * problem.outputs
    budget = settings.rank_budget[0] + further, settings.rank_budget[1] + further
    settings = replace(settings, rank_budget=budget)
    for index, state in enumerate(solution.states):
        with stored_network(problem, settings, replicate_seed(solution.seed, index), state) as network:
            forward = _forward(network, points)
            slopes = [_Slopes(network, points, forward, output, output) for output in range(problem.outputs)]
            for first, one in enumerate(slopes):
                for second, other in enumerate(slopes):
                    for name, kernel in _products(network, one, network, other).items():
                        if name == "readout" and first != second:
                            kernel = np.zeros_like(kernel)
                        size = (len(points), len(points), problem.outputs, problem.outputs)
                        means.setdefault(name, np.zeros(size))[..., first, second] += kernel / len(solution.states)
    return means


def _forward(network: Network, points: Array) -> ForwardPass:
    return network.forward(points, Address(Stream.FORWARD, _FRESH, tuple(range(len(points)))))


class _Slopes:
    """The passes of some points through a network, with g pulled back from one output."""

    def __init__(self, network: Network, points: Array, forward: ForwardPass, output: int, step: int) -> None:
        self.points, self.forward = points, forward
        slopes = np.zeros((len(points), network.problem.outputs))
        slopes[:, output] = 1.0
        self.backward = network.backward(self.forward, slopes, _FRESH + step)


def _products(network: Network, one: _Slopes, other_network: Network, other: _Slopes) -> Kernels:
    """Return, by group, the products of gradients by parameters of two passes, times the factors of their rates."""
    branch, tau = network.branch, network.problem.horizon / network.settings.depth
    gram = one.points @ one.points.T / one.points.shape[1]
    residual = network.ensemble
    kernels = {"input": gram * residual.inner(one.backward.bottom, other.backward.bottom)}
    kernels["readout"] = residual.inner(one.forward.states[-1], one.forward.states[-1])
    for layer, layer_of_other in zip(network.layers, other_network.layers, strict=True):
        tape, pulled = one.forward.tapes[layer.number], one.backward.gradients[layer.number]
        pulled_other = other.backward.gradients[layer.number]
        for name, matrix in branch.matrices.items():
            shape = network.shape(matrix) ** 2
            features = tape[name] @ tape[name].T
            met = _overlap(name, layer, layer_of_other, pulled[name], pulled_other[name])
            kernels[matrix.group] = kernels.get(matrix.group, 0.0) + tau * shape * features * met
        for name, vector in branch.vectors.items():
            space = network.homes[vector.space]
            share = space.particles / residual.particles
            met = space.inner(pulled[name], pulled_other[name])
            kernels[vector.group] = kernels.get(vector.group, 0.0) + tau * share * met
    return kernels


def _overlap(name: str, layer: BranchLayer, other: BranchLayer, one: Any, two: Any) -> Array:
    """Return ⟨g_a, g_b⟩ of gradients with these coordinates, (m, m), on the bases of two layers, or of one."""
    if layer is other:  # directions that came later have no part in what came before
        rank = min(one.shape[1], two.shape[1])
        return np.asarray(one[:, :rank] @ two[:, :rank].T, np.float64)
    first, second = (item.matrices[name].state()["gradient_directions"] for item in (layer, other))
    return np.asarray(one @ layer.matrices[name].outputs.inner(first, second) @ two.T)
