"""The N coordinates, wherever they live: arrays, noise and sums over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.ensemble.particles import Particles as Particles
    from solvers.ensemble.threads import ThreadParticles as ThreadParticles

__all__ = ["Particles", "ThreadParticles"]


def __getattr__(name: str) -> Any:
    # modules of this room that need no Numba stay fast to import
    if name == "Particles":
        from solvers.ensemble.particles import Particles

        return Particles
    if name == "ThreadParticles":
        from solvers.ensemble.threads import ThreadParticles

        return ThreadParticles
    raise AttributeError(f"module 'solvers.ensemble' has no attribute {name!r}; it has {', '.join(__all__)}")
