"""Digests of functions and objects: the same in every process, and others for what computes something else."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import flds
from solvers.fingerprint import fingerprint


def helper(x):
    return 2.0 * x


def other_helper(x):
    return 3.0 * x


def made(k, use=helper):
    return lambda t, x, m: -k * use(x)


class Drift:
    rate = 1.0

    def __init__(self, k):
        self.k = k

    @functools.cached_property
    def table(self):
        return np.arange(3) * self.k

    def __call__(self, t, x, m):
        return self.k * x * self.table.sum()


class OtherDrift(Drift):
    def __call__(self, t, x, m):
        return -self.k * x


def power(t, x, m, p):
    return x**p


TABLE = {"a": [1.0, 2.0], "b": {"x", "y", "z"}}


def looked_up(t, x, m):
    return TABLE["a"][0] * x


ALL = {
    "closure 1": made(1.0),
    "closure 2": made(2.0),
    "closure of another function": made(1.0, other_helper),
    "array": made(np.array([1.0, 2.0])),
    "another array": made(np.array([1.0, 3.0])),
    "partial": functools.partial(power, p=2),
    "another partial": functools.partial(power, p=3),
    "object": Drift(1.0),
    "another object": Drift(2.0),
    "of another class": OtherDrift(1.0),
    "method": Drift(1.0).__call__,
    "compiled": njit(lambda t, x, m: -x),
    "compiled otherwise": njit(lambda t, x, m: -2.0 * x),
    "a table": looked_up,
    "built in": flds.TrainingProblem([[1.0]], [1.0], activation="tanh").phi,
    "another built in": flds.TrainingProblem([[1.0]], [1.0], activation="relu").phi,
    "set": {"p", "q", "r", "s"},
}


def test_what_differs_has_another_digest():
    found = {name: fingerprint(value) for name, value in ALL.items()}
    assert len(set(found.values())) == len(found)


def test_what_is_made_again_has_the_same_digest():
    assert fingerprint(made(1.0)) == fingerprint(made(1.0))
    assert fingerprint(functools.partial(power, p=2)) == fingerprint(functools.partial(power, p=2))
    used = Drift(1.0)
    used(0.0, 1.0, 0.0)  # which fills what is computed once
    assert fingerprint(used) == fingerprint(Drift(1.0))
    assert fingerprint([np.ones(2), np.ones(2)]) == fingerprint([np.ones(2), np.ones(2)])


def test_what_a_name_refers_to_counts(monkeypatch):
    before = fingerprint(looked_up)
    monkeypatch.setitem(TABLE, "a", [5.0, 2.0])
    assert fingerprint(looked_up) != before


@pytest.mark.parametrize("seed", ["1", "2"])
def test_every_process_finds_the_same(seed):
    program = "from tests.solvers.test_fingerprint import *; print(*(fingerprint(value) for value in ALL.values()))"
    environment = os.environ | {"PYTHONHASHSEED": seed}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [fingerprint(value) for value in ALL.values()]
