"""Training with particles on a device of torch, beside two threads and beside the memory of the device.

python -m pytest tests/benchmarks/bench_device.py --benchmark-only
"""

from __future__ import annotations

import statistics

import numpy as np
import pytest

import flds
from flds.training.method import decide
from flds.training.network import Network
from flds.training.train import train
from tests.benchmarks import machine
from tests.benchmarks.bench_training import Counting
from tests.benchmarks.report import table

torch = pytest.importorskip("torch")
from solvers.ensemble.device.particles import TorchParticles  # noqa: E402

DEPTH, BATCH, STEPS = 4, 8, 25


class CountingTensors(Counting, TorchParticles):
    """Particles in tensors that count what each pass reads and writes once."""


def problem():
    """Minibatches without repetition: the ranks grow to 8 times 26."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.standard_normal((BATCH * (STEPS + 1), 20)), rng.standard_normal(BATCH * (STEPS + 1))
    return flds.TrainingProblem(inputs, targets, steps=STEPS, batch_size=BATCH, learning_rate=0.5)


def bandwidth(device):
    """Bytes a second that a device reads and writes in copies of large arrays."""
    one = torch.ones(1 << 27, dtype=torch.float32, device=device)
    other = torch.empty_like(one)

    def copy(_):
        other.copy_(one)
        if device != "cpu":
            torch.cuda.synchronize(device)

    copy(0)
    return 2 * one.nbytes / min(machine.seconds(copy, 0) for _ in range(5))


def row(particles, dtype, device, rounds):
    """Return a row of the table: seconds on the device and on threads in turn, bytes a second, and its share."""
    options = {"particles": particles, "depth": DEPTH, "dtype": dtype, "record_every": STEPS, "recorded_samples": 1}
    runs = {
        name: lambda seed, there=there: flds.solve_flds(problem(), seed=seed, **options, **there)
        for name, there in (("device", {"device": device}), ("threads", {"threads": 2}))
    }
    found = [run(0) for run in runs.values()]
    assert np.allclose(found[0].outputs, found[1].outputs, rtol=0, atol=1e-3)
    times = machine.in_turn(runs, rounds)
    ratio = statistics.median(a / b for a, b in zip(times["device"], times["threads"], strict=True))
    settings = decide(problem(), particles, DEPTH, "matched", {"dtype": dtype, "device": device}).settings
    counting = CountingTensors(particles, device)
    train(Network(problem(), settings, 0, ensemble=counting))
    taken, most = statistics.median(times["device"]), bandwidth(device)
    share = counting.bytes / taken / most
    return [f"{particles:,}", dtype, str(int(found[0].rank.max())), f"{taken:.2f}", f"{ratio:.2f}",
            f"{counting.bytes / taken / 1e9:.0f}", f"{most / 1e9:.0f}", f"{100 * share:.0f} %"]  # fmt: skip


COLUMNS = ["particles", "", "rank", "seconds", "times two threads", "GB/s", "GB/s of copies", "share"]


def test_processor(benchmark):
    """Tensors on the processor, which GPUs are compared with and tests run on."""
    rows = [row(100_000, dtype, "cpu", 3) for dtype in ("float32", "float64")]
    text = f"""
    Particles in tensors of torch on the processor (`device="cpu"`), beside two threads. L = {DEPTH}, {STEPS} steps on
    batches of {BATCH} different samples. Bytes are counted as each operation reads and writes its arrays once."""
    table(benchmark, "Tensors on the processor", text, COLUMNS, rows)
    benchmark.pedantic(lambda: None, rounds=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} finds no CUDA device")
def test_card(benchmark):
    """Tensors on a GPU, which is at most as fast as its memory."""
    sizes = [(10_000, 5), (100_000, 3), (1_000_000, 1)]
    rows = [row(particles, dtype, "cuda", rounds) for particles, rounds in sizes for dtype in ("float32", "float64")]
    text = f"""
    Particles on one {torch.cuda.get_device_name()} (`device="cuda"`), beside two threads of the processor there.
    L = {DEPTH}, {STEPS} steps on batches of {BATCH} different samples. Bytes are counted as each operation reads and
    writes its arrays once; copies of large arrays are what the memory of the card does."""
    table(benchmark, "Tensors on a GPU", text, COLUMNS, rows)
    benchmark.pedantic(lambda: None, rounds=1)
