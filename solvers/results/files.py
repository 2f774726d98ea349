"""Files of results: written whole or not at all, sealed by a checksum, and read only if it fits.

A dataset is made in memory and written as plain bytes, because the HDF5 library may end the process when a disk is
full, and may never come back from a damaged file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.memory import available_memory
from solvers.ranks import Spread

if TYPE_CHECKING:
    import xarray

# The end of a sealed file: this, 64 digits and a line feed. HDF5 does not read beyond its own data.
SEAL = b"\nflds sha256 "
SEAL_BYTES = len(SEAL) + 64 + 1
# Bytes read or written at a time.
_PIECE = 2**24
# A dataset of more than this part of the free memory is written through HDF5 after all, to a disk with room for it.
_SHARE, _ROOM = 0.4, 1.1
# Seconds that the header of a file without a seal may take to read.
_PATIENCE = 10.0


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


# It is the whole process's, and reading it means to change it.
_UMASK = _umask()


class Variable(NamedTuple):
    """One array of a solution, with named dimensions; where it is spread over ranks, what this one holds of it."""

    dims: tuple[str, ...]
    values: NDArray[Any]
    long_name: str
    units: str = "1"
    spread: Spread | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array, of all ranks."""
        return self.values.shape if self.spread is None else self.spread.shape(self.values.shape)

    def turned(self) -> Variable:
        """Return the variable with its first two dimensions in the other order."""
        first, second, *rest = self.dims
        return self._replace(dims=(second, first, *rest), values=np.swapaxes(self.values, 0, 1))

    @staticmethod
    def of_json(value: Any, long_name: str) -> Variable:
        """Return an array of the bytes of a value as JSON."""
        return Variable(("byte",), np.frombuffer(json.dumps(value).encode(), np.uint8), long_name)

    def json(self) -> Any:
        """Return the value that `of_json` was given."""
        return json.loads(self.values.tobytes())


State = dict[str, Variable]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Name a file to write, beside the target, which it replaces once it is whole.

    A target that is a link stays one. The name holds the number of this process, so that what a killed one left can be
    told from what is being written.
    """
    target = target.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.{os.getpid()}.", suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_UMASK)
        os.replace(name, target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # as h5py raises where the disk is full
            raise OSError(f"{str(target)!r} could not be written: {error}") from None
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:  # as of a full disk
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise


def write_text(target: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(target) as temporary:
        write(temporary, lambda put: put(text.encode()), sealed=False)


def write_dataset(target: Path, dataset: xarray.Dataset) -> None:
    """Write a dataset as sealed NetCDF4, whole or not at all.

    Raises
    ------
    OSError
        If it cannot be written; what stood there before is kept.
    """
    with replacing(target) as temporary:
        _write_netcdf(temporary, dataset)


def read_dataset(path: Path) -> xarray.Dataset:
    """Return the dataset in a NetCDF4 file, in memory.

    Raises
    ------
    ValueError
        If the file does not fit its seal, or, without one, is not readable.
    OSError
        If it cannot be read.
    """
    import xarray

    if seal_of(path) is None:
        _probe(path)
    else:
        check_seal(path)
    with xarray.open_dataset(path, engine="h5netcdf", phony_dims="sort") as stored:
        return stored.load()


def read_dataset_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of the dataset in a sealed file; raises as `read_dataset`."""
    import xarray

    check_seal(path)
    with xarray.open_dataset(path, engine="h5netcdf", phony_dims="sort") as stored:
        return dict(stored.attrs)


def names_schema(path: Path) -> bool:
    """Whether a file is one of results, sealed or, as older ones, only named so, whatever its contents."""
    import h5py

    try:
        if seal_of(path) is not None:
            return True
        _probe(path)
        with h5py.File(path, "r") as file:
            return "schema" in file.attrs
    except (OSError, ValueError):
        return False


def holds_inner_groups(path: Path, prefix: str) -> bool:
    """Whether a NetCDF4 file has groups whose names begin so."""
    return bool(_inner_groups(path, prefix))


def read_inner_groups(path: Path, prefix: str) -> dict[str, xarray.Dataset]:
    """Return the groups of a NetCDF4 file whose names begin so."""
    import xarray

    names = _inner_groups(path, prefix)
    return {name: xarray.load_dataset(path, engine="h5netcdf", group=name) for name in names}


def _inner_groups(path: Path, prefix: str) -> list[str]:
    import h5py

    with h5py.File(path, "r") as file:
        return [name for name, item in file.items() if isinstance(item, h5py.Group) and name.startswith(prefix)]


def _write_netcdf(path: Path, dataset: xarray.Dataset) -> None:
    if dataset.nbytes <= _SHARE * available_memory():
        data = _netcdf(dataset)
        write(path, lambda put: put(data))
        return
    needed, free = _ROOM * dataset.nbytes, shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(f"{str(path.parent)!r} has {free / 1e9:.3g} GB left, and {needed / 1e9:.3g} GB are needed")
    dataset.to_netcdf(path, engine="h5netcdf")
    seal(path)


def _netcdf(dataset: xarray.Dataset) -> memoryview:
    """Return a dataset as the bytes of a NetCDF4 file."""
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        dataset.dump_to_store(H5NetCDFStore(file))
    return buffer.getbuffer()


def write(path: Path, fill: Callable[[Callable[[Any], None]], None], sealed: bool = True) -> str:
    """Write what `fill` puts, piece by piece, and a seal; return the checksum."""
    checksum = hashlib.sha256()

    def put(data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            checksum.update(piece)
            file.write(piece)

    with path.open("wb") as file:
        fill(put)
        if sealed:
            file.write(SEAL + checksum.hexdigest().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return checksum.hexdigest()


def put(file: Any, data: Any) -> None:
    """Write all of some bytes to a file without a buffer."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def seal(path: Path) -> str:
    """Append a seal to a file; return the checksum of what stood there."""
    checksum = digest_of(path, 0, path.stat().st_size)
    with path.open("ab") as file:
        file.write(SEAL + checksum.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return checksum


def seal_of(path: Path) -> str | None:
    """Return the checksum in the seal of a file, or None if it has none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < SEAL_BYTES:
            return None
        file.seek(size - SEAL_BYTES)
        end = file.read()
    return end[len(SEAL) : -1].decode("ascii", "replace") if end.startswith(SEAL) and end.endswith(b"\n") else None


def check_seal(path: Path) -> None:
    """Raise ValueError unless the contents of a sealed file are those that were written."""
    if digest_of(path, 0, path.stat().st_size - SEAL_BYTES) != seal_of(path):
        raise ValueError("its checksum does not fit its contents, so it was damaged after it was written")


def digest_of(path: Path, start: int, end: int) -> str:
    """Return the checksum of the bytes of a file from one place to another."""
    checksum, left = hashlib.sha256(), end - start
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (piece := file.read(min(_PIECE, left))):
            checksum.update(piece)
            left -= len(piece)
    return checksum.hexdigest()


def _probe(path: Path) -> None:
    """Let another process read the header of a file without a seal: HDF5 may crash on a damaged one, or never end."""
    command = [sys.executable, "-c", _PROBE, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError("its header cannot be read, so it is damaged") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(lines[-1] if lines else "its header cannot be read, so it is damaged")


_PROBE = """
import sys, h5py
try:
    with h5py.File(sys.argv[1], "r") as file:
        dict(file.attrs)
        file.visititems(lambda name, item: dict(item.attrs) and None)
except Exception as error:
    sys.exit(str(error).splitlines()[0] if str(error) else type(error).__name__)
"""
