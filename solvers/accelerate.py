"""The one place where compilation options are set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba
from numba.core import event

from solvers.identity import identity
from solvers.kernel_cache import keep_on_disk

F = TypeVar("F", bound=Callable[..., Any])


_EXACT = frozenset({"contract"})
_REORDERED = frozenset({"nsz", "arcp", "contract", "reassoc"})
# Without what Python and C would call them by, which takes time to compile.
_CALLED_FROM_KERNELS = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class CompilerTime(event.TimingListener):
    """Counts the time that is spent on compiling; loading what lies on disk is not of it."""

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return float(self.duration) if self.done else 0.0


@contextmanager
def compiler_time() -> Iterator[CompilerTime]:
    """Count what is compiled within, by any thread of this process."""
    with event.install_listener("numba:compile", CompilerTime()) as listener:  # type: ignore[no-untyped-call]
        yield listener


def kernel(function: F) -> F:
    """Compile a serial kernel for a stretch of particles that releases the GIL; threads run several at once.

    Kernels are cached on disk under the time stamp of their own file, so a kernel calls only kernels
    defined in the same file.
    """
    return _kept(function, _EXACT)


def reduction_kernel(function: F) -> F:
    """Like `kernel`, with sums that may be reordered within a call, which lets them vectorise.

    The flags that assume finite numbers stay out: they would turn tests for NaN into constants.
    """
    return _kept(function, _REORDERED)


def composed_kernel(function: F, fastmath: frozenset[str] = _EXACT) -> F:
    """Like `kernel`, for a function made of others, whose code stays on disk if all that it depends on can be told."""
    key = identity(function)
    return _compiled(function, fastmath) if key is None else _kept(function, fastmath, key)


def part_kernel(function: F) -> F:
    """Like `kernel`, for a part of kernels in the same file, which only they can call.

    It must not raise, nor allocate memory, which may fail: only kernels can say so to Python.
    """
    return _compiled(function, _EXACT, **_CALLED_FROM_KERNELS)


def reduction_part(function: F) -> F:
    """Like `part_kernel`, with sums that may be reordered."""
    return _compiled(function, _REORDERED, **_CALLED_FROM_KERNELS)


def inlined_kernel(function: F) -> F:
    """Like `kernel`, for a function that others are made of, which is compiled with each of them."""
    return _compiled(function, _EXACT, forceinline=True)


def merged_kernel(function: F) -> F:
    """Like `inlined_kernel`, before types are inferred, so that tuples of any length and flags may be arguments."""
    return _compiled(function, _EXACT, inline="always", **_CALLED_FROM_KERNELS)


def _kept(function: F, fastmath: frozenset[str], key: str | None = None) -> F:
    compiled = _compiled(function, fastmath)
    keep_on_disk(compiled, function, key)
    return compiled


def _compiled(function: F, fastmath: frozenset[str], **options: Any) -> F:
    return cast(F, numba.njit(nogil=True, fastmath=set(fastmath), error_model="numpy", **options)(function))
