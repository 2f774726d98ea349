"""Memory of a rank and messages between ranks, as the documentation predicts them."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from tests.mpi.ranks import ROOT, program, run
from tests.mpi.traffic import BATCH, DEPTH

pytest.importorskip("mpi4py")


def measured(ranks, particles, steps):
    status, out, err = run(ranks, *program("traffic", particles, steps))
    assert status == 0, err
    return json.loads(out)


def test_messages_do_not_depend_on_the_number_of_particles():
    """A layer and pass sends six messages, and 2 (r + r' + 2b) numbers for each group and vector at most."""
    short, long = (measured(2, 20_000, steps) for steps in (10, 20))
    more = {name: long[0][name] - short[0][name] for name in ("messages", "bytes")}
    passes = 10 * 2 * DEPTH
    assert 5 * passes < more["messages"] <= 7 * passes  # with those of outputs, and of E h² at depth 0
    groups = sum(rank["groups"] for rank in long)
    rank = (short[0]["rank"] + long[0]["rank"]) / 2
    numbers = more["bytes"] / 8 / passes / groups / BATCH
    assert rank < numbers < 2 * (rank + 2 * BATCH)
    large = measured(2, 200_000, 10)
    assert sum(rank["groups"] for rank in large) > groups
    each = [sum(rank["bytes"] for rank in one) / sum(rank["groups"] for rank in one) for one in (short, large)]
    np.testing.assert_allclose(*each, rtol=0.01)  # a signal with each message, which is no group's


@pytest.mark.slow
def test_memory_falls_with_the_number_of_ranks():
    done = subprocess.run(program("traffic", "400000", "60"), cwd=ROOT, capture_output=True, text=True, check=True)
    (alone,) = json.loads(done.stdout)
    peaks = [rank["peak"] for rank in measured(2, 400_000, 60)]
    assert max(peaks) <= 0.6 * alone["peak"]
