"""Data to train on: handwritten digits, CIFAR-10 from a local folder, and arrays in an npz file."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DIGITS_TRAINING = 1_400
_CIFAR_RECORD = 1 + 3 * 32 * 32
_CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
_ARRAYS = ("inputs", "targets", "test_inputs", "test_targets")


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        shapes = [f"{name} {array.shape}" for name, array in arrays.items() if array is not None]
        classes = [] if self.classes is None else [f"{self.classes} classes"]
        return f"Dataset({', '.join([self.name, *shapes, *classes])})"


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
        Where `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin` are, or that of cifar-10-batches-bin, which
        has them.

    Returns
    -------
    Dataset
        Inputs (samples, 3072) and test inputs (10000, 3072) in float64, and their classes, 0 to 9, as targets.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing; the message names them.
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
    missing = [name for name in _CIFAR_FILES if not (place / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"there is no {', '.join(missing)} in {str(place)!r}; CIFAR-10 is read from all files of its binary version"
        )
    *parts, (test_x, test_y) = [_read_cifar(place / name) for name in _CIFAR_FILES]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Dataset("cifar10", *standardise(x, y, test_x, test_y), classes=10)


def _read_cifar(path: Path) -> tuple[Array, NDArray[np.int64]]:
    """Read records of one label byte and 3,072 pixel bytes."""
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
        A file with the arrays `inputs`, `targets` and, optionally, `test_inputs`, `test_targets`. Others are not read.

    Returns
    -------
    Dataset
        These arrays as they are; one axis of whole numbers from 0 on, of any type, is taken as classes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a readable npz file, lacks `inputs` or `targets`, or holds a single value instead of an array.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is not a readable npz file; write it by numpy.savez")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            held = archive.files
            arrays = {name: archive[name] for name in _ARRAYS if name in held}
    except Exception as error:  # zipfile, zlib and NumPy each have errors of their own for damaged files
        raise ValueError(f"{str(path)!r} is not a readable npz file: {error}") from None
    missing = [name for name in ("inputs", "targets") if name not in arrays]
    if missing:
        raise ValueError(f"{str(path)!r} must hold the arrays inputs and targets, got {', '.join(held) or 'none'}")
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(f"{str(path)!r} must hold arrays with one row a sample, but {name} is a single value")
    targets = arrays["targets"]
    return Dataset(
        Path(path).name,
        arrays["inputs"],
        targets,
        arrays.get("test_inputs"),
        arrays.get("test_targets"),
        classes=int(targets.max()) + 1 if _are_classes(targets) else None,
    )


def from_torch(data: Any, *, inputs: Any = 0, targets: Any = 1, test: Any = None) -> Dataset:
    """Return the samples of a dataset or loader of PyTorch, for a `TrainingProblem`.

    Parameters
    ----------
    data : torch.utils.data.Dataset or DataLoader, or any collection
        Of samples, or a loader of batches, that are (input, target) or rows with names, as those of the package
        `datasets`. Tensors are detached and come to the host. A loader that shuffles shuffles. A list of batches is
        taken for one of samples: give the loader.
    inputs, targets : int or str
        Where input and target stand in a sample: its place or its name.
    test : likewise, optional
        The test set.

    Returns
    -------
    Dataset
        Inputs (samples, d) in float64, each flattened, and targets as they are; whole numbers from 0 on are classes.

    Raises
    ------
    TypeError
        If `data` is no collection, or its samples hold no numbers.
    ValueError
        If there are no samples, they lack an input or target, or they differ in size, those of the test set too.
    """
    x, y = _arrays("data", data, inputs, targets)
    test_x, test_y = (None, None) if test is None else _arrays("test", test, inputs, targets)
    if test_x is not None and test_x.shape[1:] != x.shape[1:]:
        raise ValueError(f"test must have inputs of {x.shape[1]} numbers, as data has, got {test_x.shape[1]}")
    name = type(getattr(data, "dataset", data)).__name__
    return Dataset(name, x, y, test_x, test_y, classes=int(y.max()) + 1 if _are_classes(y) else None)


def _arrays(label: str, data: Any, inputs: Any, targets: Any) -> tuple[Array, NDArray[np.generic]]:
    """Return inputs, flattened, and targets of all samples."""
    if hasattr(data, "ndim"):
        raise TypeError(f"{label} must be a dataset or a loader, got one array: give TensorDataset(inputs, targets)")
    batched = getattr(data, "batch_sampler", None) is not None
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if not indexed and not hasattr(data, "__iter__"):
        raise TypeError(f"{label} must be a dataset or a loader, got {type(data).__name__}")
    items = (data[index] for index in range(len(data))) if indexed else iter(data)
    found: list[tuple[Any, Any]] = []
    for item in items:
        try:
            found.append((_numbers(item[inputs]), _numbers(item[targets])))
        except (LookupError, TypeError) as error:
            raise ValueError(
                f"{label} must hold samples with {inputs!r} and {targets!r}, and numbers there: {error}"
            ) from None
    if not found:
        raise ValueError(f"{label} must hold samples, got none")
    try:
        x, y = (np.concatenate(part) if batched else np.stack(part) for part in zip(*found, strict=True))
    except ValueError as error:
        raise ValueError(f"{label} must hold samples of one size: {error}") from None
    return np.asarray(x.reshape(len(x), -1), np.float64), y


def _numbers(value: Any) -> NDArray[np.generic]:
    """Return a tensor, or what is like an array, as an array of the host."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if not value.is_floating_point() or value.element_size() >= 4:
            return np.asarray(value)
        value = value.float()  # of types that NumPy lacks
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"got {array.dtype}")
    return array


def _are_classes(targets: NDArray[np.generic]) -> bool:
    """Whether targets are one axis of whole numbers from 0 on, as many programs write class labels: also as floats."""
    if targets.ndim != 1 or targets.dtype.kind not in "iuf" or not targets.size or not np.isfinite(targets).all():
        return False
    return bool((targets == np.floor(targets)).all() and targets.min() >= 0)


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
