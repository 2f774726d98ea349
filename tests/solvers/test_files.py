"""Files of results: all or nothing on a full disk, refused when a bit has changed, and old ones still open."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

import flds
import solvers
from solvers.results import arrays, files, versions
from solvers.results import solution as solutions
from solvers.results.files import Variable
from tests import damage
from tests.conftest import three_samples


@pytest.fixture(scope="module")
def kept() -> flds.Solution:
    """A small run with the state of two replicates."""
    return flds.simulate_resnet(three_samples(steps=2), width=30, depth=2, replicates=2, keep_state=True)


@pytest.fixture(scope="module")
def other() -> flds.Solution:
    """Another run with a state."""
    return flds.simulate_resnet(three_samples(steps=2), width=30, depth=2, seed=9, keep_state=True)


@pytest.fixture(scope="module")
def plain() -> flds.Solution:
    """A run without a state."""
    return flds.simulate_resnet(three_samples(steps=2), width=30, depth=2)


def test_arrays_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    fields = {
        "plain": rng.standard_normal((3, 5)), "single": rng.standard_normal(7).astype(np.float32),
        "number": np.array(2.5), "empty": np.empty((0, 4)), "flags": np.array([True, False]),
        "strided": np.arange(20)[::3], "columns": np.asfortranarray(rng.standard_normal((4, 3))),
    }  # fmt: skip
    groups = {
        f"state_{i}": {
            name: Variable(tuple(f"{name}_{axis}" for axis in range(a.ndim)), a, f"values å of {name}", "m")
            for name, a in fields.items()
        }
        for i in range(2)
    }  # fmt: skip
    path = tmp_path / "run.nc"
    arrays.write_with_arrays(path, groups, lambda beside: xarray.Dataset(attrs={"state": json.dumps(beside)}))
    place = arrays.find_arrays(path, json.loads(files.read_dataset(path).attrs["state"]))
    assert place == tmp_path / "run.nc.state"
    found = arrays.read_arrays(place)
    assert found.keys() == groups.keys()
    for group in groups:
        for name, item in groups[group].items():
            again = found[group][name]
            assert again[2:] == item[2:]
            assert again.dims == item.dims
            assert again.values.dtype == item.values.dtype
            np.testing.assert_array_equal(again.values, item.values)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.nc", "run.nc.state"]


def test_objects_are_no_arrays(tmp_path):
    groups = {"state_0": {"x": Variable(("a",), np.array([None]), "x")}}
    with pytest.raises(TypeError, match="x must be an array of numbers, got dtype object"):
        arrays.write_with_arrays(tmp_path / "run.nc", groups, lambda beside: xarray.Dataset())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["state", "plain"])
def test_a_full_disk_is_an_error_and_saving_elsewhere_works(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("full.nc").write_text("older")
    if kind == "state":
        run = flds.simulate_resnet(three_samples(steps=2), width=200, depth=4, keep_state=True)
    else:
        run = solvers.solve(solvers.equations.ornstein_uhlenbeck(), np.ones(9000), 0.0, 1.0, 10, save="particles")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        for _ in range(3):
            with pytest.raises(OSError, match="File too large"):
                run.save("full.nc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Path("full.nc").read_text() == "older"
    again = flds.load(run.save("elsewhere.nc"))
    if kind == "state":
        np.testing.assert_array_equal(again.states[0]["readout"].values, run.states[0]["readout"].values)
    else:
        np.testing.assert_array_equal(again.particles, run.particles)
    names = ["elsewhere.nc", "elsewhere.nc.state", "full.nc"] if kind == "state" else ["elsewhere.nc", "full.nc"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


@pytest.mark.parametrize(("part", "places"), [("run.nc", 60), ("run.nc.state", 6)])
def test_any_changed_bit_is_found(kept, tmp_path, part, places):
    """Single bits anywhere, and stretches of zeros at the start, where the libraries below would hang or crash.

    More places are in `tests/test_endurance.py`.
    """
    path = tmp_path / "run.nc"
    kept.save(path)
    whole = (tmp_path / part).read_bytes()
    rng = np.random.default_rng(7)
    for place in rng.integers(0, len(whole), places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / part).write_bytes(damaged)
        refused_or_harmless(path, kept, part)
    for zeros in (16, 64, 512):
        (tmp_path / part).write_bytes(bytes(zeros) + whole[zeros:])
        if part == "run.nc":
            with pytest.raises(ValueError, match="its checksum does not fit its contents"):
                flds.load(path)
        else:
            assert "run.nc.state" in flds.load(path).missing
            assert "is damaged: its checksum does not fit its contents" in flds.load(path).missing
    (tmp_path / part).write_bytes(whole[: len(whole) // 2])
    refused_or_harmless(path, kept, part)


@pytest.mark.parametrize("part", ["run.nc", "run.nc.state"])
def test_a_change_that_the_seal_fits_is_seen(kept, tmp_path, part):
    """Else the test above could not fail."""
    path, data, groups = tmp_path / "run.nc", kept.data, {name: dict(group) for name, group in kept.groups.items()}
    if part == "run.nc":
        data = data.assign(outputs=data["outputs"] + 1e-9)
    else:
        readout = groups["state_0"]["readout"]
        groups["state_0"]["readout"] = readout._replace(values=readout.values + 1e-9)
    arrays.write_with_arrays(path, groups, lambda beside: data.assign_attrs(state=json.dumps(beside)))
    with pytest.raises(AssertionError):
        refused_or_harmless(path, kept, part)


def refused_or_harmless(path: Path, kept: flds.Solution, part: str) -> None:
    """A change of the seal itself leaves the contents as they were, and one of the state the result."""
    try:
        found = flds.load(path)
    except ValueError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
    if message:
        assert part != "run.nc.state"
        return
    np.testing.assert_array_equal(found.outputs, kept.outputs)
    if found.missing:
        assert "\n" not in found.missing
        with pytest.raises(ValueError, match=r"the state of the trained network cannot be read: run\.nc\.state"):
            flds.resume(found, 1)
    else:
        np.testing.assert_array_equal(found.predict(np.ones((1, 5))), kept.predict(np.ones((1, 5))))


def test_a_state_that_is_missing_or_of_another_run_is_told(kept, other, tmp_path):
    path, theirs = kept.save(tmp_path / "run.nc"), other.save(tmp_path / "other.nc")
    mine = Path(f"{path}.state").read_bytes()
    Path(f"{theirs}.state").replace(f"{path}.state")
    for found in (flds.load(path), flds.load(theirs)):
        assert found.states == []
        for work in (lambda found=found: flds.resume(found, 1), lambda found=found: found.predict(np.ones((1, 5)))):
            with pytest.raises(
                ValueError, match=r"state of the trained network cannot be read: .*nc\.state, which belongs"
            ):
                work()
    Path(f"{path}.state").write_bytes(mine)
    assert len(flds.load(path).states) == 2
    # renamed together, or seen before the new state got its name
    path.replace(tmp_path / "[new] name.nc")
    Path(f"{path}.state").replace(tmp_path / "[new] name.nc.state")
    assert len(flds.load(tmp_path / "[new] name.nc").states) == 2
    (tmp_path / "[new] name.nc.state").replace(tmp_path / ".[new] name.nc.state.123.abc.part")
    assert len(flds.load(tmp_path / "[new] name.nc").states) == 2


def flipped(path: Path, place: int = 1000) -> bytes:
    """Change one bit of a file and return what it was."""
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    return whole


def test_a_damaged_state_leaves_the_result(kept, tmp_path):
    path = kept.save(tmp_path / "run.nc")
    whole = flipped(tmp_path / "run.nc.state")
    found = flds.load(path)
    np.testing.assert_array_equal(found.outputs, kept.outputs)
    assert found.missing.startswith(f"run.nc.state, which belongs beside {str(path)!r}, is damaged: its checksum")
    for work in (lambda: flds.resume(found, 1), lambda: found.predict(np.ones((1, 5)))):
        with pytest.raises(
            ValueError, match=r"^the state of the .* cannot be read: run\.nc\.state, .* is damaged"
        ) as error:
            work()
        assert "\n" not in str(error.value)
    np.testing.assert_array_equal(flds.rerun(found).outputs, kept.outputs)
    found.save(path)  # which keeps what may be mended
    assert flds.load(path).missing == found.missing
    (tmp_path / "run.nc.state").write_bytes(whole)
    assert len(flds.load(path).states) == 2


def test_a_state_that_cannot_be_read_leaves_the_result(kept, tmp_path, monkeypatch):
    path = kept.save(tmp_path / "run.nc")

    def refuse(place, communicator):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(solutions, "read_arrays", refuse)
    assert (
        flds.load(path).missing
        == f"run.nc.state, which belongs beside {str(path)!r}, cannot be read: Permission denied"
    )


@pytest.mark.parametrize("how", ["missing", "of another", "damaged", "not read"])
def test_saving_a_result_without_its_state_keeps_and_names_it(kept, other, tmp_path, how):
    path, state, away = kept.save(tmp_path / "run.nc"), tmp_path / "run.nc.state", tmp_path / "away"
    whole = state.read_bytes()
    if how == "missing":
        state.unlink()
    elif how == "of another":
        other.save(tmp_path / "other.nc")
        (tmp_path / "other.nc.state").replace(state)
    elif how == "damaged":
        flipped(state)
    there = state.read_bytes() if state.exists() else None
    found = flds.load(path, groups=how != "not read")
    assert bool(found.missing) == (how != "not read")
    away.mkdir()
    for place in (path, tmp_path / "copy.nc", away / "run.nc"):
        found.save(place)
        again = flds.load(place)
        np.testing.assert_array_equal(again.outputs, kept.outputs)
        assert (state.read_bytes() if state.exists() else None) == there
        assert bool(again.missing) == (how != "not read" or place.parent == away)
    state.write_bytes(whole)
    assert len(flds.load(path).states) == len(flds.load(tmp_path / "copy.nc").states) == 2
    (away / "run.nc.state").write_bytes(whole)
    assert len(flds.load(away / "run.nc").states) == 2


def test_info_says_how_to_train_on_where_the_state_is_found(kept, other, plain, tmp_path):
    from typer.testing import CliRunner

    from flds.cli.commands import app

    def told(path: Path) -> bool:
        done = CliRunner().invoke(app, ["info", str(path)])
        assert done.exit_code == 0, done.output
        return "train on   flds resume" in done.stdout

    path, state = kept.save(tmp_path / "run.nc"), tmp_path / "run.nc.state"
    (tmp_path / "copy.nc").write_bytes(path.read_bytes())
    assert told(path)
    assert told(tmp_path / "copy.nc")  # whose state has the name of the first
    state.rename(tmp_path / ".run.nc.state.1.abc.part")
    assert told(path)
    (tmp_path / ".run.nc.state.1.abc.part").unlink()
    assert not told(path)
    other.save(tmp_path / "other.nc")
    (tmp_path / "other.nc.state").replace(state)
    assert not told(path)
    assert not told(plain.save(tmp_path / "plain.nc"))


def test_a_plain_result_removes_only_the_state_that_the_older_one_named(kept, other, plain, tmp_path):
    path, state = tmp_path / "run.nc", tmp_path / "run.nc.state"
    kept.save(tmp_path / "third.nc")
    state.write_bytes((tmp_path / "third.nc.state").read_bytes())
    plain.save(path)  # there was no result
    assert state.exists()
    plain.save(path)  # one without a state
    assert state.exists()
    other.save(path)
    state.write_bytes((tmp_path / "third.nc.state").read_bytes())
    plain.save(path)  # one whose state was another
    assert state.exists()
    kept.save(path)
    (tmp_path / "copy.nc").write_bytes(path.read_bytes())
    plain.save(tmp_path / "copy.nc")  # one whose state has the name of the first
    assert state.exists()
    kept.save(path)
    whole = flipped(path)
    plain.save(path)  # one that is damaged, whatever it said
    assert state.exists()
    path.write_bytes(whole)
    plain.save(path)
    assert not state.exists()
    assert flds.load(path).missing == ""


def test_a_result_without_a_state_leaves_none_of_an_earlier_one(kept, plain, tmp_path):
    path = kept.save(tmp_path / "run.nc")
    plain.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.nc"]


def test_a_link_stays_a_link(kept, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "run.nc").symlink_to(tmp_path / "store" / "real.nc")
    kept.save(tmp_path / "run.nc")
    assert (tmp_path / "run.nc").is_symlink()
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == ["real.nc", "real.nc.state"]
    assert len(flds.load(tmp_path / "run.nc").states) == 2


def test_files_of_older_versions_open(kept, tmp_path):
    """They have no seal, and states as groups inside."""
    path = tmp_path / "old.nc"
    kept.data.to_netcdf(path, engine="h5netcdf")
    for name, group in kept.groups.items():
        old = {key: (item.dims, item.values, {"long_name": item.long_name, "units": item.units})
               for key, item in group.items()}  # fmt: skip
        xarray.Dataset(old).to_netcdf(path, engine="h5netcdf", group=name, mode="a")
    with h5py.File(path, "r+") as file:
        file.create_group("stray")
    found = flds.load(path)
    assert found.missing == ""
    assert len(found.states) == 2
    assert solutions.has_groups(flds.load(path, groups=False), path)
    np.testing.assert_array_equal(found.predict(np.ones((1, 5))), kept.predict(np.ones((1, 5))))
    np.testing.assert_array_equal(flds.resume(found, 2).outputs, flds.resume(kept, 2).outputs)


def test_an_old_file_with_a_damaged_header_ends(tmp_path, kept, monkeypatch):
    """What HDF5 makes of zeros is tried in another process; one that does not come back is given up."""
    path = tmp_path / "old.nc"
    kept.data.to_netcdf(path, engine="h5netcdf")
    whole = path.read_bytes()
    for zeros in (16, 96, 512):
        path.write_bytes(bytes(zeros) + whole[zeros:])
        with pytest.raises(ValueError, match="is not a readable results file"):
            flds.load(path)
    monkeypatch.setattr(files, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(files, "_PATIENCE", 0.5)
    with pytest.raises(ValueError, match="its header cannot be read, so it is damaged"):
        flds.load(path)


COMMANDS = ("info", "solve", "resume")
# Files whose arrays tell what is to be solved again, and one where they do not.
SOLVED = ("without problem_inputs", "inputs of another shape", "a variable without a long name", "without outputs")


def test_crafted_files_give_one_line(kept, tmp_path, monkeypatch):
    """Files with attributes that no run leaves meet one command each, those of arrays the commands that read them.

    All commands on all files, with pictures and in processes of their own, are in `tests/test_endurance.py`.
    """
    monkeypatch.setattr("flds.cli.commands.attempt", lambda draw, *arguments: False)  # pictures take most of the time
    writers = damage.crafted(kept)
    attributes = {json.dumps(change): next(iter(change)) for change in damage.ATTRIBUTES}
    first = {attribute: name for name, attribute in reversed(attributes.items())}
    commands = dict(zip(first.values(), cycle(COMMANDS), strict=False))
    for name, write in writers.items():
        if name in attributes and name not in commands:
            continue
        write(tmp_path / "crafted.nc")
        arrays = COMMANDS if name in SOLVED else ("info", "resume")[name.endswith("of a state") :]
        for command in [commands[name]] if name in commands else arrays:
            one_line(command, tmp_path / "crafted.nc")


def one_line(command: str, path: Path) -> None:
    """A command on a file ends well or says in one line why not."""
    from typer.testing import CliRunner

    from flds.cli.commands import app

    out = ["--out", str(path.parent / "out.nc"), "--quiet"]
    arguments = {
        "info": ["info", str(path)], "solve": ["solve", "--from", str(path), *out],
        "resume": ["resume", str(path), "--steps", "1", *out],
    }[command]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, (ValueError, TypeError, OSError, SystemExit)), (
        command, done.exception,
    )  # fmt: skip
    if done.exception is not None:
        assert "\n" not in str(done.exception)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("error", [KeyError("outputs"), ValueError("two\nlines")])
def test_a_command_that_fails_otherwise_is_noticed(tmp_path, monkeypatch, command, error):
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr("flds.results.files.load", fails)
    with pytest.raises(AssertionError):
        one_line(command, tmp_path / "run.nc")


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_a_whole_result(tmp_path, kills):
    """One process saves two results in turn under one name until it is killed; what is there belongs together."""
    script = (
        "import flds\nfrom tests.conftest import three_samples\n"
        "options = {'width': 100, 'depth': 3, 'keep_state': True}\n"
        "runs = [flds.simulate_resnet(three_samples(steps=2), seed=s, **options) for s in (0, 1)]\n"
        "print('ready', flush=True)\n"
        "while True:\n    for run in runs:\n        run.save('run.nc')\n"
    )
    root = Path(__file__).parents[2]
    rng = np.random.default_rng(0)
    expected = {
        seed: flds.simulate_resnet(three_samples(steps=2), width=100, depth=3, seed=seed, keep_state=True)
        for seed in (0, 1)
    }
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(root)},
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        for _ in range(10):
            time.sleep(rng.uniform(0.01, 0.06))
            process.send_signal(signal.SIGSTOP)
            if (tmp_path / "run.nc").exists():
                _belongs_together(tmp_path / "run.nc", expected)
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        process.stdout.close()
        if (tmp_path / "run.nc").exists():
            _belongs_together(tmp_path / "run.nc", expected)
    # what would have been noticed, where no parts of files lie about
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    expected[0].save(mixed / "run.nc")
    expected[1].save(mixed / "other.nc")
    (mixed / "other.nc.state").replace(mixed / "run.nc.state")
    with pytest.raises(AssertionError):
        _belongs_together(mixed / "run.nc", expected)


def _belongs_together(path: Path, expected: dict[int, flds.Solution]) -> None:
    found = flds.load(path)
    assert found.missing == ""
    run = expected[found.seed]
    np.testing.assert_array_equal(found.outputs, run.outputs)
    np.testing.assert_array_equal(found.states[0]["readout"].values, run.states[0]["readout"].values)


def test_versions_say_what_decides_the_bits(kept):
    assert {"flds", "numpy", "scipy", "numba", "python", "processor", "blas"} <= set(kept.versions)
    assert kept.versions["blas"]


def test_the_order_of_libraries_does_not_matter(monkeypatch):
    import threadpoolctl

    one = {"user_api": "blas", "internal_api": "openblas", "version": "0.3.30", "architecture": "Zen"}
    libraries, said = [one, one | {"version": "0.3.31"}, one | {"user_api": "openmp"}], set()
    for order in (libraries, libraries[::-1]):
        monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda order=order: order)
        versions._versions.cache_clear()
        said.add(versions.library_versions()["blas"])
    versions._versions.cache_clear()
    assert said == {"openblas 0.3.30 Zen, openblas 0.3.31 Zen"}
