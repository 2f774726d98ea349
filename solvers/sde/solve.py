"""Solve a McKean–Vlasov equation with N interacting particles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from solvers import checks
from solvers.results.checkpoint import Checkpoint
from solvers.results.solution import Solution
from solvers.sde.equation import McKeanVlasov
from solvers.sde.events import Absorbing, Events, Jumps, Periodic, Reflecting, Reset
from solvers.sde.run import MeanFieldRun
from solvers.sde.schemes.scheme import Scheme
from solvers.sde.statistics import Save


def solve(
    equation: McKeanVlasov,
    x0: Any,
    t0: float,
    t1: float,
    steps: int,
    *,
    scheme: str | Scheme = "euler_maruyama",
    seed: int = 0,
    save_at: Any = None,
    save: Save | Iterable[Save] | Mapping[str, Save] = ("mean", "variance"),
    particles: int | None = None,
    field: Any = None,
    args: Any = None,
    boundary: Reflecting | Periodic | Absorbing | None = None,
    jumps: Jumps | None = None,
    reset: Reset | None = None,
    stop: Callable[..., Any] | None = None,
    noise_steps: int | None = None,
    dtype: str = "float64",
    threads: int | None = None,
    communicator: Any = None,
    checkpoint: Any = None,
    checkpoint_every: float = 600.0,
    progress: bool = False,
) -> Solution:
    """Solve dX = b(t, X, m) dt + s(t, X, m) dW with m_t = E[ψ(t, X_t)] by interacting particles.

    Parameters
    ----------
    equation : McKeanVlasov
        The coefficients.
    x0 : (N,) or (N, D) array, or callable
        The particles at t0: numbers, or vectors, of any type. Or a sampler, a function of
        (numpy.random.Generator, n) that returns n of them; it is called for 2,048 at a time, so that the
        first particles of a larger run are those of a smaller one.
    t0, t1 : float
        The solve goes from t0 to t1. With t1 < t0 time runs backward: dt is negative, and the Brownian
        increments are those of the forward path, added with the sign they have there. A run that starts where another
        one ended goes on with its paths if dt is the same; `resume` does so in any case.
    steps : int
        Number of equal steps.
    scheme : str or Scheme
        "euler_maruyama": strong order ½, or 1 for additive noise; weak order 1. "milstein": strong order 1
        for diagonal noise where s_i depends on x_i and not on the other components. "tamed_euler": for drifts that
        grow faster than linearly. "drift_implicit_euler", "trapezoidal": for stiff drifts. "sra1": strong order 1.5 for
        additive noise. "heun": for equations in the sense of Stratonovich. Or an object of a class of
        `solvers.schemes`, such as `BAOAB` for Langevin dynamics, or of a subclass of its `Scheme`.
    seed : int
        Seed of the Brownian motions and of the sampler.
    save_at : array of float, optional
        Times at which to save, and the order of the records; by default all of the grid, or about a hundred. Between
        times of the grid particles do a part of a step on the same Brownian paths; absorption, jumps, resets and "sra1"
        refuse such times.
    save : str, Statistic, callable, or several in a list or a mapping from names
        What to save: "mean", "variance", "covariance", "quantiles", "particles", `quantiles` or `particles`
        with arguments, or functions (t, x) → array of all particles x, (N,) or (N, D), which are read-only and
        valid during the call. They are tried once at t0.
    particles : int, optional
        N, where x0 is a sampler.
    field : float, (F,) array or ExternalField, optional
        The external field that the coefficients take as one more argument. The solution keeps it as
        `external_field`, up to 100 MB, and `resume` goes on with it.
    args : float, array or named tuple of these, optional
        Parameters of the equation, which every coefficient may take as its last argument; float64 whatever is given.
        New values are not compiled again. The solution keeps them as `args`, or `args_` and the name of each, and
        `resume` goes on with them.
    boundary : Reflecting, Periodic or Absorbing, optional
        What happens at the ends of an interval, component by component. It happens where a step ends: schemes of
        several stages may evaluate coefficients beyond the ends in between.
    jumps : Jumps, optional
        Jumps at random times.
    reset : Reset, optional
        A component that is put back when it reaches a threshold; m has one more entry then.
    stop : callable, optional
        (t, m[, args]) → whether to stop, asked after each step; compiled where the coefficients are. The run then has
        the status "stopped".
    noise_steps : int, optional
        A multiple of `steps`: the grid on which Brownian paths are drawn. Runs that agree in its step and in the seed
        follow the same paths. Runs with other grids, such as K and 2K steps without it, are independent.
    dtype : str
        "float64" or "float32": the type that particles are held in between steps. A step computes in float64 in any
        case, so "float32" halves the memory and rounds positions once a step.
    threads : int, optional
        Up to 4,096; by default all available CPUs. The result does not depend on it.
    communicator : mpi4py.MPI.Comm, optional
        Ranks that share the particles; each of them calls `solve` with the same arguments and gets the same solution,
        that of one process to the bit, but for `final_particles`, and "particles" in `save`: of these it has its own
        part. All call its method `save` together, which writes them whole. An array x0 is held by every rank; a sampler
        draws for each rank what it holds. Quantiles and functions in `save` are computed on the first rank, to which
        the others send their particles. Threads are those of each rank.
    checkpoint : path, optional
        A file in which the run is kept while it goes on: where the particles are, and what was saved. The same call
        again, should the process end before it, goes on from there and ends with the same bits;
        ``settings["continued_from_step"]`` says where. The file is removed when the solve is done, and stays where it
        was interrupted or failed. That of another run, as far as its functions can be compared, is refused.
    checkpoint_every : float
        Seconds between checkpoints; more where writing them would take more than a fortieth of the time.
    progress : bool
        Whether a bar on standard error counts the steps.

    Returns
    -------
    Solution
        `times` (records,), what was saved, (records, …) each, `moments` (records, M), `final_particles` as
        x0, and `final_time`; `args`, and of boundary and reset `hitting_times`, `resets` and `last_resets`, (N,) each.
        `status` is "completed", "diverged" (a particle not finite or beyond 1e100 times the
        start), "stopped" (`stop` returned True), "interrupted", or "failed" (a function of the user's raised after the
        first step, or a step could not be done for a particle).

    Raises
    ------
    TypeError, ValueError
        If an argument is not valid, or a coefficient fails, returns another shape than it should, or has a fault that
        the run would not show: it reads beyond an array, differs from call to call, or depends on x though it is called
        additive. Coefficients are tried on up to 64 of the particles.
    RuntimeError
        If a coefficient raises in the first step.
    MemoryError
        If the particles do not fit in memory.

    Warns
    -----
    RuntimeWarning
        If the solve ended early; the solution keeps all that was saved, and `final_time` says when.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical Solution of Stochastic Differential Equations", 1992, for the schemes.
    A.-S. Sznitman, "Topics in propagation of chaos", 1991, for the limit N → ∞.

    Examples
    --------
    A mean-field Ornstein–Uhlenbeck process, dX = −(X − ½ E X) dt + dW:

    >>> from numba import njit
    >>> import numpy as np, solvers
    >>> equation = solvers.McKeanVlasov(
    ...     drift=njit(lambda t, x, m: -(x - 0.5 * m)),
    ...     diffusion=njit(lambda t, x, m: 1.0),
    ...     moments=njit(lambda t, x: x),
    ...     noise="additive",
    ... )
    >>> run = solvers.solve(equation, np.ones(10_000), 0.0, 1.0, 100)
    >>> bool(abs(run.mean[-1] - np.exp(-0.5)) < 0.04)
    True
    """
    grid = {"t0": t0, "t1": t1, "steps": steps, "seed": seed, "noise_steps": noise_steps}
    progress, kept = checks.flag("progress", progress), Checkpoint(checkpoint, checkpoint_every)
    events = Events.checked(boundary, jumps, reset, stop)
    run = MeanFieldRun.checked(
        equation, x0, grid, scheme, particles, field, threads, communicator, args=args, events=events, dtype=dtype
    )
    return run.solution(save, save_at, progress, kept)
