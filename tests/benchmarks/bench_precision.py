"""Error per second: outputs of the infinite-width limit at one depth, by ensembles of dense networks and by particles.

Each way is run with several sizes. Of every size the spread of a run, its bias and its seconds are measured, and the
cost of an error ε is the least, over sizes, of what as many runs take as bring √(spread²/runs + bias²) to ε.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest

import flds
from flds.training.method import decide
from flds.training.network import Network
from flds.training.train import train
from solvers.processors import available_threads
from tests.benchmarks.bench_training import digits
from tests.benchmarks.report import table
from validation.targets import CASES

BOOTSTRAPS = 400


class Size(NamedTuple):
    """What runs of one size gave: outputs (runs, points), seconds of each, and bytes that one holds."""

    size: int
    outputs: np.ndarray
    seconds: float
    memory: float


class Problem(NamedTuple):
    """A problem at a depth, target errors, and by the way the sizes and numbers of runs."""

    problem: flds.TrainingProblem
    depth: int
    targets: tuple[float, ...]
    sizes: dict[str, dict[int, int]]
    reference: tuple[int, int]


def three():
    rng = np.random.default_rng(0)
    return flds.TrainingProblem(rng.standard_normal((3, 5)), [1.0, -1.0, 0.5], learning_rate=0.5, steps=10)


def minibatches():
    data, rest = digits()
    tests = {"test_inputs": data.test_inputs[:200], "test_targets": data.test_targets[:200]}
    return flds.TrainingProblem(data.inputs, data.targets, **tests, **rest)


DENSE, LAW, MATCHED, PAIRS = "dense networks, torch", "networks in law", "matched noise", "dense pairs"
PROBLEMS = {
    "three samples": lambda: Problem(
        three(), 16, (0.005, 0.003, 0.001),
        {DENSE: {64: 512, 128: 512, 256: 256, 512: 64, 1024: 32, 2048: 12},
         LAW: {500: 64, 2000: 32},
         MATCHED: {500: 64, 700: 64, 1000: 32, 2000: 32, 4000: 16, 8000: 16, 16_000: 8},
         PAIRS: {64: 256, 128: 256, 256: 128, 512: 32}},
        (64_000, 24),
    ),
    "digits": lambda: Problem(
        minibatches(), 8, (0.02, 0.013, 0.005),
        {DENSE: {128: 256, 256: 128, 512: 64, 1024: 16, 2048: 4},
         LAW: {2500: 6},
         MATCHED: {2500: 10, 5000: 8, 10_000: 6, 20_000: 4},
         PAIRS: {192: 128, 256: 96, 384: 64, 512: 48, 1024: 8}},
        (10_000, 32),
    ),
}  # fmt: skip


def particles(case, size, runs, sampling, first=0):
    """Runs of the solver, one after the other on all threads."""
    options = {"record_every": case.problem.steps, "dtype": "float32"}
    if len(case.problem.test_x):
        options["recorded_samples"] = 1
    found = []
    start = time.perf_counter()
    for seed in range(first, first + runs):
        if sampling == "matched":
            run = flds.solve_flds(case.problem, particles=size, depth=case.depth, seed=seed, **options)
        else:
            run = flds.simulate_resnet(case.problem, width=size, depth=case.depth, seed=seed, **options)
        found.append((run.test_outputs if len(case.problem.test_x) else run.outputs)[-1].reshape(-1))
    seconds = (time.perf_counter() - start) / runs
    memory = flds.estimate_cost(case.problem, particles=size, depth=case.depth, sampling=sampling, **options).memory
    return Size(size, np.array(found), seconds, memory)


def pairs(case, size, runs):
    """Pairs of `estimate_limit`: orthonormal U and v, W and −W; a run is the mean of two networks."""
    options = {"operator": "dense", "threads": 1, "record_every": case.problem.steps, "dtype": "float32"}
    if len(case.problem.test_x):
        options["recorded_samples"] = 1
    settings, cost, _ = decide(case.problem, size, case.depth, "matched", options)

    def one(run):
        last = train(Network(case.problem, settings, run // 2, sign=(1.0, -1.0)[run % 2])).records[-1]
        return (last.test_outputs if len(case.problem.test_x) else last.outputs).reshape(-1)

    start = time.perf_counter()
    with ThreadPoolExecutor(available_threads()) as pool:
        outputs = np.array(list(pool.map(one, range(2 * runs))))
    seconds = (time.perf_counter() - start) / runs
    return Size(size, outputs.reshape(runs, 2, -1).mean(axis=1), seconds, available_threads() * cost.memory)


def dense(case, size, runs):
    """Dense float32 networks, as many side by side as are fastest."""
    from tests.benchmarks.dense_ensemble import train_ensemble

    beside = 16 if size <= 128 else 4 if size <= 512 else 1
    train_ensemble(case.problem, size, case.depth, beside, 0)
    start = time.perf_counter()
    found = [train_ensemble(case.problem, size, case.depth, beside, 1 + seed) for seed in range(runs // beside)]
    seconds = (time.perf_counter() - start) / runs
    return Size(size, np.concatenate(found).reshape(runs, -1), seconds, 4.0 * beside * case.depth * size * size)


WAYS = {
    DENSE: dense,
    LAW: lambda case, size, runs: particles(case, size, runs, "law"),
    MATCHED: lambda case, size, runs: particles(case, size, runs, "matched"),
    PAIRS: pairs,
}


def spread_and_bias(sizes, reference, noises=1):
    """Mean variance of a run by size, and (bias · size)², one number of all sizes, at least 0.

    Squared distances from the reference hold the noise of both once, those of resampled runs twice.
    """
    noise = reference.var(axis=0, ddof=1).mean() / len(reference)
    truth, variances, squares, weights = reference.mean(axis=0), [], [], []
    for one in sizes:
        variance = one.outputs.var(axis=0, ddof=1).mean()
        blur = variance / len(one.outputs) + noise
        square = np.mean((one.outputs.mean(axis=0) - truth) ** 2) - noises * blur
        variances.append(variance)
        squares.append(square * one.size**2)
        weights.append(1 / (blur * one.size**2) ** 2)
    return np.array(variances), max(0.0, float(np.average(squares, weights=weights)))


def cost(sizes, spread, bias, error):
    """Least seconds for an error, and the size that has it."""
    seconds = []
    for one, variance in zip(sizes, spread, strict=True):
        left = error**2 - bias / one.size**2
        seconds.append(one.seconds * max(1.0, variance / left) if left > 0 else np.inf)
    best = int(np.argmin(seconds))
    return seconds[best], sizes[best]


def resampled(outputs, rng):
    return outputs[rng.integers(0, len(outputs), len(outputs))]


def measure(case):
    count, runs = case.reference
    reference = particles(case, count, runs, "matched", first=10_000).outputs
    return reference, {way: [WAYS[way](case, *one) for one in sizes.items()] for way, sizes in case.sizes.items()}


def ratios(case, reference, measured):
    """How many times as fast each way is as dense networks, (2.5 %, 97.5 %) for each error, by resampling runs."""
    rng, draws = np.random.default_rng(0), {way: [] for way in measured}
    for _ in range(BOOTSTRAPS):
        again = resampled(reference, rng)
        for way, sizes in measured.items():
            drawn = [one._replace(outputs=resampled(one.outputs, rng)) for one in sizes]
            draws[way].append([cost(drawn, *spread_and_bias(drawn, again, 2), error)[0] for error in case.targets])
    theirs, found = np.array(draws[DENSE]), {}
    with np.errstate(invalid="ignore"):  # an error that neither reached
        for way, ours in draws.items():
            times = np.nan_to_num(theirs / np.array(ours), nan=1.0, posinf=np.inf)
            found[way] = np.percentile(times, [2.5, 97.5], axis=0, method="nearest").T
    return found


def cells(seconds, best, bias):
    if not np.isfinite(seconds):
        return ["not reached", "", "", "", ""]
    bytes_held, runs = f"{best.memory / 1e6:.0f}", f"{seconds / best.seconds:.0f}"
    return [f"{best.size:,}", runs, f"{np.sqrt(bias) / best.size:.1e}", f"{seconds:.2g}", bytes_held]


@pytest.mark.parametrize("name", PROBLEMS)
def test_error_per_second(name, benchmark):
    pytest.importorskip("torch")
    case = PROBLEMS[name]()
    reference, measured = measure(case)
    found = {way: spread_and_bias(sizes, reference) for way, sizes in measured.items()}
    intervals, rows, curves, spreads = ratios(case, reference, measured), [], {}, []
    errors = np.geomspace(min(case.targets) / 2, 8 * max(case.targets), 40)
    for way, sizes in measured.items():
        spread, bias = found[way]
        curves[way] = [cost(sizes, spread, bias, error)[0] for error in errors]
        spreads.append(f"{way} {np.sqrt(np.mean([v * one.size for v, one in zip(spread, sizes, strict=True)])):.2g}")
        for error, (low, high) in zip(case.targets, intervals[way], strict=True):
            seconds, best = cost(sizes, spread, bias, error)
            times = cost(measured[DENSE], *found[DENSE], error)[0] / seconds
            ratio = "" if way == DENSE or not np.isfinite(seconds) else f"{times:.2g} ({low:.2g} to {high:.2g})"
            rows.append([way, f"{error:g}", *cells(seconds, best, bias), ratio])
    over = "200 test inputs" if len(case.problem.test_x) else "samples"
    text = f"""
    {name.capitalize()}, L = {case.depth}, {case.problem.steps} steps: outputs of N → ∞ after training, root mean square
    over {over}. Of every way the size that reaches the error first, how many runs of it, its bias, and how many times
    as fast it is as the ensemble of dense networks (95 % by resampling runs). A dense pair is one run. Spread of a run
    times the root of its size: {", ".join(spreads)}."""
    columns = ["", "error", "size", "runs", "bias", "seconds", "MB", "times as fast"]
    table(benchmark, f"Error per second: {name}", text, columns, rows)
    benchmark.extra_info["curves"] = {"name": name, "errors": list(errors), "seconds": curves}
    benchmark.pedantic(lambda: None, rounds=1)


def test_estimates(benchmark):
    """`estimate_limit` to an error beside one run of N particles at one depth, chosen with hindsight."""
    rows = []
    for name in ("tanh", "relu"):
        case = CASES[name]()
        problem, target = case.problem, case.target
        estimates = [flds.estimate_limit(problem, target_error=target, seed=seed) for seed in range(3)]
        truth = flds.estimate_limit(problem, target_error=target / 3, seed=9)
        sizes = [(n, depth) for depth in (16, 32, 64) for n in (500, 2000, 8000)]
        fixed = min((hindsight(problem, truth, target, *size) for size in sizes), default=None)
        seconds = np.median([one.timings["solve"] for one in estimates])
        worst = max(float(np.abs(one.outputs - truth.outputs).max()) for one in estimates)
        last = estimates[-1].settings
        chosen = f"{last['particles']:,} × {last['networks']}, {last['operator']}, to L = {last['depths'][-1]}"
        rows.append([name, f"{target:g}", chosen, f"{worst:.1e}", f"{seconds:.1f}", *hindsight_cells(fixed, seconds)])
    text = """
    `estimate_limit(target_error=…)` for N and L → ∞, with intervals, beside the cheapest of nine choices of N and L for
    `solve_flds` whose largest error was below the target with three seeds of three, which only hindsight knows and
    which come without an interval."""
    columns = ["", "target", "last round", "largest error", "seconds", "fixed choice", "seconds", "times"]
    table(benchmark, "Estimates of the limit", text, columns, rows)
    benchmark.pedantic(lambda: None, rounds=1)


def hindsight(problem, truth, target, particles, depth):
    """Seconds of one run of a fixed choice, infinite if it misses the target, and the choice."""
    start, worst = time.perf_counter(), 0.0
    for done in range(1, 4):
        run = flds.solve_flds(problem, particles=particles, depth=depth, seed=done)
        worst = max(worst, float(np.abs(run.outputs - truth.outputs).max()))
        if worst > target:
            return np.inf, particles, depth
    return (time.perf_counter() - start) / 3, particles, depth


def hindsight_cells(fixed, seconds):
    taken, particles, depth = fixed
    if not np.isfinite(taken):
        return ["none", "", ""]
    return [f"{particles:,}, L = {depth}", f"{taken:.1f}", f"{seconds / taken:.1f}"]
