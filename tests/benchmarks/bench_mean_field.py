"""dh = (E tanh² h)^½ dw for 100,000 particles and 200 steps, float64: ours against what one would use otherwise."""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

import flds
import solvers
from solvers import tanh
from solvers.processors import available_threads
from tests.benchmarks import machine
from tests.benchmarks.report import table

PARTICLES, STEPS, ROUNDS = 100_000, 200, machine.ROUNDS
DT = 1 / STEPS
START = np.random.default_rng(2**40).standard_normal(PARTICLES)

EQUATION = solvers.McKeanVlasov(
    diffusion=njit(lambda t, h, m: math.sqrt(m)), moments=njit(lambda t, h: tanh(h) ** 2), noise="additive"
)


def ours(seed):
    return solvers.solve(EQUATION, START, 0.0, 1.0, STEPS, seed=seed, save=[], save_at=[1.0]).final_particles


def ours_as_solve_forward(seed):
    return flds.solve_forward("tanh", particles=PARTICLES, depth=STEPS, seed=seed).final_particles


def numpy_loop(seed):
    rng, h = np.random.default_rng(seed), START
    for _ in range(STEPS):
        h = h + math.sqrt(DT * np.mean(np.tanh(h) ** 2)) * rng.standard_normal(PARTICLES)
    return h


def torch_loop():
    import torch

    start = torch.from_numpy(START)

    def run(seed):
        generator, h = torch.Generator().manual_seed(seed), start
        for _ in range(STEPS):
            noise = torch.randn(PARTICLES, dtype=torch.float64, generator=generator)
            h = h + torch.sqrt(DT * torch.mean(torch.tanh(h) ** 2)) * noise
        return h.numpy()

    return run


def torchsde_solve():
    import torch
    import torchsde

    class Equation(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, h):
            return torch.zeros_like(h)

        def g(self, t, h):
            return torch.sqrt(torch.mean(torch.tanh(h) ** 2)).expand_as(h)

    start, times = torch.from_numpy(START)[:, None], torch.tensor([0.0, 1.0], dtype=torch.float64)

    def run(seed):
        brownian = torchsde.BrownianInterval(0.0, 1.0, (PARTICLES, 1), dtype=torch.float64, entropy=seed, dt=DT)
        with torch.no_grad():
            return torchsde.sdeint(Equation(), start, times, bm=brownian, method="euler", dt=DT)[-1, :, 0].numpy()

    return run


def jax_scan():
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(key):
        def step(h, key):
            noise = jax.random.normal(key, (PARTICLES,), jnp.float64)
            return h + jnp.sqrt(DT * jnp.mean(jnp.tanh(h) ** 2)) * noise, None

        return jax.lax.scan(step, jnp.asarray(START), jax.random.split(key, STEPS))[0]

    return lambda seed: np.asarray(run(jax.random.key(seed)))


def diffrax_solve():
    import diffrax
    import jax
    import jax.numpy as jnp
    import lineax

    @jax.jit
    def run(key):
        brownian = diffrax.UnsafeBrownianPath((PARTICLES,), key=key)

        def diffusion(t, h, args):
            return lineax.DiagonalLinearOperator(jnp.full(PARTICLES, jnp.sqrt(jnp.mean(jnp.tanh(h) ** 2))))

        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, h, args: jnp.zeros_like(h)), diffrax.ControlTerm(diffusion, brownian)
        )
        return diffrax.diffeqsolve(
            terms, diffrax.Euler(), 0.0, 1.0, DT, jnp.asarray(START), adjoint=diffrax.DirectAdjoint(),
            saveat=diffrax.SaveAt(t1=True), max_steps=STEPS + 1,
        ).ys[0]  # fmt: skip

    return lambda seed: np.asarray(run(jax.random.key(seed)))


# What a step of one particle needs at least.
BOUND = "one normal and one tanh"
COLUMNS = ["", "ns a particle and step", "times `solve_forward`", "times the bound"]


def rows_beside(runs, items):
    """Run them in turn with the bound; return rows of nanoseconds an item, times `solve_forward`, times the bound.

    `solve_backward` solves forward first, so it has two steps for each of the others.
    """
    times = machine.in_turn({BOUND: machine.normals_and_tanhs(items)} | runs)
    count = {name: 2 if "backward" in name else 1 for name in times}

    def ratio(name, other, steps):
        found = [a / (steps * b) for a, b in zip(times[name], times[other], strict=True)]
        return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"

    return [
        [
            name if name == BOUND else f"`{name}`",
            f"{1e9 * statistics.median(times[name]) / items / count[name]:.2f}",
            ratio(name, "solve_forward", 1),
            ratio(name, BOUND, count[name]),
        ]
        for name in times
    ]


def test_forward_equation(benchmark):
    for module in ("torch", "torchsde", "jax", "diffrax"):
        pytest.importorskip(module)
    import jax
    import torch

    jax.config.update("jax_enable_x64", True)
    threads = available_threads()
    torch.set_num_threads(threads)
    runs = {
        "solve_forward": ours_as_solve_forward, "solvers.solve": ours, "jitted jax.lax.scan": jax_scan(),
        "diffrax": diffrax_solve(), "NumPy loop": numpy_loop, "torch loop": torch_loop(), "torchsde": torchsde_solve(),
    }  # fmt: skip
    variances = [run(0).var() for run in runs.values()]  # compiled, and all solving the same equation
    # E h² of one run has a standard error of √(2/N) times it, 0.6 %
    np.testing.assert_allclose(variances, np.mean(variances), rtol=0.03)
    text = f"""
    dh = (E tanh² h)^½ dw, {PARTICLES:,} particles, {STEPS} steps, float64. The bound is made of one normal and one tanh
    a step, in cache, with all threads busy."""
    table(benchmark, "Forward equation", text, COLUMNS, rows_beside(runs, PARTICLES * STEPS))
    benchmark.pedantic(ours, (0,), rounds=ROUNDS)


def test_forward_and_backward_equation_of_a_million_particles(benchmark):
    """Memory holds the particles, not the caches; the backward solve also stores and reads the path."""

    def solvers_of(count, steps):
        start = np.random.default_rng(2**40).standard_normal(count)
        options = {"save": [], "save_at": [1.0]}
        runs = {
            "solve_forward": lambda seed: flds.solve_forward("tanh", particles=count, depth=steps, seed=seed),
            "solvers.solve": lambda seed: solvers.solve(EQUATION, start, 0, 1, steps, seed=seed, **options),
            "solve_backward": lambda seed: flds.solve_backward("tanh", particles=count, depth=steps, seed=seed),
        }
        for run in runs.values():
            run(0)
        return runs

    rows = []
    for count, steps in ((1_000_000, 50), (PARTICLES, STEPS)):
        found = rows_beside(solvers_of(count, steps), count * steps)
        rows += [[f"{row[0]}, {count:,} particles, {steps} steps", *row[1:]] for row in found]
    text = """
    The same from 0 to T, and from T back to 0. `solve_backward` solves both ways, so it has twice as many steps, and
    the path of all depths is written and read again; its bound is counted likewise."""
    table(benchmark, "A million particles, and backward", text, COLUMNS, rows)
    benchmark.pedantic(lambda: None, rounds=1)


def test_first_call(benchmark):
    """A user's own equation from definition to result: new to the machine, and new to the process."""

    program = """
import time, numpy as np, solvers
from numba import njit
begin = time.perf_counter()
functions = [njit(lambda t, x, m: {value} * (m - x)), njit(lambda t, x, m: 0.1 * x), njit(lambda t, x: x)]
solvers.solve(solvers.McKeanVlasov(*functions), np.ones(100), 0.0, 1.0, 10)
print(time.perf_counter() - begin)
"""

    def first(value):
        code = [sys.executable, "-c", program.format(value=value)]
        return float(subprocess.run(code, capture_output=True, text=True, check=True).stdout)

    values = [1.0 + random.random() for _ in range(3)]
    new, known = (statistics.median(first(value) for value in values) for _ in range(2))
    rows = [["new to the machine", f"{new:.2f}"], ["known to the machine, in a new process", f"{known:.2f}"]]
    text = "Ten steps of 100 particles, compilation or loading included."
    table(benchmark, "First solve of an equation of one's own", text, ["equation", "seconds"], rows)
    benchmark.pedantic(first, (values[0],), rounds=1)


PULL = solvers.McKeanVlasov(njit(lambda t, x, m, rate: -rate * x), njit(lambda t, x, m, rate: 0.7), noise="additive")


def test_new_parameters(benchmark):
    """Twenty values that were never there before beside twenty solves with the same one."""
    count, steps, fresh = 20_000, 100, random.Random()
    start = np.ones(count)

    def solve(rate):
        return solvers.solve(PULL, start, 0.0, 1.0, steps, args=rate, save=[], save_at=[1.0])

    solve(1.0)
    runs = {
        "20 solves, one value": lambda: [solve(1.0) for _ in range(20)],
        "20 solves, new values": lambda: [solve(1.0 + fresh.random()) for _ in range(20)],
        "`solve_many`, 20 new values": lambda: solvers.solve_many(
            PULL, start, 0.0, 1.0, steps, args=[1.0 + fresh.random() for _ in range(20)], save=[], save_at=[1.0]
        ),
    }
    times = machine.in_turn({name: lambda seed, run=run: run() for name, run in runs.items()})
    first = times["20 solves, one value"]
    rows = []
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, first, strict=True))
        rows.append([name, f"{statistics.median(found):.2f}", f"{ratio:.2f}"])
    text = f"dX = −k X dt + 0.7 dW, {count:,} particles, {steps} steps; k is `args`, and nothing is compiled."
    table(benchmark, "New values of parameters", text, ["", "seconds", "times the first"], rows)
    benchmark.pedantic(solve, (2.0,), rounds=ROUNDS)


@njit
def loop(seed, steps):
    np.random.seed(seed)  # noqa: NPY002
    x, dt = 1.0, 10.0 / steps
    for _ in range(steps):
        x += -x * dt + math.sqrt(dt) * np.random.standard_normal()  # noqa: NPY002
    return x


def test_a_single_path(benchmark):
    """One particle, for which a step is nearly all overhead; slower libraries take fewer steps."""
    for module in ("jax", "diffrax", "torch", "torchsde", "sdeint"):
        pytest.importorskip(module)
    import diffrax
    import jax
    import jax.numpy as jnp
    import sdeint
    import torch
    import torchsde

    jax.config.update("jax_enable_x64", True)
    long, short = 1_000_000, 2_000
    decay = solvers.McKeanVlasov(njit(lambda t, x, m: -x), njit(lambda t, x, m: 1.0), noise="additive")

    class Equation(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, x):
            return -x

        def g(self, t, x):
            return torch.ones_like(x)

    def ours_alone(seed):
        solvers.solve(decay, np.ones(1), 0.0, 10.0, long, seed=seed, save=[], save_at=[10.0], threads=1)

    def by_torchsde(seed):
        ends = torch.tensor([0.0, 10.0], dtype=torch.float64)
        with torch.no_grad():
            torchsde.sdeint(Equation(), torch.ones(1, 1, dtype=torch.float64), ends, method="euler", dt=10 / short)

    def by_sdeint(seed):
        one = np.array([[1.0]])
        sdeint.itoEuler(lambda x, t: -x, lambda x, t: one, np.array([1.0]), np.linspace(0, 10, short + 1))

    @jax.jit
    def path(key):
        brownian = diffrax.UnsafeBrownianPath((), key=key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, x, args: -x), diffrax.ControlTerm(lambda t, x, args: jnp.ones(()), brownian)
        )
        return diffrax.diffeqsolve(
            terms, diffrax.Euler(), 0.0, 10.0, 10.0 / long, jnp.ones(()), adjoint=diffrax.DirectAdjoint(),
            saveat=diffrax.SaveAt(t1=True), max_steps=long + 1,
        ).ys[0]  # fmt: skip

    runs = {
        "solvers.solve": (ours_alone, long),
        "loop by hand, compiled": (lambda seed: loop(seed, long), long),
        "diffrax": (lambda seed: float(path(jax.random.key(seed))), long),
        "sdeint": (by_sdeint, short),
        "torchsde": (by_torchsde, short),
    }
    for run, _ in runs.values():
        run(0)
    times = machine.in_turn({name: run for name, (run, _) in runs.items()})
    each = {name: [t / runs[name][1] for t in found] for name, found in times.items()}
    ours = each["solvers.solve"]
    rows = [
        [f"`{name}`" if "loop" not in name else name, f"{1e6 * statistics.median(found):.2f}",
         f"{statistics.median(a / b for a, b in zip(found, ours, strict=True)):.2g}"]
        for name, found in each.items()
    ]  # fmt: skip
    text = f"dX = −X dt + dW for one particle; {long:,} steps, or {short:,} of sdeint and torchsde; float64."
    table(benchmark, "A single path", text, ["", "µs a step", "times `solvers.solve`"], rows)
    benchmark.pedantic(ours_alone, (1,), rounds=1)
