"""Data sets: the digits, CIFAR-10's binary files, npz files."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from flds.cli.training import DEFAULTS, load_data, training_problem


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


def write_cifar10(folder):
    """Write all files, each with other small images; return the training records and the test records."""
    training = [write_cifar(folder, f"data_batch_{number}.bin", 10 + number, number) for number in range(1, 6)]
    return np.concatenate(training), write_cifar(folder, "test_batch.bin", 30, 0)


def test_cifar10_binary_files(tmp_path):
    training, test = write_cifar10(tmp_path)
    data = flds.load_cifar10(tmp_path)
    np.testing.assert_array_equal(data.targets, training[:, 0])
    np.testing.assert_array_equal(data.test_targets, test[:, 0])
    pixels = training[:, 1:].astype(float)
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
    with pytest.raises(FileNotFoundError, match=r"no data_batch_1\.bin, .* test_batch\.bin in .* binary version"):
        flds.load_cifar10(tmp_path)
    for number in (1, 3, 4, 5):
        records = write_cifar(tmp_path, f"data_batch_{number}.bin", 2, 0)
    with pytest.raises(FileNotFoundError, match=r"there is no data_batch_2\.bin, test_batch\.bin in"):
        flds.load_cifar10(tmp_path)
    write_cifar(tmp_path, "data_batch_2.bin", 2, 0)
    write_cifar(tmp_path, "test_batch.bin", 2, 0)
    (tmp_path / "data_batch_1.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(ValueError, match="whole records of 3073 bytes, got 6145 bytes; it is truncated"):
        flds.load_cifar10(tmp_path)
    records[1, 0] = 11
    records.tofile(tmp_path / "data_batch_1.bin")
    with pytest.raises(ValueError, match="must hold labels from 0 to 9, got 11"):
        flds.load_cifar10(tmp_path)


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (np.array([0.0, 1.0, 2.0]), 3),
        (np.array([0.0, 1.0, 2.0], np.float32), 3),
        (np.array([0, 1, 2], np.uint8), 3),
        (np.array([0.0, 1.5, 2.0]), None),
        (np.array([0.0, -1.0, 2.0]), None),
        (np.array([0.0, np.inf, np.nan]), None),
        (np.array([[0.0], [1.0], [2.0]]), None),
        (np.array([True, False, True]), None),
    ],
)
def test_whole_numbers_of_any_type_are_classes(targets, classes, tmp_path):
    np.savez(tmp_path / "data.npz", inputs=np.ones((3, 2)), targets=targets)
    assert flds.load_npz(tmp_path / "data.npz").classes == classes


def test_float_labels_are_trained_by_cross_entropy(tmp_path):
    np.savez(tmp_path / "data.npz", inputs=np.ones((3, 2)), targets=[0.0, 1.0, 2.0])
    assert training_problem(load_data(str(tmp_path / "data.npz")), **DEFAULTS, train_samples=None,
                            test_samples=None).loss == "cross_entropy"  # fmt: skip


def test_only_what_is_used_is_read_from_an_npz_file(tmp_path):
    np.savez(tmp_path / "data.npz", inputs=np.ones((2, 3)), targets=np.ones(2), rest=np.array([{}], dtype=object))
    assert flds.load_npz(tmp_path / "data.npz").inputs.shape == (2, 3)  # objects would be refused


def test_data_are_shown_by_their_shapes():
    shapes = "inputs (1400, 64), targets (1400,), test_inputs (397, 64), test_targets (397,)"
    assert repr(flds.load_digits()) == f"Dataset(digits, {shapes}, 10 classes)"
    assert repr(flds.Dataset("mine", np.ones((2, 3)), np.ones(2))) == "Dataset(mine, inputs (2, 3), targets (2,))"


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
    path.write_text("inputs, targets")
    with pytest.raises(ValueError, match=r"is not a readable npz file; write it by numpy\.savez$"):
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


def test_datasets_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    x = torch.randn(10, 2, 3, requires_grad=True)
    y = torch.arange(10) % 3
    pairs = TensorDataset(x, y)
    loaders = DataLoader(pairs, batch_size=4), DataLoader(pairs, batch_size=None)
    rows = [{"image": image, "label": int(label)} for image, label in zip(x, y, strict=True)]
    loaders += (DataLoader(pairs, batch_sampler=[[0, 1, 2], [3, 4, 5, 6], [7, 8, 9]]),)
    named = flds.from_torch(rows, inputs="image", targets="label")
    for found in (*map(flds.from_torch, (pairs, *loaders, list(pairs))), named):
        np.testing.assert_array_equal(found.inputs, x.detach().numpy().reshape(10, 6))
        np.testing.assert_array_equal(found.targets, y)
        assert (found.inputs.dtype, found.classes) == (np.float64, 3)
    both = flds.from_torch(pairs, test=DataLoader(pairs, batch_size=3))
    np.testing.assert_array_equal(both.test_inputs, both.inputs)
    assert repr(both).startswith("Dataset(TensorDataset, inputs (10, 6), targets (10,)")
    problem = flds.TrainingProblem(both.inputs, both.targets, steps=1, loss="cross_entropy")
    assert flds.solve_flds(problem, particles=100, depth=2).status == "completed"
    halves = flds.from_torch(TensorDataset(x.bfloat16(), torch.ones(10, 2)))
    np.testing.assert_allclose(halves.inputs, x.detach().numpy().reshape(10, 6), rtol=2**-8)
    assert halves.classes is None
    assert halves.targets.shape == (10, 2)


@pytest.mark.parametrize(
    ("data", "rest", "error", "message"),
    [
        (3, {}, TypeError, "^data must be a dataset or a loader, got int$"),
        (np.ones((3, 2)), {}, TypeError, "^data must be a dataset or a loader, got one array: give TensorDataset"),
        (
            [(np.ones(2), 1)],
            {"test": [(np.ones(3), 1)]},
            ValueError,
            "^test must have inputs of 2 numbers, as data has",
        ),
        ([], {}, ValueError, "^data must hold samples, got none$"),
        ([(1.0,)], {}, ValueError, "^data must hold samples with 0 and 1, and numbers there: "),
        ([{"x": 1.0, "y": 1}], {"inputs": "image"}, ValueError, "^data must hold samples with 'image' and 1, and num"),
        ([("a picture", 1)], {}, ValueError, "^data must hold samples with 0 and 1, and numbers there: got <U9$"),
        ([(np.ones(2), 1), (np.ones(3), 1)], {}, ValueError, "^data must hold samples of one size: "),
        ([(np.ones(2), 1)], {"test": 3}, TypeError, "^test must be a dataset or a loader, got int$"),
    ],
)
def test_what_is_no_dataset_of_torch(data, rest, error, message):
    with pytest.raises(error, match=message) as found:
        flds.from_torch(data, **rest)
    assert "\n" not in str(found.value)
