"""The one place where compilation options are set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a serial block kernel that releases the GIL; threads run several blocks at once.

    Contraction to fused multiply-adds is the only freedom given: the flags that assume finite numbers
    would turn every test for NaN or overflow into a constant. Kernels are cached on disk under the time
    stamp of their own file, so a kernel calls only functions defined in the same file.
    """
    return cast(F, numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")(function))
