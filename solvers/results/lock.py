"""A lock on work that two processes must not do at once, held until the end of the process at the latest."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path


def lock_of(path: Path) -> Path:
    """Return the file that is held for the work that a file is of."""
    return path.with_name(f".{path.name}.lock")


class Lock:
    """Hold a file against other processes; one that comes second is refused and does not wait.

    Parameters
    ----------
    path : path
        The file, which is made if needed.
    busy, other : str
        What to say if another process holds it, and of what another is to be chosen.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    OSError
        If the file cannot be made.
    """

    def __init__(self, path: Path, busy: str, other: str) -> None:
        self.path, self._file = path, -1
        if sys.platform == "win32":
            return
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            owner = _hold(self._file)
            if owner:
                os.close(self._file)
                raise BlockingIOError(f"{busy}, {owner}; wait for its end, or choose another {other}")
            with suppress(OSError):
                if os.path.samestat(os.fstat(self._file), os.stat(path)):
                    return
            os.close(self._file)  # of one who has removed it just now

    def release(self, remove: bool = False) -> None:
        """Let others have it; or remove the file as well."""
        if self._file < 0:
            return
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1


def _hold(lock: int) -> str:
    """Hold a lock, and return nothing, or say which process holds it."""
    import fcntl

    with suppress(OSError):  # some network file systems have no locks, and a disk may be full
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _owner(lock)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
    return ""


def _owner(lock: int) -> str:
    """Say which process holds a lock, as far as it has said so."""
    try:
        number, _, host = os.pread(lock, 300, 0).decode(errors="replace").partition(" ")
    except OSError:
        number = host = ""
    return f"process {number or 'unknown'}" + (f" on {host}" if host and host != socket.gethostname() else "")
