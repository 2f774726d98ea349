"""Commands in processes of their own that begin at once: forks of one that has everything loaded.

Exit statuses, signals and closed pipes need a process of their own, which takes some three seconds of a processor to
load the libraries; a fork takes a few hundredths. What is loaded, and when, is not seen here: tests of that start
`python -m flds`. The process that forks is started by the first test that wants it, and ends with the tests.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
MAIN = "from flds.__main__ import main\nmain()\n"
# Code before `MAIN` that lets the workers of a sweep be forks as well, without what spawned ones do not have: the ends
# of pipes, which would keep others from seeing that the parent is done, and its handlers of signals.
FORKED_WORKERS = """
import multiprocessing, os, signal
class Forking:
    context, ends = multiprocessing.get_context("fork"), []
    Process = context.Process
    def Pipe():
        pair = Forking.context.Pipe()
        Forking.ends.append(pair[0])
        return pair
    def clean():
        for end in Forking.ends:
            end.close()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
os.register_at_fork(after_in_child=Forking.clean)
multiprocessing.get_context = lambda method=None: Forking
"""
# Says "ready" on standard error in the third step of a training: in one write, since the workers of a sweep share it.
AT_WORK = """
import os
from flds.training.solve import Recorder
record = Recorder.record
def told(self, step, *rest):
    if step == 2:
        os.write(2, b"ready\\n")
    return record(self, step, *rest)
Recorder.record = told
"""
# Seconds after which a process that hangs is killed.
PATIENCE = 120.0
_MOST_BYTES = 2**16


def run(*arguments: object, cwd: Path, **rest: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m flds` with these arguments to its end."""
    with start(*arguments, cwd=cwd, **rest) as process:
        printed, errors = process.communicate()
        return subprocess.CompletedProcess(["flds", *map(str, arguments)], process.returncode, printed, errors)


def start(
    *arguments: object, cwd: Path, code: str = MAIN, env: dict[str, str] | None = None, stdout: int | None = None,
    stderr: int | None = None, shutdown: bool = False,
) -> Process:  # fmt: skip
    """Start `python -m flds` with these arguments, or other code as `python -c` does, in a session of its own.

    Output goes to pipes, or to the file descriptors given. With `shutdown` the interpreter takes everything down when
    the code has ended, which takes longer than the start.
    """
    request = {
        "arguments": [str(one) for one in arguments], "cwd": str(cwd), "code": code, "shutdown": shutdown,
        "env": dict(os.environ if env is None else env),
    }  # fmt: skip
    return Process(request, (stdout, stderr))


class Process:
    """A fork, with some of the methods of `subprocess.Popen`."""

    def __init__(self, request: dict[str, Any], given: tuple[int | None, int | None]) -> None:
        self.returncode: int | None = None
        pipes = [os.pipe() if descriptor is None else (None, os.dup(descriptor)) for descriptor in given]
        self._server = _server()
        self.pid = self._server.ask(request, [theirs for _, theirs in pipes])
        for _, theirs in pipes:
            os.close(theirs)
        self.stdout, self.stderr = (None if ours is None else os.fdopen(ours) for ours, _ in pipes)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.wait()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def poll(self) -> int | None:
        """Return the exit status if the process has ended; a signal with a minus sign."""
        if self.returncode is None:
            status = self._server.ask({"ended": self.pid})
            self.returncode = None if status is None else os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """Read both outputs to their ends, wait for that of the process, and return what was read."""
        deadline = time.monotonic() + timeout
        said = {stream: "" for stream in (self.stdout, self.stderr) if stream is not None}
        with selectors.DefaultSelector() as selector:
            for stream in said:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    text = key.fileobj.read()
                    said[key.fileobj] += text
                    if not text:
                        selector.unregister(key.fileobj)
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired("a fork", timeout)
        self.wait(max(1.0, deadline - time.monotonic()))
        return said.get(self.stdout, ""), said.get(self.stderr, "")


class _Server:
    """The process that forks, at the other end of a socket."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-c", "from tests.flds.forks import serve\nserve()"]
        with theirs:
            # its output goes to pipes, as theirs does: Python treats files in another way from the start on
            self.process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        atexit.register(self.close, os.getpid())

    def ask(self, request: dict[str, Any], descriptors: list[int] | tuple[()] = ()) -> Any:
        socket.send_fds(self.socket, [json.dumps(request).encode()], descriptors)
        answer = self.socket.recv(_MOST_BYTES)
        if not answer:
            raise RuntimeError(f"the process that forks has ended: {self.process.communicate()[1]}")
        return json.loads(answer)

    def close(self, owner: int) -> None:
        self.socket.close()
        if os.getpid() == owner:
            self.process.communicate()


_servers: list[_Server] = []


def _server() -> _Server:
    if not _servers:
        _servers.append(_Server())
    return _servers[0]


def serve() -> None:
    """Fork for every request; this returns in forks that are to be shut down."""
    _load()
    connection = socket.socket(fileno=os.dup(0))
    while True:
        asked, descriptors, *_ = socket.recv_fds(connection, _MOST_BYTES, 2)
        if not asked:
            return
        request = json.loads(asked)
        if "ended" in request:
            number, status = os.waitpid(request["ended"], os.WNOHANG)
            connection.send(json.dumps(status if number else None).encode())
            continue
        number = os.fork()
        if not number:
            break
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(json.dumps(number).encode())
    connection.close()
    os.setsid()
    for place, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), *descriptors)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["-c", *request["arguments"]]
    code = compile(request["code"], "<string>", "exec")
    place = sys.modules["__main__"].__dict__  # where its functions are looked for when they are sent to workers
    if request["shutdown"]:
        exec(code, place)
    else:
        _end(code, place)


def _end(code: Any, place: dict[str, Any]) -> NoReturn:
    """Run code to its end and leave without taking down what is loaded."""
    import traceback

    status: Any = 0
    try:
        exec(code, place)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _load() -> None:
    """Load what commands load, compiled kernels and fonts among it."""
    import gc
    import tempfile
    import warnings

    import numpy as np

    import flds.cli.commands
    import flds.sweeps.runs
    import validation.figures
    import validation.report  # noqa: F401
    from flds.datasets import load_digits

    load_digits()
    problem = flds.TrainingProblem(np.eye(2), [1.0, -1.0], steps=2)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        flds.simulate_resnet(problem, width=20, depth=2, operator="dense", threads=1)
        solution = flds.solve_flds(problem, particles=60, depth=2, threads=1, keep_state=True)
        solution.plot(Path(folder, "run.png"))
        flds.load(solution.save(Path(folder, "run.nc"))).summary()
    gc.freeze()
