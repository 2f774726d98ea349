"""Training held against plain NumPy with the same weights: nothing is left to chance, so differences are rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flds
from flds.training.assemble import assemble
from flds.training.method import decide
from flds.training.network import Network
from flds.training.options import BACKWARD_WEIGHTS as WEIGHTS
from flds.training.train import train
from solvers.matrices.dense import DenseOperator
from solvers.matrices.lazy import LazyOperator
from validation import plain, plain_mean_ode
from validation.claims import Claim, Scale, Section, check, equal

Array = NDArray[np.float64]

_WIDTH, _DEPTH = 90, 3
# Rounding of a few passes, some 1e-15 relative to the largest number, and room for what a step enlarges it by.
_TOLERANCE = 1e-11


def exact_training(scale: Scale) -> Section:
    """Trainings against plain NumPy networks with the same weights: every loss, operator and recorded variable.

    What the lazy operator has revealed in the end is completed to a matrix, with which a plain network is trained: it
    asks for nothing else. Test inputs are training inputs, whose outputs need no fresh noise. The batches and the rates
    of every step are those that this page has, in one case random and falling. The law of the weights themselves is
    that of `dense_weights` and, of lazily sampled ones, of `law`.
    """
    for label, problem, targets, rates in _problems(scale):
        for operator in ("dense", "lazy"):
            for weights in WEIGHTS:
                yield from _compared(label, problem, targets, rates, operator, weights)
    yield _epochs()
    yield from _replicate_errors()


def _epochs() -> Claim:
    """Random batches visit every sample once before any comes again, in another order each time."""
    problem = flds.TrainingProblem(np.eye(6), np.arange(6.0), steps=11, batch_size=3, batch_order="random")
    epochs = problem.batches.reshape(-1, 6)
    whole = bool(np.all(np.sort(epochs, axis=1) == np.arange(6))) and len(np.unique(epochs, axis=0)) == len(epochs)
    return check(
        "random batches of three of six samples", f"{len(epochs)} epochs", "each visits every sample once", whole
    )


def _replicate_errors() -> Section:
    """Means and standard errors over replicates, from the outputs of each."""
    problem = flds.TrainingProblem(np.eye(3), [1.0, -1.0, 0.5], steps=3)
    training = flds.simulate_resnet(problem, width=60, depth=2, replicates=5)
    mean_field = flds.MeanFieldProblem(np.eye(3), -np.eye(3), steps=2)
    for name, run in (
        ("training", training), ("Mean ODE", flds.solve_mean_ode(mean_field, units=8, depth=2, replicates=5)),
    ):  # fmt: skip
        every = run.replicate_outputs
        yield _exactly(f"{name}: mean of five replicates", run.outputs, np.sum(every, axis=0) / 5)
        error = np.sqrt(np.sum((every - every.mean(0)) ** 2, axis=0) / 4 / 5)
        yield _exactly(f"{name}: standard error of five replicates", run.outputs_standard_error, error)


def _problems(scale: Scale) -> Iterator[tuple[str, flds.TrainingProblem, NDArray[np.generic], Array]]:
    """Every loss with one and several outputs, batches, rates and activations that differ; rates of every step last."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((4, 5))
    falling = np.array([1.0, 0.8, 0.5, 0.3])
    numbers, several = rng.standard_normal(4), rng.standard_normal((4, 3))
    signs, classes = np.array([1.0, -1.0, -1.0, 1.0]), np.array([2, 0, 1, 0])
    cases: tuple[tuple[str, NDArray[Any], dict[str, Any]], ...] = (
        ("squared, one output", numbers, {"activation": "tanh"}),
        ("squared, three outputs", several, {"activation": "gelu", "horizon": 2.0}),
        ("logistic", signs, {"activation": "relu", "loss": "logistic", "learning_rate": 1.5}),
        ("cross-entropy", classes, {"activation": "silu", "loss": "cross_entropy", "learning_rate": 1.0}),
        ("squared, batches of two", numbers, {"activation": "erf", "batch_size": 2}),
        ("squared, random batches, falling rates", numbers,
         {"activation": "softplus", "batch_size": 3, "batch_order": "random", "learning_rate": falling}),
    )  # fmt: skip
    for label, targets, options in cases:
        problem = flds.TrainingProblem(x, targets, steps=4, test_inputs=x, test_targets=targets, **options)
        yield label, problem, targets, np.broadcast_to(options.get("learning_rate", 0.5), 4)


# Of four training samples; the losses are then means over these.
_RECORDED = (3, 1)


def _compared(
    label: str, problem: flds.TrainingProblem, targets: NDArray[np.generic], rates: Array, operator: str, weights: str
) -> Section:
    options: flds.Options = {
        "operator": operator,
        "backward_weights": weights,
        "tolerance": 0.0,
        "record_kernels": True,
        "record_every": 1,
        "recorded_samples": _RECORDED,
        "seed": 4,
    }
    settings, cost, _ = decide(problem, _WIDTH, _DEPTH, "law", options)
    network = Network(problem, settings, settings.seed)
    start = _initial(network) if operator == "dense" else None
    recorder = train(network)
    run = assemble(problem, settings, [recorder], recorder.status, {}, [], {"solver": "exact", "reason": cost.reason})
    reference = plain.train(
        start or _completed(network),
        problem.x,
        targets,
        activation=problem.phi.name,
        loss=problem.loss_function.name,
        horizon=problem.horizon,
        rates=rates,
        batches=problem.batches,
    )
    expected = {"feature_kernel": _kernel(reference.features), "gradient_kernel": _kernel(reference.gradients)}
    expected |= {name: getattr(reference, name) for name in ("feature_variance", "gradient_variance", "batch_loss")}
    if problem.full_batch or operator == "dense":  # lazily sampled outputs between visits have fresh noise
        expected |= _on_all_samples(problem, reference.outputs, targets)
    off = {name: _distance(getattr(run, name), values) for name, values in expected.items()}
    worst = max(off, key=lambda name: off[name])
    named = ", ".join(sorted(expected))
    yield check(
        f"{label}, {operator} operator, {weights} weights: {named}",
        f"differ by up to {off[worst]:.1e} ({worst})",
        f"rounding, below {_TOLERANCE:g}",
        off[worst] < _TOLERANCE,
    )


def _on_all_samples(problem: flds.TrainingProblem, outputs: Array, targets: NDArray[np.generic]) -> dict[str, Array]:
    """Outputs, losses and accuracies on recorded training samples, and on test samples, which are all of them."""
    loss, found = problem.loss_function.name, {}
    for prefix, chosen in (("", list(_RECORDED)), ("test_", list(range(len(targets))))):
        shown = outputs[:, chosen]
        pairs = [list(zip(f, targets[chosen], strict=True)) for f in shown]
        found[f"{prefix}outputs"] = shown[..., 0] if problem.outputs == 1 else shown
        found[f"{prefix}loss"] = np.array([np.mean([plain.loss_value(loss, f, y) for f, y in step]) for step in pairs])
        if loss != "squared":
            right = [np.mean([plain.is_right(loss, f, y) for f, y in step]) for step in pairs]
            found[f"{prefix}accuracy"] = np.array(right)
    return found


def dense_weights(scale: Scale) -> Section:
    """Weights that a dense network begins with: independent standard Gaussian entries, of all layers and passes."""
    from scipy.stats import kstest

    width, depth = 200, scale.pick(4, 8)
    problem = flds.TrainingProblem(np.eye(3), [1.0, -1.0, 0.5], steps=1)
    for weights in WEIGHTS:
        settings = decide(problem, width, depth, "law", {"operator": "dense", "backward_weights": weights}).settings
        network = Network(problem, settings, 3)
        drawn = _initial(network)
        matrices = drawn.W if weights == "tied" else np.concatenate([drawn.W, drawn.backward])
        matrices, root = matrices.reshape(len(matrices), -1), math.sqrt(matrices.size)
        name = f"dense weights, {weights}, {len(matrices)} matrices of width {width}"
        yield equal(f"{name}: mean of entries", float(matrices.mean()), 1 / root, 0.0, 0.02)
        variance = float(np.mean(matrices**2))
        yield equal(f"{name}: variance of entries", variance, math.sqrt(2) / root, 1.0, 0.02)
        p = float(kstest(matrices.ravel(), "norm").pvalue)
        yield check(
            f"{name}: Kolmogorov and Smirnov's test", f"p = {p:.2g}", "above 6e-5, four standard errors", p > 6e-5
        )
        correlation = np.corrcoef(matrices) - np.eye(len(matrices))
        worst = float(np.abs(correlation).max()) * width
        yield check(f"{name}: correlation of any two", f"{worst:.1f} standard errors", "below 5", worst < 5)


def _kernel(vectors: Array) -> Array:
    """Return inner products over all passes in each layer, from (passes, layers, batch, n) arrays."""
    rows = vectors.transpose(1, 0, 2, 3).reshape(_DEPTH, -1, _WIDTH)
    return np.asarray(rows @ rows.transpose(0, 2, 1) / _WIDTH)


def _distance(found: Array, expected: Array) -> float:
    """Return the largest difference relative to the largest number; infinity where it cannot be compared."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(float).tiny))


def _initial(network: Network) -> plain.Weights:
    """Return copies of the weights that a dense network begins with."""
    network.initialise()
    matrices = [operator for operator in network.operators if isinstance(operator, DenseOperator)]
    root = np.sqrt(network.settings.particles)
    W = np.array([operator.weights * root for operator in matrices])
    tied = network.settings.backward_weights == "tied"
    backward = W if tied else np.array([operator.backward_weights * root for operator in matrices])
    return _weights(network, W, backward)


def _completed(network: Network) -> plain.Weights:
    """Return weights of which a lazy network has seen all that it has seen, before any update.

    The matrix that does this and nothing else is (Yᵀ Q + Pᵀ (X − X Qᵀ Q/N))/N with the directions Q and P of both
    sides and their images Y and X.
    """
    first = Network(network.problem, network.settings, network.settings.seed)
    first.initialise()
    n, root = _WIDTH, np.sqrt(_WIDTH)
    forward, backward = [], []
    for operator in network.operators:
        assert isinstance(operator, LazyOperator)
        q, y = operator.features.directions, operator.features.images
        p, x = operator.gradients.directions, operator.gradients.images
        if operator.tied:
            forward.append(root * (y.T @ q + p.T @ (x - x @ q.T @ q / n)) / n)
        else:
            forward.append(root * y.T @ q / n)
            backward.append(root * p.T @ x / n)
    W = np.array(forward)
    return _weights(first, W, np.array(backward) if backward else W)


def _weights(network: Network, W: Array, backward: Array) -> plain.Weights:
    U, v = (np.array(part, np.float64) for part in (network.input_weights.T, network.readout))
    return plain.Weights(U, W, backward, v)


def formulas(scale: Scale) -> Section:
    """Blocks and losses of the Mean ODE against their formulas, evaluated unit by unit; slopes by complex steps."""
    rng = np.random.default_rng(8)
    h, tokens, units = rng.standard_normal((3, 4)), rng.standard_normal((2, 5, 4)), 6
    for activation in scale.pick(("tanh", "silu"), tuple(plain.PHI)):
        u, w, v = rng.standard_normal((3, 4, units))
        m = rng.standard_normal((4, 4, units))
        cases = (
            (flds.TwoLayerPerceptron(activation), {"u": u, "v": v}, [plain.perceptron(r, u, v, activation) for r in h]),
            (flds.GatedLinearUnit(activation), {"u": u, "w": w, "v": v},
             [plain.gated_unit(r, u, w, v, activation) for r in h]),
            (flds.MatrixAfterActivation(activation), {"W": m}, [plain.matrix_after(r, m, activation) for r in h]),
            (flds.MatrixBeforeActivation(activation), {"W": m}, [plain.matrix_before(r, m, activation) for r in h]),
        )  # fmt: skip
        for block, z, expected in cases:
            yield _exactly(f"{block.name}, {activation}: φ(h, z)", block.value(h, z), np.array(expected))
    q, k, value = rng.standard_normal((3, 4, 3, units))
    o = rng.standard_normal((3, 4, units))
    for causal in (False, True):
        found = flds.Attention(3, causal).value(tokens, {"W_Q": q, "W_K": k, "W_V": value, "W_O": o})
        mixed = np.array([plain.attention(one, q, k, value, o, causal) for one in tokens])
        yield _exactly(f"attention, three keys{', causal' if causal else ''}: φ(h, z)", found, mixed)
    yield from _mean_losses(rng)


def _mean_losses(rng: np.random.Generator) -> Section:
    from flds.mean_ode.losses import LOSSES, get_loss

    f = rng.standard_normal((5, 3))
    targets = {"cross_entropy": np.array([0, 2, 1, 1, 0]), "logistic": np.sign(rng.standard_normal((5, 3)))}
    for name in LOSSES:
        y = targets.get(name, rng.standard_normal((5, 3)))
        loss = get_loss(name)
        expected = np.array([plain.loss_value(name, a, b) for a, b in zip(f, y, strict=True)])
        yield _exactly(f"loss {name} of the Mean ODE", loss.values(f, y), expected)
        slopes = np.array([plain.loss_slope(name, a, b) for a, b in zip(f, y, strict=True)])
        yield _exactly(f"loss {name} of the Mean ODE: slope", loss.slope(f, y), slopes)


def exact_mean_ode(scale: Scale) -> Section:
    """Trainings of the Mean ODE against plain NumPy, from the same units: every block, loss and recorded variable.

    Among them a single output, and a causal transformer, whose two fields are added, with an unembedding.
    """
    rng = np.random.default_rng(9)
    x, numbers, tokens = rng.standard_normal((3, 2)), rng.standard_normal((3, 2)), rng.standard_normal((2, 3, 2))
    signs, classes = np.array([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]]), np.array([0, 1, 1])
    read, single = rng.standard_normal((2, 3)), np.array([[0.7], [-0.4]])
    perceptron, mixing = flds.TwoLayerPerceptron("tanh"), flds.Attention(2)
    causal = (flds.TwoLayerPerceptron("sin"), flds.Attention(2, causal=True))
    cases: tuple[tuple[str, Any, Array, NDArray[Any], float, Array | None], ...] = (
        ("mean_squared", perceptron, x, numbers, 2.0, None),
        ("logistic", perceptron, x, signs, 1.0, None),
        ("cross_entropy", perceptron, x, classes, 1.0, None),
        ("mean_squared", flds.GatedLinearUnit("silu"), x, numbers, 1.0, None),
        ("mean_squared", flds.MatrixAfterActivation("tanh"), x, numbers, 1.0, None),
        ("mean_squared", flds.MatrixBeforeActivation("sin"), x, numbers, 0.5, None),
        ("mean_squared", mixing, tokens, tokens[::-1].copy(), 1.0, None),
        ("mean_squared", perceptron, x, numbers[:, :1], 1.0, single),
        ("cross_entropy", causal, tokens, np.array([[0, 2, 1], [1, 1, 0]]), 1.5, read),
    )
    for loss, blocks, inputs, targets, alpha, unembedding in cases:
        yield _trained_alike(loss, blocks, inputs, targets, alpha, unembedding)


def _trained_alike(
    loss: str, blocks: Any, inputs: Array, targets: NDArray[Any], alpha: float, unembedding: Array | None
) -> Claim:
    """Four units at five nodes, trained by both; test samples are the training samples, and rates differ."""
    blocks = blocks if isinstance(blocks, tuple) else (blocks,)
    names = [name for block in blocks for name in block.shapes(inputs.shape[-1])]
    rates = {name: (0.4 + 0.2 * place) / len(names) for place, name in enumerate(names)}
    problem = flds.MeanFieldProblem(
        inputs, targets, block=blocks, loss=loss, alpha=alpha, steps=3, learning_rates=rates, unembedding=unembedding,
        test_inputs=inputs, test_targets=targets,
    )  # fmt: skip
    run = flds.solve_mean_ode(problem, units=4, depth=4, seed=5, record_every=1, record_features=True)
    units = {name: values for one in flds.draw_units(problem, 5, 4, 5) for name, values in one.items()}
    fields = [_field(one) for one in blocks]
    read = np.eye(inputs.shape[-1]) if unembedding is None else unembedding
    found = plain_mean_ode.train(
        lambda h, z: sum(field(h, z) for field in fields), units, inputs, targets, loss, alpha, rates, 3, read
    )
    expected = _recorded(found, loss, targets)
    off = {name: _distance(getattr(run, name), values) for name, values in expected.items()}
    worst = max(off, key=lambda name: off[name])
    label = " and ".join(one.name for one in blocks)
    read_out = "" if unembedding is None else f", unembedded to {read.shape[1]}"
    causal = ", causal" if getattr(blocks[-1], "causal", False) else ""
    return check(
        f"Mean ODE, {label}{causal}{read_out}, {loss}: {', '.join(sorted(expected))}",
        f"differ by up to {off[worst]:.1e} ({worst})",
        f"rounding, below {_TOLERANCE:g}",
        off[worst] < _TOLERANCE,
    )


def _field(block: Any) -> plain_mean_ode.Field:
    if isinstance(block, flds.Attention):
        return plain_mean_ode.attention(block.causal)
    return plain_mean_ode.FIELDS[block.name](block.rho.name)


def _recorded(found: plain_mean_ode.TrainedUnits, loss: str, targets: NDArray[Any]) -> dict[str, Array]:
    """Every variable of a training, by the names that a solution gives them."""
    outputs = found.outputs
    shown = {
        "outputs": outputs[..., 0] if outputs.shape[-1] == 1 else outputs,
        "loss": np.array([_mean_loss_of(loss, f, targets) for f in outputs]),
    }
    every = tuple(range(1, outputs.ndim))
    if loss == "cross_entropy":
        shown["accuracy"] = np.mean(outputs.argmax(-1) == targets, axis=every[:-1])
    if loss == "logistic":
        shown["accuracy"] = np.mean(outputs * targets > 0, axis=every)
    expected = shown | {f"test_{name}": values for name, values in shown.items()}
    expected |= {"features": found.features, "covectors": found.covectors}
    return expected | {f"travel_{name}": values for name, values in found.travel.items()}


def _mean_loss_of(loss: str, f: Array, targets: NDArray[Any]) -> float:
    """The mean over samples, and tokens."""
    rows = f.reshape(-1, f.shape[-1])
    y = targets.ravel() if loss == "cross_entropy" else targets.reshape(rows.shape)
    return float(np.mean([plain.loss_value(loss, *pair) for pair in zip(rows, y, strict=True)]))


def _exactly(name: str, found: Array, expected: Array) -> Claim:
    distance = _distance(found, expected)
    return check(name, f"differs by {distance:.1e}", "rounding, below 1e-12", distance < 1e-12)
