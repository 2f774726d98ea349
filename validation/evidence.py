"""The engine against what is known exactly, at sizes too large for the test suite.

    python -m validation.evidence [--out FOLDER] [NAME ...]

Every line is a claim, what was measured, its standard error, and a verdict; the report is written as
Markdown.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import flds
from flds.dynamics import Network
from flds.settings import resolve
from flds.solve import train
from solvers.solution import library_versions
from solvers.weight_operator import LazyOperator
from validation import closed_forms, tensor_program
from validation.claims import MARGIN, Claim, against
from validation.general_solver import mean_field_equations, orders_of_convergence

Array = NDArray[np.float64]

PARTICLES, REPLICATES = 100_000, 16


def one_sample(activation: str, rate: float = 0.5, steps: int = 1) -> flds.TrainingProblem:
    return flds.TrainingProblem(np.ones((1, 1)), [1.0], activation=activation, learning_rate=rate, steps=steps)


def three_samples(activation: str, batch_size: int | None = None, steps: int = 6) -> flds.TrainingProblem:
    rng = np.random.default_rng(1)
    return flds.TrainingProblem(
        rng.standard_normal((3, 5)), [1.0, -1.0, 0.5], activation=activation, learning_rate=0.5, steps=steps,
        batch_size=batch_size,
    )  # fmt: skip


def initialisation() -> Iterator[Claim]:
    """Moments over depth at initialisation, against the same Euler recursion by quadrature."""
    depth = 64
    for activation in ("identity", "tanh", "relu", "erf"):
        q = closed_forms.feature_variance(activation, 1.0, 1.0, depth)[-1]
        p = closed_forms.gradient_variance(activation, 1.0, 1.0, depth)[0]
        forward, backward = (
            [solve(activation, particles=PARTICLES, depth=depth, seed=seed) for seed in range(REPLICATES)]
            for solve in (flds.solve_forward, flds.solve_backward)
        )
        yield against(f"{activation}: E h_T², forward SDE, L = {depth}", np.array([s.variance[-1] for s in forward]), q)
        yield against(
            f"{activation}: E g_0², backward SDE, L = {depth}", np.array([s.variance[0] for s in backward]), p
        )


def tangent_kernel() -> Iterator[Claim]:
    """First step with a small rate: the tangent kernel when tied, 2 E h_T² when independent."""
    depth = 32
    for activation in ("identity", "tanh", "relu", "erf"):
        # The next order in the rate must stay below the standard error; for the identity there is none.
        rate = 1e-2 if activation == "identity" else 1e-4
        for weights in ("tied", "independent"):
            solution = flds.solve_flds(
                one_sample(activation, rate), particles=PARTICLES, depth=depth, backward_weights=weights,
                replicates=REPLICATES,
            )  # fmt: skip
            f = solution.replicate_outputs[:, :, 0]
            kernel = (f[:, 1] - f[:, 0]) / (rate * (1.0 - f[:, 0]))
            exact = closed_forms.tangent_kernel(activation, 1.0, 1.0, depth, weights)
            yield against(f"{activation}, {weights}: tangent kernel, L = {depth}", kernel, exact)


def identity_outputs() -> Iterator[Claim]:
    """Large steps with φ = identity, against the closed form and the exact linear dynamics."""
    depth = 16
    for weights in ("tied", "independent"):
        problem = one_sample("identity", steps=3)
        solution = flds.solve_flds(
            problem, particles=PARTICLES, depth=depth, backward_weights=weights, replicates=REPLICATES
        )
        f = solution.replicate_outputs[:, :, 0]
        exact = closed_forms.IdentityDynamics(problem, depth, weights).outputs()[:, 0, 0]
        first = closed_forms.identity_first_output(0.5, 1.0, 1.0, depth, weights)
        yield against(f"identity, {weights}: f^(1), closed form", f[:, 1], first)
        for step in (2, 3):
            yield against(f"identity, {weights}: f^({step}), exact linear dynamics", f[:, step], exact[step])
    problem = three_samples("identity", steps=4)
    for weights in ("tied", "independent"):
        solution = flds.solve_flds(
            problem, particles=PARTICLES, depth=depth, backward_weights=weights, replicates=REPLICATES
        )
        exact = closed_forms.IdentityDynamics(problem, depth, weights).outputs()[:, :, 0]
        for sample in range(3):
            yield against(
                f"identity, {weights}, three samples: f^(4) of sample {sample}",
                solution.replicate_outputs[:, 4, sample], exact[4, sample],
            )  # fmt: skip
        short = three_samples("identity", steps=2)  # later residuals fall below the rounding floor and are dropped
        strong = flds.solve_flds(
            short, particles=2_000, depth=8, backward_weights=weights, sampling="matched_all", tolerance=0.0,
            replicates=4,
        )  # fmt: skip
        exact = closed_forms.IdentityDynamics(short, 8, weights).outputs()[:, :, 0]
        worst = np.abs(strong.replicate_outputs - exact).max()
        yield Claim(
            f"identity, {weights}: everything matched, largest error of f^(0) … f^(2) over four seeds", f"{worst:.1e}",
            "below 1e-10", bool(worst < 1e-10),
        )  # fmt: skip


def independent_identity() -> Iterator[Claim]:
    """Independent weights, any φ and rate: f^(1) = 2 η_c y E[h^(0) h^(1)] at depth L, both from the same run."""
    problem = one_sample("tanh")
    depth = 32
    differences = []
    for seed in range(REPLICATES):
        settings = resolve(problem, PARTICLES, depth, "matched", {"backward_weights": "independent", "seed": seed})[0]
        network = Network(problem, settings, seed)
        differences.append(_first_output_minus_moment(network, problem))
    yield against("tanh, independent: f^(1) − 2 η_c y E[h^(0) h^(1)]", np.array(differences), 0.0)


def _first_output_minus_moment(network: Network, problem: flds.TrainingProblem) -> float:
    from solvers.random import Address, Stream

    with network.blocks.running():
        network.initialise()
        first = network.forward(problem.x, Address(Stream.FORWARD, 0))
        slopes = problem.loss_function.derivative(first.outputs, problem.y)
        backward = network.backward(first, slopes, 0)
        network.update(problem.x, slopes, first, backward, problem.rates[0])
        second = network.forward(problem.x, Address(Stream.FORWARD, 1))
        moment = network.blocks.inner(first.states[-1], second.states[-1])[0, 0]
    return float(second.outputs[0, 0] - 2 * problem.rates[0] * -slopes[0, 0] * moment)


def backward_weights() -> Iterator[Claim]:
    """Ordinary backpropagation and Definition 1 differ by the closed form, in the limit and in dense networks."""
    from validation import networks

    depth, seeds = 16, 24
    exact = {w: closed_forms.identity_first_output(0.5, 1.0, 1.0, depth, w) for w in ("tied", "independent")}
    gap = exact["tied"] - exact["independent"]
    limits = {
        w: flds.solve_flds(
            one_sample("identity"), particles=PARTICLES, depth=depth, backward_weights=w, replicates=REPLICATES
        ).replicate_outputs[:, 1, 0]
        for w in exact
    }
    yield against("identity: f^(1) tied − independent, limit", limits["tied"] - limits["independent"], gap)
    dense = {
        w: np.array([
            networks.train(one_sample("identity"), width=1500, depth=depth, backward_weights=w, seed=s,
                           dtype="float32").outputs[1, 0] for s in range(seeds)
        ]) for w in exact
    }  # fmt: skip
    difference = dense["tied"] - dense["independent"]
    yield against("identity: f^(1) tied − independent, dense networks of width 1500", difference, gap)
    z = (dense["tied"].mean() - exact["independent"]) / (dense["tied"].std(ddof=1) / np.sqrt(seeds))
    yield Claim(
        "identity: ordinary backpropagation is told apart from Definition 1", f"{abs(z):.0f} standard errors",
        "above 4", bool(abs(z) > MARGIN),
    )  # fmt: skip


def law() -> Iterator[Claim]:
    """Lazily sampled networks of width 1536 against dense ones trained by torch: means and variances."""
    from validation import networks

    width, depth, seeds, lazy_seeds = 1536, 24, 24, 96
    for activation in ("tanh", "gelu", "relu"):
        for batch_size, label in ((None, "full batch"), (1, "single sample")):
            for weights in ("tied", "independent"):
                problem = three_samples(activation, batch_size)
                lazy = flds.simulate_resnet(
                    problem, width=width, depth=depth, backward_weights=weights, replicates=lazy_seeds, seed=7,
                    operator="lazy",
                ).replicate_outputs  # fmt: skip
                dense = np.array([
                    networks.train(problem, width=width, depth=depth, backward_weights=weights, seed=s,
                                   dtype="float32").outputs for s in range(seeds)
                ])  # fmt: skip
                yield same_law(f"{activation}, {label}, {weights}: f^(0) … f^(6) of three samples", lazy, dense)


def same_law(name: str, a: Array, b: Array) -> Claim:
    """Compare means and log-variances over seeds; both have known standard errors."""
    means = (a.mean(0) - b.mean(0)) / np.sqrt(a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b))
    # The variance of a log-variance is (kurtosis − 1)/n; outputs of wide networks are close to normal: 2/(n − 1).
    error = np.sqrt(2 / (len(a) - 1) + 2 / (len(b) - 1))
    variances = np.log(a.var(0, ddof=1) / b.var(0, ddof=1)) / error
    worst = max(np.abs(means).max(), np.abs(variances).max())
    measured = (
        f"rms z of means {np.sqrt((means**2).mean()):.2f}, of variances {np.sqrt((variances**2).mean()):.2f}, "
        f"worst {worst:.1f}"
    )
    return Claim(name, measured, "below 4", bool(worst < MARGIN))


def matched_noise() -> Iterator[Claim]:
    """Matched noise against noise by law: standard deviations over seeds, and means that agree."""
    cases = ((one_sample("tanh", steps=5), 1000, "one sample"), (three_samples("tanh", steps=5), 2000, "three samples"))
    for problem, particles, label in cases:
        for weights in ("tied", "independent"):
            runs = {
                sampling: flds.solve_flds(
                    problem, particles=particles, depth=12, backward_weights=weights, replicates=200,
                    sampling=sampling,
                ).replicate_outputs for sampling in ("law", "matched")
            }  # fmt: skip
            for step in (1, 2, 5):
                law_, matched = runs["law"][:, step], runs["matched"][:, step]
                ratio = float(np.sqrt(law_.var(0, ddof=1).mean() / matched.var(0, ddof=1).mean()))
                z = (law_.mean(0) - matched.mean(0)) / np.sqrt((law_.var(0) + matched.var(0)) / len(law_))
                yield Claim(
                    f"tanh, {label}, {weights}: f^({step}), standard deviation by law / matched",
                    f"{ratio:.1f}, means differ by {np.abs(z).max():.1f} standard errors", "above 3, below 4",
                    bool(ratio > 3 and np.abs(z).max() < MARGIN),
                )  # fmt: skip


def singular() -> Iterator[Claim]:
    """Singular covariances: a converged run, duplicated samples, and how orthonormal the bases stay."""
    doubled = flds.TrainingProblem(
        np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), [1.0, 1.0, -1.0], learning_rate=0.3, steps=60
    )
    cases = (("same input for 500 steps", one_sample("tanh", steps=500)), ("duplicated samples", doubled))
    for label, problem in cases:
        for dtype in ("float64", "float32"):
            network, finite = _trained(problem, dtype)
            worst = max(
                float(np.abs(network.blocks.gram(side.directions) - np.eye(side.rank)).max())
                for layer in lazy_layers(network) for side in (layer.features, layer.gradients)
            )  # fmt: skip
            rank = np.max([layer.rank for layer in network.layers], axis=0)
            yield Claim(
                f"{label}, {dtype}: orthonormality of every basis", f"{worst:.1e}, ranks {rank[0]}/{rank[1]}",
                "below 1e-6, finite", bool(worst < 1e-6 and finite),
            )  # fmt: skip


def recursions() -> Iterator[Claim]:
    """Infinite width at L = 16: the exact recursion, Proposition 4 as printed, and neither correction; first step."""
    depth = 16
    exact = {
        "exact": closed_forms.identity_first_output(0.5, 1.0, 1.0, depth, "tied"),
        "printed": closed_forms.printed_first_output(0.5, 1.0, 1.0, depth),
        "uncorrected": closed_forms.identity_first_output(0.5, 1.0, 1.0, depth, "independent"),
    }
    for activation in ("identity", "tanh"):
        outputs = {
            version: tensor_program.solve(
                one_sample(activation), version=version, particles=PARTICLES, depth=depth, replicates=REPLICATES
            ).replicate_outputs[:, 1, 0]
            for version in tensor_program.VERSIONS
        }
        if activation == "identity":
            for version, samples in outputs.items():
                yield against(f"identity, {version}: f^(1), L = {depth}", samples, exact[version])
        for version in ("printed", "uncorrected"):
            gap = outputs["exact"].mean() - outputs[version].mean()
            error = np.sqrt((outputs["exact"].var(ddof=1) + outputs[version].var(ddof=1)) / REPLICATES)
            yield Claim(
                f"{activation}: f^(1) of the exact recursion − {version}, L = {depth}",
                f"{gap:.5f} ± {error:.5f}, {gap / error:.0f} standard errors", "more than 5 standard errors",
                bool(gap > 5 * error),
            )  # fmt: skip


def lazy_layers(network: Network) -> list[LazyOperator]:
    return [layer for layer in network.layers if isinstance(layer, LazyOperator)]


def _trained(problem: flds.TrainingProblem, dtype: str) -> tuple[Network, bool]:
    settings = resolve(problem, 5_000, 16, "matched", {"dtype": dtype})[0]
    network = Network(problem, settings, 0)
    recorder = train(network)
    return network, recorder.status == "completed"


MILLION = """
import json, resource, numpy as np, flds
problem = flds.TrainingProblem(np.ones((1, 1)), [1.0], learning_rate=0.5, steps=50)
options = dict(depth=64, dtype="float32", tolerance=1e-3, rank_budget=(7, 6))
s = flds.simulate_resnet(problem, width=1_000_000, **options)
from flds.cost import Workload
load = Workload.of(problem, 1_000_000, 64, probes=0, tied=True, itemsize=4)
rank = s.rank.mean(axis=0)
print(json.dumps(dict(status=s.status, seconds=s.timings["solve"], rank=s.rank.max(axis=0).tolist(),
    peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0, formula=load.lazy_memory(tuple(rank)),
    f1=float(s.outputs[1, 0]), final=float(s.outputs[-1, 0]), truncation=float(s.truncation.max()))))
"""


def million() -> Iterator[Claim]:
    """A network of width 10^6 and depth 64, trained for 50 steps in a process of its own."""
    import json

    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    peak, formula, seconds = result["peak"], result["formula"], result["seconds"]
    yield Claim(
        "width 10^6, depth 64, 50 steps, float32",
        f"{result['status']}, {seconds:.0f} s, {peak / 1e9:.2f} GB, ranks {result['rank']}, "
        f"dropped {result['truncation']:.0e}, f^(1) = {result['f1']:.4f}, f^(50) = {result['final']:.4f}",
        "completed, below 300 s and 8 GB",
        bool(result["status"] == "completed" and seconds < 300 and peak < 8e9),
    )
    yield Claim(
        "width 10^6: memory formula at the final rank / measured peak", f"{formula / peak:.2f}", "0.8 to 1.2",
        bool(0.8 < formula / peak < 1.2),
    )  # fmt: skip


SECTIONS: dict[str, Callable[[], Iterator[Claim]]] = {
    "initialisation": initialisation,
    "tangent_kernel": tangent_kernel,
    "identity_outputs": identity_outputs,
    "independent_identity": independent_identity,
    "backward_weights": backward_weights,
    "matched_noise": matched_noise,
    "singular": singular,
    "law": law,
    "million": million,
    "recursions": recursions,
    "mean_field_equations": mean_field_equations,
    "orders_of_convergence": orders_of_convergence,
}


def main() -> int:
    """Run the sections named on the command line, or all, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m validation.evidence", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"sections to run: {', '.join(SECTIONS)}")
    parser.add_argument("--out", type=Path, default=Path("validation/reports"), help="folder of the report")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; valid are {', '.join(SECTIONS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    verdicts: Counter[str] = Counter()
    for name in arguments.names or SECTIONS:
        start = time.perf_counter()
        claims = []
        for claim in SECTIONS[name]():
            print(f"{claim.verdict:10} {claim.name}: {claim.measured} (expected {claim.expected})", flush=True)
            claims.append(claim)
        verdicts.update(claim.verdict for claim in claims)
        _write(arguments.out / f"{name}.md", name, claims, time.perf_counter() - start)
    print(f"{verdicts['confirmed']} confirmed, {verdicts['refuted']} refuted")
    return 0  # a refuted claim is a result, and stands in the report


def _write(path: Path, name: str, claims: list[Claim], seconds: float) -> None:
    title = (SECTIONS[name].__doc__ or name).strip()
    versions = ", ".join(f"{library} {version}" for library, version in library_versions().items())
    lines = [f"# {name}", "", title, "", "| claim | measured | expected | verdict |", "|---|---|---|---|"]
    lines += [f"| {c.name} | {c.measured} | {c.expected} | {c.verdict} |" for c in claims]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    lines += ["", f"{seconds:.0f} s, {memory:.1f} GB, {platform.machine()}, flds {flds.__version__}, {versions}.", ""]
    path.write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
