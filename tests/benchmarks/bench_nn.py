"""Networks of Gaussian layers beside dense ones: at equal width, and at the width that takes as much memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

from tests.benchmarks import machine
from tests.benchmarks.report import table

pytest.importorskip("torch")
from tests.nn.measured import ROOT, RUNS, measured, trained

ROUNDS = 3
# A dense run, in a process of its own.
_DENSE = """
import functools, json, sys, torch
from flds.nn import dense_linear
from tests.nn.measured import RUNS, _bytes, trained
name, width = sys.argv[1], int(sys.argv[2])
make, _, _, steps = RUNS[name]
seconds = trained(make, width, functools.partial(dense_linear, bias=False), steps)
print(json.dumps([seconds, _bytes("VmHWM")]))
"""
# Networks with the largest width that dense ones are trained at, and one of about the memory of the Gaussian one.
CASES = {
    "eight matrices, 3 samples, 7 passes": ("perceptrons", 4_096, 2_500),
    "two blocks, 2 × 16 tokens, 10 passes": ("transformer", 2_048, 2_048),
}


def dense(name, width):
    command = [sys.executable, "-c", _DENSE, name, str(width)]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def gaussian_at(name, width):
    """Seconds of a Gaussian network at another width than that of its run, in this process."""
    from flds.nn import gaussian

    make, _, rank, steps = RUNS[name]
    trained(make, width, gaussian(rank), steps)
    return statistics.median(trained(make, width, gaussian(rank), steps) for _ in range(ROUNDS))


def test_layers(benchmark):
    rows = []
    for label, (name, most, alike) in CASES.items():
        wide = [measured(name) for _ in range(ROUNDS)]
        width = RUNS[name][1]
        seconds, peak = statistics.median(one[2] for one in wide), statistics.median(one[3] for one in wide)
        rows.append([label, f"{width:,}, Gaussian", f"{seconds:.1f}", f"{peak / 1e9:.2f}", "1"])
        for other in dict.fromkeys((most, alike)):
            found = [dense(name, other) for _ in range(ROUNDS)]
            taken, held = (statistics.median(part) for part in zip(*found, strict=True))
            rows.append(["", f"{other:,}, dense", f"{taken:.1f}", f"{held / 1e9:.2f}", f"{taken / seconds:.2f}"])
        equal = gaussian_at(name, most)
        rows.append(["", f"{most:,}, Gaussian", f"{equal:.1f}", "", f"{equal / seconds:.2f}"])
    text = """
    SGD with momentum in float32: residual perceptrons of depth 8, and a decoder of two blocks with four times as many
    hidden neurons. Dense networks hold weights, gradients and momentum; the time of a step grows like their width
    squared, that of Gaussian ones like the width times the number of directions."""
    columns = ["", "width", "seconds", "GB at the peak", "times the first"]
    table(benchmark, "Gaussian layers in PyTorch", text, columns, rows)
    benchmark.pedantic(lambda: None, rounds=1)


def test_coordinates_to_a_width_of_65536(benchmark):
    """The check of coordinates of a network of two-layer blocks."""
    import torch

    from flds.nn import TwoLayerNetwork, coordinate_check, gaussian

    x, y = torch.randn(4, 5), torch.randn(4, 1)
    widths = [256, 1024, 4096, 16_384, 65_536]

    def check():
        return coordinate_check(
            lambda width: TwoLayerNetwork(5, 1, width, 2, linear=gaussian(32), hidden_ratio=1.0), widths, (x, y), 3
        )

    taken = machine.seconds(check)
    found = check()
    rows = [
        [one.name, *(f"{v:+.2f} ± {e:.2f}" for v, e in (one.size_exponent, one.change_exponent)), one.verdict]
        for one in found.layers
    ]
    text = f"""
    Two-layer blocks at widths 256 to 65,536, three seeds each, four samples, three steps: {taken:.0f} seconds."""
    table(benchmark, "Coordinate check", text, ["", "size", "change", "verdict"], rows)
    benchmark.pedantic(lambda: None, rounds=1)
