"""dh = (E tanh² h)^½ dw for 100,000 particles and 200 steps, float64: ours against what one would use otherwise."""

from __future__ import annotations

import math
import os
import statistics
import time

import numpy as np
import pytest
from numba import njit

import flds
import solvers
from solvers import tanh
from solvers.ensemble.random import fill_normals, mix64
from solvers.processors import available_threads

PARTICLES, STEPS, ROUNDS = 100_000, 200, 5
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


def seconds(run, argument):
    start = time.perf_counter()
    run(argument)
    return time.perf_counter() - start


def per_item(run, items, threads):
    """Nanoseconds for each item when `threads` threads each run `run` on data of their own."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(threads)))
        times = [seconds(lambda _: list(pool.map(run, range(threads))), None) for _ in range(ROUNDS)]
    return min(times) / (threads * items) * 1e9


def machine_limits(threads):
    """What one normal, one tanh and their lower bounds cost here, with as many threads as the solve uses."""
    size, repeats = 16 * 2048, 200
    out = np.empty((threads, 1, size))
    position = np.zeros(1, np.int64)

    @njit(nogil=True, error_model="numpy")
    def words(out):
        for _ in range(repeats):
            for i in range(out.size):
                out[i] = np.float64(mix64(np.uint64(i)) >> np.uint64(11))

    @njit(nogil=True, error_model="numpy")
    def tanhs(x):
        for _ in range(repeats * 16):
            for i in range(2048):
                x[i] = tanh(x[i] + 1.0)

    @njit(nogil=True, fastmath={"contract"}, error_model="numpy")
    def multiply_adds(x):
        """As many dependent multiply–adds and divisions as the tanh has, and nothing else."""
        for _ in range(repeats * 16):
            for i in range(2048):
                y = x[i]
                p = y
                for _ in range(21):
                    p = p * y + 0.25
                x[i] = p / (p + 2.0)

    def normals(k):
        for layer in range(repeats):
            fill_normals(out[k], 0, size, 0, 1, 3, 0, position, layer, 1, 1.0)

    big = np.ones((threads, 2**23))
    return {
        "one normal": per_item(normals, size * repeats, threads),
        "  its random word alone": per_item(lambda k: words(out[k, 0]), size * repeats, threads),
        "one tanh": per_item(lambda k: tanhs(out[k, 0]), size * repeats, threads),
        "  its multiply–adds and division alone": per_item(lambda k: multiply_adds(out[k, 0]), size * repeats, threads),
        "one read and one write of memory": per_item(
            lambda k: [np.copyto(big[k][: 2**22], big[k][2**22 :]) for _ in range(5)], 5 * 2**22, threads
        ),
    }


def test_forward_equation(benchmark):
    for module in ("torch", "torchsde", "jax", "diffrax"):
        pytest.importorskip(module)
    import jax
    import torch

    jax.config.update("jax_enable_x64", True)
    threads = available_threads()
    torch.set_num_threads(threads)
    runs = {
        "solvers.solve": ours, "flds.solve_forward": ours_as_solve_forward, "jitted jax.lax.scan": jax_scan(),
        "diffrax": diffrax_solve(), "NumPy loop": numpy_loop, "torch loop": torch_loop(), "torchsde": torchsde_solve(),
    }  # fmt: skip
    variances = [run(0).var() for run in runs.values()]  # compiled, and all solving the same equation
    # E h² of one run has a standard error of √(2/N) times it, 0.6 %
    np.testing.assert_allclose(variances, np.mean(variances), rtol=0.03)
    times = {name: [] for name in runs}
    for seed in range(1, ROUNDS + 1):
        for name, run in runs.items():
            if name != "torchsde" or seed <= 2:
                times[name].append(seconds(run, seed))
    unit = 1e9 / PARTICLES / STEPS
    print(f"\n{PARTICLES} particles, {STEPS} steps, float64, {threads} threads of {os.cpu_count()}; median of {ROUNDS}")
    for name in runs:
        ratios = [other / mine for other, mine in zip(times[name], times["solvers.solve"], strict=False)]
        print(
            f"  {name:22} {unit * statistics.median(times[name]):7.2f} ns per particle and step, "
            f"{statistics.median(ratios):6.1f} times ours (from {min(ratios):.1f} to {max(ratios):.1f})"
        )
    print("limits of this machine, ns each with all threads busy")
    for name, cost in machine_limits(threads).items():
        print(f"  {name:40} {cost:6.2f}")
    ratios = [b / a for a, b in zip(times["solvers.solve"], times["jitted jax.lax.scan"], strict=True)]
    benchmark.extra_info["ratio to jax"] = statistics.median(ratios)
    benchmark.pedantic(ours, (0,), rounds=ROUNDS)


def test_first_call(benchmark):
    """A user's own equation from definition to result, and a ready one, each new to the process."""

    def own(value):
        equation = solvers.McKeanVlasov(
            njit(lambda t, x, m: value * (m - x)), njit(lambda t, x, m: 0.1 * x), njit(lambda t, x: x)
        )
        solvers.solve(equation, START, 0.0, 1.0, 10)

    def ready(_):
        solvers.solve(solvers.equations.ornstein_uhlenbeck(), START, 0.0, 1.0, 10)

    first = [seconds(own, float(k)) for k in range(3)]
    loaded = [seconds(ready, None) for _ in range(3)]
    print(
        f"\nfirst solve of a user's own equation {statistics.median(first):.2f} s, of a ready one {max(loaded):.3f} s"
    )
    benchmark.pedantic(ready, (0,), rounds=3)
