"""Shared problems and the rule that every statistical margin is four standard errors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

# Several processes that run the tests share the processors, each with threads for its own; set before libraries start
# their threads.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    own, count = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[own::count] or os.sched_getaffinity(0))

import numpy as np
import pytest

import flds
from flds.training.speed import reference_speed

MARGIN = 4.0

# A shell that runs the tests in the background makes them, and all they start, ignore Ctrl-C, and nohup hangups; some
# tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def steady_speed(monkeypatch):
    """A machine whose speed does not depend on what else it does."""
    monkeypatch.setattr(
        "flds.training.workload.measured_speed",
        lambda rows, itemsize, threads, *rest: reference_speed(rows, itemsize, threads),
    )


def z_score(samples: np.ndarray, exact: float | np.ndarray) -> np.ndarray:
    """Distance of the mean of independent samples (axis 0) from the exact answer, in standard errors."""
    return np.abs(samples.mean(0) - exact) / (samples.std(0, ddof=1) / np.sqrt(len(samples)))


def one_sample(activation: str = "tanh", rate: float = 0.5, steps: int = 1, **rest) -> flds.TrainingProblem:
    return flds.TrainingProblem(np.ones((1, 1)), [1.0], activation=activation, learning_rate=rate, steps=steps, **rest)


def three_samples(activation: str = "tanh", steps: int = 3, **rest) -> flds.TrainingProblem:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((3, 5))
    return flds.TrainingProblem(inputs, [1.0, -1.0, 0.5], activation=activation, steps=steps, **rest)


@pytest.fixture
def classes() -> flds.TrainingProblem:
    """Three classes, minibatches of two, and test inputs."""
    rng = np.random.default_rng(2)
    return flds.TrainingProblem(
        rng.standard_normal((7, 4)), [0, 1, 2, 0, 1, 2, 1], loss="cross_entropy", steps=5, batch_size=2,
        batch_order="random", test_inputs=rng.standard_normal((3, 4)), test_targets=[2, 0, 1],
    )  # fmt: skip


@pytest.fixture(scope="session")
def another_user() -> list[str]:
    """Start of a command line that runs the rest as a user without a home, who may read everything and write nothing.

    Without the right to read, an interpreter in the home of root could not be started.
    """
    prefix = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=+dac_read_search",
              "--ambient-caps=+dac_read_search"]  # fmt: skip
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("only root can be another user, by setpriv")
    if subprocess.run([*prefix, sys.executable, "-c", "pass"], capture_output=True).returncode:
        pytest.skip("another user cannot run Python here")
    return prefix
