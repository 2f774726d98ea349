"""Data sets: the digits, CIFAR-10's binary files, npz files."""

from __future__ import annotations

import numpy as np
import pytest

import flds


def test_digits_are_split_by_class_centred_and_scaled():
    data = flds.load_digits()
    assert data.inputs.shape == (1400, 64)
    assert data.test_inputs.shape == (397, 64)
    np.testing.assert_allclose((data.inputs**2).mean(axis=1), 1.0)
    np.testing.assert_allclose((data.test_inputs**2).mean(axis=1), 1.0)
    shares = np.bincount(data.targets) / 1400 - np.bincount(data.test_targets) / 397
    assert np.abs(shares).max() < 2 / 397
    # centring on the training mean comes before scaling, so pixel means stay small
    assert np.abs(data.inputs.mean(axis=0)).max() < 0.1
    assert len(np.unique(np.concatenate([data.inputs, data.test_inputs]), axis=0)) == 1797


def write_cifar(folder, name, count, seed):
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(count) % 10
    records.tofile(folder / name)
    return records


def test_cifar10_binary_files(tmp_path):
    first = write_cifar(tmp_path, "data_batch_1.bin", 7, 0)
    second = write_cifar(tmp_path, "data_batch_2.bin", 5, 1)
    test = write_cifar(tmp_path, "test_batch.bin", 3, 2)
    data = flds.load_cifar10(tmp_path)
    np.testing.assert_array_equal(data.targets, np.concatenate([first, second])[:, 0])
    np.testing.assert_array_equal(data.test_targets, test[:, 0])
    pixels = np.concatenate([first, second])[:, 1:].astype(float)
    centred = pixels - pixels.mean(axis=0)
    np.testing.assert_allclose(data.inputs, centred / np.sqrt((centred**2).mean(axis=1, keepdims=True)))
    nested = tmp_path / "outer" / "cifar-10-batches-bin"
    nested.mkdir(parents=True)
    for path in tmp_path.glob("*.bin"):
        (nested / path.name).write_bytes(path.read_bytes())
    np.testing.assert_array_equal(flds.load_cifar10(tmp_path / "outer").inputs, data.inputs)


def test_bad_cifar10_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        flds.load_cifar10(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no data_batch_\*.bin .* binary version"):
        flds.load_cifar10(tmp_path)
    records = write_cifar(tmp_path, "data_batch_1.bin", 2, 0)
    with pytest.raises(FileNotFoundError, match=r"test_batch\.bin"):
        flds.load_cifar10(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(ValueError, match="whole records of 3073 bytes, got 6145 bytes; it is truncated"):
        flds.load_cifar10(tmp_path)
    records[1, 0] = 11
    records.tofile(tmp_path / "data_batch_1.bin")
    with pytest.raises(ValueError, match="must hold labels from 0 to 9, got 11"):
        flds.load_cifar10(tmp_path)


def test_npz_files(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, inputs=np.ones((2, 3)), targets=np.array([0, 1]))
    data = flds.load_npz(path)
    assert data.test_inputs is None
    assert data.classes == 2
    np.testing.assert_array_equal(data.targets, [0, 1])
    with pytest.raises(FileNotFoundError, match="there is no file"):
        flds.load_npz(tmp_path / "none.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is not a readable npz file"):
        flds.load_npz(path)
    np.savez(path, inputs=np.ones((2, 3)), targets=np.array(1.0))
    with pytest.raises(ValueError, match="one row a sample, but targets is a single value"):
        flds.load_npz(path)
    np.savez(path, x=np.ones(3))
    with pytest.raises(ValueError, match="must hold the arrays inputs and targets, got x"):
        flds.load_npz(path)
    np.savez(path, inputs=np.array([{}], dtype=object), targets=np.ones(1))
    with pytest.raises(ValueError, match="is not a readable npz file"):
        flds.load_npz(path)  # pickled objects are not loaded: that would run code
