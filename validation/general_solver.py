"""The general McKean–Vlasov solver against closed forms, known orders of convergence, and torchsde."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

import solvers
from solvers import McKeanVlasov, equations
from solvers.sde.convergence import ConvergenceStudy
from validation import closed_forms
from validation.claims import Claim, Scale, Section, against, check, equal, margin_of
from validation.peers import frozen_moments, solve_torchsde

Array = NDArray[np.float64]

# The next order of the error, a factor 1 + O(step), moves a fitted exponent by about the coarsest step.
BEND = 0.02
# mean-field Ornstein–Uhlenbeck: a, θ, s; geometric Brownian motion: μ, σ
A, THETA, S = 1.5, 0.4, 0.7
MU, SIGMA = 0.3, 0.8
ORNSTEIN_UHLENBECK = equations.ornstein_uhlenbeck(A, THETA, S)
GEOMETRIC = equations.geometric_brownian_motion(MU, SIGMA)


def around_one(rng: np.random.Generator, n: int) -> Array:
    return 1.0 + 0.5 * rng.standard_normal(n)


def mean_field_equations(scale: Scale) -> Section:
    """Equations with closed forms at t = 1, and torchsde on the same Brownian increments."""
    particles, replicates = scale.pick((10_000, 8), (100_000, 16))
    yield from _ornstein_uhlenbeck(particles, replicates, scale.pick(1024, 4096))
    yield from _geometric(particles, replicates)
    yield from _common_noise(scale.pick(800, 4000))
    yield from _mean_field_covariance(scale.pick(24, 64))
    yield from _general_noise(scale.pick(24, 64))
    yield from _pairs(scale.pick(64, 256))
    yield from _kuramoto(particles // 2, replicates)
    yield from _torchsde()


def orders_of_convergence(scale: Scale) -> Section:
    """Exponents of the error in the step, strong and weak, and in the number of particles."""

    def geometric_path(x0: Array, w: Array) -> Array:
        return x0 * np.exp(MU - SIGMA**2 / 2 + SIGMA * w[-1, :, 0])

    fine, replicates = (64, 128, 256, 512, 1024), scale.pick(6, 32)
    strong: dict[str, tuple[McKeanVlasov, dict[str, Any], float]] = {
        "additive noise, with interaction": (ORNSTEIN_UHLENBECK, {}, 1.0),
        "multiplicative noise": (GEOMETRIC, {"exact": geometric_path}, 0.5),
        "multiplicative noise, Milstein": (GEOMETRIC, {"exact": geometric_path, "scheme": "milstein"}, 1.0),
        "Stratonovich, Heun": (
            equations.geometric_brownian_motion(0.0, 1.0),
            {"exact": lambda x0, w: x0 * np.exp(w[-1, :, 0]), "scheme": "heun"},
            1.0,
        ),
    }
    for name, (equation, options, order) in strong.items():
        study = solvers.strong_order(
            equation, around_one, 0, 1, fine, particles=scale.pick(1000, 2000), replicates=replicates, **options
        )
        yield order_claim(f"strong order, {name}", study, order, replicates)
    weak: dict[str, tuple[McKeanVlasov, Callable[[Array], Array]]] = {
        "mean, with interaction": (ORNSTEIN_UHLENBECK, lambda x: x),
        "square, with interaction": (ORNSTEIN_UHLENBECK, np.square),
    }
    for name, (equation, function) in weak.items():
        study = solvers.weak_order(
            equation,
            around_one,
            0,
            1,
            (256, 512, 1024, 2048),
            function=function,
            particles=scale.pick(2000, 5000),
            replicates=replicates,
        )
        yield order_claim(f"weak order, {name}", study, 1.0, replicates)
    study = solvers.weak_order(
        GEOMETRIC,
        around_one,
        0,
        1,
        (4, 8, 16, 32),
        exact=geometric_path,
        particles=scale.pick(50_000, 200_000),
        replicates=replicates,
    )
    yield order_claim("weak order, multiplicative noise, mean", study, 1.0, replicates)
    many = scale.pick(128, 512)
    study = solvers.particle_order(ORNSTEIN_UHLENBECK, around_one, 0, 1, 16, replicates=many)
    yield order_claim("mean square error in the number of particles, with interaction", study, 1.0, many)


def order_claim(name: str, study: ConvergenceStudy, expected: float, replicates: int, bend: float = BEND) -> Claim:
    from scipy.stats import t as student

    low, high = study.interval
    error = (high - low) / (2 * student.ppf(0.975, replicates - 1))
    note, margin = "for the next order at these steps", margin_of(replicates)
    return equal(name, study.order, error, expected, resolution=0.25, slack=bend, note=note, margin=margin)


def _ornstein_uhlenbeck(particles: int, replicates: int, steps: int) -> Section:
    # a bias of a dt/2 of each moment, 0.0002 for 4096 steps, stays below the standard errors
    runs = [
        solvers.solve(ORNSTEIN_UHLENBECK, around_one, 0, 1, steps, particles=particles, seed=seed, save_at=[1.0])
        for seed in range(replicates)
    ]
    mean = np.exp(-A * (1 - THETA))
    variance = 0.25 * np.exp(-2 * A) + S**2 * (1 - np.exp(-2 * A)) / (2 * A)
    yield against("mean-field Ornstein–Uhlenbeck: E X", np.array([run.mean[0] for run in runs]), mean)
    yield against("mean-field Ornstein–Uhlenbeck: Var X", np.array([run.variance[0] for run in runs]), variance)


def _geometric(particles: int, replicates: int) -> Section:
    squares = {"squares": lambda t, x: np.mean(x**2), "mean": "mean"}
    options: dict[str, Any] = {"scheme": "milstein", "save_at": [1.0], "save": squares}
    runs = [
        solvers.solve(GEOMETRIC, np.ones(particles), 0, 1, 2048, seed=seed, **options) for seed in range(replicates)
    ]
    yield against("geometric Brownian motion: E X", np.array([run.mean[0] for run in runs]), np.exp(MU))
    second = np.exp(2 * MU + SIGMA**2)
    yield against("geometric Brownian motion: E X²", np.array([run.squares[0] for run in runs]), second)


def _moments(rate: float, steps: int) -> tuple[float, float]:
    """Of dX = −rate X dt + dW after equal steps to t = 1: the share of Var X_0 that is left, and what noise has added.

    These are the moments of the scheme itself.
    """
    shrink = (1 - rate / steps) ** 2
    return shrink**steps, (1 - shrink**steps) / (1 - shrink) / steps


def _common_noise(realisations: int) -> Section:
    steps, particles, rate, common = 64, 1000, A * (1 - THETA), 0.6
    equation = McKeanVlasov(
        lambda t, x, m: -A * (x - THETA * m),
        lambda t, x, m: S,
        lambda t, x: x,
        common=lambda t, x, m: common,
        noise="additive",
        vectorized=True,
    )
    means = [
        solvers.solve(equation, np.zeros(particles), 0, 1, steps, seed=seed, save_at=[1.0], threads=1).mean[0]
        for seed in range(realisations)
    ]
    exact = (common**2 + S**2 / particles) * _moments(rate, steps)[1]
    yield against(
        "common noise: variance of the mean over realisations", np.square(means), exact, resolution=0.4 * exact
    )  # a variance has a relative error of (2 / realisations)^½


def _mean_field_covariance(replicates: int) -> Section:
    equation = McKeanVlasov(moments=lambda t, x: x, noise="mean_field", vectorized=True)
    mix = np.array([[1.0, 0.0], [0.8, 0.6]])
    second = [
        solvers.solve(
            equation,
            lambda rng, n: rng.standard_normal((n, 2)) @ mix.T,
            0,
            1,
            32,
            particles=20_000,
            seed=seed,
            save_at=[1.0],
            save={"second": lambda t, x: x.T @ x / len(x)},
        ).second[0, 0, 1]
        for seed in range(replicates)
    ]
    yield against("noise of covariance E[XXᵀ]: E X₁X₂", np.array(second), 0.8 * (1 + 1 / 32) ** 32)


def _general_noise(replicates: int) -> Section:
    """dX = −X dt + s dW in the plane with a full matrix s: the covariance after the steps of the scheme itself."""
    matrix, steps, particles = np.array([[0.6, -0.3, 0.2], [0.1, 0.5, 0.4]]), 32, 20_000
    equation = McKeanVlasov(
        njit(lambda t, x, m: (-x[0], -x[1])),
        njit(lambda t, x, m: ((0.6, -0.3, 0.2), (0.1, 0.5, 0.4))),
        noise="general",
    )
    second = [
        solvers.solve(
            equation, np.zeros((particles, 2)), 0, 1, steps, seed=seed, save_at=[1.0],
            save={"second": lambda t, x: x.T @ x / len(x)},
        ).second[0]
        for seed in range(replicates)
    ]  # fmt: skip
    exact = matrix @ matrix.T * _moments(1.0, steps)[1]
    for i, j in ((0, 0), (0, 1), (1, 1)):
        name = f"general noise, a full matrix: E X_{i + 1} X_{j + 1}"
        yield against(name, np.array(second)[:, i, j], exact[i, j], resolution=0.05 * exact[0, 0])


def _pairs(replicates: int) -> Section:
    """Pairwise interaction −(x − y): deviations from the mean of the particles shrink, their mean does not."""
    steps, particles = 32, 500
    equation = McKeanVlasov(diffusion=njit(lambda t, x, m: S), interaction=njit(lambda x, y: y - x), noise="additive")
    found = [
        solvers.solve(equation, around_one, 0, 1, steps, particles=particles, seed=seed, save_at=[1.0])
        for seed in range(replicates)
    ]
    left, added = _moments(1.0, steps)
    exact = (1 - 1 / particles) * (0.25 * left + S**2 * added)
    yield against("pairwise interaction: E X", np.array([run.mean[0] for run in found]), 1.0)
    yield against(
        "pairwise interaction: variance of the particles", np.array([run.variance[0] for run in found]), exact
    )


def _kuramoto(particles: int, replicates: int) -> Section:
    coupling, order = 2.5, []
    for seed in range(replicates):
        rng = np.random.default_rng(seed)
        run = solvers.solve(
            equations.kuramoto(coupling),
            rng.uniform(0, 2 * np.pi, particles),
            0,
            50,
            1000,
            save_at=[50.0],
            save=[],
            field=solvers.ExternalField(rng.standard_normal(particles), per_particle=True),
        )
        order.append(np.hypot(*run.moments[0]))
    exact = closed_forms.kuramoto_order_parameter(coupling)
    yield against("Kuramoto, frequencies N(0, 1), K = 2.5: order parameter", np.array(order), exact)


def _torchsde() -> Section:
    x0 = np.random.default_rng(0).standard_normal(10_000)
    brownian = solvers.BrownianMotion(0.0, 1.0, 100, seed=4)
    for scheme in ("euler_maruyama", "milstein", "heun"):
        # a compiled equation, so that both kinds of coefficients are seen in this report
        compiled = McKeanVlasov(njit(lambda t, x, m: MU * x), njit(lambda t, x, m: SIGMA * x))
        ours = solvers.solve(compiled, x0, 0, 1, 100, seed=4, scheme=scheme).final_particles
        peer = solve_torchsde(lambda t, x: MU * x, lambda t, x: SIGMA * x, x0[:, None].copy(), brownian, scheme)
        # Milstein takes the derivative of s by differences, 1e-10 of it in each step
        yield _same(
            f"torchsde, geometric Brownian motion, {scheme}", ours, peer, 1e-8 if scheme == "milstein" else 1e-11
        )
    run = solvers.solve(ORNSTEIN_UHLENBECK, x0, 0, 1, 100, seed=4)
    m = frozen_moments(run)
    peer = solve_torchsde(
        lambda t, x: -A * (x - THETA * m(t)), lambda t, x: S * torch.ones_like(x), x0[:, None].copy(), brownian
    )
    yield _same("torchsde, Ornstein–Uhlenbeck with the mean frozen", run.final_particles, peer, 1e-11)


def _same(name: str, ours: Array, peer: Array, tolerance: float) -> Claim:
    gap = float(np.abs(ours - peer[:, 0]).max() / np.abs(ours).max())
    return check(name, f"{gap:.1e} of the largest value", f"rounding, below {tolerance:.0e}", gap < tolerance)
