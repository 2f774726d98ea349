"""How commands end in a terminal: Ctrl-C as often as one likes, and output that nobody reads, without a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import flds
from tests.conftest import one_sample
from tests.flds import forks

SMALL = ["solve", "--particles", "300", "--depth", "2", "--steps", "4", "--train-samples", "20", "--test-samples", "9"]
LONG = ["solve", "--particles", "300", "--depth", "8", "--steps", "900", "--test-samples", "2", "--record-every", "9"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return flds.solve_flds(one_sample(), particles=50, depth=1).save(tmp_path_factory.mktemp("results") / "run.nc")


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "RESULTS"], ["--help"], ["solve", "--help"], ["--version"], ["validate", "--list"],
        ["reproduce", "--list"], ["phase-diagram", "--dimension", "9", "--depth", "9", "--hidden-width", "9"],
        [*SMALL, "--out", "run.nc"],
    ],
)  # fmt: skip
def test_output_that_nobody_reads_ends_quietly(arguments, results, tmp_path):
    arguments = [str(results) if word == "RESULTS" else word for word in arguments]
    reader, writer = os.pipe()
    os.close(reader)
    done = forks.run(*arguments, cwd=tmp_path, stdout=writer, shutdown=True)
    os.close(writer)
    said = [
        line for line in done.stderr.splitlines() if not line.startswith(("300 particles", "warning: this is a dense"))
    ]
    assert (done.returncode, said) == (141, [])
    assert (tmp_path / "run.nc").exists() == (arguments[0] == "solve" and "--out" in arguments)


def test_results_are_written_though_nobody_reads_the_warnings(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    options = ["--operator", "lazy", "--sampling", "law", "--rank-budget", 5, 5]
    done = forks.run(*SMALL, *options, "--out", "run.nc", cwd=tmp_path, stdout=writer, stderr=writer, shutdown=True)
    os.close(writer)
    assert done.returncode == 141
    assert flds.load(tmp_path / "run.nc").status == "rank_budget"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_one_line(results):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flds", "info", results], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (2, "flds: [Errno 28] No space left on device\n")


# Says so when the command line begins to load.
STARTED = """
import sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "flds.cli.commands":
            print("ready", file=sys.stderr, flush=True)
sys.meta_path.insert(0, Finder)
sys.argv = ["flds", *sys.argv[1:]]
from flds.__main__ import main
main()
"""
SWEEP = ["sweep", "--grid", "seed=1,2,3,4", "--set", "particles=300", "--set", "depth=8", "--set", "steps=400",
         "--workers", "2"]  # fmt: skip
COMMANDS = [LONG, SWEEP, ["validate", "--quiet"], ["reproduce", "feature-learning/fig2"]]


def loading(arguments, folder):
    """Start a command that says when it begins to load."""
    return subprocess.Popen(
        [sys.executable, "-c", STARTED, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def interrupted_often(process, delay=0.0):
    """Send Ctrl-C every 10 ms to a command that is ready, and return what is wrong with its end, or nothing."""
    said = []
    assert any(said.append(line) or line == "ready\n" for line in process.stderr), said
    time.sleep(delay)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.01)
    errors = process.communicate(timeout=10)[1]
    # after the interpreter's last step nothing holds a signal off any more
    good = process.returncode in (130, -signal.SIGINT) and "nterrupted" in errors
    good = good and "Traceback" not in errors and "Exception ignored" not in errors
    return "" if good else f"status {process.returncode}: {errors}"


@pytest.mark.parametrize(("arguments", "delay"), [(COMMANDS[2], 0.0), (COMMANDS[0], 0.2), (COMMANDS[1], 0.4)])
def test_several_interrupts_while_a_command_loads_are_no_traceback(arguments, delay, tmp_path):
    """Ctrl-C every 10 ms until the command has ended; at more moments in `tests/test_endurance.py`."""
    with loading(arguments, tmp_path) as process:
        assert interrupted_often(process, delay) == ""


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_several_interrupts_in_a_row_are_no_traceback(arguments, tmp_path):
    """The same for commands that are at work, also for the processes of a sweep."""
    code = forks.FORKED_WORKERS + forks.AT_WORK + forks.MAIN
    with forks.start(*arguments, cwd=tmp_path, code=code, shutdown=True) as process:
        assert interrupted_often(process) == ""


def test_another_end_would_be_noticed(tmp_path):
    """One that says nothing, as Typer has it."""
    code = """
import contextlib, flds.cli.commands
flds.cli.console.ending = flds.cli.commands.ending = contextlib.nullcontext
"""
    with forks.start("validate", cwd=tmp_path, code=code + forks.AT_WORK + forks.MAIN, shutdown=True) as process:
        assert interrupted_often(process) != ""


DURING = """
import atexit, os, signal, sys, time
def interrupt(*rest):
    for _ in range(5):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
class Interrupting:
    def __del__(self):
        interrupt()
{prepare}
sys.argv = ["flds", *sys.argv[1:]]
from flds.__main__ import main
main()
"""
SAVE = """
import flds.results.solution
save = solvers.results.solution.Solution.save
def slowly(self, path):
    interrupt()
    written = save(self, path)
    interrupt()
    return written
solvers.results.solution.Solution.save = slowly
"""


@pytest.mark.parametrize(
    ("prepare", "status", "kept"),
    [
        ("import solvers.results.solution" + SAVE, 0, True),  # while results are written
        ("atexit.register(interrupt)", 0, True),  # in the interpreter's shutdown
        ("import flds.cli.commands; flds.cli.commands.load_data = interrupt", 130, False),  # too early
        # where Python cannot raise it, and would print it and go on; it is raised again before the solve or during it
        ("import flds.cli.commands; flds.cli.commands.check_out = lambda *rest: Interrupting() and None", 130, None),
        # where a library makes another error of it
        ("import flds.cli.commands\ndef broken(*rest):\n try:\n  interrupt()\n finally:\n"
         "  raise RuntimeError('from C')\nflds.cli.commands.load_data = broken", 130, False),
    ],
)  # fmt: skip
def test_interrupts_at_any_place_are_no_traceback(prepare, status, kept, tmp_path):
    code = DURING.format(prepare=prepare)
    done = forks.run(*(LONG if kept is None else SMALL), cwd=tmp_path, code=code, shutdown=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    written = (tmp_path / "flds.nc").exists()
    assert kept is None or written == kept
    if written:
        found = flds.load(tmp_path / "flds.nc")
        assert found.status == ("interrupted" if kept is None else "completed")
        assert np.isfinite(found.outputs).all()


def test_interrupts_that_count_twice_would_be_noticed(tmp_path):
    """What keeps results from a second Ctrl-C, undone."""
    undone = "import flds.cli.console\nflds.cli.console._TOGETHER = -1.0\n"
    undone += "flds.cli.console.Interrupts.ignore = lambda self: None\nimport solvers.results.solution" + SAVE
    done = forks.run(*SMALL, cwd=tmp_path, code=DURING.format(prepare=undone), shutdown=True)
    assert done.returncode != 0
    assert not (tmp_path / "flds.nc").exists()


def test_interrupts_are_left_alone_where_a_shell_ignores_them(tmp_path):
    start = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    code = DURING.format(prepare=f"{start}; atexit.register(interrupt); import flds.cli.commands; "
                                 "flds.cli.commands.check_out = interrupt")  # fmt: skip
    done = forks.run(*SMALL, cwd=tmp_path, code=code, shutdown=True)
    assert done.returncode == 0, done.stderr


def test_other_lost_errors_are_still_told():
    start = "from flds.cli.console import interrupts; interrupts.catch()"
    code = f"{start}\nclass A:\n def __del__(self): raise ValueError\nA()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError" in done.stderr


@pytest.mark.parametrize("ignored", ["", "import warnings; warnings.simplefilter('ignore');"])
@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_report_has_no_claims_of_interrupted_runs(ignored, quiet, tmp_path):
    """Solvers keep what an interrupt leaves of a run, warn of it and go on, which a report must not."""
    prepare = f"""
import flds, flds.training.solve
import numpy as np
from validation import report
from validation.claims import check
def section(scale):
    "A section."
    {ignored}
    flds.training.solve.Recorder.record = interrupt
    problem = flds.TrainingProblem(np.ones((1, 1)), [1.0], steps=2)
    run = flds.solve_flds(problem, particles=50, depth=1)
    yield check("steps", run.status, "completed", False)
report.SECTIONS["singular"] = section
"""
    done = forks.run("validate", "singular", *quiet, cwd=tmp_path, code=DURING.format(prepare=prepare), shutdown=True)
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert done.stderr == "flds: interrupted; sections that had ended are kept in the report\n"
    assert not (tmp_path / "validation-report").exists()
