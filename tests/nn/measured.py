"""The memory and time of a network of Gaussian layers, in a process of its own.

``python -m tests.nn.measured NAME`` prints what it took beside what was there before it, what was estimated, and
seconds.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional

import flds.nn
from flds.nn import gaussian

ROOT = Path(__file__).parents[2]


def perceptrons(width, linear):
    """Eight matrices, a batch of three samples."""
    model = flds.nn.ResidualMLP(5, 1, width, 8, linear=linear)
    x, y = torch.randn(3, 5), torch.randn(3, 1)
    return model, 3, lambda: functional.mse_loss(model(x), y)


def transformer(width, linear):
    """Two blocks, a batch of two sequences of 16 tokens."""
    model, tokens = flds.nn.Transformer(64, 16, width, 2, linear=linear), torch.randint(0, 64, (2, 17))
    return model, 32, lambda: functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


# What makes a network, its width, its rank, and how many passes are made.
RUNS = {
    "perceptrons": (perceptrons, 100_000, 64, 7),
    "narrow_transformer": (transformer, 4_096, 384, 10),
    "transformer": (transformer, 16_384, 384, 10),
}


def trained(make, width, linear, steps, momentum=0.9):
    """Train, and return the seconds that it took."""
    torch.manual_seed(0)
    model, _, loss = make(width, linear)
    optimizer = torch.optim.SGD(flds.nn.parameter_groups(model, 0.2, width=width), momentum=momentum)
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return time.perf_counter() - start


def _bytes(name):
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def measured(name):
    """Return the peak beside what was there before, the estimate, and the seconds, of a run in a process of its own."""
    command = [sys.executable, "-m", "tests.nn.measured", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main(name):
    make, width, rank, steps = RUNS[name]
    torch.manual_seed(0)
    model, tokens, _ = make(width, gaussian(rank))
    estimate, before = flds.nn.estimate_memory(model, tokens, steps), _bytes("VmRSS")
    del model
    seconds = trained(make, width, gaussian(rank), steps)
    print(json.dumps([_bytes("VmHWM") - before, estimate, seconds, _bytes("VmHWM")]))


if __name__ == "__main__":
    main(sys.argv[1])
