"""The untrained network: forward and backward SDE at initialisation (Propositions 2 and 3)."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flds.training.activations import Activation, get_activation
from flds.training.options import DTYPES
from flds.training.untrained_equations import backward_equation, forward_equation
from solvers import checks
from solvers.ensemble.brownian import BrownianMotion
from solvers.ensemble.homes import home
from solvers.ensemble.random import Address, Noise, Stream, require_drawable
from solvers.memory import INTERPRETER_BYTES, require_memory
from solvers.partition import most_held
from solvers.progress import step_bar
from solvers.ranks import check_communicator, memory_of_rank, require_same, threads_of_rank
from solvers.results.solution import Solution, Variable
from solvers.results.versions import library_versions
from solvers.sde.course import Course, Ensemble
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.field import FieldOnGrid
from solvers.sde.integrate import compile_kernels, integrate
from solvers.sde.schemes.euler_maruyama import EulerMaruyama

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# Bytes for each depth: the grid, the variance there, and what making the grid takes.
_GRID = 32
_EULER_MARUYAMA = EulerMaruyama()


def solve_forward(
    activation: str | Activation = "tanh",
    *,
    inputs: ArrayLike | None = None,
    initial_variance: float | None = None,
    horizon: float = 1.0,
    particles: int = 100_000,
    depth: int = 256,
    seed: int = 0,
    noise_depth: int | None = None,
    dtype: str = "float64",
    threads: int | None = None,
    communicator: Any = None,
    progress: bool = False,
) -> Solution:
    """Solve dh_t = (E φ(h_t)²)^½ dw_t, h_0 ~ N(0, initial_variance), by Euler–Maruyama; or for several inputs jointly.

    Several inputs share one network: h_t has a component for each, h_0 ~ N(0, x xᵀ/d), dh_t = C_t dw_t, and
    C_t C_tᵀ = E φ(h_t) φ(h_t)ᵀ, of which C_t is the Cholesky factor.

    Parameters
    ----------
    activation : str or Activation
        φ.
    inputs : (samples, d) array, optional
        The inputs x of a joint solve. Equal rows, or more rows than columns, are no obstacle.
    initial_variance : float, optional
        |x|²/d of one input; 1 by default.
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
    communicator : mpi4py.MPI.Comm, optional
        Ranks that share the particles; each of them calls the solver with the same arguments and gets the same
        solution, that of one process to the bit, but for `final_particles`, of which it has its own part. All call its
        method `save` together, which writes them whole. Threads are those of each rank.
    progress : bool
        Whether a bar on standard error counts the steps.

    Returns
    -------
    Solution
        `variance` (depth + 1,) E h_t², `depth_grid` (depth + 1,) t, `final_particles` (particles,) h_T. With `inputs`
        `variance` is (depth + 1, samples), `final_particles` (particles, samples), and `covariance`
        (depth + 1, samples, samples) is E h_t h_tᵀ. `status` is "diverged" where a particle or a mean was not finite.

    Raises
    ------
    ValueError, TypeError, MemoryError
        If an argument is not valid, its noise would take more than a day, or the particles do not fit in memory.

    Warns
    -----
    RuntimeWarning
        If the solve diverged; the warning, which is also a note of the solution, says at which layer.

    References
    ----------
    Paper F, Proposition 2; for several inputs F-(7).
    """
    shown = checks.flag("progress", progress)
    arguments = (activation, inputs, initial_variance, horizon, particles, depth, seed, noise_depth, dtype, threads)
    run = _Untrained(*arguments, communicator)
    with run.ensemble.running(), step_bar(depth, shown and run.ensemble.speaks) as count:
        for now in run.forward():
            run.record(range(now.step - len(now.history) + 1, now.step + 1), now)
            count(len(now.history) * (now.step > 0))
    return run.solution(now, "h")


def solve_backward(
    activation: str | Activation = "tanh",
    *,
    inputs: ArrayLike | None = None,
    initial_variance: float | None = None,
    horizon: float = 1.0,
    particles: int = 100_000,
    depth: int = 256,
    seed: int = 0,
    noise_depth: int | None = None,
    dtype: str = "float64",
    threads: int | None = None,
    communicator: Any = None,
    progress: bool = False,
) -> Solution:
    """Solve dg_t = φ'(h_t) (E g_t²)^½ dw̃_t from g_T ~ N(0, 1) down to t = 0, h being the forward path.

    For several inputs dg_t = φ'(h_t) C_t dw̃_t, component by component, with C_t C_tᵀ = E g_t g_tᵀ; at T all components
    are the same, the readout. Parameters are those of `solve_forward`. The forward path is solved first and held in
    memory.

    Returns
    -------
    Solution
        `variance` (depth + 1,) E g_t² in the order of increasing t, `depth_grid`, and `final_particles` g_0. With
        `inputs` they have an axis more, and there is `covariance` E g_t g_tᵀ, as for `solve_forward`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        If an argument is not valid or the path does not fit in memory.

    Warns
    -----
    RuntimeWarning
        As for `solve_forward`.

    References
    ----------
    Paper F, Proposition 3; the diffusion is |φ'(h)|² E[g²]. For several inputs F-(8).
    """
    shown = checks.flag("progress", progress)
    arguments = (activation, inputs, initial_variance, horizon, particles, depth, seed, noise_depth, dtype, threads)
    run = _Untrained(*arguments, communicator, held=depth + 3)
    with run.ensemble.running(), step_bar(2 * depth, shown and run.ensemble.speaks) as count:
        for now in run.forward(whole_path=True):
            count(len(now.history) * (now.step > 0))
        if not now.finite:
            return run.solution(now, "h", recorded=False)
        for now in run.backward():
            run.record(range(depth - now.step + len(now.history) - 1, depth - now.step - 1, -1), now)
            count(len(now.history) * (now.step > 0))
    return run.solution(now, "g")


class _Untrained:
    """Checked arguments of the two solvers, and what they share; `held` is how many states are in memory at once."""

    def __init__(
        self,
        activation: str | Activation,
        inputs: ArrayLike | None,
        initial_variance: float | None,
        horizon: float,
        particles: int,
        depth: int,
        seed: int,
        noise_depth: int | None,
        dtype: str,
        threads: int | None,
        communicator: Any,
        held: int = 2,
    ) -> None:
        self.phi = get_activation(activation)
        self.joint = inputs is not None
        self.inputs = _inputs(inputs, initial_variance)
        self.horizon = checks.positive_number("horizon", horizon)
        particles = checks.positive_integer("particles", particles)
        self.depth = checks.positive_integer("depth", depth)
        self.fine = checks.noise_grid(noise_depth, depth)
        self.dtype = np.dtype(checks.choice("dtype", dtype, DTYPES))
        self.samples, d = self.inputs.shape
        self.seed = checks.seed_number("seed", seed)
        threads = threads_of_rank(threads, check_communicator(communicator))
        asked = {"inputs": self.inputs, "horizon": self.horizon, "particles": particles, "depth": depth}
        asked |= {"noise_depth": self.fine, "dtype": dtype, "seed": self.seed, "activation": self.phi.name}
        require_same(communicator, asked)
        self.ensemble = home(particles, threads, communicator)
        rows = (held * self.samples + self._apart(d)) * most_held(particles, self.ensemble.ranks)
        kept = (_GRID + 8 * self.samples * (1 + self.joint * self.samples)) * (depth + 1)
        remedy = 'lower particles or depth, or use dtype="float32"'
        needed = INTERPRETER_BYTES + rows * self.dtype.itemsize + kept
        require_memory(needed, remedy, memory_of_rank(communicator))
        require_drawable(depth * self.samples, particles, self.fine // depth, threads, "noise_depth")
        shape = (self.samples, self.samples) if self.joint else ()
        self.second_moments = np.full((depth + 1, *shape), np.nan)
        self.settings: dict[str, Any] = {
            "activation": self.phi.name,
            **({} if self.joint else {"initial_variance": float(self.inputs[0, 0] ** 2)}),
            "horizon": self.horizon,
            "particles": particles,
            "depth": depth,
            "noise_depth": self.fine,
            "dtype": dtype,
        }
        self.timings = {"compile": 0.0, "solve": 0.0}

    def forward(self, whole_path: bool = False) -> Iterator[Ensemble]:
        """Yield h at depths from 0 to L; h_0 = U x/√d as in a network. The path is kept for `backward` if asked."""
        path = BrownianMotion(0.0, self.horizon, self.depth, self.samples, self.seed, self.fine, Stream.FORWARD)
        states = self._states(self.depth + 1 if whole_path else 2)
        self._combine(states, self.inputs / math.sqrt(self.inputs.shape[1]), Stream.INPUT)
        if whole_path:
            self.path = states
        outside = FieldOnGrid(None, path.times)
        yield from self._solve(forward_equation(self.phi, self.joint), 0 if self.joint else 2, states, path, outside)

    def backward(self) -> Iterator[Ensemble]:
        """Yield g at depths from L to 0; g_L is the readout."""
        path = BrownianMotion(self.horizon, 0.0, self.depth, self.samples, self.seed, self.fine, Stream.BACKWARD)
        states = self._states(2)
        self._combine(states, np.ones((self.samples, 1)), Stream.READOUT)
        moments, outside = 0 if self.joint else 1, _Features(self.path, path.times)
        yield from self._solve(backward_equation(self.phi, self.joint), moments, states, path, outside)

    def record(self, layers: Sequence[int], now: Ensemble) -> None:
        """Keep the second moments at the last layers: for one input they are the last of the means."""
        if self.joint:
            (layer,) = layers
            self.second_moments[layer] = self.ensemble.gram(now.x)
        else:
            self.second_moments[layers] = now.history[:, -1]

    def _states(self, count: int) -> Array:
        return self.ensemble.allocate(count * self.samples, self.dtype).reshape(count, self.samples, -1)

    def _apart(self, count: int) -> int:
        """Return how many of so many weights need memory of their own, beside that of a second state."""
        return count if count > self.samples else 0

    def _combine(self, states: Array, coefficients: Matrix, stream: Stream) -> None:
        """Set the first state to the product of coefficients with weights, which may lie where the second will be."""
        count = coefficients.shape[1]
        weights = self.ensemble.allocate(count, self.dtype) if self._apart(count) else states[1, :count]
        # without depth there is no refinement
        self.ensemble.fill(weights, Noise(self.seed), Address(stream, positions=tuple(range(len(weights)))))
        self.ensemble.combine(states[0], [(coefficients, weights)])

    def _solve(
        self, equation: McKeanVlasov, moments: int, states: Array, path: BrownianMotion, outside: FieldOnGrid
    ) -> Iterator[Ensemble]:
        kind = "none" if outside.constant else "vector" if self.joint else "number"
        own, number = not outside.constant, moments < 2
        form = Form(not self.joint, self.samples, moments, number, self.samples, (), kind, own, plain_number=number)
        course = Course(equation, form, _EULER_MARUYAMA, path, outside)
        self.timings["compile"] += compile_kernels(course, self.ensemble, states)
        start = time.perf_counter()
        yield from integrate(course, self.ensemble, states, [self.depth])
        self.timings["solve"] += time.perf_counter() - start

    def solution(self, now: Ensemble, symbol: str, recorded: bool = True) -> Solution:
        """Return what was recorded, and how the solve of h or g ended; warn if it diverged."""
        moments = self.second_moments if recorded else self.second_moments * np.nan
        over, end = ("t", "sample") if self.joint else ("t",), ("particle", "sample") if self.joint else ("particle",)
        variance = np.einsum("taa->ta", moments) if self.joint else moments
        variables = {
            "depth_grid": Variable(("t",), np.linspace(0.0, self.horizon, self.depth + 1), "depth t", "horizon units"),
            "variance": Variable(over, variance.copy(), f"mean square E {symbol}²"),
            "final_particles": Variable(
                end,
                now.x.T if self.joint else now.x[0],
                f"{symbol} where the solve ended",
                spread=self.ensemble.spread(0),
            ),
        }
        if self.joint:
            dims = ("t", "sample", "other_sample")
            variables["covariance"] = Variable(dims, moments, f"covariance E {symbol} {symbol}ᵀ over inputs")
            variables["inputs"] = Variable(("sample", "feature"), self.inputs, "inputs x")
        layer = now.step if symbol == "h" else self.depth - now.step
        notes = [] if now.finite else [f"diverged: {symbol}, or its activation, was not finite at layer {layer}"]
        for note in notes if self.ensemble.speaks else ():
            warnings.warn(note, RuntimeWarning, stacklevel=3)
        status = "completed" if now.finite else "diverged"
        return Solution(variables, status, self.timings, self.seed, self.settings, notes, library_versions())


class _Features(FieldOnGrid):
    """The features h as field of the backward equation: φ'(h) is taken where a step arrives.

    Parameters
    ----------
    path : (L + 1, samples, N) array
        h at the depths.
    times : (L + 1,) float64
        Depths from T down to 0.
    """

    def __init__(self, path: Array, times: Matrix) -> None:
        super().__init__(None, times)
        self.constant, self.most, self.path = False, len(times), path

    def at(self, step: int) -> Array:
        return self.path[max(len(self.path) - 2 - step, 0)].T

    def piece(self, first: int, last: int) -> tuple[Array, int, int]:
        samples, particles = self.path.shape[1:]
        assert samples == 1  # so that an axis of the path is the same as one of its transpose
        return self.path.reshape(-1, particles, 1), len(self.path) - 2 - first, -1


def _inputs(inputs: ArrayLike | None, initial_variance: float | None) -> Matrix:
    """Return the inputs, (samples, d), one of length 1 whose square is the initial variance where none are given."""
    if inputs is not None:
        if initial_variance is not None:
            raise ValueError("give inputs or initial_variance, not both")
        return checks.matrix("inputs", inputs)
    variance = 1.0 if initial_variance is None else initial_variance
    return np.array([[math.sqrt(checks.positive_number("initial_variance", variance, zero=True))]])
