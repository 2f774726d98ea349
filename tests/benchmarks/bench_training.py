"""Training one sample at width 2048 and depth 32: lazily sampled against a dense torch network."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest

import flds

WIDTH, DEPTH, STEPS, ROUNDS = 2048, 32, 20, 3


def problem():
    return flds.TrainingProblem(np.ones((1, 1)), [1.0], learning_rate=0.5, steps=STEPS)


def lazy(seed=0):
    return flds.simulate_resnet(problem(), width=WIDTH, depth=DEPTH, seed=seed, operator="lazy")


def test_lazy_against_dense_torch(benchmark):
    """Both in float64, in turn, in one process; the dense time counts training alone, without drawing weights."""
    torch = pytest.importorskip("torch")
    from validation import networks

    lazy()
    rounds = []
    for seed in range(ROUNDS):
        start = time.perf_counter()
        solution = lazy(seed)
        middle = time.perf_counter()
        dense = networks.train(problem(), width=WIDTH, depth=DEPTH, seed=seed, record_every=STEPS)
        rounds.append((middle - start, dense.timings["solve"], dense.timings["draw"]))
    assert solution.status == "completed"
    ratios = [training / mine for mine, training, _ in rounds]
    mine, training, draw = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"\nwidth {WIDTH}, depth {DEPTH}, {STEPS} steps, one sample, float64, {torch.get_num_threads()} torch threads"
        f"\n  lazy   {mine:.3f} s, draws included"
        f"\n  dense  {training:.3f} s to train, {draw:.3f} s to draw the weights"
        f"\n  ratio  {statistics.median(ratios):.0f} (from {min(ratios):.0f} to {max(ratios):.0f}), training alone"
    )
    benchmark.extra_info["ratio"] = statistics.median(ratios)
    benchmark.pedantic(lazy, rounds=ROUNDS)
