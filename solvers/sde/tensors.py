"""Equations whose coefficients take tensors of torch: on any device, and with derivatives by what they depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from solvers import checks
from solvers.ensemble.brownian import BrownianMotion
from solvers.sde.company import IN_OTHER_COMPANY, NOT_ADDITIVE, WRITTEN_TO
from solvers.sde.equation import McKeanVlasov
from solvers.sde.moments.mean import Mean
from solvers.sde.parameters import as_args
from solvers.sde.places import grid_steps
from solvers.sde.run import DTYPES
from solvers.sde.start import initial_particles

# How many pairs meet at a time.
_PAIRS = 2**22
# Particles that coefficients are tried on, and how far values may differ in other company.
_TRIED, _ALIKE = 64, 1e-5


@dataclass(frozen=True)
class TensorRun:
    """What `solve_tensors` returns.

    Attributes
    ----------
    times : (records,) array
        Times saved.
    particles : (records, N) or (records, N, D) tensor
        Positions at these times.
    final_particles : (N,) or (N, D) tensor
        Where the particles end.
    moments : (records, M) tensor
        m at these times; M is 0 where there are none.
    """

    times: Any
    particles: Any
    final_particles: Any
    moments: Any


def solve_tensors(
    equation: McKeanVlasov,
    x0: Any,
    t0: float,
    t1: float,
    steps: int,
    *,
    args: Any = None,
    field: Any = None,
    seed: int = 0,
    save_at: Any = None,
    particles: int | None = None,
    noise_steps: int | None = None,
    device: str = "cpu",
    dtype: str = "float64",
) -> TensorRun:
    """Solve an equation by Euler–Maruyama with tensors of torch, which keep the graph of what they come from.

    The particles are those of `solve` with the same seed, to rounding. Whatever requires gradients, in `args`, `field`,
    `x0` or the coefficients, has derivatives of the positions by `backward`; these need the memory of all steps.

    Parameters
    ----------
    equation : McKeanVlasov
        A vectorized one with additive or diagonal noise, whose coefficients work on tensors as on arrays, and moments
        that are functions, or several of these in stages. An interaction is a function.
    x0 : (N,) or (N, D) array or tensor, or callable
        The particles at t0, or a sampler as of `solve`.
    t0, t1, steps, seed, particles, noise_steps
        As for `solve`.
    args : tensor, number, array, or a named tuple of these, optional
        What coefficients take as their last argument; tensors and arrays come in the type and on the device of the run.
    field : tensor, number or (F,) array, optional
        The external field of all particles.
    save_at : array of float, optional
        Times of the grid at which positions are kept; by default the last alone.
    device : str
        Of torch, such as "cuda" or "cpu".
    dtype : str
        "float64" or "float32", in which steps are computed too.

    Returns
    -------
    TensorRun
        `times`, (records,), `particles`, (records, N) or (records, N, D), `final_particles` and `moments`.

    Raises
    ------
    ImportError
        If torch is not installed.
    TypeError, ValueError
        If an argument is not valid, the equation has something else than these parts, a coefficient returns no tensor
        of the right shape, or particles are not finite in the end.

    References
    ----------
    As for `solve`.

    Examples
    --------
    >>> import torch, solvers
    >>> rate = torch.tensor(0.5, requires_grad=True)
    >>> equation = solvers.McKeanVlasov(drift=lambda t, x, m, args: -args * x, vectorized=True)
    >>> run = solvers.solve_tensors(equation, torch.ones(4), 0.0, 1.0, 10, args=rate)
    >>> run.final_particles.mean().backward()
    >>> round(rate.grad.item(), 4)
    -0.6302
    """
    torch = _torch()
    _require(equation)
    checks.choice("dtype", dtype, DTYPES)
    place = {"device": _device(torch, device), "dtype": getattr(torch, dtype)}
    motion = BrownianMotion(t0, t1, steps, seed=seed, noise_steps=noise_steps)
    x = _start(torch, x0, particles, motion.seed, place)
    wanted = [motion.steps] if save_at is None else grid_steps(save_at, motion, "tensors")
    walk = _Walk(torch, equation, _args(torch, args, place), _field(torch, field, place), place)
    with torch.no_grad():
        walk.check(float(motion.times[0]), x.detach())
    kept: dict[int, tuple[Any, Any]] = {}
    draws = _Draws(replace(motion, motions=1 if x.ndim == 1 else len(x)), x.shape, place)
    sign = 1.0 if motion.t1 > motion.t0 else -1.0
    for step in range(motion.steps + 1):
        t = float(motion.times[step])
        m = walk.means(t, x)
        if step in wanted:
            kept[step] = x, m
        if step < motion.steps:
            x = walk.stepped(t, sign * motion.dt, x, m, draws.at(step))
    if not bool(torch.isfinite(x).all()):
        raise ValueError("particles are not finite in the end: take more steps or look at the drift")
    times = np.array([float(motion.times[step]) for step in wanted])
    positions = torch.stack([_as_given(kept[step][0]) for step in wanted])
    return TensorRun(times, positions, _as_given(x), torch.stack([torch.atleast_1d(kept[step][1]) for step in wanted]))


class _Walk:
    """Steps of an equation on tensors, (n,) or (D, n)."""

    def __init__(self, torch: Any, equation: McKeanVlasov, args: Any, field: Any, place: dict[str, Any]) -> None:
        self.torch, self.equation, self.args, self.field, self.place = torch, equation, args, field, place
        given = (field is not None, args is not None)
        self.takes = {name: equation.extras(name, *given) for name in equation.functions}
        for number, name in enumerate(("field", "args")):
            if given[number] and not any(taken[number] for taken in self.takes.values()):
                raise TypeError(f"{name} was given, but no coefficient takes it")

    def means(self, t: float, x: Any) -> Any:
        """Return m, whose later parts see those before them."""
        return self._means(t, x, {})

    def _means(self, t: float, x: Any, seen_by: dict[str, Any]) -> Any:
        """Return m; `seen_by` takes what each of the functions of moments sees of it."""
        found = x.new_zeros(0)
        number = True
        for name, (_, arguments) in self.equation.functions.items():
            if not name.startswith("moments"):
                continue
            seen = (found[0] if number and len(found) else found,) if "m" in arguments else ()
            seen_by[name] = seen
            value = self._called(name, t, x, *seen)
            value = value if value.ndim else value.expand(x.shape[-1])
            if value.ndim > 2 or value.shape[-1] not in (1, x.shape[-1]):
                raise ValueError(
                    f"{name} must return ({x.shape[-1]},) or (M, {x.shape[-1]}) numbers, got {tuple(value.shape)}"
                )
            number = value.ndim == 1 and len(found) == 0
            found = self.torch.cat([found, self.torch.atleast_1d(value.mean(dim=-1))])
        return found if not number or not len(found) else found[0]

    def stepped(self, t: float, dt: float, x: Any, m: Any, dw: Any) -> Any:
        """Return the particles after a step."""
        moved = x
        if self.equation.drift is not None:
            moved = moved + dt * self._shaped("drift", self._called("drift", t, x, self._seen(m)), x)
        if self.equation.interaction is not None:
            moved = moved + dt * self._pull(x)
        if self.equation.diffusion is not None:
            moved = moved + self._shaped("diffusion", self._called("diffusion", t, x, self._seen(m)), x) * dw
        return moved

    def _seen(self, m: Any) -> Any:
        """Return m as coefficients see it, 0 where there is none."""
        return m if m.ndim == 0 or len(m) else 0.0

    def _pull(self, x: Any, partners: Any = None) -> Any:
        partners = x if partners is None else partners
        count, total = partners.shape[-1], 0.0
        for low in range(0, count, max(1, _PAIRS // count)):
            others = partners[..., low : low + max(1, _PAIRS // count)]
            value = self._called("interaction", x[..., None], others[..., None, :])
            total = total + self._fitted("interaction", value, (*x.shape, others.shape[-1])).sum(dim=-1)
        return total / count

    def check(self, t: float, x: Any) -> None:
        """Refuse what would make a run wrong without a sign, as `solve` does; tried on some particles, in two parts."""
        torch, count = self.torch, x.shape[-1]
        places = torch.linspace(0, count - 1, max(4, min(count, _TRIED)), device=x.device).long()
        here = x[..., places] + 0.01 * (1.0 + x[..., places].abs()) * _apart(x, len(places))
        seen: dict[str, Any] = {}
        m = self._seen(self._means(t, x, seen))
        cut = len(places) // 3
        for name in self.equation.functions:
            own = seen.get(name, (m,))

            def evaluate(part: Any, name: str = name, own: Any = own) -> Any:
                given = part.clone()
                if name == "interaction":
                    found = self._pull(given, here)
                else:
                    found = self._called(name, t, given, *own)
                    found = self._shaped(name, found, part) if name in ("drift", "diffusion") else found
                if not torch.equal(given, part):
                    raise ValueError(f"{name} writes into its argument x, {WRITTEN_TO}")
                return found.expand(*found.shape[:-1], part.shape[-1]) if found.ndim else found.expand(part.shape[-1])

            whole = evaluate(here)
            pieces = torch.cat([evaluate(here[..., :cut]), evaluate(here[..., cut:])], dim=-1)
            if not torch.allclose(whole, pieces, rtol=_ALIKE, atol=_ALIKE * float(whole.abs().max()), equal_nan=True):
                raise ValueError(f"{name} {IN_OTHER_COMPANY}")
            if name == "diffusion" and self.equation.noise == "additive" and not (whole == whole[..., :1]).all():
                raise ValueError(NOT_ADDITIVE)

    def _called(self, name: str, *given: Any) -> Any:
        """Return what a function gives, as a tensor."""
        torch, takes = self.torch, self.takes[name]
        more = (self.field,) * takes[0] + (self.args,) * takes[1]
        value = checks.called(f"{name} failed", self.equation.functions[name][0], *given, *more)
        if isinstance(value, (tuple, list)):
            rows = [torch.as_tensor(one, **self.place) for one in value]
            value = torch.stack(torch.broadcast_tensors(*rows))
        return checks.called(f"{name} must return numbers", lambda: torch.as_tensor(value, **self.place))

    def _shaped(self, name: str, value: Any, x: Any) -> Any:
        """Return a value for each particle, or for all; raises ValueError if it is of another shape."""
        if x.ndim == 2 and value.shape == x.shape[:1]:
            value = value[:, None]
        return self._fitted(name, value, tuple(x.shape))

    def _fitted(self, name: str, value: Any, shape: tuple[int, ...]) -> Any:
        """Return a value in this shape; raises ValueError if it does not fit."""
        try:
            return self.torch.broadcast_to(value, shape)
        except RuntimeError:
            raise ValueError(f"{name} must return {shape} numbers, got {tuple(value.shape)}") from None


def _apart(x: Any, count: int) -> Any:
    """Return numbers that differ, as tensors like x."""
    torch = _torch()
    return torch.rand(count, generator=torch.Generator().manual_seed(0)).to(x)


class _Draws:
    """Increments of the Brownian motions of a grid."""

    def __init__(self, motion: BrownianMotion, shape: Any, place: dict[str, Any]) -> None:
        self.motion, self.shape, self.place = motion, shape, place

    def at(self, step: int) -> Any:
        """Return the increments of a step, (n,) or (D, n)."""
        import torch

        from solvers.ensemble.device.noise import fill_normals

        motion = self.motion
        layer = step if motion.t1 > motion.t0 else motion.steps - 1 - step
        out = torch.empty((motion.motions, self.shape[-1]), **self.place)
        fill_normals(out, motion.noise.draw(motion.address, layer))
        return out.mul_(math.sqrt(motion.dt)).reshape(self.shape)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ImportError("solve_tensors needs torch, which is not installed: pip install 'flds[nn]'") from None
    return torch


def _require(equation: Any) -> None:
    """Raise TypeError or ValueError unless an equation has the parts that tensors go with."""
    if not isinstance(equation, McKeanVlasov):
        raise TypeError(f"equation must be a solvers.McKeanVlasov, got {type(equation).__name__}")
    if not equation.vectorized:
        raise ValueError("tensors need an equation with vectorized=True, whose coefficients take arrays of particles")
    if equation.noise not in ("additive", "diagonal"):
        raise ValueError(f'tensors need noise="additive" or "diagonal", got {equation.noise!r}')
    if equation.common is not None:
        raise ValueError("tensors have no common noise: leave common out, or use solve")
    if equation.pairs is not None:
        raise ValueError("tensors have no Pairs: give interaction as a function, or use solve")
    for moment in equation.later_moments:
        if not isinstance(moment, Mean):
            raise ValueError(f"tensors have no {type(moment).__name__}: give moments as functions, or use solve")


def _device(torch: Any, device: Any) -> Any:
    from solvers.ensemble.device.devices import checked_device

    return torch.device(checked_device(device))


def _start(torch: Any, x0: Any, particles: int | None, seed: int, place: dict[str, Any]) -> Any:
    """Return the particles at t0, (n,) or (D, n)."""
    if torch.is_tensor(x0):
        if x0.ndim not in (1, 2) or not x0.numel():
            raise ValueError(f"x0 must have shape (N,) for numbers or (N, D) for vectors, got {tuple(x0.shape)}")
        if particles is not None and particles != len(x0):
            raise ValueError(f"x0 holds {len(x0)} particles, but particles={particles}; leave it out")
        x = x0.to(**place)
    else:
        x = torch.as_tensor(initial_particles(x0, particles, seed), **place)
    return x if x.ndim == 1 else x.T


def _as_given(x: Any) -> Any:
    return x if x.ndim == 1 else x.T


def _args(torch: Any, args: Any, place: dict[str, Any]) -> Any:
    """Return parameters as tensors of one type, and numbers as `solve` takes them."""
    if args is None:
        return None
    if torch.is_tensor(args):
        return args.to(**place)
    if isinstance(args, tuple) and hasattr(args, "_fields") and any(torch.is_tensor(one) for one in args):
        return type(args)(*(_args(torch, one, place) for one in args))
    found = as_args(args)
    if isinstance(found, tuple):
        return type(found)(*(torch.as_tensor(one, **place) for one in found))
    return torch.as_tensor(found, **place) if isinstance(found, np.ndarray) else found


def _field(torch: Any, field: Any, place: dict[str, Any]) -> Any:
    if field is None:
        return None
    if torch.is_tensor(field):
        return field.to(**place)
    values = np.asarray(checks.finite("field", field), np.float64)
    if values.ndim > 1:
        raise ValueError(f"field must be a number or (F,), the same for all particles, got shape {values.shape}")
    return torch.as_tensor(values, **place)
