"""Which devices of torch there are."""

from __future__ import annotations

from typing import Any

import torch

from solvers import checks


def free_memory(device: str) -> float:
    """Return the bytes of a CUDA device that are free, or kept by torch for what comes next."""
    free, _ = torch.cuda.mem_get_info(device)
    return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def out_of_memory(error: BaseException) -> bool:
    """Return whether torch raised an error for lack of memory, of a device or of the process."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "allocate memory" in str(error)


def checked_device(device: Any) -> str:
    """Return the name of a device that particles can live on.

    Raises
    ------
    TypeError
        If it is not a string.
    ValueError
        If there is no such device.
    """
    if not isinstance(device, str):
        raise TypeError(f'device must be a string such as "cuda" or "cpu", got {checks.shown(device)}')
    kind, _, number = device.partition(":")
    wrong = kind not in ("cpu", "cuda") or device.endswith(":") or (kind == "cpu" and number)
    if wrong or (number and not number.isdigit()):
        raise ValueError(f'device must be "cuda", "cuda:NUMBER" or "cpu", got {device!r}')
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= found:
            raise ValueError(f"device {device!r} is not there: torch {torch.__version__} finds {found} CUDA devices")
    return device
