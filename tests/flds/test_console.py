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

SMALL = ["solve", "--particles", "300", "--depth", "2", "--steps", "4", "--train-samples", "20", "--test-samples", "9"]
LONG = ["solve", "--particles", "4000", "--depth", "8", "--steps", "400", "--test-samples", "2", "--record-every", "9"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return flds.solve_flds(one_sample(), particles=50, depth=1).save(tmp_path_factory.mktemp("results") / "run.nc")


def command(*arguments):
    return [sys.executable, "-m", "flds", *map(str, arguments)]


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
    done = subprocess.run(command(*arguments), cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    said = [line for line in done.stderr.splitlines() if not line.startswith(("300 particles", "warning: matched"))]
    assert (done.returncode, said) == (141, [])
    assert (tmp_path / "run.nc").exists() == (arguments[0] == "solve" and "--out" in arguments)


def test_results_are_written_though_nobody_reads_the_warnings(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    options = ["--operator", "lazy", "--sampling", "law", "--rank-budget", 5, 5]
    done = subprocess.run(command(*SMALL, *options, "--out", "run.nc"), cwd=tmp_path, stdout=writer, stderr=writer)
    os.close(writer)
    assert done.returncode == 141
    assert flds.load(tmp_path / "run.nc").status == "rank_budget"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_one_line(results):
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("info", results), stdout=full, stderr=subprocess.PIPE, text=True)
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
SWEEP = ["sweep", "--grid", "seed=1,2,3,4", "--set", "particles=2000", "--set", "depth=8", "--workers", "2"]


@pytest.mark.parametrize("delay", [0.0, 0.4, 1.5, 4.0])
@pytest.mark.parametrize("arguments", [LONG, SWEEP, ["validate", "--quiet"], ["reproduce", "feature-learning/fig2"]])
def test_several_interrupts_in_a_row_are_no_traceback(arguments, delay, tmp_path):
    """Ctrl-C every 10 ms, also for the processes of a sweep, until the command has ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr.readline() == "ready\n"
    time.sleep(delay)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.01)
    errors = process.communicate(timeout=10)[1]
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert "nterrupted" in errors
    # after the interpreter's last step nothing holds a signal off any more
    assert process.returncode in (130, -signal.SIGINT)


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
        # where Python cannot raise it, and would print it and go on
        ("import flds.cli.commands; flds.cli.commands.check_out = lambda *rest: Interrupting() and None", 130, False),
        # where a library makes another error of it
        ("import flds.cli.commands\ndef broken(*rest):\n try:\n  interrupt()\n finally:\n"
         "  raise RuntimeError('from C')\nflds.cli.commands.load_data = broken", 130, False),
    ],
)  # fmt: skip
def test_interrupts_at_any_place_are_no_traceback(prepare, status, kept, tmp_path):
    code = DURING.format(prepare=prepare)
    done = subprocess.run([sys.executable, "-c", code, *SMALL], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "flds.nc").exists() == kept
    if kept:
        assert np.isfinite(flds.load(tmp_path / "flds.nc").outputs).all()


def test_interrupts_are_left_alone_where_a_shell_ignores_them(tmp_path):
    start = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    code = DURING.format(prepare=f"{start}; atexit.register(interrupt); import flds.cli.commands; "
                                 "flds.cli.commands.check_out = interrupt")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, *SMALL], cwd=tmp_path, capture_output=True, text=True)
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
    done = subprocess.run(
        [sys.executable, "-c", DURING.format(prepare=prepare), "validate", "singular", *quiet], cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert done.stderr == "flds: interrupted; sections that had ended are kept in the report\n"
    assert not (tmp_path / "validation-report").exists()
