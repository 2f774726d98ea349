"""Files of results: written whole or not at all, sealed by a checksum, and read only if it fits.

A dataset is made in memory and written as plain bytes, because the HDF5 library may end the process when a disk is
full, and may never come back from a damaged file. What takes much memory, the state of a network, lies beside it in a
file of plain arrays.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.memory import available_memory

if TYPE_CHECKING:
    import xarray

# What the name of a file of arrays ends with, beside its results file.
STATE = ".state"
# The end of a sealed file: this, 64 digits and a line feed. HDF5 does not read beyond its own data.
_SEAL = b"\nflds sha256 "
_SEAL_BYTES = len(_SEAL) + 64 + 1
# Bytes read or written at a time.
_PIECE = 2**24
# A dataset of more than this part of the free memory is written through HDF5 after all, to a disk with room for it.
_SHARE, _ROOM = 0.4, 1.1
# Seconds that the header of a file without a seal may take to read.
_PATIENCE = 10.0
_MAGIC = b"flds arrays 1\n"
_ALIGNMENT = 64


class Variable(NamedTuple):
    """One array of a solution, with named dimensions."""

    dims: tuple[str, ...]
    values: NDArray[Any]
    long_name: str
    units: str = "1"


Groups = Mapping[str, Mapping[str, Variable]]


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
        os.chmod(name, 0o666 & ~_umask())
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
        _write(temporary, lambda put: put(text.encode()), sealed=False)


def write_dataset(target: Path, dataset: xarray.Dataset) -> None:
    """Write a dataset as sealed NetCDF4, whole or not at all.

    Raises
    ------
    OSError
        If it cannot be written; what stood there before is kept.
    """
    with replacing(target) as temporary:
        _write_netcdf(temporary, dataset)


def write_with_arrays(target: Path, groups: Groups, dataset: Callable[[dict[str, str]], xarray.Dataset]) -> None:
    """Write groups of arrays as `target`.state and then the dataset made of their name and checksum.

    Whenever the process is killed, the result that is there, new or old, finds its own arrays: those of a new one are
    found under their temporary name until they have their own.
    """
    target = target.resolve()
    beside = target.with_name(f"{target.name}{STATE}")
    with replacing(beside) as arrays:
        checksum = _write(arrays, lambda put: _put_arrays(put, groups))
        with replacing(target) as temporary:
            _write_netcdf(temporary, dataset({"file": beside.name, "sha256": checksum}))


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

    if _seal_of(path) is None:
        _probe(path)
    else:
        _check_seal(path)
    with xarray.open_dataset(path, engine="h5netcdf", phony_dims="sort") as stored:
        return stored.load()


def names_schema(path: Path) -> bool:
    """Whether a file is one of results, sealed or, as older ones, only named so, whatever its contents."""
    import h5py

    try:
        if _seal_of(path) is not None:
            return True
        _probe(path)
        with h5py.File(path, "r") as file:
            return "schema" in file.attrs
    except (OSError, ValueError):
        return False


def find_arrays(result: Path, reference: Mapping[str, str]) -> Path | None:
    """Return the file of arrays that a result refers to by name and checksum, or None."""
    result = result.resolve()
    names = dict.fromkeys([f"{result.name}{STATE}", reference["file"]])
    places = [result.with_name(name) for name in names]
    places += sorted(result.parent.glob(f".{_escaped(result.name)}{STATE}.*.part"))
    return next((place for place in places if place.is_file() and _seal_of(place) == reference["sha256"]), None)


def read_arrays(path: Path) -> dict[str, dict[str, Variable]]:
    """Return the groups of arrays that `write_with_arrays` wrote.

    Raises
    ------
    ValueError
        If the file does not fit its seal, or is not such a file.
    """
    _check_seal(path)
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is not a file of arrays that this version reads")
        file.seek(-_SEAL_BYTES - 8, os.SEEK_END)
        end = file.tell()
        size = int.from_bytes(file.read(8), "little")
        file.seek(end - size)
        index = json.loads(file.read(size))
        groups: dict[str, dict[str, Variable]] = {}
        for group, name, dims, dtype, shape, offset, long_name, units in index:
            file.seek(offset)
            count = int(np.prod(shape, dtype=np.int64))
            values = np.fromfile(file, np.dtype(dtype), count).reshape(shape)
            groups.setdefault(group, {})[name] = Variable(tuple(dims), values, long_name, units)
    return groups


def reference_in(result: Path) -> dict[str, str]:
    """Return the name and checksum of the arrays that the result in this file refers to, or nothing."""
    import xarray

    try:
        if not Path(f"{result.resolve()}{STATE}").is_file() or _seal_of(result) is None:
            return {}
        _check_seal(result)
        with xarray.open_dataset(result, engine="h5netcdf", phony_dims="sort") as stored:
            return dict(json.loads(stored.attrs.get("state", "{}")))
    except (OSError, ValueError, TypeError):  # there is no result, or none that can be read
        return {}


def remove_arrays(result: Path, reference: Mapping[str, str]) -> None:
    """Remove the arrays beside a result if they are those that an earlier one of this name referred to."""
    beside = Path(f"{result.resolve()}{STATE}")
    if beside.is_file() and _seal_of(beside) == reference.get("sha256", ""):
        beside.unlink()


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


def _put_arrays(put: Callable[[Any], None], groups: Groups) -> None:
    """Put arrays one after the other, then their index and its length."""
    place, index = len(_MAGIC), []
    put(_MAGIC)
    for group, variables in groups.items():
        for name, item in variables.items():
            values = np.ascontiguousarray(item.values)
            if values.dtype.hasobject:
                raise TypeError(f"{name} must be an array of numbers, got dtype {values.dtype}")
            gap = -place % _ALIGNMENT
            put(b"\0" * gap)
            offset = place + gap
            put(values.reshape(-1).view(np.uint8))
            place = offset + values.nbytes
            index.append((group, name, item.dims, values.dtype.str, item.values.shape, offset, *item[2:]))
    text = json.dumps(index).encode()
    put(text)
    put(len(text).to_bytes(8, "little"))


def _write_netcdf(path: Path, dataset: xarray.Dataset) -> None:
    if dataset.nbytes <= _SHARE * available_memory():
        data = _netcdf(dataset)
        _write(path, lambda put: put(data))
        return
    needed, free = _ROOM * dataset.nbytes, shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(f"{str(path.parent)!r} has {free / 1e9:.3g} GB left, and {needed / 1e9:.3g} GB are needed")
    dataset.to_netcdf(path, engine="h5netcdf")
    checksum = _digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_SEAL + checksum.encode() + b"\n")


def _netcdf(dataset: xarray.Dataset) -> memoryview:
    """Return a dataset as the bytes of a NetCDF4 file."""
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        dataset.dump_to_store(H5NetCDFStore(file))
    return buffer.getbuffer()


def _write(path: Path, fill: Callable[[Callable[[Any], None]], None], sealed: bool = True) -> str:
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
            file.write(_SEAL + checksum.hexdigest().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return checksum.hexdigest()


def _seal_of(path: Path) -> str | None:
    """Return the checksum in the seal of a file, or None if it has none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < _SEAL_BYTES:
            return None
        file.seek(size - _SEAL_BYTES)
        end = file.read()
    return end[len(_SEAL) : -1].decode("ascii", "replace") if end.startswith(_SEAL) and end.endswith(b"\n") else None


def _check_seal(path: Path) -> None:
    """Raise ValueError unless the contents of a sealed file are those that were written."""
    if _digest(path, path.stat().st_size - _SEAL_BYTES) != _seal_of(path):
        raise ValueError("its checksum does not fit its contents, so it was damaged after it was written")


def _digest(path: Path, size: int) -> str:
    checksum, left = hashlib.sha256(), size
    with path.open("rb") as file:
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


def _escaped(name: str) -> str:
    """Return a name with the signs that have a meaning in patterns in brackets."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
