"""BLAS on one thread for each of ours, while any solve runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import threadpoolctl
from threadpoolctl import ThreadpoolController


class _SingleThreadedBlas:
    """Limits BLAS to one thread while any solve runs; the last one to end restores what was there before."""

    def __init__(self) -> None:
        self.lock, self.running = threading.Lock(), 0
        self.controller: ThreadpoolController | None = None
        self.restore: Callable[[], None] = lambda: None

    def __enter__(self) -> None:
        with self.lock:
            if self.running == 0:
                self.controller = self.controller or _found()
                _release_blas()
                self.restore = self.controller.limit(limits=1, user_api="blas").restore_original_limits
            self.running += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.running -= 1
            if self.running == 0:
                _release_blas()
                self.restore()


def _found() -> ThreadpoolController:
    """Find NumPy's BLAS and SciPy's, which has to be loaded by then; it takes a while."""
    import scipy.linalg.blas  # noqa: F401

    return ThreadpoolController()


def _release_blas() -> None:
    """Let this thread set the limits, of which recent threadpoolctl heeds only those of the thread that was first.

    The lock and the count of solves keep order among threads here, where the last to end need not be the first.
    """
    release = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)


single_threaded_blas = _SingleThreadedBlas()
