"""What a run will need: rank, memory and time, estimated before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flds.training.footprint import Footprint, dense_footprint, lazy_footprint
from flds.training.options import Settings
from flds.training.workload import Workload


@dataclass(frozen=True)
class CostEstimate:
    """What `estimate_cost` returns.

    Attributes
    ----------
    operator : str
        "lazy" or "dense", as the run would use it.
    reason : str
        Why.
    rank : (int, int)
        Expected final ranks of the forward and the backward basis in each layer.
    memory : float
        Expected peak memory in bytes.
    seconds : float
        Expected time of the solve on this machine.
    reference_seconds : float
        The same on two threads of fixed speed, whatever this machine is.
    available : float
        Bytes that were available when this was estimated.
    device_memory, device_available : float
        Likewise of the device that the particles live on; 0 and infinity where they live in the memory of the process.
    """

    operator: str
    reason: str
    rank: tuple[int, int]
    memory: float
    seconds: float
    reference_seconds: float
    available: float
    device_memory: float = 0.0
    device_available: float = math.inf

    @property
    def fits(self) -> bool:
        """Whether the memory was available; a run that does not fit is refused before it starts."""
        return self.memory <= self.available and self.device_memory <= self.device_available

    @staticmethod
    def of(load: Workload, settings: Settings, reason: str, available: Footprint) -> CostEstimate:
        """Estimate a run of this load and with these settings, whose operator was chosen for this reason."""
        lazy, expected = settings.operator == "lazy", load.expected_rank
        rank = min(expected, settings.rank_budget[0]), min(expected, settings.rank_budget[1])
        memory = lazy_footprint(load, rank) if lazy else dense_footprint(load)
        here, reference = (load.replicates * load.seconds(settings.operator, speed) for speed in load.speeds())
        shown = rank if lazy else (load.particles, load.particles)
        return CostEstimate(
            operator=settings.operator,
            reason=reason,
            rank=shown,
            memory=memory.host,
            seconds=here,
            reference_seconds=reference,
            available=available.host,
            device_memory=memory.device,
            device_available=available.device,
        )

    def __str__(self) -> str:
        rank = f", rank {self.rank[0]}/{self.rank[1]}" if self.operator == "lazy" else ""
        size = _size(self.memory, self.available)
        if self.device_memory:
            size += f", on the device {_size(self.device_memory, self.device_available)}"
        return f"{self.operator} operator{rank}, {size}, about {self.seconds:.2g} s ({self.reason})"


def _size(memory: float, available: float) -> str:
    """Return bytes in words, and that they are more than there are."""
    more = f", more than the {available / 1e9:.2g} GB available" if memory > available else ""
    return f"{memory / 1e9:.2g} GB{more}"
