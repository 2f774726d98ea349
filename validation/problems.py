"""The training problems on which claims are tested."""

from __future__ import annotations

from typing import Any

import numpy as np

import flds


def one_sample(activation: str, rate: float = 0.5, steps: int = 1) -> flds.TrainingProblem:
    """One sample with |x|²/d = 1 and target 1."""
    return flds.TrainingProblem(np.ones((1, 1)), [1.0], activation=activation, learning_rate=rate, steps=steps)


def three_samples(activation: str, batch_size: int | None = None, steps: int = 6) -> flds.TrainingProblem:
    """Three random samples in five dimensions."""
    rng = np.random.default_rng(1)
    return flds.TrainingProblem(
        rng.standard_normal((3, 5)),
        [1.0, -1.0, 0.5],
        activation=activation,
        learning_rate=0.5,
        steps=steps,
        batch_size=batch_size,
    )


def large_steps(activation: str = "tanh", steps: int = 20, horizon: float = 2.0) -> flds.TrainingProblem:
    """The three samples in turn, one a step as in paper F, large steps; outputs on four test inputs as well.

    Outputs overshoot their targets in the first steps and differ between tied and independent weights at every step.
    """
    rng = np.random.default_rng(1)
    inputs, tests = rng.standard_normal((3, 5)), rng.standard_normal((4, 5))
    return flds.TrainingProblem(
        inputs,
        [1.0, -1.0, 0.5],
        activation=activation,
        horizon=horizon,
        learning_rate=0.5,
        steps=steps,
        batch_size=1,
        test_inputs=tests,
        test_targets=np.zeros(4),
    )


def random_pairs(seed: int, dimension: int = 10, **options: Any) -> flds.MeanFieldProblem:
    """The experiment of H § 2.4: ten pairs with N(0, 1) entries, perceptrons with ρ = tanh and σ_u = σ_v = √D."""
    inputs, targets = np.random.default_rng(seed).standard_normal((2, 10, dimension))
    return flds.MeanFieldProblem(inputs, targets, **options)
