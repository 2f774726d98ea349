"""Orders of every scheme and of what happens after a step, with intervals, and the laws of stiff and Langevin steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

import solvers
from solvers import Absorbing, Jumps, McKeanVlasov, Reflecting, Reset
from solvers.schemes import BAOAB
from solvers.sde.schemes import get_scheme
from validation.claims import Claim, Scale, Section, equal
from validation.general_solver import around_one, order_claim

Array = NDArray[np.float64]

CUBIC = McKeanVlasov(
    njit(lambda t, x, m: x - x**3 + m / 2), njit(lambda t, x, m: 0.5), njit(lambda t, x: x), noise="additive"
)
CUBIC_MULTIPLICATIVE = McKeanVlasov(
    njit(lambda t, x, m: x - x**3 + m / 2), njit(lambda t, x, m: x), njit(lambda t, x: x)
)
WAVY = McKeanVlasov(
    njit(lambda t, x, m: math.sin(2 * x) + math.cos(2 * t) + m),
    njit(lambda t, x, m: 0.5 + 0.4 * math.sin(2 * t)),
    njit(lambda t, x: math.cos(x)),
    noise="additive",
)
DECAYING = McKeanVlasov(njit(lambda t, x, m: -x), njit(lambda t, x, m: 1.0), noise="additive")
BROWNIAN = McKeanVlasov(diffusion=njit(lambda t, x, m: 1.0), noise="additive")
DRIVEN = McKeanVlasov(njit(lambda t, x, m: 1.2 - x), njit(lambda t, x, m: 0.5), noise="additive")
STILL = McKeanVlasov(njit(lambda t, x, m: 0.0))
QUARTIC = McKeanVlasov(njit(lambda t, x, m: -x[0] - x[0] ** 3), moments=njit(lambda t, x: x[0] ** 2))
# k, σ, and steps of k dt = 100
STIFFNESS, SPREAD = 100.0, 0.7
STIFF = McKeanVlasov(njit(lambda t, x, m: -STIFFNESS * x), njit(lambda t, x, m: SPREAD), noise="additive")


def schemes_and_boundaries(scale: Scale) -> Section:
    """Strong and weak exponents of schemes, boundaries, jumps and resets, and stationary laws."""
    yield from _strong(scale)
    yield from _weak(scale)
    yield from _stiff(scale.pick(20_000, 200_000))
    yield from _langevin(scale)


def _strong(scale: Scale) -> Iterator[Claim]:
    replicates, particles = scale.pick(6, 32), scale.pick(500, 2000)
    # with orders of ½ the next one is half an order away, so steps are finer
    fine, finer = (64, 128, 256, 512), (1024, 2048, 4096, 8192)
    cases: list[tuple[str, McKeanVlasov, tuple[int, ...], dict[str, Any]]] = [
        ("tamed Euler, additive noise", CUBIC, fine, {"scheme": "tamed_euler"}),
        ("tamed Euler, multiplicative noise", CUBIC_MULTIPLICATIVE, finer, {"scheme": "tamed_euler"}),
        ("drift-implicit Euler, additive noise", CUBIC, fine, {"scheme": "drift_implicit_euler"}),
        ("drift-implicit Euler, multiplicative noise", CUBIC_MULTIPLICATIVE, finer, {"scheme": "drift_implicit_euler"}),
        ("trapezoidal rule, additive noise", CUBIC, fine, {"scheme": "trapezoidal"}),
        ("trapezoidal rule, multiplicative noise", CUBIC_MULTIPLICATIVE, finer, {"scheme": "trapezoidal"}),
        ("SRA1", WAVY, (256, 512, 1024, 2048), {"scheme": "sra1"}),
        ("reflection by folding", DECAYING, finer, {"boundary": Reflecting(0.5, np.inf)}),
    ]
    for name, equation, levels, options in cases:
        start = (lambda rng, n: 0.5 + rng.exponential(0.5, n)) if "boundary" in options else around_one
        study = solvers.strong_order(
            equation, start, 0, 1, levels, particles=particles, replicates=replicates, **options
        )
        claimed = 0.5 if "boundary" in options else get_scheme(options["scheme"]).strong_order(equation)
        assert claimed is not None
        yield order_claim(f"strong order, {name}", study, claimed, replicates)


def _weak(scale: Scale) -> Iterator[Claim]:
    replicates, particles = scale.pick(8, 32), scale.pick(20_000, 100_000)
    births = Jumps(njit(lambda t, x, m: x), njit(lambda t, x, m: 1.0), 64.0)
    middle, fine, finest = (32, 64, 128), (256, 512, 1024), (512, 1024, 2048)
    folding, projection = (Reflecting(0, np.inf, method=method) for method in ("folding", "projection"))
    late, early = Absorbing(0, 1, bridge=False), Absorbing(0, 1)
    cases: list[tuple[str, McKeanVlasov, float, tuple[int, ...], Any, float, dict[str, Any]]] = [
        ("tamed Euler", CUBIC, 1.0, fine, np.square, 1.0, {"scheme": "tamed_euler"}),
        ("drift-implicit Euler", CUBIC, 1.0, fine, np.square, 1.0, {"scheme": "drift_implicit_euler"}),
        ("trapezoidal rule", CUBIC, 1.0, fine, np.square, 1.0, {"scheme": "trapezoidal"}),
        ("SRA1", WAVY, 1.0, middle, np.sin, 2.0, {"scheme": "sra1"}),
        ("reflection by folding", DECAYING, 0.2, middle, _itself, 1.0, {"boundary": folding}),
        ("reflection by projection", DECAYING, 0.2, finest, _itself, 0.5, {"boundary": projection}),
        ("absorption, with bridges", BROWNIAN, 0.3, middle, "hitting_times", 1.0, {"boundary": early}),
        ("absorption, without", BROWNIAN, 0.3, finest, "hitting_times", 0.5, {"boundary": late}),
        ("resets, with bridges", DRIVEN, 0.0, middle, "resets", 1.0, {"reset": Reset(1.0, 0.0)}),
        ("resets, without", DRIVEN, 0.0, finest, "resets", 0.5, {"reset": Reset(1.0, 0.0, bridge=False)}),
        ("jumps at a rate that depends on x", STILL, 1.0, (8, 16, 32), _itself, 1.0, {"jumps": births}),
    ]
    for name, equation, x0, levels, function, order, options in cases:
        end = 2.0 if "reset" in options else 0.5 if "jumps" in options else 1.0
        study = solvers.weak_order(
            equation, np.full(particles, x0), 0, end, levels, function=function, replicates=replicates, **options
        )
        # after half an order there may be a whole one, a factor 1 + O(√step)
        bend = math.sqrt(end / levels[0]) if order == 0.5 else end / levels[0]
        yield order_claim(f"weak order, {name}", study, order, replicates, bend)


def _itself(x: Array) -> Array:
    return x


def _stiff(particles: int) -> Iterator[Claim]:
    laws = {
        "drift_implicit_euler": (SPREAD**2 / (STIFFNESS * (2 + STIFFNESS)), 12),
        "trapezoidal": (SPREAD**2 / (2 * STIFFNESS), 400),
    }
    for scheme, (exact, steps) in laws.items():
        run = solvers.solve(STIFF, np.zeros(particles), 0, steps, steps, scheme=scheme)
        error = exact * math.sqrt(2 / particles)
        name = f'stationary variance at k dt = {STIFFNESS:g}, scheme "{scheme}"'
        yield equal(name, float(run.variance[-1]), error, exact, resolution=0.1 * exact)


def _langevin(scale: Scale) -> Iterator[Claim]:
    """The error of E q² for U = q²/2 + q⁴/4 of BAOAB, from a bounded start, over dt² at three steps."""
    q = np.linspace(-6, 6, 40_001)
    weight = np.exp(-(q**2) / 2 - q**4 / 4)
    exact = float((q**2 * weight).sum() / weight.sum())
    particles, saved = scale.pick((50_000, 400), (500_000, 3_200))
    sizes = np.array([0.2, 0.283, 0.4])
    errors, spreads = np.empty(3), np.empty(3)
    for place, dt in enumerate(sizes):
        x0 = np.random.default_rng(place).uniform(-1, 1, (particles, 2))
        steps = saved + 80
        run = solvers.solve(
            QUARTIC, x0, 0, steps * dt, steps, scheme=BAOAB(1.0, 1.0), save=[], save_at=np.arange(80, steps) * dt
        )
        blocks = run.moments[:, 0].reshape(8, -1).mean(axis=1) - exact
        errors[place], spreads[place] = blocks.mean(), blocks.std(ddof=1) / math.sqrt(8)
    # exponent by least squares of logarithms, its error by the delta method
    x = np.log(sizes) - np.log(sizes).mean()
    influence = x / (x @ x)
    order = float(influence @ np.log(np.abs(errors)))
    error = float(np.sqrt(np.sum((influence * spreads / errors) ** 2)))
    yield equal(
        f"order of E q² by BAOAB at dt = 0.2 to 0.4, {particles * saved:.0e} samples each", order, error, 2.0,
        resolution=1.0, slack=0.2, note="for the next order, dt⁴, at these steps",
    )  # fmt: skip
