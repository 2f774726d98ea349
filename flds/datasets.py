"""Data to train on: handwritten digits, CIFAR-10 from a local folder, and arrays in an npz file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DIGITS_TRAINING = 1_400
_CIFAR_RECORD = 1 + 3 * 32 * 32


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test samples.

    Attributes
    ----------
    name : str
        Where the data come from.
    inputs, test_inputs : (samples, d) array
        Rows, in float64 where they were scaled; `test_inputs` is None where there is no test set.
    targets, test_targets : (samples,) or (samples, outputs) array
        Class indices or numbers.
    classes : int or None
        Number of classes, where the targets are class indices.
    """

    name: str
    inputs: Array
    targets: NDArray[np.generic]
    test_inputs: Array | None = None
    test_targets: NDArray[np.generic] | None = None
    classes: int | None = None


def load_digits() -> Dataset:
    """Return 8×8 handwritten digits, split by class into training and test samples.

    Pixels are centred on the training mean and each row is scaled to |x|²/d = 1.

    Returns
    -------
    Dataset
        Inputs (1400, 64) and test inputs (397, 64) in float64, and their digits as targets.

    References
    ----------
    E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    pixels, labels = load(return_X_y=True)
    x, test_x, y, test_y = train_test_split(pixels, labels, train_size=DIGITS_TRAINING, stratify=labels, random_state=0)
    return Dataset("digits", *standardise(x, y, test_x, test_y), classes=10)


def load_cifar10(folder: str | os.PathLike[str]) -> Dataset:
    """Return CIFAR-10 from the files of its binary version.

    Pixels are centred on the training mean and each row is scaled to |x|²/d = 1.

    Parameters
    ----------
    folder : path
        Where `data_batch_*.bin` and `test_batch.bin` are, or the folder cifar-10-batches-bin that has them.

    Returns
    -------
    Dataset
        Inputs (samples, 3072) and test inputs (10000, 3072) in float64, and their classes, 0 to 9, as targets.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    ValueError
        If a file is truncated or holds a label above 9.

    References
    ----------
    A. Krizhevsky, "Learning multiple layers of features from tiny images", University of Toronto, 2009.
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"there is no folder {str(place)!r}")
    if (place / "cifar-10-batches-bin").is_dir():
        place = place / "cifar-10-batches-bin"
    batches = sorted(place.glob("data_batch_*.bin"))
    if not batches:
        raise FileNotFoundError(
            f"there is no data_batch_*.bin in {str(place)!r}; CIFAR-10 is read from its binary version"
        )
    parts = [_read_cifar(path) for path in batches]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    test_x, test_y = _read_cifar(place / "test_batch.bin")
    return Dataset("cifar10", *standardise(x, y, test_x, test_y), classes=10)


def _read_cifar(path: Path) -> tuple[Array, NDArray[np.int64]]:
    """Read records of one label byte and 3,072 pixel bytes."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    data = np.fromfile(path, np.uint8)
    if data.size == 0 or data.size % _CIFAR_RECORD:
        raise ValueError(
            f"{str(path)!r} must hold whole records of {_CIFAR_RECORD} bytes, got {data.size} bytes; "
            "it is truncated or not CIFAR-10's binary version"
        )
    records = data.reshape(-1, _CIFAR_RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise ValueError(f"{str(path)!r} must hold labels from 0 to 9, got {labels.max()}")
    return records[:, 1:].astype(np.float64), labels


def load_npz(path: str | os.PathLike[str]) -> Dataset:
    """Return the data in an npz file.

    Parameters
    ----------
    path : path
        A file with the arrays `inputs`, `targets` and, optionally, `test_inputs`, `test_targets`.

    Returns
    -------
    Dataset
        These arrays as they are; one axis of whole numbers from 0 on is taken as classes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a readable npz file, lacks `inputs` or `targets`, or holds a single value instead of an array.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy each have errors of their own for damaged files
        raise ValueError(f"{str(path)!r} is not a readable npz file: {error}") from None
    missing = [name for name in ("inputs", "targets") if name not in arrays]
    if missing:
        raise ValueError(f"{str(path)!r} must hold the arrays inputs and targets, got {', '.join(arrays) or 'none'}")
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(f"{str(path)!r} must hold arrays with one row a sample, but {name} is a single value")
    targets = arrays["targets"]
    whole = targets.ndim == 1 and targets.dtype.kind in "iu" and targets.size > 0 and targets.min() >= 0
    return Dataset(
        Path(path).name, arrays["inputs"], targets, arrays.get("test_inputs"), arrays.get("test_targets"),
        classes=int(targets.max()) + 1 if whole else None,
    )  # fmt: skip


def standardise(
    x: Array, y: NDArray[np.generic], test_x: Array, test_y: NDArray[np.generic]
) -> tuple[Array, NDArray[np.generic], Array, NDArray[np.generic]]:
    """Centre on the training mean and scale each row to |x|²/d = 1; a row of zeros stays zero."""
    mean = x.mean(axis=0)

    def scaled(rows: Array) -> Array:
        centred = rows - mean
        norms = np.sqrt((centred**2).mean(axis=1, keepdims=True))
        return np.asarray(centred / np.where(norms > 0, norms, 1.0))

    return scaled(x), y, scaled(test_x), test_y
