"""The untrained network: forward and backward SDE at initialisation (Propositions 2 and 3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation, get_activation
from flds.training.options import DTYPES
from solvers import checks
from solvers.ensemble.brownian import BrownianMotion
from solvers.ensemble.random import Address, Noise, Stream, require_drawable
from solvers.ensemble.threads import ThreadParticles
from solvers.memory import INTERPRETER_BYTES, require_memory
from solvers.processors import thread_count
from solvers.progress import step_bar
from solvers.results.solution import Solution, Variable, library_versions
from solvers.sde.equation import McKeanVlasov
from solvers.sde.integrate import Ensemble, compile_kernels, integrate
from solvers.sde.schemes.euler_maruyama import EulerMaruyama
from solvers.sde.trial import Trial

Array = NDArray[np.floating]

# Bytes for each depth: the grid, the variance there, and what making the grid takes.
_GRID = 32


def forward_equation(phi: Activation) -> McKeanVlasov:
    """dh = σ_t dw with σ_t² = E φ(h)² (Prop. 2); the moments are E φ(h)² and E h²."""
    return McKeanVlasov(
        diffusion=lambda t, h, m: np.sqrt(m[0]),
        moments=lambda t, h: np.stack([phi.value(h) ** 2, h * h]),
        noise="additive",
        vectorized=True,
    )


def backward_equation(phi: Activation) -> McKeanVlasov:
    """dg = φ'(h_t) √(E g²) dw̃ from t = T down to 0 (Prop. 3, erratum: E g², not (E g)²); h is the field."""
    return McKeanVlasov(
        diffusion=lambda t, g, m, h: phi.derivative(h) * np.sqrt(m), moments=lambda t, g: g * g, vectorized=True
    )


def solve_forward(
    activation: str | Activation = "tanh",
    *,
    initial_variance: float = 1.0,
    horizon: float = 1.0,
    particles: int = 100_000,
    depth: int = 256,
    seed: int = 0,
    noise_depth: int | None = None,
    dtype: str = "float64",
    threads: int | None = None,
    progress: bool = False,
) -> Solution:
    """Solve dh_t = (E φ(h_t)²)^½ dw_t, h_0 ~ N(0, initial_variance), by Euler–Maruyama.

    Parameters
    ----------
    activation : str or Activation
        φ.
    initial_variance : float
        |x|²/d.
    horizon : float
        T.
    particles, depth : int
        Number of particles and of steps.
    seed : int
        Seed of the noise; the path is that of the first pass of `simulate_resnet` with the same numbers.
    noise_depth : int, optional
        A multiple of `depth`: the grid on which the Brownian path is drawn.
    dtype : str
        "float64" or "float32".
    threads : int, optional
        Up to 4,096; by default all available CPUs. The result does not depend on it.
    progress : bool
        Whether a bar on standard error counts the steps.

    Returns
    -------
    Solution
        `variance` (depth + 1,) E h_t², `depth_grid` (depth + 1,) t, `final_particles` (particles,) h_T.

    Raises
    ------
    ValueError, TypeError, MemoryError
        If an argument is not valid, its noise would take more than a day, or the particles do not fit in memory.

    References
    ----------
    Paper F, Proposition 2.
    """
    shown = checks.flag("progress", progress)
    run = _Untrained(activation, initial_variance, horizon, particles, depth, seed, noise_depth, dtype, threads)
    variance = np.full(depth + 1, np.nan)
    with run.ensemble.running(), step_bar(depth, shown) as count:
        for step, now in enumerate(run.forward()):
            variance[step] = now.m[1]
            if step:
                count()
    return run.solution(variance, now.x[0], "h", seed)


def solve_backward(
    activation: str | Activation = "tanh",
    *,
    initial_variance: float = 1.0,
    horizon: float = 1.0,
    particles: int = 100_000,
    depth: int = 256,
    seed: int = 0,
    noise_depth: int | None = None,
    dtype: str = "float64",
    threads: int | None = None,
    progress: bool = False,
) -> Solution:
    """Solve dg_t = φ'(h_t) (E g_t²)^½ dw̃_t from g_T ~ N(0, 1) down to t = 0, h being the forward path.

    Parameters are those of `solve_forward`. The forward path is solved first and held in memory.

    Returns
    -------
    Solution
        `variance` (depth + 1,) E g_t² in the order of increasing t, `depth_grid`, and `final_particles` g_0.

    Raises
    ------
    ValueError, TypeError, MemoryError
        If an argument is not valid or the path does not fit in memory.

    References
    ----------
    Paper F, Proposition 3; the diffusion is |φ'(h)|² E[g²].
    """
    shown = checks.flag("progress", progress)
    run = _Untrained(
        activation, initial_variance, horizon, particles, depth, seed, noise_depth, dtype, threads, stored=depth + 2
    )
    path, variance = run.ensemble.allocate(depth + 1, run.dtype), np.full(depth + 1, np.nan)
    with run.ensemble.running(), step_bar(2 * depth, shown) as count:
        for step, now in enumerate(run.forward()):
            path[step] = now.x[0]
            if step:
                count()
        # the step from depth ℓ to ℓ - 1 multiplies by φ'(h_{ℓ-1}), the field where it arrives
        for step, now in enumerate(run.backward(lambda step: path[max(depth - 1 - step, 0), :, None])):
            variance[depth - step] = now.m[0]
            if step:
                count()
    return run.solution(variance, now.x[0], "g", seed)


class _Untrained:
    """Checked arguments of the two solvers, and what they share."""

    def __init__(
        self,
        activation: str | Activation,
        initial_variance: float,
        horizon: float,
        particles: int,
        depth: int,
        seed: int,
        noise_depth: int | None,
        dtype: str,
        threads: int | None,
        stored: int = 0,
    ) -> None:
        self.phi = get_activation(activation)
        initial_variance = checks.positive_number("initial_variance", initial_variance, zero=True)
        horizon = checks.positive_number("horizon", horizon)
        particles = checks.positive_integer("particles", particles)
        depth = checks.positive_integer("depth", depth)
        fine = checks.noise_grid(noise_depth, depth)
        self.dtype = np.dtype(checks.choice("dtype", dtype, DTYPES))
        needed = INTERPRETER_BYTES + (stored + 2) * particles * self.dtype.itemsize + _GRID * (depth + 1)
        require_memory(needed, 'lower particles or depth, or use dtype="float32"')
        threads = thread_count(threads)
        require_drawable(depth, particles, fine // depth, threads, "noise_depth")
        self.ensemble = ThreadParticles(particles, threads)
        self.seed, self.depth, self.fine = checks.seed_number("seed", seed), depth, fine
        self.initial_variance, self.horizon = initial_variance, horizon
        self.settings: dict[str, Any] = {
            "activation": self.phi.name,
            "initial_variance": initial_variance,
            "horizon": horizon,
            "particles": particles,
            "depth": depth,
            "noise_depth": fine,
            "dtype": dtype,
        }
        self.timings = {"compile": 0.0, "solve": 0.0}

    def forward(self) -> Iterator[Ensemble]:
        """Yield h at every depth from 0 to L."""
        path = BrownianMotion(0.0, self.horizon, self.depth, 1, self.seed, self.fine, Stream.FORWARD)
        return self._solve(forward_equation(self.phi), Stream.INPUT, self.initial_variance, path)

    def backward(self, h: Callable[[int], Array]) -> Iterator[Ensemble]:
        """Yield g at every depth from L to 0."""
        path = BrownianMotion(self.horizon, 0.0, self.depth, 1, self.seed, self.fine, Stream.BACKWARD)
        return self._solve(backward_equation(self.phi), Stream.READOUT, 1.0, path, h)

    def _solve(
        self,
        equation: McKeanVlasov,
        stream: Stream,
        variance: float,
        path: BrownianMotion,
        field: Callable[[int], Array] | None = None,
    ) -> Iterator[Ensemble]:
        x, deviation = self.ensemble.allocate(1, self.dtype), np.sqrt(variance)
        self.ensemble.fill(x, Noise(self.seed), Address(stream))  # without depth there is no refinement
        self.ensemble.apply(lambda x: np.multiply(x, deviation, out=x), x)
        kind = "none" if field is None else "number"
        outside = np.zeros((1, 0)) if field is None else field(0)
        form = Trial(equation, path.t0, x, True, outside, kind, field is not None).form()
        scheme = EulerMaruyama()
        self.timings["compile"] += compile_kernels(equation, form, x, outside, path, scheme)
        start = time.perf_counter()
        yield from integrate(equation, form, x, path, scheme, ensemble=self.ensemble, field=field)
        self.timings["solve"] += time.perf_counter() - start

    def solution(self, variance: NDArray[np.float64], particles: Array, symbol: str, seed: int) -> Solution:
        variables = {
            "depth_grid": Variable(("t",), np.linspace(0.0, self.horizon, self.depth + 1), "depth t", "horizon units"),
            "variance": Variable(("t",), variance, f"mean square E {symbol}²"),
            "final_particles": Variable(("particle",), particles, f"{symbol} where the solve ended"),
        }
        status = "completed" if np.all(np.isfinite(variance)) else "diverged"
        return Solution(variables, status, self.timings, seed, self.settings, versions=library_versions())
