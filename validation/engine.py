"""The engine against what is known exactly: closed forms, exact linear dynamics, and dense networks of the same law."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import flds
from flds.training.method import decide
from flds.training.network import Network
from flds.training.options import BACKWARD_WEIGHTS as WEIGHTS
from flds.training.train import train
from solvers.ensemble.random import Address, Stream
from solvers.matrices.lazy import LazyOperator
from validation import closed_forms, tensor_program
from validation.claims import MARGIN, Claim, Scale, Section, above, against, check, margin_of, mean_and_error
from validation.problems import one_sample, three_samples

Array = NDArray[np.float64]


def sizes(scale: Scale) -> tuple[int, int]:
    """Particles and replicates."""
    return scale.pick((10_000, 12), (100_000, 16))


def initialisation(scale: Scale) -> Section:
    """Moments over depth at initialisation, against the same Euler recursion by quadrature."""
    depth = 64
    particles, replicates = sizes(scale)
    for activation in ("identity", "tanh", "relu", "erf"):
        q = closed_forms.feature_variance(activation, 1.0, 1.0, depth)[-1]
        p = closed_forms.gradient_variance(activation, 1.0, 1.0, depth)[0]
        forward, backward = (
            [solve(activation, particles=particles, depth=depth, seed=seed) for seed in range(replicates)]
            for solve in (flds.solve_forward, flds.solve_backward)
        )
        yield against(f"{activation}: E h_T², forward SDE, L = {depth}", np.array([s.variance[-1] for s in forward]), q)
        yield against(
            f"{activation}: E g_0², backward SDE, L = {depth}", np.array([s.variance[0] for s in backward]), p
        )


def several_inputs(scale: Scale) -> Section:
    """Three inputs at once: outputs after the first small step, against the kernels by quadrature in two variables."""
    depth, rate = 16, 1e-4
    particles, replicates = sizes(scale)
    base = three_samples("tanh", steps=1)
    for activation in scale.pick(("tanh",), ("tanh", "relu", "gelu")):
        problem = flds.TrainingProblem(base.x, base.y[:, 0], activation=activation, learning_rate=rate, steps=1)
        for weights in WEIGHTS:
            f = flds.solve_flds(
                problem, particles=particles, depth=depth, backward_weights=weights, replicates=replicates
            ).replicate_outputs
            kernel = closed_forms.tangent_kernels(activation, base.x, 1.0, depth, weights)
            # to first order in the rate; the next order is below the standard error
            moved = np.linalg.solve(kernel, ((f[:, 1] - f[:, 0]) * 3 / rate).T).T - (base.y[:, 0] - f[:, 0])
            for sample in range(3):
                yield against(
                    f"{activation}, {weights}, three inputs: K⁻¹ (f^(1) − f^(0)) · 3/η_c + L', sample {sample}",
                    moved[:, sample],
                    0.0,
                    resolution=0.1,
                )


def tangent_kernel(scale: Scale) -> Section:
    """First step with a small rate: the tangent kernel when tied, 2 E h_T² when independent."""
    depth = 32
    particles, replicates = sizes(scale)
    for activation in scale.pick(("identity", "tanh"), ("identity", "tanh", "relu", "erf")):
        # The next order in the rate must stay below the standard error; for the identity there is none.
        rate = 1e-2 if activation == "identity" else 1e-4
        for weights in WEIGHTS:
            solution = flds.solve_flds(
                one_sample(activation, rate),
                particles=particles,
                depth=depth,
                backward_weights=weights,
                replicates=replicates,
            )
            f = solution.replicate_outputs[:, :, 0]
            kernel = (f[:, 1] - f[:, 0]) / (rate * (1.0 - f[:, 0]))
            exact = closed_forms.tangent_kernel(activation, 1.0, 1.0, depth, weights)
            yield against(f"{activation}, {weights}: tangent kernel, L = {depth}", kernel, exact)


def identity_outputs(scale: Scale) -> Section:
    """Large steps with φ = identity, against the closed form and the exact linear dynamics."""
    depth = 16
    particles, replicates = sizes(scale)
    for weights in WEIGHTS:
        problem = one_sample("identity", rate=0.2, steps=3)
        solution = flds.solve_flds(
            problem, particles=particles, depth=depth, backward_weights=weights, replicates=replicates
        )
        f = solution.replicate_outputs[:, :, 0]
        exact = closed_forms.IdentityDynamics(problem, depth, weights).outputs()[:, 0, 0]
        first = closed_forms.identity_first_output(0.2, 1.0, 1.0, depth, weights)
        yield against(f"identity, {weights}: f^(1), closed form, L = {depth}", f[:, 1], first)
        for step in (2, 3):
            yield against(
                f"identity, {weights}: f^({step}), exact linear dynamics", f[:, step], exact[step], resolution=0.05
            )
    problem = three_samples("identity", steps=4)
    for weights in WEIGHTS:
        solution = flds.solve_flds(
            problem, particles=particles, depth=depth, backward_weights=weights, replicates=replicates
        )
        exact = closed_forms.IdentityDynamics(problem, depth, weights).outputs()[:, :, 0]
        for sample in range(3):
            yield against(
                f"identity, {weights}, three samples: f^(4) of sample {sample}",
                solution.replicate_outputs[:, 4, sample],
                exact[4, sample],
                resolution=0.05,
            )
        yield _everything_matched(weights)


def _everything_matched(weights: str) -> Claim:
    short = three_samples("identity", steps=2)  # later residuals fall below the rounding floor and are dropped
    strong = flds.solve_flds(
        short, particles=2_000, depth=8, backward_weights=weights, sampling="matched_all", tolerance=0.0, replicates=4
    )
    exact = closed_forms.IdentityDynamics(short, 8, weights).outputs()[:, :, 0]
    worst = np.abs(strong.replicate_outputs - exact).max()
    return check(
        f"identity, {weights}: everything matched, largest error of f^(0) … f^(2) over four seeds",
        f"{worst:.1e}",
        "below 1e-10",
        bool(worst < 1e-10),
    )


def independent_identity(scale: Scale) -> Section:
    """Independent weights, any φ and rate: f^(1) = 2 η_c y E[h^(0) h^(1)] at depth L, both from the same run."""
    problem = one_sample("tanh")
    depth = 32
    particles, replicates = sizes(scale)
    differences = []
    for seed in range(replicates):
        settings = decide(
            problem, particles, depth, "matched", {"backward_weights": "independent", "seed": seed}
        ).settings
        differences.append(_first_output_minus_moment(Network(problem, settings, seed), problem))
    yield against(
        "tanh, independent: f^(1) − 2 η_c y E[h^(0) h^(1)]", np.array(differences), 0.0, resolution=0.02
    )  # against an f^(1) of 1.36


def _first_output_minus_moment(network: Network, problem: flds.TrainingProblem) -> float:
    with network.ensemble.running():
        network.initialise()
        first = network.forward(problem.x, Address(Stream.FORWARD, 0))
        slopes = problem.loss_function.derivative(first.outputs, problem.y)
        backward = network.backward(first, slopes, 0)
        network.update(problem.x, slopes, first, backward, 0)
        second = network.forward(problem.x, Address(Stream.FORWARD, 1))
        moment = network.ensemble.inner(first.states[-1], second.states[-1])[0, 0]
    return float(second.outputs[0, 0] - 2 * problem.groups["hidden"].rates[0] * -slopes[0, 0] * moment)


def one_matrix(scale: Scale) -> Section:
    """The lazily sampled weights are one matrix and its transpose: ⟨p, 𝒲q⟩ = ⟨𝒲ᵀp, q⟩ for all that was revealed."""
    for sampling in ("law", "matched"):
        network, _ = _trained(three_samples("tanh", steps=5), "float64", sampling=sampling)
        worst = max(_asymmetry(layer) for layer in _lazy_layers(network))
        yield check(
            f"tied, sampling by {sampling}: largest |⟨p, 𝒲q⟩ − ⟨𝒲ᵀp, q⟩| over all layers and directions",
            f"{worst:.1e}",
            "rounding, below 1e-10",
            worst < 1e-10,
        )


def _asymmetry(layer: LazyOperator) -> float:
    inner = layer.inputs.inner
    forward, backward = layer.features, layer.gradients
    gaps = inner(backward.directions, forward.images) - inner(backward.images, forward.directions)
    return float(np.abs(gaps).max())


def matched_noise(scale: Scale) -> Section:
    """Matched noise against noise by law: standard deviations over seeds, and means that agree."""
    cases = (
        (one_sample("tanh", steps=5), 1000, "tanh, one sample"),
        (three_samples("tanh", steps=5), 2000, "tanh, three samples"),
        *((three_samples(name, steps=5), 1000, f"{name}, three samples") for name in ("relu", "gelu", "softplus")),
    )[: scale.pick(1, 5)]
    replicates = scale.pick(60, 200)
    for problem, particles, label in cases:
        for weights in WEIGHTS:
            runs = {
                sampling: flds.solve_flds(
                    problem,
                    particles=particles,
                    depth=12,
                    backward_weights=weights,
                    replicates=replicates,
                    sampling=sampling,
                    seed=seed,
                ).replicate_outputs
                for seed, sampling in enumerate(("law", "matched"))  # independent of each other
            }
            for step in (1, 2, 5):
                name = f"{label}, N = {particles}, {weights}: f^({step})"
                yield _spread(name, runs["law"][:, step], runs["matched"][:, step])


def _spread(name: str, by_law: Array, matched: Array) -> Claim:
    ratio = float(np.sqrt(by_law.var(0, ddof=1).mean() / matched.var(0, ddof=1).mean()))
    z = np.abs(
        (by_law.mean(0) - matched.mean(0)) / np.sqrt((by_law.var(0, ddof=1) + matched.var(0, ddof=1)) / len(by_law))
    ).max()
    # of a ratio of two standard deviations of nearly normal samples
    error = ratio / np.sqrt(len(by_law) - 1)
    if z >= MARGIN:
        return check(f"{name}, means by law and matched", f"differ by {z:.1f} standard errors", "below 4", False)
    return above(f"{name}, standard deviation by law / matched (means differ by {z:.1f} σ)", ratio, error, 1.0)


def singular(scale: Scale) -> Section:
    """Singular covariances: a converged run, duplicated samples, and how orthonormal the bases stay."""
    doubled = flds.TrainingProblem(
        np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), [1.0, 1.0, -1.0], learning_rate=0.3, steps=60
    )
    steps = scale.pick(100, 500)
    cases = ((f"same input for {steps} steps", one_sample("tanh", steps=steps)), ("duplicated samples", doubled))
    for label, problem in cases:
        for dtype in ("float64", "float32"):
            network, finite = _trained(problem, dtype)
            worst = max(
                float(np.abs(network.ensemble.gram(side.directions) - np.eye(side.rank)).max())
                for layer in _lazy_layers(network)
                for side in (layer.features, layer.gradients)
            )
            rank = np.max([layer.rank for layer in network.operators], axis=0)
            yield check(
                f"{label}, {dtype}: orthonormality of every basis",
                f"{worst:.1e}, ranks {rank[0]}/{rank[1]}",
                "below 1e-6, finite",
                bool(worst < 1e-6 and finite),
            )


def recursions(scale: Scale) -> Section:
    """Infinite width at L = 16: the exact recursion, Proposition 4 as printed, and neither correction; first step."""
    depth = 16
    particles, replicates = sizes(scale)
    exact = {
        "exact": closed_forms.identity_first_output(0.5, 1.0, 1.0, depth, "tied"),
        "printed": closed_forms.printed_first_output(0.5, 1.0, 1.0, depth),
        "uncorrected": closed_forms.identity_first_output(0.5, 1.0, 1.0, depth, "independent"),
    }
    for activation in ("identity", "tanh"):
        outputs = {
            version: tensor_program.solve(
                one_sample(activation), version=version, particles=particles, depth=depth, replicates=replicates
            ).replicate_outputs[:, 1, 0]
            for version in tensor_program.VERSIONS
        }
        if activation == "identity":
            for version, samples in outputs.items():
                # apart by more than this from the other two
                yield against(f"identity, {version}: f^(1), L = {depth}", samples, exact[version], resolution=0.05)
        for version in ("printed", "uncorrected"):
            # the same seeds, so the difference of each pair is a sample
            gap = mean_and_error(outputs["exact"] - outputs[version])
            margin = max(5.0, margin_of(replicates))
            yield above(f"{activation}: f^(1) of the exact recursion − {version}, L = {depth}", *gap, 0.0, margin)


def _lazy_layers(network: Network) -> Iterator[LazyOperator]:
    return (layer for layer in network.operators if isinstance(layer, LazyOperator))


def _trained(problem: flds.TrainingProblem, dtype: str, sampling: str = "matched") -> tuple[Network, bool]:
    settings = decide(problem, 5_000, 16, sampling, {"dtype": dtype}).settings
    network = Network(problem, settings, 0)
    recorder = train(network)
    return network, recorder.status == "completed"


MILLION = """
import json, resource, sys, numpy as np, flds
width = int(sys.argv[1])
problem = flds.TrainingProblem(np.ones((1, 1)), [1.0], learning_rate=0.5, steps=50)
options = dict(dtype="float32", tolerance=1e-3, rank_budget=(7, 6))
s = flds.simulate_resnet(problem, width=width, depth=64, **options)
from flds.training.footprint import lazy_footprint
from flds.training.options import checked
from flds.training.workload import Workload
load = Workload.of(problem, checked(problem, width, 64, "law", options | {"operator": "lazy"}))
rank = s.rank.mean(axis=0)
print(json.dumps(dict(status=s.status, seconds=s.timings["solve"], rank=s.rank.max(axis=0).tolist(),
    peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0, formula=lazy_footprint(load, tuple(rank)).host,
    f1=float(s.outputs[1, 0]), final=float(s.outputs[-1, 0]), truncation=float(s.truncation.max()))))
"""


def million(scale: Scale) -> Section:
    """A network of width 10^6 and depth 64, trained for 50 steps in a process of its own (at full scale)."""
    if scale.name == "full":
        yield from _large(1_000_000)


def _large(width: int) -> Section:
    done = subprocess.run([sys.executable, "-c", MILLION, str(width)], capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        yield check(f"width {width}, depth 64, 50 steps, float32", f"it ended saying {last[0]}", "completed", False)
        return
    result = json.loads(done.stdout)
    peak, formula, seconds = result["peak"], result["formula"], result["seconds"]
    yield check(
        f"width {width}, depth 64, 50 steps, float32",
        f"{result['status']}, {seconds:.0f} s, {peak / 1e9:.2f} GB, ranks {result['rank']}, "
        f"dropped {result['truncation']:.0e}, f^(1) = {result['f1']:.4f}, f^(50) = {result['final']:.4f}",
        "completed, below 300 s and 8 GB",
        bool(result["status"] == "completed" and seconds < 300 and peak < 8e9),
    )
    yield check(
        f"width {width}: memory formula at the final rank / measured peak",
        f"{formula / peak:.2f}",
        "0.8 to 1.2",
        bool(0.8 < formula / peak < 1.2),
    )
