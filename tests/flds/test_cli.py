"""The command line as a user meets it: output, files, exit codes, one line per mistake."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

import flds
from tests.flds.forks import FORKED_WORKERS, MAIN, run

FAST = ["--particles", "300", "--depth", "2", "--steps", "4", "--train-samples", "20", "--test-samples", "10",
        "--batch-size", "4"]  # fmt: skip
# Code before `MAIN` for runs whose picture is not what is tested.
NO_PICTURE = "import flds.cli.commands\nflds.cli.commands.attempt = lambda *rest: False\n"


def test_solve_writes_results_and_a_picture(tmp_path):
    """In a process that loads what it needs by itself."""
    command = [sys.executable, "-m", "flds", "solve", *FAST, "--out", "run.nc"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert "(chance 10.0%)" in done.stdout
    assert "run.nc" in done.stdout
    assert "\r" not in done.stderr  # no progress bar in a pipe
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.nc", "run.png"]
    solution = flds.load(tmp_path / "run.nc")
    assert solution.test_outputs.shape[1:] == (10, 10)
    shown = run("info", "run.nc", cwd=tmp_path)
    assert shown.returncode == 0
    assert "status     completed" in shown.stdout
    assert "test_accuracy" in shown.stdout


def test_options_reach_the_solver(tmp_path):
    options = [
        "--width", 40, "--depth", 3, "--steps", 2, "--activation", "gelu", "--horizon", 0.5, "--learning-rate", 0.3,
        "--batch-size", 2, "--batch-order", "sequential", "--train-samples", 12, "--test-samples", 5,
        "--backward-weights", "independent", "--operator", "lazy", "--tolerance", 0.01, "--rank-budget", 30, 31,
        "--noise-depth", 6, "--record-every", 1, "--recorded-samples", 3, "--record-kernels", "--dtype", "float32",
        "--threads", 1, "--replicates", 2, "--seed", 5, "--quiet", "--out", "x.nc",
    ]  # fmt: skip
    done = run("solve", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    solution = flds.load(tmp_path / "x.nc")
    expected = {
        "particles": 40, "depth": 3, "backward_weights": "independent", "operator": "lazy", "tolerance": 0.01,
        "rank_budget": [30, 31], "noise_depth": 6, "record_every": 1, "record_kernels": True, "dtype": "float32",
        "threads": 1, "replicates": 2, "seed": 5, "sampling": "law", "solver": "simulate_resnet",
    }  # fmt: skip
    assert {name: solution.settings[name] for name in expected} == expected
    problem = solution.extra["problem"]
    assert (problem["activation"], problem["horizon"], problem["learning_rate"]) == ("gelu", 0.5, 0.3)
    assert (problem["batch_size"], problem["batch_order"], problem["steps"]) == (2, "sequential", 2)


@pytest.mark.parametrize(
    ("rule", "rate"),
    [
        (flds.SGD(), 1.0), (flds.SGD(momentum=0.75), 0.25), (flds.Muon(), 0.2), (flds.Adam(), 0.1), ("muon", 0.2),
        ("adam", 0.1), ("sgd", 1.0), ({"hidden": "muon"}, 1.0), ("none of these", 1.0),
    ],
)  # fmt: skip
def test_rules_have_rates_of_their_own_by_default(rule, rate):
    from flds.cli.training import default_rate

    assert default_rate(rule) == rate


def test_a_default_rate_is_scheduled():
    from flds.cli.training import DEFAULTS, training_problem

    chosen = DEFAULTS | {"optimizer": flds.Muon(), "steps": 2, "train_samples": 10, "test_samples": 5}
    rates = {
        schedule: training_problem(flds.load_digits(), **chosen, schedule=schedule).learning_rate
        for schedule in ("constant", "linear")
    }
    assert rates["constant"] == 0.2
    np.testing.assert_allclose(rates["linear"], [0.2, 0.1], rtol=1e-15)


def test_own_data(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", inputs=rng.standard_normal((6, 3)), targets=rng.standard_normal((6, 2)))
    done = run("solve", "--data", "mine.npz", "--particles", 300, "--depth", 2, "--steps", 3, cwd=tmp_path,
               code=NO_PICTURE + MAIN)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert flds.load(tmp_path / "flds.nc").outputs.shape[1:] == (6, 2)


def test_a_target_error_makes_an_estimate(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", inputs=rng.standard_normal((6, 3)), targets=rng.standard_normal((6, 2)))
    done = run("solve", "--data", "mine.npz", "--target-error", 10, "--depth", 2, "--replicates", 2, "--steps", 2,
               cwd=tmp_path, code=NO_PICTURE + MAIN)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "outputs ± half width (95 %)" in done.stdout
    found = flds.load(tmp_path / "flds.nc")
    assert isinstance(found, flds.LimitEstimate)
    assert (found.settings["depth"], found.settings["replicates"], found.settings["target_error"]) == (2, 2, 10.0)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["solve", "--particles", "-5"], 2, "flds: particles must be at least 1, got -5"),
        (["solve", "--data", "mnist"], 2, "flds: --data must be digits, cifar10:FOLDER or FILE.npz, got 'mnist'"),
        (["solve", "--data", "none.npz"], 2, "flds: there is no file 'none.npz'"),
        (["solve", "--data", "cifar10:nowhere"], 2, "flds: there is no folder 'nowhere'"),
        (["solve", "--out", "nowhere/run.nc"], 2, "flds: --out: the folder 'nowhere' does not exist; create it first"),
        (["solve", "--out", "run.png"], 2, "flds: --out must name a results file such as run.nc, got 'run.png'"),
        (["solve", "--learning-rate", "nan"], 2, "flds: learning_rate must be finite, got nan"),
        (["solve", "--record-every", "0"], 2, "flds: record_every must be at least 1, got 0"),
        (
            ["solve", "--particles", "5", "--width", "5"],
            2,
            "flds: give --particles for the limit or --width for a finite network, not both",
        ),
        (
            ["solve", "--target-error", "0.1", "--width", "5"],
            2,
            "flds: --target-error chooses sizes and method; leave out --width",
        ),
        (["solve", "--budget-seconds", "5"], 2, "flds: --budget-seconds goes with --target-error"),
        (["solve", "--target-error", "0"], 2, "flds: target_error must be a finite number above 0, got 0"),
        (["solve", "--particles", "100000000"], 4, "flds: this run needs"),
        (["solve", "--activation", "swish"], 2, "flds: activation must be one of identity, tanh, relu, gelu"),
        (["solve", "--operator", "sparse"], 2, "flds: operator must be one of auto, lazy, dense, got 'sparse'"),
        (["solve", "--width", "5", "--sampling", "matched"], 2, "flds: --sampling must be law for a finite network"),
        (["solve", "--loss", "logistic"], 2, 'flds: targets must be -1 or 1 for the loss "logistic"'),
        (["info", "none.nc"], 2, "flds: there is no file 'none.nc'"),
        (["validate", "everything"], 2, "flds: section must be one of exact_training, "),
        (["reproduce"], 2, "flds: name a figure, such as feature-learning/fig1"),
        (["reproduce", "fig1"], 2, "flds: figure must be one of feature-learning/fig1"),
        (["reproduce", "feature-learning/fig1", "--data", "mnist"], 2, "flds: --data must be digits, cifar10:FOLDER"),
        (["reproduce", "feature-learning/fig1", "--seed", "-1"], 2, "flds: seed must be"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(arguments, code, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(message), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["solve", "--steps", "many"], ["solve", "--nothing"], ["dance"]])
def test_usage_errors_have_status_2_and_no_traceback(arguments, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "rror" in done.stderr.splitlines()[-1]


def test_divergence_has_its_status_and_keeps_the_results(tmp_path):
    done = run("solve", *FAST, "--activation", "identity", "--steps", 300, "--learning-rate", 1e8, cwd=tmp_path)
    assert done.returncode == 3
    assert "warning: training diverged after step" in done.stderr
    assert flds.load(tmp_path / "flds.nc").status == "diverged"
    assert (tmp_path / "flds.png").exists()


def test_rank_budget_has_its_status(tmp_path):
    done = run("solve", *FAST, "--operator", "lazy", "--sampling", "law", "--rank-budget", 5, 5, cwd=tmp_path,
               code=NO_PICTURE + MAIN)  # fmt: skip
    assert done.returncode == 4
    assert "the rank outgrew --rank-budget (5, 5)" in done.stderr
    assert flds.load(tmp_path / "flds.nc").status == "rank_budget"


def test_interrupt_keeps_what_was_computed(tmp_path):
    """Ctrl-C in the third step; `test_early_states.py` sends it from outside."""
    code = """
import signal
from flds.training.solve import Recorder
record, calls = Recorder.record, []
def interrupted(*rest):
    calls.append(1)
    if len(calls) == 3:
        signal.raise_signal(signal.SIGINT)
    return record(*rest)
Recorder.record = interrupted
"""
    done = run("solve", *FAST, "--record-every", 1, cwd=tmp_path, code=code + MAIN)
    assert done.returncode == 130
    assert "interrupted after step 1" in done.stderr
    assert "Traceback" not in done.stderr
    solution = flds.load(tmp_path / "flds.nc")
    assert solution.status == "interrupted"
    assert solution.steps.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            "import flds.cli.commands; flds.cli.commands.load_data = interrupt",
            "flds: interrupted before anything was computed\n",
        ),
        (
            "import flds.cli.commands; flds.cli.commands.app = interrupt",
            "flds: interrupted before anything was computed\n",
        ),
        ("sys.meta_path.insert(0, Finder)", "flds: interrupted before anything was computed\n"),
    ],
)
def test_interrupting_early_is_no_traceback(broken, message, tmp_path):
    """Ctrl-C while data load, before the command runs, and while the command line itself is imported."""
    code = f"""
import sys
def interrupt(*arguments, **rest):
    raise KeyboardInterrupt
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "flds.cli.commands":
            interrupt()
{broken}
sys.argv = ["flds", "solve"]
from flds.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, message)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_results_are_never_replaced(tmp_path):
    np.savez(tmp_path / "mine.npz", inputs=np.eye(3), targets=np.arange(3))
    before = (tmp_path / "mine.npz").read_bytes()
    done = run("solve", "--data", "mine.npz", "--out", "mine.npz", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "flds: --out: 'mine.npz' exists and is not a results file; choose another name\n"
    assert (tmp_path / "mine.npz").read_bytes() == before
    for _ in range(2):  # a results file may be replaced
        done = run("solve", "--data", "mine.npz", "--width", 20, "--depth", 1, "--steps", 1, "--quiet", cwd=tmp_path,
                   code=NO_PICTURE + MAIN)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    # whole numbers from 0 on are classes
    assert flds.load(tmp_path / "flds.nc").extra["problem"]["loss"] == "cross_entropy"


def test_help_and_version(tmp_path):
    assert "Train on data" in run("--help", cwd=tmp_path).stdout
    text = run("solve", "--help", cwd=tmp_path).stdout
    for option in ("--data", "--backward-weights", "--replicates", "--quiet", "--out"):
        assert option in text
    assert run("--version", cwd=tmp_path).stdout.strip() == flds.__version__


WITHOUT_TORCH = """
import sys
for name in list(sys.modules):
    if name.split(".")[0] in ("torch", "torchsde", "validation"):
        del sys.modules[name]
sys.modules["torch"] = None
"""


def test_a_missing_extra_says_what_to_install(tmp_path):
    line = "flds: this command needs torch: install the extra with pip install 'flds[validation]'\n"
    code = "import sys; sys.modules['torch'] = None; sys.argv[0] = 'flds'; from flds.cli.commands import main; main()"
    command = [sys.executable, "-c", code, "validate", "singular"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, line)
    done = run("reproduce", "feature-learning/fig1", cwd=tmp_path, code=WITHOUT_TORCH + MAIN)
    assert (done.returncode, done.stderr) == (2, line)


def test_a_report_needs_a_folder(tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = run("validate", "--out", "taken", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "flds: --out must be a folder, got the file 'taken'\n"
    assert (tmp_path / "taken").read_text() == "mine"


def test_phase_diagram_names_the_regime_and_refuses_nonsense(tmp_path):
    base = ["phase-diagram", "--dimension", 100, "--depth", 100, "--hidden-width", 100]
    done = run(*base, "--sigma-v", 50, "--eta-u", 1000, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("regime          lazy ODE (sigma_v / sqrt(D) = 5)")
    assert "η_u = 1e+03 is large against the balanced rate 4" in done.stdout
    assert "advice" not in run(*base, cwd=tmp_path).stdout
    wrong = run(*base, "--sigma-v", -1, cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.strip() == "flds: sigma_v must be a finite number of at least 0, got -1"


def test_sweep_trains_a_grid_and_names_mistakes(tmp_path):
    few = ["--train-samples", 10, "--test-samples", 5, "--set", "steps=1", "--set", "particles=100", "--set", "depth=2"]
    done = run("sweep", "--grid", "learning_rate=0.5,1", *few, "--workers", 1, "--out", "grid", cwd=tmp_path,
               code=FORKED_WORKERS + MAIN)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "runs       2 completed\nbest       test loss" in done.stdout
    assert done.stdout.endswith("results  grid/sweep.nc\n")
    with xarray.open_dataset(tmp_path / "grid" / "sweep.nc") as found:
        assert found.test_accuracy.sizes["learning_rate"] == 2
    for arguments, message in (
        (["--grid", "depth"], "--grid and --set need NAME=VALUE, got 'depth'"),
        (["--grid", "rate=1"], "grid must name fields of the problem or arguments of the solver, got 'rate'"),
        (
            ["--grid", "depth=2", "--grid", "depth=3"],
            "depth is given twice; list all its values in one --grid",
        ),
        (["--grid", "depth=2", "--set", "executor=1"], "executor is not a setting of a run"),
        (["--grid", "depth=2", "--set", "steps=2,3"], "--set takes one value, got 2 for steps; use --grid for several"),
        (["--grid", "depth=2", "--data", "x.csv"], "--data must be digits, cifar10:FOLDER or FILE.npz"),
    ):
        wrong = run("sweep", *arguments, cwd=tmp_path)
        assert wrong.returncode == 2
        assert message in wrong.stderr
        assert len(wrong.stderr.splitlines()) == 1


def test_training_goes_on_from_a_file(tmp_path, monkeypatch):
    from flds.cli.commands import app

    start = ["solve", *FAST, "--tolerance", 0.01]
    whole = run(*start, "--steps", 6, "--out", "whole.nc", cwd=tmp_path, code=NO_PICTURE + MAIN)
    part = run(*start, "--out", "part.nc", "--keep-state", cwd=tmp_path, code=NO_PICTURE + MAIN)
    longer = run("resume", "part.nc", "--steps", 2, "--out", "longer.nc", cwd=tmp_path, code=NO_PICTURE + MAIN)
    assert (whole.returncode, part.returncode, longer.returncode) == (0, 0, 0), longer.stderr
    assert "step       6 of 6" in longer.stdout
    solution, expected = (flds.load(tmp_path / name) for name in ("longer.nc", "whole.nc"))
    np.testing.assert_array_equal(solution.batch_loss, expected.batch_loss)
    assert solution.predict(np.zeros((2, 64))).shape == (2, 10)
    assert "train on   flds resume part.nc --steps K" in run("info", "part.nc", cwd=tmp_path).stdout
    before = (tmp_path / "part.nc").read_bytes()
    for arguments, message in (
        (["resume", "whole.nc", "--steps", 2], "the solution has no state of the trained network"),
        (["resume", "part.nc", "--steps", 2, "--out", "part.nc"], "--out: 'part.nc' is the file to start from"),
        (["solve", "--from", "part.nc", "--out", "part.nc"], "--out: 'part.nc' is the file to start from"),
        (["info", "part.nc", "--csv", "part.nc"], "--csv must name a table such as run.csv, got 'part.nc'"),
    ):
        monkeypatch.chdir(tmp_path)
        wrong = CliRunner().invoke(app, [str(argument) for argument in arguments])  # `main` makes errors lines
        assert str(wrong.exception).startswith(message)
    assert (tmp_path / "part.nc").read_bytes() == before


def test_a_file_is_run_again_from_the_command_line(tmp_path):
    first = run("solve", *FAST, "--out", "first.nc", "--quiet", cwd=tmp_path, code=NO_PICTURE + MAIN)
    assert first.returncode == 0, first.stderr
    assert "rerun      flds solve --from first.nc" in run("info", "first.nc", cwd=tmp_path).stdout
    again = run("solve", "--from", "first.nc", "--out", "again.nc", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    one, two = flds.load(tmp_path / "first.nc"), flds.load(tmp_path / "again.nc")
    assert np.array_equal(one.outputs, two.outputs)
    wrong = run("solve", "--from", "first.nc", "--depth", 3, cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.strip() == "flds: --from takes everything from the file; leave out --depth"
