"""Processes that work on items: what the death of one costs, what interrupts leave, and how long they live."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from flds import processes
from flds.processes import run_each
from solvers.interrupts import undisturbed


def work(item):
    """Do what the item says, in a folder where every try leaves a line."""
    name, folder = item
    with open(folder / name, "a") as file:
        file.write("tried\n")
    tries = len((folder / name).read_text().splitlines())
    if name.startswith("killed") or (name.startswith("unlucky") and tries == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "leaves":
        os._exit(3)
    if name == "quits":
        raise SystemExit(4)
    if name == "raises":
        raise ValueError("no such thing")
    return "" if name.startswith("unlucky") else name


class Unreadable:
    def __reduce__(self):
        return (int, ("not a number",))


def outcomes(items, number=2):
    found = []
    run_each(work, items, number, lambda item, said: found.append((item, said)))
    assert not multiprocessing.active_children()
    return dict(found)


def test_a_process_that_dies_costs_only_its_own_item(tmp_path):
    names = ["killed 1", "a", "leaves", "quits", "b", "unlucky 1", "raises", "killed 2", "c", "unlucky 2", "d"]
    found = outcomes([(name, tmp_path) for name in names])
    died = "the worker process died: "
    assert {name: said for (name, _), said in found.items()} == {
        "killed 1": f"{died}killed by signal 9, perhaps out of memory", "a": "a",
        "leaves": f"{died}it ended with exit status 3", "quits": f"{died}it ended with exit status 4", "b": "b",
        "unlucky 1": "", "raises": "ValueError: no such thing",
        "killed 2": f"{died}killed by signal 9, perhaps out of memory", "c": "c", "unlucky 2": "", "d": "d",
    }  # fmt: skip
    tries = Counter({name: len((tmp_path / name).read_text().splitlines()) for name in names})
    twice = {"killed 1", "killed 2", "leaves", "quits", "unlucky 1", "unlucky 2"}
    assert tries == {name: 2 if name in twice else 1 for name in names}


def test_an_item_that_a_process_cannot_read_is_told(tmp_path):
    found = []
    run_each(work, [("a", tmp_path), Unreadable()], 1, lambda item, said: found.append(said))
    assert found == ["a", "ValueError: invalid literal for int() with base 10: 'not a number'"]


def test_what_is_raised_here_ends_the_processes(tmp_path):
    def ended(item, said):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_each(work, [(name, tmp_path) for name in "abcd"], 2, ended)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_raise_wait_until_a_process_has_started(number):
    class Ended(KeyboardInterrupt):
        pass

    def end(number, frame):
        raise Ended

    done = []

    def disturbed():
        with undisturbed():
            signal.raise_signal(number)
            done.append("start")
        done.append("more")

    before = signal.signal(number, end)
    try:
        with pytest.raises(Ended):
            disturbed()
        assert done == ["start"]
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)


def test_a_system_without_room_for_more_processes_takes_fewer(tmp_path, monkeypatch):
    start, started = processes._Worker, []

    def limited():
        if started:
            raise BlockingIOError("no more processes")
        started.append(start())
        return started[0]

    monkeypatch.setattr(processes, "_Worker", limited)
    assert len(outcomes([(name, tmp_path) for name in "abc"], 3)) == 3
    started[:] = ["one"]
    with pytest.raises(BlockingIOError):
        outcomes([("a", tmp_path)])


SCRIPT = """
import multiprocessing, os, signal, sys, time
from flds.processes import run_each, refuse_unguarded
{top}
def work(item):
    os.write(1, f"{{os.getpid()}}\\n".encode())  # in one piece, as another writes there too
    time.sleep(60)
    return ""
if {guard}:
    refuse_unguarded(True)
    run_each(work, [1, 2], 2, print)
"""


def start(folder, top="", guard="__name__ == '__main__'"):
    (folder / "run.py").write_text(SCRIPT.format(top=top, guard=guard))
    return subprocess.Popen([sys.executable, str(folder / "run.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, start_new_session=True)  # fmt: skip


@pytest.mark.parametrize(
    ("top", "guard", "message"),
    [
        ("", "True", "RuntimeError: a script must call flds.sweep under  if __name__ == '__main__':  since worker"),
        ('if __name__ == "__mp_main__": sys.exit(5)', "True", "ended with exit status 5 before it began; a script"),
        ('if __name__ == "__mp_main__": os.kill(os.getpid(), 9)', "True",
         "4 worker processes in a row died before they began: killed by signal 9, perhaps out of memory; take fewer"),
    ],
)  # fmt: skip
def test_processes_that_cannot_begin_are_told(tmp_path, top, guard, message):
    with start(tmp_path, top, guard) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message in errors.splitlines()[-1]
    assert errors.count("Traceback") == 1
    assert "bootstrapping phase" not in errors


def alive(number):
    """Whether a process is there; one that has ended and nobody has asked for counts as gone."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("kernel", ["", "import flds.processes; flds.processes._ask_kernel = lambda: False"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_parent(tmp_path, number, kernel):
    with start(tmp_path, kernel) as process:
        try:
            workers = [int(process.stdout.readline()) for _ in range(2)]
            assert all(map(alive, workers))
            process.send_signal(number)
            assert process.wait(10) == -number
            deadline = time.monotonic() + 10
            while any(map(alive, workers)) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not any(map(alive, workers))
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
