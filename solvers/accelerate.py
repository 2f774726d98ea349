"""The one place where compilation options are set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a serial block kernel that releases the GIL; threads run several at once.

    Kernels are cached on disk under the time stamp of their own file, so a kernel calls only kernels
    defined in the same file.
    """
    return cast(F, numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")(function))


def reduction_kernel(function: F) -> F:
    """Like `kernel`, with sums that may be reordered within a block, which lets them vectorise.

    The flags that assume finite numbers stay out: they would turn tests for NaN into constants.
    """
    flags = {"nsz", "arcp", "contract", "reassoc"}
    return cast(F, numba.njit(nogil=True, cache=True, fastmath=flags, error_model="numpy")(function))
