"""Training in the limit and of networks: time, multiply–adds and memory traffic against what the machine can do."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

import flds
from flds.training.method import decide
from flds.training.network import Network
from flds.training.train import train
from solvers.ensemble.threads import ThreadParticles
from tests.benchmarks import machine
from tests.benchmarks.report import table

ROUNDS = machine.ROUNDS


class Counting:
    """A home of particles, of those it stands before, that counts multiply–adds of products, and the bytes that each
    pass reads and writes once."""

    multiply_adds = 0
    bytes = 0

    def count(self, products, *arrays):
        self.multiply_adds += products * self.particles
        self.bytes += sum(array.nbytes for array in arrays)

    def fill(self, out, *rest):
        self.count(0, out)
        super().fill(out, *rest)

    def inner(self, left, right):
        parts = left if isinstance(left, (list, tuple)) else [left]
        self.count(sum(map(len, parts)) * len(right), *parts, right)
        return super().inner(left, right)

    def gram(self, vectors):
        self.count(len(vectors) ** 2, vectors)
        return super().gram(vectors)

    def mean_squares(self, vectors):
        self.count(0, vectors)
        return super().mean_squares(vectors)

    def project(self, vectors, coordinates, directions):
        self.count(len(vectors) * (2 * len(directions) + len(vectors)), vectors, vectors, directions)
        return super().project(vectors, coordinates, directions)

    def combine(self, out, terms, add=False):
        self.count(sum(c.size for c, _ in terms), out, *(v for _, v in terms), *([out] if add else []))
        super().combine(out, terms, add)

    def apply(self, work, out, *arrays, **rest):
        self.count(0, out, *arrays)
        super().apply(work, out, *arrays, **rest)

    def stack(self, parts):
        self.count(0, *parts, *parts)
        return super().stack(parts)


class CountingThreads(Counting, ThreadParticles):
    """Particles on threads that count."""


def counted(problem, particles, depth, sampling, **options):
    """Return multiply–adds and bytes of one run."""
    settings = decide(problem, particles, depth, sampling, options).settings
    ensemble = CountingThreads(particles, settings.threads)
    train(Network(problem, settings, 0, ensemble=ensemble))
    return ensemble.multiply_adds, ensemble.bytes


def digits():
    data = flds.load_digits()
    problem = {"learning_rate": 1.0, "steps": 25, "batch_size": 16, "batch_order": "random", "loss": "cross_entropy"}
    return data, problem


def test_digits(benchmark):
    """The run of `make demo`: with what it records and without, in both precisions."""
    data, rest = digits()
    recorded = flds.TrainingProblem(
        data.inputs, data.targets, test_inputs=data.test_inputs, test_targets=data.test_targets, **rest
    )
    bare = flds.TrainingProblem(data.inputs, data.targets, **rest)
    cases = {
        (name, dtype): (problem, {"dtype": dtype, "record_every": every, "recorded_samples": samples})
        for dtype in ("float32", "float64")
        for name, problem, every, samples in (("with records", recorded, 6, 64), ("without", bare, 25, 1))
    }
    runs = {
        case: lambda seed, p=problem, o=options: flds.solve_flds(p, particles=5000, depth=8, seed=seed, **o)
        for case, (problem, options) in cases.items()
    }
    for run in runs.values():
        run(0)
    times = {case: statistics.median(measured) for case, measured in machine.in_turn(runs).items()}
    rows = []
    for (name, dtype), (problem, options) in cases.items():
        work, taken = counted(problem, 5000, 8, "matched", **options)[0], times[name, dtype]
        rate, most = work / taken, machine.multiply_adds(dtype)
        gain = f"{times[name, 'float64'] / taken:.2f}"
        rows.append([f"{dtype}, {name}", f"{taken:.2f}", f"{work / 1e9:.0f}", f"{rate / 1e9:.0f}", f"{most / 1e9:.0f}",
                     f"{100 * rate / most:.0f} %", gain])  # fmt: skip
    text = """
    N = 5000, L = 8, 25 steps on batches of 16: the run of `make demo`, with its five records of 64 training and
    397 test samples and without. Multiply–adds are counted as the particles meet them; the bound is what BLAS does on
    square matrices. What is left is elementwise work, noise, and products too thin for the bound."""
    columns = ["", "seconds", "G multiply–adds", "G/s", "bound", "share", "float64 / this"]
    table(benchmark, "Digits", text, columns, rows)
    benchmark.pedantic(runs["with records", "float32"], (0,), rounds=1)


def test_few_particles(benchmark):
    """Three samples and few particles, where calls cost more than arithmetic."""
    rng = np.random.default_rng(0)
    problem = flds.TrainingProblem(rng.standard_normal((3, 5)), [1.0, -1.0, 0.5], learning_rate=0.5, steps=10)

    def run(seed, particles=500, **options):
        return flds.solve_flds(problem, particles=particles, depth=16, seed=seed, **options)

    runs = {
        "500 particles, one run": run,
        "500 particles, 16 replicates": lambda seed: run(seed, replicates=16),
        "2000 particles, one run": lambda seed: run(seed, particles=2000),
        "2000 particles, 16 replicates": lambda seed: run(seed, particles=2000, replicates=16),
    }
    for one in runs.values():
        one(0)
    times = machine.in_turn(runs, 4 * ROUNDS)
    rows = []
    for name, measured in times.items():
        base = times[name.split(",")[0] + ", one run"]
        ratio = statistics.median(a / b for a, b in zip(measured, base, strict=True))
        rows.append([name, f"{1e3 * statistics.median(measured):.1f}", f"{1e3 * min(measured):.1f}", f"{ratio:.1f}"])
    text = "Three samples, L = 16, 10 steps: 352 passes through a layer. Up to 2048 particles each is one call."
    table(benchmark, "Few particles", text, ["", "ms, median", "ms, least", "times one run"], rows)
    benchmark.pedantic(run, (0,), rounds=ROUNDS)


def test_million(benchmark):
    """A network of width a million, which moves more bytes than it multiplies."""
    problem = flds.TrainingProblem(np.ones((1, 1)), [1.0], learning_rate=0.5, steps=50)
    options = {"dtype": "float32", "tolerance": 1e-3, "rank_budget": (7, 6)}
    moved = 100 * counted(problem, 10_000, 64, "law", **options)[1]  # which grows with the width alone
    flds.simulate_resnet(problem, width=10_000, depth=64, **options)
    taken = machine.seconds(lambda: flds.simulate_resnet(problem, width=1_000_000, depth=64, **options))
    bandwidth = machine.triad_bandwidth()
    rows = [[f"{taken:.1f}", f"{moved / 1e9:.0f}", f"{moved / taken / 1e9:.1f}", f"{bandwidth / 1e9:.1f}",
             f"{100 * moved / taken / bandwidth:.0f} %"]]  # fmt: skip
    text = """
    Width 1,000,000, depth 64, 50 steps of one sample, float32, by law. Bytes are those that each operation on particles
    reads and writes once; the bound is the triad a = b + s c on arrays larger than the caches."""
    table(benchmark, "A million neurons", text, ["seconds", "GB moved", "GB/s", "bound", "share"], rows)
    benchmark.pedantic(lambda: None, rounds=1)


def test_growth(benchmark):
    """How the time grows with each size alone, with samples that are new at every step."""
    base = {"particles": 8192, "depth": 8, "steps": 8, "batch": 8}

    def seconds(**changed):
        size = base | changed
        rng = np.random.default_rng(0)
        count = (size["steps"] + 1) * size["batch"]
        problem = flds.TrainingProblem(
            rng.standard_normal((count, 20)), rng.standard_normal(count), steps=size["steps"], batch_size=size["batch"],
            learning_rate=0.1,
        )  # fmt: skip
        options = {"record_every": size["steps"], "recorded_samples": 1, "operator": "lazy"}

        def run(seed):
            flds.solve_flds(problem, particles=size["particles"], depth=size["depth"], seed=seed, **options)

        run(0)
        return machine.median_seconds(run)

    rows = []
    cases = {"particles": (8192, 16384, 32768, 65536), "depth": (8, 16, 32), "steps": (8, 16, 32), "batch": (8, 16, 32)}
    for name, sizes in cases.items():
        times = [seconds(**{name: size}) for size in sizes]
        last, all_of_them = machine.exponent(sizes, times)
        shown = ", ".join(f"{one:.2f}" for one in times)
        rows.append([name, ", ".join(map(str, sizes)), shown, f"{all_of_them:.2f}", f"{last:.2f}"])
    text = """
    From N = 8192, L = 8, K = 8 and batches of 8, one size at a time. New samples add directions, so the rank is
    (K + 1) times the batch, and the work of a step grows with it: K and the batch count twice where products
    dominate."""
    columns = ["size", "values", "seconds", "exponent", "last doubling"]
    table(benchmark, "Growth", text, columns, rows)
    benchmark.pedantic(lambda: None, rounds=1)


def test_cost_estimates(benchmark):
    """`estimate_cost` beside what runs take, for sizes that it was not fitted to."""
    rng = np.random.default_rng(0)

    def problem(samples, d, steps, batch=None, **rest):
        x, y = rng.standard_normal((samples, d)), rng.standard_normal(samples)
        return flds.TrainingProblem(x, y, learning_rate=0.1, steps=steps, batch_size=batch, **rest)

    tests = {"test_inputs": rng.standard_normal((300, 10)), "test_targets": np.zeros(300)}
    cases = [
        ("3 samples", problem(3, 5, 30), {"particles": 1000, "depth": 12}),
        ("3 samples, N = 50,000", problem(3, 5, 20), {"particles": 50_000, "depth": 12}),
        ("one sample, width 200,000", problem(1, 3, 40), {"width": 200_000, "depth": 24}),
        ("8 samples, gelu", problem(8, 10, 15, activation="gelu"), {"particles": 12_000, "depth": 10}),
        ("batches of 12", problem(400, 10, 20, 12), {"particles": 6000, "depth": 6}),
        ("batches of 12, float64", problem(400, 10, 20, 12), {"particles": 6000, "depth": 6, "dtype": "float64"}),
        ("batches of 12, tests", problem(400, 10, 20, 12, **tests), {"particles": 6000, "depth": 6, "record_every": 5}),
        (
            "independent weights",
            problem(200, 10, 15, 8),
            {"particles": 9000, "depth": 8, "backward_weights": "independent"},
        ),
        ("by law", problem(200, 10, 15, 8), {"particles": 9000, "depth": 8, "sampling": "law"}),
        ("dense", problem(5, 5, 10), {"width": 1500, "depth": 6, "operator": "dense"}),
    ]
    rows = []
    for name, one, options in cases:
        rest = {"seed": 1, **options}
        if one.batch < one.samples and "record_every" not in rest:
            rest |= {"record_every": one.steps, "recorded_samples": 1}
        solve = flds.simulate_resnet if "width" in rest else flds.solve_flds
        expected = flds.estimate_cost(one, **rest).seconds
        run = lambda seed, solve=solve, one=one, rest=rest: solve(one, **rest | {"seed": seed})  # noqa: E731
        run(0)
        taken = machine.median_seconds(run)
        rows.append([name, f"{taken:.2f}", f"{expected:.2f}", f"{expected / taken:.2f}"])
    text = "Seconds that `estimate_cost` expects beside those of runs; none of these was used to fit it."
    table(benchmark, "Estimates of cost", text, ["", "taken", "expected", "ratio"], rows)
    benchmark.pedantic(lambda: None, rounds=1)


def test_lazy_against_dense_torch(benchmark):
    """Both in float64, in turn, in one process; the dense time counts training alone, without drawing weights."""
    pytest.importorskip("torch")
    from validation import networks

    width, depth, steps = 2048, 32, 20
    problem = flds.TrainingProblem(np.ones((1, 1)), [1.0], learning_rate=0.5, steps=steps)

    def lazy(seed):
        return flds.simulate_resnet(problem, width=width, depth=depth, seed=seed, operator="lazy")

    def dense(seed):
        return networks.train(problem, width=width, depth=depth, seed=seed, record_every=steps)

    lazy(0)
    rounds = []
    for seed in range(3):
        mine = machine.seconds(lazy, seed)
        rounds.append((mine, dense(seed).timings["solve"]))
    mine, training = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratios = [other / one for one, other in rounds]
    rows = [
        ["sampled where it is used", f"{mine:.3f}", "1"],
        ["dense, in torch", f"{training:.2f}", f"{statistics.median(ratios):.0f}"],
    ]
    text = f"""
    One sample, width {width}, depth {depth}, {steps} steps, float64. The dense time is that of training, without
    drawing the weights."""
    table(benchmark, "One network, sampled and dense", text, ["", "seconds", "times"], rows)
    benchmark.pedantic(lazy, (0,), rounds=3)
