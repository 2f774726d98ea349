"""The one place where compilation options are set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

from solvers.kernel_cache import keep_on_disk

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a serial kernel for a stretch of particles that releases the GIL; threads run several at once.

    Kernels are cached on disk under the time stamp of their own file, so a kernel calls only kernels
    defined in the same file.
    """
    return _compiled(function, {"contract"})


def reduction_kernel(function: F) -> F:
    """Like `kernel`, with sums that may be reordered within a call, which lets them vectorise.

    The flags that assume finite numbers stay out: they would turn tests for NaN into constants.
    """
    return _compiled(function, {"nsz", "arcp", "contract", "reassoc"})


def _compiled(function: F, fastmath: set[str]) -> F:
    compiled = numba.njit(nogil=True, fastmath=fastmath, error_model="numpy")(function)
    keep_on_disk(compiled, function)
    return cast(F, compiled)
