"""A solve that goes on where another one ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from solvers import checks
from solvers.results.checkpoint import Checkpoint
from solvers.results.solution import Solution
from solvers.sde.equation import ARGUMENTS, McKeanVlasov, kinds_of
from solvers.sde.events import Events
from solvers.sde.events.jumps import Jumps
from solvers.sde.events.reset import Reset
from solvers.sde.field import kept_field
from solvers.sde.parameters import kept_args
from solvers.sde.run import MeanFieldRun
from solvers.sde.schemes import get_scheme, has_short_name
from solvers.sde.schemes.scheme import Scheme
from solvers.sde.statistics import Save

# Steps of two runs that differ by less than this share are equal; they were computed in another order of operations.
_ROUNDING = 1e-9


def resume(
    equation: McKeanVlasov,
    run: Solution,
    t1: float,
    steps: int,
    *,
    scheme: str | Scheme | None = None,
    save_at: Any = None,
    save: Save | Iterable[Save] | Mapping[str, Save] = ("mean", "variance"),
    field: Any = None,
    args: Any = None,
    boundary: Any = None,
    jumps: Jumps | None = None,
    reset: Reset | None = None,
    stop: Any = None,
    threads: int | None = None,
    communicator: Any = None,
    checkpoint: Any = None,
    checkpoint_every: float = 600.0,
    progress: bool = False,
) -> Solution:
    """Go on from where a run ended, on the same Brownian paths.

    Where the steps are as long as those of the run, the result is bit for bit that of one long run with the steps of
    both, if its dt is the same float. Other steps follow the same paths if each is a whole number of the run's finest
    steps. If not, the noise is new, and a note says so.

    Parameters
    ----------
    equation : McKeanVlasov
        The equation of the run; its functions are not compared.
    run : Solution
        A solution of `solve` or `resume`, as returned or from a file, with any status but "diverged". Seed, scheme and
        grid of the noise are taken from it.
    t1 : float
        Where to go to, in the direction of the run.
    steps : int
        Number of equal steps from the run's `final_time` to t1.
    scheme : str or Scheme, optional
        That of the run, which is needed only where it has no short name; it must have the name of the run's.
    field : float, (F,) array or ExternalField, optional
        The external field from here on; by default that of the run, if it was kept.
    args : float, array or named tuple, optional
        The parameters from here on; by default those of the run.
    boundary, jumps, reset
        Those of the run, which are needed again.
    stop : callable, optional
        As for `solve`.
    save_at, save, threads, checkpoint, checkpoint_every, progress
        As for `solve`.
    communicator : mpi4py.MPI.Comm, optional
        As for `solve`; of a run whose particles are spread over ranks by default these, and no others.

    Returns
    -------
    Solution
        As of `solve`, with the records from the run's `final_time` on.

    Raises
    ------
    TypeError, ValueError
        If the run is not one of `solve`, diverged or is of another equation or scheme, t1 is not ahead of its end, or
        as `solve`.
    RuntimeError, MemoryError
        As `solve`.

    Warns
    -----
    RuntimeWarning
        As `solve`.

    References
    ----------
    As for `solve`.

    Examples
    --------
    >>> from numba import njit
    >>> import numpy as np, solvers
    >>> spread = njit(lambda t, x, m: 1.0)
    >>> equation = solvers.McKeanVlasov(diffusion=spread, noise="additive")
    >>> half = solvers.solve(equation, np.zeros(1000), 0.0, 1.0, 100)
    >>> whole = solvers.solve(equation, np.zeros(1000), 0.0, 2.0, 200)
    >>> on = solvers.resume(equation, half, 2.0, 100)
    >>> bool(np.all(on.final_particles == whole.final_particles))
    True
    """
    stored = _checked(equation, run)
    scheme = _scheme(stored["scheme"], scheme)
    events = Events.checked(boundary, jumps, reset, stop)
    _require_events(stored, events)
    progress, kept = checks.flag("progress", progress), Checkpoint(checkpoint, checkpoint_every)
    steps = checks.positive_integer("steps", steps)
    done, total = stored["last_step"], stored["steps"]
    refinement, dt = stored["noise_steps"] // total, (stored["t1"] - stored["t0"]) / total
    here, last = float(run.final_time), checks.finite_number("t1", t1)
    if (last - here) * dt <= 0:
        raise ValueError(f"t1 must lie beyond the end of the run at t = {here:g} in its direction, got {last:g}")
    ratio = (last - here) / steps / dt * refinement  # of a step to the finest one of the run
    grid = {"t0": here, "t1": last, "steps": steps, "seed": run.seed, "noise_steps": None}
    first, notes = 0, []
    if abs(ratio - refinement) <= _ROUNDING * refinement:
        first = done
        grid |= {"t0": stored["t0"], "steps": done + steps, "noise_steps": refinement * (done + steps)}
    elif round(ratio) >= 1 and abs(ratio - round(ratio)) <= _ROUNDING * ratio:
        grid["noise_steps"] = round(ratio) * steps
    else:
        notes = [
            f"steps of {abs(last - here) / steps:g} are not made of those of the run, {abs(dt) / refinement:g}: "
            f"from t = {here:g} on the noise is new"
        ]
    field = kept_field(run) if field is None else field
    args = kept_args(run) if args is None else args
    end = run.variables["final_particles"]
    if end.spread is not None:
        communicator = end.spread.communicator if communicator is None else communicator
        if communicator != end.spread.communicator:
            raise ValueError("communicator must be that of the run, whose ranks hold its particles; leave it out")
    made = MeanFieldRun.checked(
        equation, run, grid, scheme, None, field, threads, communicator, first, stored["initial_size"], args, events,
        stored.get("dtype", "float64"),
    )  # fmt: skip
    found = made.solution(save, save_at, progress, kept)
    found.notes[:0] = notes
    return found


def _checked(equation: McKeanVlasov, run: Solution) -> dict[str, Any]:
    """Return the settings of a run that can go on; raises TypeError or ValueError."""
    if not isinstance(equation, McKeanVlasov):
        raise TypeError(f"equation must be a solvers.McKeanVlasov, got {type(equation).__name__}")
    if not isinstance(run, Solution):
        raise TypeError(f"run must be a solvers.Solution, got {type(run).__name__}")
    settings = run.settings
    if settings.get("solver") != "solve" or "last_step" not in settings:
        raise ValueError("run must be a solution of solvers.solve that says where it ended")
    if run.status == "diverged":
        raise ValueError("run diverged, so there is nothing to go on from; solve again with more steps")
    if settings["noise"] != equation.noise or {name for name in ARGUMENTS if name in settings} != set(equation.given):
        raise ValueError("equation must be that of the run, but has other coefficients or another kind of noise")
    found = kinds_of(equation)
    for name in ("moment_kinds", "pairs"):
        if settings.get(name) != found.get(name):
            was, now = (kinds.get(name, "functions alone") for kinds in (settings, found))
            raise ValueError(f"equation must be that of the run, with {was}, got {now}")
    return settings


def _require_events(stored: dict[str, Any], events: Events) -> None:
    """Raise ValueError unless boundary, jumps and resets are those of the run."""
    given = events.settings()
    for name in ("boundary", "jumps", "reset"):
        if stored.get(name) != given.get(name):
            raise ValueError(
                f"{name} must be that of the run, {stored.get(name)}, got {given.get(name)}; "
                + ("pass that one" if name in stored else "leave it out")
            )


def _scheme(name: str, given: str | Scheme | None) -> Scheme:
    """Return the scheme of a run, which is given again where it has no short name; raises TypeError or ValueError."""
    if given is None:
        if not has_short_name(name):
            raise ValueError(f"scheme must be given again, as run was made with one of its own, {name!r}: pass scheme=")
        return get_scheme(name)
    scheme = get_scheme(given)
    if scheme.name != name:
        remedy = "leave it out" if has_short_name(name) else "pass that one"
        raise ValueError(f"scheme must be that of the run, {name!r}, got {scheme.name!r}; {remedy}")
    return scheme
