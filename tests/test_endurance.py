"""The long counts: full disks, kills, changed bits and damaged files, on commands in processes of their own."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import flds
from tests import damage, killed_sweeps
from tests.conftest import three_samples
from tests.solvers.test_files import refused_or_harmless

pytestmark = pytest.mark.slow
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
# Seconds of a processor that a command on a damaged file may take, start included; on a busy machine it waits as well.
PATIENCE = 10


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "flds", *map(str, arguments)]


def finish(arguments: list[str], folder: Path, **rest) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, **rest)


@pytest.fixture
def solving(tmp_path) -> list[str]:
    """A command that keeps a state of some 250 kB."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", inputs=rng.normal(size=(20, 64)), targets=rng.normal(size=20))
    sizes = ["--particles", "1000", "--depth", "4", "--batch-size", "4", "--keep-state", "--quiet"]
    return command("solve", "--data", tmp_path / "data.npz", *sizes)


def test_results_are_kept_elsewhere_when_the_disk_is_full(tmp_path, solving):
    disk = tmp_path / "disk"
    disk.mkdir()
    small = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"']
    if finish([*small, "100k", str(disk), "true"], tmp_path).returncode:
        pytest.skip("no small disk can be mounted here")
    whole = finish([*solving, "--steps", "3", "--out", "whole.nc"], tmp_path)
    assert whole.returncode == 0, whole.stderr
    expected = flds.load(tmp_path / "whole.nc")
    size = (tmp_path / "whole.nc").stat().st_size + (tmp_path / "whole.nc.state").stat().st_size
    for kilobytes in np.linspace(4, 0.95 * size / 1024, 20).astype(int):
        out = ["--steps", "3", "--out", str(disk / "run.nc")]
        done = finish([*small, f"{kilobytes}k", str(disk), *solving, *out], tmp_path)
        assert done.returncode == 2, (kilobytes, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr
        assert "run.nc" in done.stderr
        found = flds.load(tmp_path / "run.nc")
        np.testing.assert_array_equal(found.outputs, expected.outputs)
        np.testing.assert_array_equal(found.states[0]["readout"].values, expected.states[0]["readout"].values)
        for path in (tmp_path / "run.nc", tmp_path / "run.nc.state"):
            path.unlink()
        assert not list(tmp_path.glob(".*.part"))


def test_solves_that_are_killed_leave_results_that_go_on(tmp_path, solving):
    steps, draw = 30, random.Random(0)
    (tmp_path / "old").mkdir()
    assert finish([*solving, "--steps", "2", "--out", "old/run.nc"], tmp_path).returncode == 0
    start = time.monotonic()
    assert finish([*solving, "--steps", str(steps), "--out", "whole.nc"], tmp_path).returncode == 0
    duration = time.monotonic() - start
    whole, ends = flds.load(tmp_path / "whole.nc"), Counter()
    for index in range(40):
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)[index % 4]
        for path in (tmp_path / "old").iterdir():
            shutil.copy(path, tmp_path / path.name)
        with subprocess.Popen(
            [*solving, "--steps", str(steps), "--out", "run.nc"], cwd=tmp_path, env=ENVIRONMENT,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            time.sleep(duration * draw.uniform(0.1, 1.0))
            process.send_signal(number)
            errors = process.communicate(timeout=60)[1]
        assert process.returncode in (0, -number if number == signal.SIGKILL else 128 + number, -number), errors
        assert "Traceback" not in errors
        found = flds.load(tmp_path / "run.nc")
        assert found.missing == ""
        old = found.batch_loss.size == 3
        ends[number.name, found.status, "old" if old else "new"] += 1
        if old:
            continue
        if found.status == "completed":
            np.testing.assert_array_equal(found.outputs, whole.outputs)
            continue
        assert number != signal.SIGKILL
        if found.states:
            np.testing.assert_array_equal(flds.resume(found).outputs, whole.outputs)
        else:
            assert found.steps[-1] <= 1
    print(dict(ends))
    assert finish([*solving, "--steps", "2", "--out", "run.nc"], tmp_path).returncode == 0
    assert not list(tmp_path.glob(".run.nc*.part"))


def test_sweeps_that_are_killed_are_completed_later(tmp_path):
    assert killed_sweeps.kill(killed_sweeps.drawn(40), tmp_path) == []
    for index in range(7):
        ended = killed_sweeps.twice(tmp_path / f"twice {index}")
        assert sorted(status for status, *_ in ended) == [0, 2], ended


@pytest.mark.parametrize("part", ["run.nc", "run.nc.state"])
def test_changed_bits_are_refused_or_harmless(tmp_path, part):
    kept = flds.simulate_resnet(three_samples(steps=2), width=30, depth=2, replicates=2, keep_state=True)
    path = kept.save(tmp_path / "run.nc")
    whole, rng = (tmp_path / part).read_bytes(), np.random.default_rng(1)
    for place in rng.integers(0, len(whole), 150):
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.integers(8)
        (tmp_path / part).write_bytes(changed)
        refused_or_harmless(path, kept, part)


def test_commands_on_damaged_and_crafted_files_say_one_line(tmp_path):
    """400 commands; each ends in time, with results or with one line that says why not."""
    kept = flds.simulate_resnet(three_samples(steps=2), width=30, depth=2, replicates=2, keep_state=True)
    folders = []
    for write in damage.crafted(kept).values():
        folders.append(_folder(tmp_path, len(folders)))
        write(folders[-1] / "run.nc")
    sources = _folder(tmp_path, -1)
    kept.save(sources / "run.nc")
    kept.data.to_netcdf(sources / "old.nc", engine="h5netcdf")
    kinds = (("run.nc", "run.nc", 1), ("run.nc.state", "run.nc.state", 2), ("old.nc", "run.nc", 3))
    kinds = [(name, damage.damaged((sources / source).read_bytes(), np.random.default_rng(seed)))
             for source, name, seed in kinds]  # fmt: skip
    while len(folders) < 134:
        folders.append(_folder(tmp_path, len(folders)))
        for source in ("run.nc", "run.nc.state"):
            shutil.copy(sources / source, folders[-1] / source)
        name, make = kinds[len(folders) % 3]
        (folders[-1] / name).write_bytes(next(make)[1])
    work = [(folder, verb) for folder in folders for verb in ("info", "solve", "resume")][:400]
    with ThreadPoolExecutor(2) as pool:
        wrong = [text for text in pool.map(lambda one: _trouble(*one), work) if text]
    assert not wrong, "\n".join(wrong)


def _folder(where: Path, number: int) -> Path:
    folder = where / str(number)
    folder.mkdir()
    return folder


def _trouble(folder: Path, verb: str) -> str:
    """Return what is wrong with a command on the file in a folder, or nothing."""
    rest = ["--out", f"{verb}.nc", "--quiet", "--threads", "1"]
    arguments = {
        "info": ["info", "run.nc"],
        "solve": ["solve", "--from", "run.nc", *rest],
        "resume": ["resume", "run.nc", "--steps", "1", *rest],
    }[verb]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE, PATIENCE))

    try:
        done = finish(command(*arguments), folder, timeout=6 * PATIENCE, preexec_fn=limit)
    except subprocess.TimeoutExpired:
        return f"{folder.name}, {verb}: no end in {6 * PATIENCE} s"
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    if done.returncode == 0:
        return "" if not lines else f"{folder.name}, {verb}: {done.stderr}"
    good = len(lines) == 1 and lines[0].startswith("flds: ") and done.returncode in (2, 3)
    return "" if good else f"{folder.name}, {verb}: status {done.returncode}, {done.stderr}"
