"""Kernels are kept on disk where that can be, and compiled in memory where not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

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


# Calls a kernel of a module of its own in forks of a process that has Numba loaded, and says how each of them ended.
# Only what is set before `plain` is imported differs between them; those asked for together run at once.
SERVER = """
import json, os, resource, sys, traceback
import numba
numba.njit(lambda x: x)(1.0)  # which loads what every compilation needs

def call(case):
    os.chdir(case["folder"])
    out = os.open(case["out"], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(out, 1)
    os.dup2(out, 2)
    try:
        for name in case["without"]:
            os.environ.pop(name, None)
        os.environ.update(case["env"])
        numba.config.reload_config()
        if case["most_bytes"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case["most_bytes"],) * 2)
        sys.path.insert(0, case["folder"])
        from plain import function
        print(function(1.5), function(1), sum(function.stats.cache_hits.values()))
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

for line in sys.stdin:
    cases = json.loads(line)
    children = []
    for case in cases:
        children.append(os.fork())
        if children[-1] == 0:
            call(case)
    print(json.dumps([os.waitpid(child, 0)[1] for child in children]), flush=True)
"""


class Server:
    """A process that calls kernels in forks of its own, as the user of this one or as another."""

    def __init__(self, user=()):
        environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": os.devnull, "PATH": os.environ["PATH"],
                       "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
        self.process = subprocess.Popen(
            [*user, sys.executable, "-W", "error", "-c", SERVER], env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ends(self, folder, count=1, env=(), without=(), most_bytes=0):
        """Return what `count` forks print that run at once; what the kernel may write to is below `folder`."""
        with tempfile.TemporaryDirectory() as outputs:
            os.chmod(outputs, 0o777)
            common = {"folder": str(folder), "env": dict(env), "without": without, "most_bytes": most_bytes}
            cases = [common | {"out": f"{outputs}/{index}"} for index in range(count)]
            print(json.dumps(cases), file=self.process.stdin, flush=True)
            assert json.loads(self.process.stdout.readline()) == [0] * count
            return [Path(case["out"]).read_text().strip() for case in cases]

    def close(self):
        self.process.communicate()


@pytest.fixture(scope="module")
def server():
    one = Server()
    yield one
    one.close()


@pytest.fixture
def ends(server, tmp_path):
    """Call a kernel whose module's folder, and no other, could take its code; return the values and the hits."""
    write_module(tmp_path)
    return lambda **how: server.ends(tmp_path, **how)[0]


def write_module(folder):
    (folder / "plain.py").write_text("from solvers.accelerate import kernel\n@kernel\ndef function(x): return 2 * x")


LITTLE = 4096  # bytes, below the size of any code


def test_no_place_at_all(ends, tmp_path):
    (tmp_path / "__pycache__").write_text("a file, under which nobody can make a folder")
    assert ends() == "3.0 2 0"
    assert ends(env={"NUMBA_CACHE_DIR": "/dev/null/cache"}) == "3.0 2 0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["__pycache__", "plain.py"]


def test_a_user_without_a_home(tmp_path, another_user):
    """Where a home is not known, '~' would be the name of a folder here."""
    write_module(tmp_path)
    (tmp_path / "__pycache__").write_text("")
    tmp_path.chmod(0o777)
    server = Server(another_user)
    assert server.ends(tmp_path, env={"HOME": ""}) == ["3.0 2 0"]
    assert server.ends(tmp_path, without=["HOME"]) == ["3.0 2 0"]
    server.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["__pycache__", "plain.py"]


def test_a_disk_that_fills_up_keeps_nothing_and_stops_nothing(ends, tmp_path):
    assert ends(most_bytes=LITTLE) == "3.0 2 0"
    assert not kept(tmp_path / "__pycache__")
    assert ends() == "3.0 2 0"
    assert ends() == "3.0 2 2"


def test_a_full_disk(ends, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (disk / "full").write_bytes(bytes(8192))
        assert ends(env={"NUMBA_CACHE_DIR": str(disk)}) == "3.0 2 0"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_code_of_an_older_source_is_not_run_after_a_write_that_failed(ends, tmp_path):
    assert ends() == "3.0 2 0"
    source = tmp_path / "plain.py"
    source.write_text(source.read_text().replace("2 *", "4 *"))

    assert ends(most_bytes=LITTLE) == "6.0 4 0"
    assert ends() == "6.0 4 0"
    files = kept(tmp_path / "__pycache__")
    assert ends() == "6.0 4 2"
    assert kept(tmp_path / "__pycache__") == files


def test_processes_at_once(ends, server, tmp_path):
    assert set(server.ends(tmp_path, count=4)) <= {"3.0 2 0", "3.0 2 1", "3.0 2 2"}
    assert ends() == "3.0 2 2"
    assert len(kept(tmp_path / "__pycache__")) == 2
