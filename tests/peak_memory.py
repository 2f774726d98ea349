"""Runs of every solver, each alone in a process, and the memory that it took beside what was predicted for it.

``python -m tests.peak_memory NAME`` prints both in bytes. The peak is VmHWM, resident memory with the interpreter.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import flds
import solvers

ROOT = Path(__file__).parent.parent
THREADS = {"threads": 2}
RUNS: dict[str, Callable[[], Any]] = {}


def run(function: Callable[[], Any]) -> Callable[[], Any]:
    RUNS[function.__name__] = function
    return function


def training(samples: int = 64, steps: int = 1, outputs: int = 1, tests: int = 0, **rest: Any) -> flds.TrainingProblem:
    """So few steps, or so many samples, that every visit adds a direction: the rank is then known."""
    rng = np.random.default_rng(0)
    x, test_x = rng.standard_normal((samples, 20)), rng.standard_normal((tests, 20))
    y, test_y = np.sign(x[:, :1]) * np.ones(outputs), np.ones((tests, outputs))
    if tests:
        rest |= {"test_inputs": test_x, "test_targets": test_y}
    return flds.TrainingProblem(x, y, steps=steps, learning_rate=0.5 / outputs, **rest)


def pairs(samples: int = 10, steps: int = 3, **rest: Any) -> flds.MeanFieldProblem:
    x, y = np.random.default_rng(0).standard_normal((2, samples, 20))
    return flds.MeanFieldProblem(x, y, steps=steps, **rest)


def limit(problem: flds.TrainingProblem, particles: int = 20_000, depth: int = 16, **options: Any) -> Any:
    return flds.solve_flds(problem, particles=particles, depth=depth, **THREADS | options)


@run
def matched():
    return limit(training())


@run
def by_law():
    return limit(training(), sampling="law")


@run
def independent():
    return limit(training(), backward_weights="independent")


@run
def single_precision():
    return limit(training(), particles=40_000, dtype="float32")


@run
def dense():
    return flds.simulate_resnet(training(), width=5000, depth=3, operator="dense", **THREADS)


@run
def kept_states():
    return limit(training(24), depth=8, replicates=3, keep_state=True)


@run
def kernels():
    return limit(training(steps=20), 200, 32, operator="lazy", sampling="law", record_kernels=True)


@run
def kernels_of_replicates():
    return limit(training(steps=12), 200, 16, operator="lazy", sampling="law", record_kernels=True, replicates=3)


@run
def kernels_of_matrices():
    return limit(training(16, steps=10), 1000, 32, operator="dense", sampling="law", record_kernels=True)


@run
def test_samples():
    return limit(training(2, steps=40, outputs=200, tests=5000), 50, 1, sampling="law")


@run
def test_samples_of_replicates():
    return limit(training(2, steps=20, outputs=200, tests=5000), 50, 1, sampling="law", replicates=2)


@run
def probes():
    return limit(training(1, tests=64), 200_000, 2)


@run
def small_batches():
    problem = training(500, steps=100, batch_size=2, batch_order="random")
    return limit(problem, 30_000, 4, operator="lazy", sampling="law", recorded_samples=[0], record_every=100)


@run
def muon():
    problem = training(steps=30, optimizer="muon")
    return limit(problem, 2_500, 8, operator="lazy", sampling="law", recorded_samples=[0], record_every=30)


@run
def two_layers():
    problem = training(residual="two_layer", hidden_ratio=4, normalization="rms_norm", gain=True, bias=True)
    return limit(problem, 10_000, 8)


@run
def two_layers_of_matrices():
    problem = training(8, residual="two_layer", hidden_ratio=2, normalization="layer_norm")
    return limit(problem, 2_000, 4, operator="dense", sampling="law")


@run
def narrow_two_layers():
    problem = training(32, residual="two_layer", hidden_ratio=0.5, optimizer="muon", steps=4)
    return limit(problem, 20_000, 8, keep_state=True, sampling="law")


@run
def kernels_of_test_samples():
    return limit(training(2, steps=10, tests=400), 20_000, 4, record_kernels=True)


@run
def kernels_of_test_samples_of_replicates():
    return limit(training(2, steps=40, tests=400), 500, 8, record_kernels=True, replicates=3)


@run
def adam_of_vectors():
    return limit(training(8, optimizer={"input": flds.Adam(), "readout": flds.Adam()}), 1_000_000, 2)


@run
def adam_of_matrices():
    problem = training(8, steps=2, optimizer="adam")
    return flds.simulate_resnet(problem, width=3000, depth=3, dtype="float32", **THREADS)


@run
def mean_ode_adam():
    problem = pairs(optimizer=flds.Adam(), learning_rates=0.1)
    return flds.solve_mean_ode(problem, units=32_768, depth=16, keep_state=True, replicates=2, **THREADS)


@run
def mean_ode():
    return flds.solve_mean_ode(pairs(), units=32_768, depth=32, **THREADS)


@run
def mean_ode_features():
    return flds.solve_mean_ode(pairs(500, 60), units=64, depth=32, record_features=True, replicates=2, **THREADS)


@run
def mean_ode_states():
    return flds.solve_mean_ode(pairs(), units=32_768, depth=16, keep_state=True, replicates=3, **THREADS)


@run
def mean_ode_states_and_features():
    return flds.solve_mean_ode(pairs(steps=2), units=32_768, depth=16, keep_state=True, record_features=True, **THREADS)


@run
def tangent_ode():
    return flds.solve_tangent_ode(pairs(), units=32_768, depth=32, **THREADS)


@run
def forward():
    return flds.solve_forward(particles=40_000_000, depth=2, **THREADS)


@run
def backward():
    return flds.solve_backward(particles=1_000_000, depth=100, **THREADS)


def pulled(particles: int, steps: int, x0: Any = None, **options: Any) -> Any:
    from numba import njit

    equation = solvers.McKeanVlasov(
        drift=njit(lambda t, x, m: -(x - 0.5 * m)), diffusion=njit(lambda t, x, m: 0.7), moments=njit(lambda t, x: x),
        noise="additive",
    )  # fmt: skip
    x0 = (lambda rng, n: rng.normal(size=n)) if x0 is None else x0
    return solvers.solve(equation, x0, 0.0, 1.0, steps, particles=particles, **THREADS | options)


@run
def array():
    return pulled(20_000_000, 2, x0=np.ones(20_000_000))


@run
def heun():
    return pulled(20_000_000, 2, scheme="heun")


@run
def particles():
    return pulled(1_000_000, 100, save="particles")


@run
def quantiles():
    return pulled(20_000_000, 2, save="quantiles")


@run
def many_steps():
    return pulled(500, 100_000, save="particles", save_at=np.linspace(0, 1, 100_001))


def measured(name: str) -> tuple[float, float]:
    """Return the peak memory of a run in a process of its own, and what was predicted, in bytes."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, name], capture_output=True, text=True, check=True, cwd=ROOT
    )  # fmt: skip
    peak, predicted = json.loads(done.stdout)
    return peak, predicted


def main(name: str) -> None:
    import flds.mean_ode.solve
    import flds.training.solve  # noqa: F401  what is loaded is watched
    import solvers.sde.solve  # noqa: F401

    asked: list[float] = []
    for module in list(sys.modules.values()):
        if hasattr(module, "require_memory"):
            module.require_memory = lambda needed, *rest: asked.append(needed)  # type: ignore[attr-defined]
    solution = RUNS[name]()
    assert solution.status == "completed"
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    print(json.dumps([1024.0 * int(found[1]), max(asked)]))


if __name__ == "__main__":
    main(sys.argv[1])
