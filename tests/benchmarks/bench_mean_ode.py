"""Work against precision: the Neural Mean ODE of paper H § 2.4 after 100 steps, ours against a very large ResNet.

The ResNet has M = L = 1000, like the ground truth of the paper, in the fastest of three forms: written out in NumPy, in
float64 and float32, and torch with autograd. Ours is in float32. Errors are root mean squares over outputs and seeds,
against a limit of much smaller error.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

import flds
from flds.mean_ode.draws import draw_units
from tests.benchmarks.report import table

PAIRS = np.random.default_rng(0).standard_normal((2, 10, 10))
PROBLEM = flds.MeanFieldProblem(PAIRS[0], PAIRS[1], steps=100)
SIZE, SEEDS = 1000, 3
UNITS = (1024, 2048, 4096, 8192, 16384, 32768)


def limit():
    """Eight times the units and twice the depth of the largest run, mean over four replicates."""
    return flds.solve_mean_ode(PROBLEM, units=65_536, depth=32, replicates=4, record_every=100)


def ours(units, seed, dtype="float32"):
    return flds.solve_mean_ode(PROBLEM, units=units, depth=16, record_every=100, seed=seed, dtype=dtype).outputs[-1]


def numpy_resnet_float32(seed):
    return numpy_resnet(seed, np.float32)


def numpy_resnet(seed, dtype=np.float64):
    """H-(1), (7), (8) layer by layer, nothing stored but the states."""
    p, dimension = PROBLEM, PROBLEM.dimension
    z = draw_units(p, SIZE, SIZE, seed, "iid")[0]
    u, v, branch = z["u"].astype(dtype), z["v"].astype(dtype), dtype(1 / (SIZE * SIZE))
    rate_u, rate_v = p.rate("u", 0) / p.samples, p.rate("v", 0) / p.samples
    for step in range(p.steps + 1):
        states, h = [], p.x.astype(dtype)
        for layer in range(SIZE):
            states.append(h)
            h = h + branch * (np.tanh((h / dimension) @ u[layer]) @ v[layer].T)
        if step == p.steps:
            return h
        b = ((h - p.y) / dimension).astype(dtype)
        for layer in reversed(range(SIZE)):
            h = states[layer]
            rho = np.tanh((h / dimension) @ u[layer])
            slope = ((b / dimension) @ v[layer]) * (1 - rho * rho)
            back = slope @ u[layer].T
            u[layer] -= dtype(rate_u) * (h.T @ slope)
            v[layer] -= dtype(rate_v) * (b.T @ rho)
            b = b + branch * back


def torch_resnet(seed):
    from validation.unit_networks import train_units

    return train_units(PROBLEM, hidden_width=SIZE, depth=SIZE, seed=seed).outputs[0, -1]


def timed(run, *arguments):
    start = time.perf_counter()
    return run(*arguments), time.perf_counter() - start


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_work_and_precision(benchmark):
    pytest.importorskip("torch")
    exact = limit()
    truth, uncertain = exact.outputs[-1], rms(exact.outputs_standard_error[-1])
    made = (numpy_resnet, numpy_resnet_float32, torch_resnet)
    forms = {form.__name__: timed(form, 0) for form in made}
    best = min(made, key=lambda form: forms[form.__name__][1])
    runs = [forms[best.__name__], *(timed(best, seed) for seed in range(1, SEEDS))]
    reference, work = rms([f - truth for f, _ in runs]), min(seconds for _, seconds in runs)
    ours(256, 0)  # first use
    curve = []
    for units in UNITS:
        found = [timed(ours, units, seed) for seed in range(2 * SEEDS)]
        curve.append((rms([f - truth for f, _ in found]), min(seconds for _, seconds in found)))
    assert curve[-1][0] < reference < curve[0][0], "the curve has to reach the reference's error"
    errors, seconds = np.log(np.array(curve)).T
    needed = float(np.exp(np.interp(-np.log(reference), -errors, seconds)))
    rows = [[f"`{best.__name__}`, M = L = {SIZE}", f"{reference:.1e}", f"{work:.2f}", f"{work / needed:.1f}"]]
    rows += [
        [f"`{name}`, M = L = {SIZE}", "", f"{seconds:.2f}", f"{seconds / needed:.1f}"]
        for name, (_, seconds) in forms.items()
        if name != best.__name__
    ]
    rows += [
        [f"{units} units, 17 nodes", f"{error:.1e}", f"{time:.2f}", ""]
        for units, (error, time) in zip(UNITS, curve, strict=True)
    ]
    text = f"""
    Perceptrons in dimension 10 after 100 steps, in float32. The residual network comes in three forms, the fastest
    first.
    Errors are against a limit with a standard error of {uncertain:.0e}; the last column is its time over that of
    `solve_mean_ode` at the same error, {needed:.2f} s."""
    table(benchmark, "The Neural Mean ODE", text, ["", "error", "seconds", "times"], rows)
    benchmark.pedantic(ours, args=(2048, 0), rounds=3)
