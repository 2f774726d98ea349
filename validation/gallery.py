"""The systems of `solvers.equations` against exact values, one picture of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad, solve_ivp, trapezoid
from scipy.optimize import brentq
from scipy.special import erfcx, ive

import solvers
from solvers import equations
from validation.claims import Claim, Picture, Scale, Section, above, against, check, equal, margin_of, mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


def gallery(scale: Scale) -> Section:
    """Ready systems of `solvers.equations` against stationary laws, and equations of single particles."""
    for claims in (
        double_well, neurons, firing, flock, relative_influence, oscillators, underdamped, consensus, sampler,
    ):  # fmt: skip
        yield from claims(scale)
    yield Picture("equations", CAPTION, picture())


def replicates(system: equations.System, t1: float, steps: int, scale: Scale, **rest: Any) -> solvers.Solution:
    """Solve a system with several seeds."""
    particles, seeds = scale.pick((4_000, 12), (20_000, 24))
    given = {"x0": system.start, "args": [system.args] * seeds, "particles": particles, **system.options} | rest
    return solvers.solve_many(system.equation, given.pop("x0"), 0.0, t1, steps, seed=range(seeds), **given)


def double_well(scale: Scale) -> list[Claim]:
    """Dawson's population in its stationary state, by quadrature."""
    system = equations.dawson()
    found = replicates(system, 20.0, 1_000, scale, save_at=[20.0])
    mean, variance = dawson_law(system.args)
    return [
        against("Dawson: E X in the stationary state", found.mean[:, -1], mean),
        against("Dawson: Var X", found.variance[:, -1], variance),
    ]


def dawson_law(args: Any) -> tuple[float, float]:
    """Mean above 0 and variance of the stationary law."""

    def moment(power: int, m: float) -> float:
        def density(x: float) -> float:
            energy = x**4 / 4 - x**2 / 2 + args.coupling * (x - m) ** 2 / 2
            return float(np.exp(-2 * energy / args.volatility**2))

        whole = quad(density, -6, 6, epsabs=1e-13)[0]
        return float(quad(lambda x: x**power * density(x), -6, 6, epsabs=1e-13)[0] / whole)

    mean = brentq(lambda m: moment(1, m) - m, 0.1, 2.0, xtol=1e-12)
    return mean, moment(2, mean) - mean**2


def neurons(scale: Scale) -> list[Claim]:
    """FitzHugh–Nagumo: one neuron where all are alike, and the balance of a stationary state."""
    alone = equations.fitzhugh_nagumo(volatility=0.0)

    def right(t: float, x: Array) -> list[float]:
        v, w = x
        args = alone.args
        return [v - v**3 / 3 - w + args.current, args.slowness * (v + args.offset - args.damping * w)]

    exact = solve_ivp(right, (0, 50), [0.1, -0.2], rtol=1e-11, atol=1e-12).y[:, -1]
    errors = []
    for steps in (5_000, 10_000):
        run = alone.solve(50.0, steps, particles=10, x0=np.tile([0.1, -0.2], (10, 1)), save_at=[50.0])
        errors.append(float(np.abs(run.final_particles - exact).max()))
    order = np.log2(errors[0] / errors[1])
    noisy = equations.fitzhugh_nagumo(coupling=0.2, volatility=1.0)
    found = replicates(noisy, 150.0, 3_000, scale, save_at=np.linspace(100.0, 150.0, 51))
    balance = (found.mean[..., 0] + noisy.args.offset - noisy.args.damping * found.mean[..., 1]).mean(axis=1)
    drift = (found.mean[:, -1, 1] - found.mean[:, 0, 1]) / (50.0 * noisy.args.slowness)
    return [
        check(
            "FitzHugh–Nagumo without noise: a neuron alone, t = 50, by a method of high order",
            f"error {errors[1]:.1e}, which falls with order {order:.2f}", "order 2 ± 0.1", abs(order - 2) < 0.1,
        ),
        against("FitzHugh–Nagumo: E v + a − b E w over time, less what w gains", balance - drift, 0.0, 0.02),
    ]  # fmt: skip


def firing(scale: Scale) -> list[Claim]:
    """Integrate-and-fire: the rate that solves Siegert's equation with itself; terms of dt drop out."""
    rates = []
    for dt in (0.01, 0.005):
        system = equations.integrate_and_fire(dt=dt)
        found = replicates(system, 20.0, round(20 / dt), scale, save=(), save_at=np.arange(10.0, 20.0, dt))
        rates.append(found.moments[..., 0].mean(axis=1) / dt)
    return [against("integrate-and-fire: rate of firing", 2 * rates[1] - rates[0], siegert(system.args), 0.02)]


def siegert(args: Any, threshold: float = 1.0) -> float:
    """The rate r that a neuron of the drive μ + J r has."""

    def rate(drive: float) -> float:
        low, high = -drive / args.volatility, (threshold - drive) / args.volatility
        return 1 / (np.sqrt(np.pi) * quad(lambda u: erfcx(-u), low, high, epsabs=1e-12)[0])

    return float(brentq(lambda r: rate(args.drive + args.coupling * r) - r, 0.0, 20.0, xtol=1e-12))


def flock(scale: Scale) -> list[Claim]:
    """Vicsek: the order of headings, where some hundred are around each."""
    particles, radius = scale.pick((1_500, 0.15), (5_000, 0.12))
    system = equations.vicsek(radius=radius)
    found = replicates(system, 8.0, 120, scale, save_at=[8.0], save=(), particles=particles)
    kappa = 2 * system.args.alignment / system.args.volatility**2
    order = np.hypot(*found.moments[:, -1].T)
    around = particles * np.pi * radius**2
    mean, error = mean_and_error(order)
    name = f"Vicsek: order of headings, {around:.0f} neighbours on average"
    exact, note = float(ive(1, kappa) / ive(0, kappa)), "one over the neighbours"
    return [equal(name, mean, error, exact, 0.03, 1 / around, note, margin=margin_of(len(order)))]


def relative_influence(scale: Scale) -> list[Claim]:
    """Motsch–Tadmor: equal influence in closed form, and twenty birds by a method of high order."""
    claims = []
    for name, system in (("β = 0", equations.motsch_tadmor(exponent=0.0)), ("β = 1", equations.motsch_tadmor())):
        start = np.random.default_rng(0).standard_normal((20, 4))
        exact = motsch_tadmor_at(2.0, start, system.args)
        errors = []
        for steps in (100, 200):
            run = system.solve(2.0, steps, particles=20, x0=start, save=(), save_at=[2.0])
            errors.append(float(np.abs(run.final_particles - exact).max()))
        order = np.log2(errors[0] / errors[1])
        claims.append(
            check(
                f"Motsch–Tadmor, {name}: 20 particles at t = 2",
                f"error {errors[1]:.1e}, which falls with order {order:.2f}", "order 2 ± 0.1", abs(order - 2) < 0.1,
            )
        )  # fmt: skip
    return claims


def motsch_tadmor_at(t: float, start: Array, args: Any) -> Array:
    """Where particles (r, v) are at a time: in closed form where the influence is equal."""
    r, v = start[:, :2], start[:, 2:]
    if args.exponent == 0.0:
        away, decayed = v - v.mean(0), np.exp(-args.strength * t)
        return np.hstack([r + v.mean(0) * t + away * (1 - decayed) / args.strength, v.mean(0) + away * decayed])

    def right(_: float, flat: Array) -> Array:
        r, v = np.split(flat.reshape(start.shape), 2, axis=1)
        weights = (1 + np.square(r[None] - r[:, None]).sum(-1)) ** -args.exponent
        pull = (weights @ v) / weights.sum(1, keepdims=True) - v
        return np.hstack([v, args.strength * pull]).ravel()

    return solve_ivp(right, (0, t), start.ravel(), rtol=1e-11, atol=1e-12).y[:, -1].reshape(start.shape)


def oscillators(scale: Scale) -> list[Claim]:
    """Kuramoto with inertia: Gibbs's law."""
    system = equations.inertial_kuramoto()
    found = replicates(system, 20.0, 1_000, scale, save_at=[20.0])
    gain = system.args.coupling / system.args.temperature
    order = brentq(lambda r: ive(1, gain * r) / ive(0, gain * r) - r, 0.1, 1.0, xtol=1e-12)
    return [
        against("Kuramoto with inertia: order parameter", np.hypot(*found.moments[:, -1].T), order),
        against(
            "Kuramoto with inertia: Var ω", found.variance[:, -1, 1], system.args.temperature / system.args.mass, 0.15,
        ),
    ]  # fmt: skip


def underdamped(scale: Scale) -> list[Claim]:
    """Langevin: the variance of a harmonic force, and the mean of a double well by quadrature."""
    harmonic = equations.langevin()
    found = replicates(harmonic, 20.0, 100, scale, save_at=[20.0])
    well = equations.langevin(stiffness=-1.0, quartic=1.0, attraction=1.0, temperature=0.32)
    other = replicates(well, 30.0, 600, scale, save_at=[30.0], x0=_at_one)
    # that of Dawson's with σ² = 2T
    mean, _ = dawson_law(equations.dawson(volatility=0.8).args)
    variance = 1 / (harmonic.args.stiffness + harmonic.args.attraction)
    return [
        against("Langevin: Var q of a harmonic force", found.variance[:, -1, 0], variance, 0.03),
        against("Langevin: E q in a double well", other.mean[:, -1, 0], mean),
        against("Langevin: Var p in a double well", other.variance[:, -1, 1], 0.32),
    ]


def _at_one(generator: np.random.Generator, count: int) -> Array:
    return generator.standard_normal((count, 2)) + [1.0, 0.0]


def consensus(scale: Scale) -> list[Claim]:
    """Consensus-based optimisation: how often it finds the lowest of 20-dimensional Rastrigin's valleys."""
    runs, particles = scale.pick((20, 1_000), (100, 2_000))
    system = equations.consensus()
    found = solvers.solve_many(
        system.equation, system.start, 0.0, 10.0, 1_000, seed=range(runs), args=[system.args] * runs,
        particles=particles, save=(), save_at=[10.0],
    )  # fmt: skip
    success = (np.abs(found.moments[:, -1, :-1]).max(axis=1) < 0.25).astype(float)
    rate, error = mean_and_error(success)
    error = max(error, 1 / runs)  # where all agree
    name = f"consensus in 20 dimensions, α = 10⁵, {particles} particles: share of {runs} runs that find the minimum"
    return [above(name, rate, error, 0.5)]


def sampler(scale: Scale) -> list[Claim]:
    """The ensemble Kalman sampler: the posterior, which is normal."""
    system = equations.ensemble_kalman()
    found = replicates(system, 8.0, 2_000, scale, save=("mean", "covariance"), save_at=[8.0])
    covariance = np.linalg.inv(system.args.precision)
    mean = covariance @ system.args.shift
    return [
        against("ensemble Kalman sampler: mean of the first unknown", found.mean[:, -1, 0], mean[0]),
        against("ensemble Kalman sampler: its variance", found.covariance[:, -1, 0, 0], covariance[0, 0]),
        against("ensemble Kalman sampler: covariance of both", found.covariance[:, -1, 0, 1], covariance[0, 1]),
    ]


CAPTION = (
    "The gallery: Dawson's double well with its stationary density, FitzHugh–Nagumo neurons, the rate of integrate-and-"
    "fire neurons with Siegert's, a flock of Vicsek's, Motsch and Tadmor's velocities, the order of Kuramoto's "
    "oscillators with inertia, Langevin dynamics in phase space, a consensus on the minimum of Rastrigin's function, "
    "and an ensemble Kalman sampler with the ellipse of its posterior."
)


def picture() -> Any:
    """Draw all nine systems."""
    from solvers.plotting.style import new_figure, styled

    @styled
    def draw() -> Any:
        figure, axes = new_figure(3, 3)
        for ax, panel in zip(np.ravel(axes), PANELS, strict=True):
            panel(ax)
        return figure

    return draw()


def _draw_double_well(ax: Axes) -> None:
    system = equations.dawson()
    run = system.solve(20.0, 400, particles=20_000)
    x = np.linspace(-2, 2, 200)
    mean, _ = dawson_law(system.args)
    energy = x**4 / 4 - x**2 / 2 + system.args.coupling * (x - mean) ** 2 / 2
    density = np.exp(-2 * energy / system.args.volatility**2)
    ax.hist(run.final_particles, bins=60, range=(-2, 2), density=True, alpha=0.4)
    ax.plot(x, density / trapezoid(density, x))
    ax.set(title="Dawson's double well", xlabel="x", ylabel="density")


def _draw_neurons(ax: Axes) -> None:
    system = equations.fitzhugh_nagumo()
    run = system.solve(100.0, 2_000, particles=300, save={"v": solvers.trajectories(12)})
    ax.plot(run.v_times, run.v[..., 0], linewidth=0.5, color="0.6")
    ax.plot(run.v_times, run.v[..., 0].mean(axis=1))
    ax.set(title="FitzHugh–Nagumo", xlabel="t", ylabel="v")


def _draw_firing(ax: Axes) -> None:
    system = equations.integrate_and_fire()
    run = system.solve(10.0, 2_000, particles=20_000, save=(), save_at=np.arange(0.0, 10.0, 0.005))
    rate = run.moments[:, 0] / system.args.dt
    ax.plot(run.times[::20], rate.reshape(-1, 20).mean(axis=1))
    ax.axhline(siegert(system.args), linestyle="--", color="black", linewidth=1)
    ax.set(title="integrate-and-fire", xlabel="t", ylabel="rate of firing")


def _draw_flock(ax: Axes) -> None:
    run = equations.vicsek(volatility=0.5, radius=0.15).solve(4.0, 200, particles=400, save=())
    x, y, angle = run.final_particles.T
    ax.quiver(x, y, np.cos(angle), np.sin(angle), angle, cmap="twilight", scale=25, width=0.005)
    ax.set(title="Vicsek", xlabel="x", ylabel="y", aspect="equal")


def _draw_relative_influence(ax: Axes) -> None:
    run = equations.motsch_tadmor().solve(4.0, 100, particles=200, save={"x": solvers.trajectories(40)})
    ax.plot(run.x_times, run.x[..., 2], linewidth=0.5, color="0.5")
    ax.set(title="Motsch–Tadmor", xlabel="t", ylabel="v₁")


def _draw_oscillators(ax: Axes) -> None:
    for coupling in (1.0, 2.5, 4.0):
        run = equations.inertial_kuramoto(coupling=coupling).solve(20.0, 400, particles=5_000, save=())
        ax.plot(run.times, np.hypot(*run.moments.T), label=f"K = {coupling:g}")
    ax.set(title="Kuramoto with inertia", xlabel="t", ylabel="order parameter")
    ax.legend()


def _draw_underdamped(ax: Axes) -> None:
    well = equations.langevin(stiffness=-1.0, quartic=1.0, attraction=0.2, temperature=0.3)
    q, p = well.solve(20.0, 400, particles=4_000, save=()).final_particles.T
    ax.plot(q, p, ".", markersize=1, alpha=0.4)
    ax.set(title="Langevin, double well", xlabel="q", ylabel="p")


def _draw_consensus(ax: Axes) -> None:
    system = equations.consensus(dimension=2, volatility=1.0)
    grid = np.linspace(-4, 4, 200)
    a, b = np.meshgrid(grid, grid)
    ax.contourf(a, b, sum(x**2 - 10 * np.cos(2 * np.pi * x) + 10 for x in (a, b)), levels=12, cmap="Greys", alpha=0.5)
    run = system.solve(1.5, 150, particles=200, save="particles", save_at=[0.0, 0.5, 1.5])
    for t, points in zip(run.times, run.particles, strict=True):
        ax.plot(points[:, 0], points[:, 1], ".", label=f"t = {t:g}")
    ax.set(title="consensus", xlabel="x₁", ylabel="x₂", xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_sampler(ax: Axes) -> None:
    system = equations.ensemble_kalman()
    points = system.solve(5.0, 500, particles=2_000, save=()).final_particles
    covariance = np.linalg.inv(system.args.precision)
    angle = np.linspace(0, 2 * np.pi, 200)
    mean = covariance @ system.args.shift
    ring = mean[:, None] + 2 * np.linalg.cholesky(covariance) @ [np.cos(angle), np.sin(angle)]
    ax.plot(points[:, 0], points[:, 1], ".", markersize=1, alpha=0.4)
    ax.plot(ring[0], ring[1], color="black", linewidth=1)
    ax.set(title="ensemble Kalman sampler", xlabel="u₁", ylabel="u₂")


PANELS: tuple[Callable[[Axes], None], ...] = (
    _draw_double_well, _draw_neurons, _draw_firing, _draw_flock, _draw_relative_influence, _draw_oscillators,
    _draw_underdamped, _draw_consensus, _draw_sampler,
)  # fmt: skip
