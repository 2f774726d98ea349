"""Networks of PyTorch made of Gaussian layers: the law of dense ones, and of the solver's own networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flds
from flds.training.options import BACKWARD_WEIGHTS as WEIGHTS
from validation.claims import Scale, Section
from validation.problems import three_samples

Array = NDArray[np.float64]

WIDTH, DEPTH, STEPS, RATE = 48, 3, 3, 0.5
# Networks of `flds.nn`, what they are given, and the momentum that they are trained with.
NETWORKS: dict[str, tuple[str, dict[str, Any], float]] = {
    "square layers": ("ResidualMLP", {}, 0.0),
    "square layers, momentum": ("ResidualMLP", {}, 0.9),
    "hidden ratio 2.5, RMSNorm": ("TwoLayerNetwork", {"hidden_ratio": 2.5}, 0.0),
    "hidden ratio ½, RMSNorm": ("TwoLayerNetwork", {"hidden_ratio": 0.5}, 0.0),
}


def gaussian_layers(scale: Scale) -> Section:
    """`flds.nn`: networks of Gaussian layers against dense ones of torch, and against `simulate_resnet`."""
    from validation.law import same_law  # which loads SciPy's statistics

    seeds = scale.pick(240, 2000)
    for index, name in enumerate(NETWORKS):
        first = 2 * index * seeds
        sampled = outputs(name, sampled_linear(), range(first, first + seeds))
        dense = outputs(name, dense_linear, range(first + seeds, first + 2 * seeds))
        yield same_law(f"flds.nn, {name}: {_size(seeds)}", sampled, dense)
    for weights in WEIGHTS:
        yield same_law(f"flds.nn and flds.simulate_resnet, {weights}: {_size(seeds)}", *both(weights, seeds))


def both(weights: str, seeds: int) -> tuple[Array, Array]:
    """Return outputs of paper F's network as a module and as the solver trains it, (seeds, steps + 1, samples) each."""
    solver = flds.simulate_resnet(
        _problem(), width=WIDTH, depth=DEPTH, replicates=seeds, operator="lazy", tolerance=0.0, threads=1,
        backward_weights=weights,
    )  # fmt: skip
    linear = sampled_linear(tied=weights == "tied")
    return outputs("square layers", linear, range(seeds)), np.asarray(solver.replicate_outputs)


def outputs(name: str, linear: Callable[..., Any], seeds: range) -> Array:
    """Train a network of `NETWORKS` for every seed.

    Parameters
    ----------
    name : str
    linear : callable
        Makes the hidden matrices.
    seeds : range

    Returns
    -------
    (seeds, steps + 1, samples) array
        Outputs before every step and after the last.
    """
    import torch

    import flds.nn

    kind, rest, momentum = NETWORKS[name]
    problem = _problem()
    x, y = torch.tensor(problem.x), torch.tensor(problem.y).reshape(-1, 1)
    found = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = getattr(flds.nn, kind)(x.shape[1], 1, WIDTH, DEPTH, linear=linear, **rest).double()
        optimizer = torch.optim.SGD(flds.nn.parameter_groups(model, RATE, width=WIDTH), momentum=momentum)
        rows = []
        for _ in range(STEPS):
            f = model(x)
            rows.append(f.detach()[:, 0])
            optimizer.zero_grad()
            ((f - y).square().mean() / 2).backward()
            optimizer.step()
        found.append(torch.stack([*rows, model(x).detach()[:, 0]]).numpy())
    return np.array(found)


def sampled_linear(**rest: Any) -> Callable[..., Any]:
    """Return what makes Gaussian layers without biases."""
    import flds.nn

    return flds.nn.gaussian(**rest)


def dense_linear(inputs: int, outputs: int) -> Any:
    """Return a dense layer without biases."""
    import flds.nn

    return flds.nn.dense_linear(inputs, outputs, bias=False)


def _problem() -> flds.TrainingProblem:
    return three_samples("tanh", None, steps=STEPS)


def _size(seeds: int) -> str:
    return f"f^(0) … f^({STEPS}) of three samples, width {WIDTH}, L = {DEPTH}, {seeds} networks of each kind"
