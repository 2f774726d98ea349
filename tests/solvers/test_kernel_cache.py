"""Kernels are kept on disk where that can be, and compiled in memory where not."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import numba
import pytest

from solvers.accelerate import kernel


def twice(x):
    return x + x


def other(x):
    return 3 * x


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def kept(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def hits(*values):
    """Call a fresh kernel and return how often its code came from disk."""
    compiled = kernel(twice)
    assert [compiled(value) for value in values] == [2 * value for value in values]
    return sum(compiled.stats.cache_hits.values())


def test_code_is_loaded_where_it_was_kept(cache):
    assert hits(1, 1.5) == 0
    assert hits(1, 1.5) == 2
    kernel(twice).recompile()  # which drops what is kept
    assert hits(1, 1.5) == 0


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[: len(content) // 2], lambda content: bytes(len(content)),
    lambda content: content[:-9] + bytes(9), lambda content: b"\x80\x04."
], ids=["empty", "half", "zeros", "end", "nothing"])  # fmt: skip
def test_damaged_files_are_written_anew(cache, damage):
    hits(1)
    for path in kept(cache):
        path.write_bytes(damage(path.read_bytes()))
    assert hits(1) == 0
    assert hits(1) == 1


def test_code_of_another_signature_is_not_run(cache):
    """As two processes at once could leave it under one name."""
    hits(1)
    first = set(kept(cache))
    hits(1.5)
    (second,) = set(kept(cache)) - first
    second.write_bytes(first.pop().read_bytes())
    assert hits(1.5) == 0


def test_a_file_that_is_a_folder(cache):
    hits(1)
    for path in kept(cache):
        path.unlink()
        path.mkdir()
    assert hits(1) == 0


SCRIPT = """
import sys
from plain import function
value = float(sys.argv[1])
print(function(value), function(int(value)), sum(function.stats.cache_hits.values()))
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that calls a kernel of a module of its own, whose folder, and no other, could take its code."""
    (tmp_path / "plain.py").write_text("from solvers.accelerate import kernel\n@kernel\ndef function(x): return 2 * x")

    def begin(env=(), without=None, user=(), **rest):
        environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()]), "HOME": os.devnull,
                       "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"} | dict(env)  # fmt: skip
        environment.pop(without, None)
        command = [*user, sys.executable, "-W", "error", "-c", SCRIPT, "1.5"]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **rest
        )

    return begin


def little():
    """Let no file become as large as code is."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def ends(process):
    answer, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    return answer.strip()


def test_no_place_at_all(start, tmp_path):
    (tmp_path / "__pycache__").write_text("a file, under which nobody can make a folder")
    assert ends(start()) == "3.0 2 0"
    assert ends(start(env={"NUMBA_CACHE_DIR": "/dev/null/cache"})) == "3.0 2 0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["__pycache__", "plain.py"]


def test_a_user_without_a_home(start, tmp_path, another_user):
    """Where a home is not known, '~' would be the name of a folder here."""
    (tmp_path / "__pycache__").write_text("")
    tmp_path.chmod(0o777)
    assert ends(start(env={"HOME": ""}, user=another_user)) == "3.0 2 0"
    assert ends(start(without="HOME", user=another_user)) == "3.0 2 0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["__pycache__", "plain.py"]


def test_a_disk_that_fills_up_keeps_nothing_and_stops_nothing(start, tmp_path):
    assert ends(start(preexec_fn=little)) == "3.0 2 0"
    assert not kept(tmp_path / "__pycache__")
    assert ends(start()) == "3.0 2 0"
    assert ends(start()) == "3.0 2 2"


def test_a_full_disk(start, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (disk / "full").write_bytes(bytes(8192))
        assert ends(start(env={"NUMBA_CACHE_DIR": str(disk)})) == "3.0 2 0"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_code_of_an_older_source_is_not_run_after_a_write_that_failed(start, tmp_path):
    assert ends(start()) == "3.0 2 0"
    source = tmp_path / "plain.py"
    source.write_text(source.read_text().replace("2 *", "4 *"))

    assert ends(start(preexec_fn=little)) == "6.0 4 0"
    assert ends(start()) == "6.0 4 0"
    files = kept(tmp_path / "__pycache__")
    assert ends(start()) == "6.0 4 2"
    assert kept(tmp_path / "__pycache__") == files


def test_processes_at_once(start, tmp_path):
    assert {ends(process) for process in [start() for _ in range(4)]} <= {"3.0 2 0", "3.0 2 1", "3.0 2 2"}
    assert ends(start()) == "3.0 2 2"
    assert len(kept(tmp_path / "__pycache__")) == 2
