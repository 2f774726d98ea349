"""Where particles live: in this process, over the ranks of a communicator, or on a device of torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from solvers import checks
from solvers.ensemble.threads import ThreadParticles

if TYPE_CHECKING:
    from solvers.ensemble.particles import Particles


def home(particles: int, threads: int, communicator: Any = None) -> ThreadParticles:
    """Return the home of so many particles: the ranks of a communicator, or without one this process.

    Raises
    ------
    ValueError
        If there are more ranks than groups of particles.
    """
    if communicator is None:
        return ThreadParticles(particles, threads)
    from solvers.ensemble.mpi import MPIParticles

    return MPIParticles(particles, threads, communicator)


def home_on(device: str | None, particles: int, threads: int, communicator: Any = None) -> Particles:
    """Return the home of so many particles on a device of torch, or without one as `home` does."""
    if device is None:
        return home(particles, threads, communicator)
    from solvers.ensemble.device.particles import TorchParticles

    return TorchParticles(particles, device, threads)


def check_device(device: Any, communicator: Any = None, threads: Any = None) -> str | None:
    """Return the name of a device that is there, or None where none was asked for.

    Raises
    ------
    TypeError, ValueError
        If it is not the name of a device that is there, torch is missing, or a communicator or threads are given too.
    """
    if device is None:
        return None
    for name, given in (("communicator", communicator), ("threads", threads)):
        if given is not None:
            raise ValueError(f"device and {name} exclude each other: leave out {name}, or device")
    try:
        from solvers.ensemble.device.devices import checked_device
    except ImportError:
        raise ValueError("device needs torch, which is not installed: pip install 'flds[nn]'") from None
    return checked_device(device)


def check_elementwise(device: str, label: str, *functions: Any) -> None:
    """Raise TypeError if functions of numbers, which `label` names, cannot be called on a device."""
    from solvers.ensemble.device.particles import TorchParticles

    particles = TorchParticles(3, device)
    numbers = particles.from_state(np.array([[-1.0, 0.0, 1.5]]))
    for function in functions:
        try:
            particles.map(function, numbers)
        except Exception as error:
            raise TypeError(
                f"{label} has no form on device {device!r}, where it must be made of NumPy's functions, such as "
                f"np.tanh(x) + 1.0: {checks.reason(error)}"
            ) from None


def has_memory(device: str | None) -> bool:
    """Return whether a device, if there is one, holds particles in its own memory, and not in that of the process."""
    return device not in (None, "cpu")


def memory_of_device(device: str | None) -> float:
    """Return the bytes that a device has left; infinity where particles live in the memory of the process."""
    if device is None or not has_memory(device):
        return math.inf
    from solvers.ensemble.device.devices import free_memory

    return free_memory(device)


def usable_device(device: str | None) -> str | None:
    """Return the name of a device that is there, or None."""
    try:
        return check_device(device)
    except ValueError:
        return None
