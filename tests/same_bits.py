"""Whether a change of the inside leaves every number as it was, to the last bit.

`python -m tests.same_bits record FILE` before it and `python -m tests.same_bits compare FILE` after it, on one machine.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numba import njit

import flds
import solvers

RNG = np.random.default_rng(11)
X = RNG.standard_normal((7, 5))
CLASSES = flds.TrainingProblem(
    X, [0, 1, 2, 0, 1, 2, 1], loss="cross_entropy", steps=4, batch_size=3, batch_order="random", activation="gelu",
    test_inputs=RNG.standard_normal((4, 5)), test_targets=[0, 1, 2, 2],
)  # fmt: skip
NUMBERS = flds.TrainingProblem(X[:3], [1.0, -1.0, 0.5], steps=5, learning_rate=[0.5, 0.4, 0.5, 0.3, 0.2], horizon=2.0)
SIGNS = flds.TrainingProblem(X, np.sign(X[:, 0]), loss="logistic", activation="relu", steps=3, batch_size=2)
MEAN = flds.MeanFieldProblem(X, X[:, ::-1], steps=4, test_inputs=X[:2], test_targets=X[:2])


def solution(run: solvers.Solution) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of a solution, and of its states."""
    for name, item in run.variables.items():
        yield name, item.values
    for group, items in run.groups.items():
        for name, item in items.items():
            yield f"{group} {name}", item.values


def lazy() -> Iterator[tuple[str, np.ndarray]]:
    options = {"particles": 3000, "depth": 4, "keep_state": True, "record_kernels": True, "seed": 3}
    for weights in ("tied", "independent"):
        for sampling in ("matched", "law"):
            for problem in (CLASSES, NUMBERS, SIGNS):
                run = flds.solve_flds(problem, backward_weights=weights, sampling=sampling, **options)
                yield from solution(run)
                yield "predicted", run.predict(X + 0.1)


def single_precision() -> Iterator[tuple[str, np.ndarray]]:
    for sampling in ("matched", "law"):
        yield from solution(flds.solve_flds(CLASSES, particles=5000, depth=3, dtype="float32", sampling=sampling))


def dense() -> Iterator[tuple[str, np.ndarray]]:
    for weights in ("tied", "independent"):
        for dtype in ("float64", "float32"):
            options = {"width": 300, "depth": 3, "operator": "dense", "backward_weights": weights, "dtype": dtype}
            yield from solution(flds.simulate_resnet(CLASSES, record_kernels=True, keep_state=True, **options))


def networks() -> Iterator[tuple[str, np.ndarray]]:
    yield from solution(flds.simulate_resnet(NUMBERS, width=2500, depth=8, noise_depth=16, tolerance=0, seed=5))
    yield from solution(flds.simulate_resnet(CLASSES, width=130, depth=3, operator="lazy", replicates=3))


def strongly_matched() -> Iterator[tuple[str, np.ndarray]]:
    problem = flds.TrainingProblem(X[:2], [1.0, -1.0], activation="identity", steps=3)
    yield from solution(flds.solve_flds(problem, particles=500, depth=4, sampling="matched_all"))


def replicates() -> Iterator[tuple[str, np.ndarray]]:
    run = flds.solve_flds(NUMBERS, particles=800, depth=4, replicates=3, keep_state=True)
    yield from solution(run)
    yield from solution(flds.resume(run, 2, learning_rate=0.1))


def resumed() -> Iterator[tuple[str, np.ndarray]]:
    run = flds.solve_flds(CLASSES, particles=900, depth=3, keep_state=True)
    with tempfile.TemporaryDirectory() as folder:
        stored = flds.load(run.save(Path(folder, "run.nc")))
    yield from solution(flds.resume(stored, 3))
    yield from solution(flds.rerun(stored))


def estimates() -> Iterator[tuple[str, np.ndarray]]:
    for weights in ("tied", "independent"):
        run = flds.estimate_limit(
            NUMBERS, particles=400, depth=4, replicates=4, backward_weights=weights, budget_seconds=1e-3
        )
        yield from solution(run)


def untrained() -> Iterator[tuple[str, np.ndarray]]:
    for dtype in ("float64", "float32"):
        options = {"particles": 5000, "depth": 16, "noise_depth": 32, "dtype": dtype}
        yield from solution(flds.solve_forward("relu", **options))
        yield from solution(flds.solve_backward("tanh", **options))


def mean_odes() -> Iterator[tuple[str, np.ndarray]]:
    for dtype in ("float64", "float32"):
        run = flds.solve_mean_ode(MEAN, units=64, depth=4, dtype=dtype, replicates=2, keep_state=True, depth_error=True)
        yield from solution(run)
        yield from solution(flds.resume(run, 2))
        yield "predicted", run.predict(X + 0.1)
    yield from solution(flds.solve_tangent_ode(MEAN, units=64, depth=4, keep_state=True, record_features=True))
    for block in ("gated_linear_unit", "matrix_after_activation", "matrix_before_activation"):
        problem = flds.MeanFieldProblem(X, X, block=block, activation="relu", steps=3, learning_rates=0.2)
        yield from solution(flds.solve_mean_ode(problem, units=32, depth=4))
    tokens = RNG.integers(0, 4, (3, 5))
    transformer = flds.MeanFieldProblem(
        tokens[:, :-1], tokens[:, 1:], loss="cross_entropy", steps=3, block="transformer", learning_rates=0.1,
        embedding=np.linspace(-1, 1, 24).reshape(4, 6), unembedding=np.linspace(1, -1, 24).reshape(6, 4),
    )  # fmt: skip
    yield from solution(flds.solve_mean_ode(transformer, units=32, depth=4))
    run = flds.solve_mean_ode(MEAN, units=64, depth=4, record_features=True)
    depths = [0.0, 0.4, 1.0]
    start = flds.draw_units(MEAN, 3, 4, seed=4)
    for block in flds.follow_units(MEAN, run, start, depths):
        yield from block.items()


def equations() -> Iterator[tuple[str, np.ndarray]]:
    ready = solvers.equations
    everything = solvers.McKeanVlasov(
        drift=njit(lambda t, x, m: (m[0] - x[0], -x[1])),
        diffusion=njit(lambda t, x, m: (0.3 * x[0], 0.5)),
        moments=njit(lambda t, x: (x[0], x[1] ** 2)),
        common=njit(lambda t, x, m: (0.1, 0.2)),
        interaction=njit(lambda x, y: (0.1 * (y[0] - x[0]), 0.0)),
        noise="diagonal",
    )
    correlated = solvers.McKeanVlasov(
        moments=njit(lambda t, x: (np.tanh(x[0]), np.tanh(x[1]), np.tanh(x[2]))), noise="mean_field"
    )
    mixed = solvers.McKeanVlasov(
        drift=njit(lambda t, x, m: (-x[0], -x[1])),
        diffusion=njit(lambda t, x, m: ((0.1, x[0], 0.0), (0.2, 0.0, x[1]))),
        noise="general",
    )
    start = np.random.default_rng(1).standard_normal((3000, 2))
    save = ["mean", "variance", "covariance", "quantiles", "particles"]
    runs = {
        "ou": (ready.ornstein_uhlenbeck(), start[:, 0], ("euler_maruyama", "milstein", "heun")),
        "gbm": (ready.geometric_brownian_motion(0.1, 0.5), 1 + start[:, 0] ** 2, ("euler_maruyama", "milstein")),
        "kuramoto": (ready.kuramoto(2.0, 0.4), start[:, 0], ("euler_maruyama",)),
        "flock": (ready.cucker_smale(volatility=0.1), start[:300], ("euler_maruyama",)),
        "everything": (everything, start, ("euler_maruyama",)),
        "correlated": (correlated, np.random.default_rng(2).standard_normal((2500, 3)), ("euler_maruyama",)),
        "mixed": (mixed, start, ("euler_maruyama",)),
    }
    for name, (equation, x0, schemes) in runs.items():
        for scheme in schemes:
            field = 0.3 if name == "kuramoto" else None
            options = {"scheme": scheme, "save": save, "field": field, "seed": 7}
            run = solvers.solve(equation, x0, 0.0, 1.0, 12, noise_steps=24, **options)
            yield from solution(run)
            backward = solvers.solve(equation, x0, 1.0, 0.5, 6, **options)
            yield from solution(backward)
            longer = solvers.resume(equation, run, 1.5, 6, field=field, save=save)
            yield from solution(longer)


def orders() -> Iterator[tuple[str, np.ndarray]]:
    study = solvers.strong_order(
        solvers.equations.geometric_brownian_motion(0.1, 0.5), np.ones(200), 0.0, 1.0, steps=(4, 8, 16), replicates=3
    )
    yield "errors", study.errors
    study = solvers.particle_order(
        solvers.equations.ornstein_uhlenbeck(), lambda rng, n: rng.normal(size=n), 0.0, 1.0, 8, (16, 32, 64),
        replicates=3,
    )  # fmt: skip
    yield "errors", study.errors


def many() -> Iterator[tuple[str, np.ndarray]]:
    """More particles than the first groups hold: the order of these sums may change, once."""
    yield from solution(flds.solve_flds(NUMBERS, particles=40_000, depth=2))
    yield from solution(solvers.solve(solvers.equations.ornstein_uhlenbeck(), np.ones(40_000), 0.0, 1.0, 10))


RUNS: dict[str, Callable[[], Iterator[tuple[str, np.ndarray]]]] = {
    run.__name__: run
    for run in (lazy, single_precision, dense, networks, strongly_matched, replicates, resumed, estimates, untrained,
                mean_odes, equations, orders, many)
}  # fmt: skip


def digests(name: str) -> list[tuple[str, str]]:
    """Return what each array of a run is called, and a hash of its type, shape and bytes."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for array, values in RUNS[name]():
            kept = np.ascontiguousarray(values)
            digest = hashlib.sha256(f"{kept.dtype}{np.shape(values)}".encode() + kept.tobytes()).hexdigest()[:16]
            found.append((array, digest))
    return found


def main(verb: str, path: Path) -> int:
    if verb == "record":
        path.write_text(json.dumps({name: digests(name) for name in RUNS}))
        return 0
    before, differing = json.loads(path.read_text()), 0
    for name in RUNS:
        now, then = digests(name), [tuple(pair) for pair in before[name]]
        other = [new for new, old in zip(now, then, strict=False) if new != old]
        differing += bool(other) or len(now) != len(then)
        print(
            f"{name}: {len(now) - len(other)} of {len(then)} arrays equal" + (f", not {other[0][0]}" if other else "")
        )
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
