"""The untrained network: forward and backward SDE at initialisation (Propositions 2 and 3)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds import checks
from flds.activations import Activation, get_activation
from flds.cost import require_memory
from flds.settings import DTYPES
from solvers.blocks import Blocks, available_threads, compile_kernels
from solvers.euler_maruyama import McKeanVlasov, euler_maruyama
from solvers.random import Address, Noise, Stream
from solvers.solution import Field, Solution, library_versions

Array = NDArray[np.floating]


def forward_equation(phi: Activation) -> McKeanVlasov:
    """dh = σ_t dw with σ_t² = E φ(h)² (Prop. 2); moments E φ(h)², E h²."""

    def moments(t: float, h: Array) -> Array:
        return np.stack([phi.value(h) ** 2, h * h])

    return McKeanVlasov(moments, lambda t, h, m, field: float(np.sqrt(m[0])))


def backward_equation(phi: Activation) -> McKeanVlasov:
    """dg = φ'(h_t) √(E g²) dw̃ from t = T down to 0 (Prop. 3, erratum: E g², not (E g)²); moment E g²."""

    def diffusion(t: float, g: Array, m: NDArray[np.float64], h: Array | None) -> Array:
        assert h is not None
        return phi.derivative(h) * float(np.sqrt(m[0]))

    return McKeanVlasov(lambda t, g: (g * g)[None], diffusion)


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
        By default all available CPUs; the result does not depend on it.

    Returns
    -------
    Solution
        `variance` (depth + 1,) E h_t², `depth_grid` (depth + 1,) t, `final_particles` (particles,) h_T.

    Raises
    ------
    ValueError, TypeError, MemoryError
        If an argument is not valid or the particles do not fit in memory.

    References
    ----------
    Paper F, Proposition 2.
    """
    run = _FirstPass(activation, initial_variance, horizon, particles, depth, seed, noise_depth, dtype, threads)
    with run.blocks.running():
        h = run.initial(Stream.INPUT, initial_variance)
        moments = run.solve(forward_equation(run.phi), h, run.times, Stream.FORWARD)
    return run.solution(moments[:, 1], h, "h", seed)


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
    run = _FirstPass(
        activation, initial_variance, horizon, particles, depth, seed, noise_depth, dtype, threads, stored=depth + 1
    )
    path = np.empty((depth + 1, particles), run.dtype)

    def keep(step: int, h: Array) -> None:
        path[step] = h

    with run.blocks.running():
        h = run.initial(Stream.INPUT, initial_variance)
        run.solve(forward_equation(run.phi), h, run.times, Stream.FORWARD, observe=keep)
        g = run.initial(Stream.READOUT, 1.0)
        # the step from depth ℓ to ℓ - 1 multiplies by φ'(h_{ℓ-1}), the field where it arrives
        moments = run.solve(
            backward_equation(run.phi), g, run.times[::-1], Stream.BACKWARD,
            field=lambda step, block: path[depth - 1 - step, block],
        )  # fmt: skip
    return run.solution(moments[::-1, 0], g, "g", seed)


class _FirstPass:
    """Checked arguments of the two solvers, and what they share."""

    def __init__(
        self, activation: str | Activation, initial_variance: float, horizon: float, particles: int, depth: int,
        seed: int, noise_depth: int | None, dtype: str, threads: int | None, stored: int = 1,
    ) -> None:  # fmt: skip
        self.phi = get_activation(activation)
        initial_variance = checks.positive_number("initial_variance", initial_variance, zero=True)
        horizon = checks.positive_number("horizon", horizon)
        particles = checks.positive_integer("particles", particles)
        depth = checks.positive_integer("depth", depth)
        fine = checks.noise_grid(noise_depth, depth)
        self.dtype = np.dtype(checks.choice("dtype", dtype, DTYPES))
        needed = (stored + 2) * particles * self.dtype.itemsize
        require_memory(needed, 'lower particles or depth, or use dtype="float32"')
        threads = available_threads() if threads is None else checks.positive_integer("threads", threads)
        self.noise = Noise(checks.seed_number("seed", seed), fine // depth)
        self.blocks = Blocks(particles, threads)
        self.times = np.linspace(0.0, horizon, depth + 1)
        self.settings: dict[str, Any] = {
            "activation": self.phi.name, "initial_variance": initial_variance, "horizon": horizon,
            "particles": particles, "depth": depth, "noise_depth": fine, "dtype": dtype,
        }  # fmt: skip
        self.timings = {"compile": compile_kernels(self.dtype), "solve": 0.0}

    def initial(self, stream: Stream, variance: float) -> Array:
        x = np.empty((1, self.blocks.particles), self.dtype)
        self.blocks.fill(x, Noise(self.noise.seed), Address(stream))  # without depth there is no refinement
        x *= np.sqrt(variance)
        first: Array = x[0]
        return first

    def solve(self, equation: McKeanVlasov, x: Array, times: NDArray[np.float64], stream: Stream, **rest: Any
              ) -> NDArray[np.float64]:  # fmt: skip
        start = time.perf_counter()
        moments = euler_maruyama(equation, x, times, blocks=self.blocks, noise=self.noise, stream=stream, **rest)
        self.timings["solve"] += time.perf_counter() - start
        return moments

    def solution(self, variance: NDArray[np.float64], particles: Array, symbol: str, seed: int) -> Solution:
        fields = {
            "depth_grid": Field(("depth_point",), self.times, "depth t", "horizon units"),
            "variance": Field(("depth_point",), variance, f"mean square E {symbol}²"),
            "final_particles": Field(("particle",), particles, f"{symbol} where the solve ended"),
        }
        status = "completed" if np.all(np.isfinite(variance)) else "diverged"
        return Solution(fields, status, self.timings, seed, self.settings, versions=library_versions())
