"""Compiled kernels on disk, where there is a place for them; elsewhere they are compiled in memory, run after run.

Numba's own cache raises where no folder can be written, the disk is full or a file is damaged. It also names numbered
files of code in an index that it writes first: two processes at once, or a write that fails, leave there the code of
another signature or of an older source, which is then run without a word. So each signature has a file of its own here,
which replaces the old one once it is whole and is sealed with all that its code belongs to. Nothing is shared, so
processes need not wait for each other.

Numba tells functions of one name, such as those that a function makes, apart by a number in the names of their code,
and counts from 1 in every process. Code of two processes under one name would be taken for the same in a third, so
counting starts at random here.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import secrets
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core import bytecode, caching, serialize

# Without the types that some versions of Numba declare, and others do not.
_FunctionCache: Any = caching.FunctionCache
_dumps: Any = serialize.dumps
_SEAL = hashlib.sha256().digest_size
# Files of code that one function made of others may have, of which the latest stay.
_MOST_FILES = 64


_Identity: Any = bytecode.FunctionIdentity
# Where another version of Numba counts otherwise, functions that are made of others stay in memory.
_COUNTED = hasattr(_Identity, "_unique_ids")


def _count_apart() -> None:
    _Identity._unique_ids = itertools.count(secrets.randbits(62))


if _COUNTED:
    _count_apart()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_count_apart)


def keep_on_disk(compiled: Any, function: Callable[..., Any], identity: str | None = None) -> None:
    """Let a compiled function load its code from disk and keep it there, if there is a place.

    The code belongs to the source of the function's file or, where that is not all, to what `identity` says.
    """
    if identity is not None and not _COUNTED:
        return
    with suppress(RuntimeError, OSError):  # as Numba raises where there is none
        compiled._cache = _KernelCache(function, identity)


class _Homes(_FunctionCache._impl_class):  # type: ignore[misc]
    """Where code may be kept: beside the source or in the user's cache, which without a home would be a folder '~'."""

    _locator_classes = [  # noqa: RUF012
        kind
        for kind in _FunctionCache._impl_class._locator_classes
        if "UserWide" not in kind.__name__ or os.path.isabs(os.path.expanduser(os.getenv("XDG_CACHE_HOME", "~")))
    ]


class _KernelCache(_FunctionCache):  # type: ignore[misc]
    """Numba's cache with other files, for which whatever goes wrong means that the code is not there."""

    _impl_class = _Homes

    def __init__(self, function: Callable[..., Any], identity: str | None) -> None:
        super().__init__(function)
        self._identity = identity
        base = Path(self.cache_path, self._impl.filename_base)
        self._cache_file = _SealedFiles(base, self._impl.locator.get_source_stamp(), _MOST_FILES if identity else None)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        if self._identity is None:
            return super()._index_key(sig, codegen)
        # the processor first, then what stands for the code
        return sig, (codegen.magic_tuple(), self._identity), numba.config.BOUNDSCHECK  # type: ignore[attr-defined]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # unpickling may raise anything
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


class _SealedFiles:
    """A file for each signature and kind of processor, which is rewritten when the source changes."""

    def __init__(self, base: Path, stamp: object, most: int | None = None) -> None:
        self._base, self._stamp, self._most = base, stamp, most

    def load(self, key: tuple[Any, ...]) -> Any:
        path = self._path(key)
        content = path.read_bytes() if path.exists() else b""
        seal, code = content[:_SEAL], content[_SEAL:]
        return pickle.loads(code) if seal == self._seal(key, code) else None

    def save(self, key: tuple[Any, ...], data: Any) -> None:
        code = _dumps(data)
        path = self._path(key)
        part = Path(f"{path}.{uuid.uuid4().hex}")
        try:
            part.write_bytes(self._seal(key, code) + code)
            part.replace(path)
            self._thin_out()
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise

    def flush(self) -> None:
        for path in self._files():
            path.unlink(missing_ok=True)

    def _thin_out(self) -> None:
        """Remove the oldest files beyond the largest number of them."""
        files = [] if self._most is None else self._files()
        if self._most is not None and len(files) > self._most:
            with suppress(OSError):  # another process may do the same
                for path in sorted(files, key=lambda path: path.stat().st_mtime)[: -self._most]:
                    path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return list(self._base.parent.glob(f"{self._base.name}.*.nbk"))

    def _path(self, key: tuple[Any, ...]) -> Path:
        signature, processor = key[:2]
        return Path(f"{self._base}.{hashlib.sha256(repr((signature, processor)).encode()).hexdigest()[:16]}.nbk")

    def _seal(self, key: tuple[Any, ...], code: bytes) -> bytes:
        return hashlib.sha256(repr((numba.__version__, self._stamp, key)).encode() + code).digest()
