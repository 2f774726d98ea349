"""The README and the page of commands: what they show runs as printed, and links lead somewhere."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest

import flds
from tests.flds.test_datasets import write_cifar10

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = (ROOT / "docs/command_line.md").read_text()


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_the_examples_run_as_printed(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    limit, own, general = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(limit, names)
    # both approach the targets, the network with fluctuations of order 1/sqrt(width)
    np.testing.assert_allclose(names["limit"].outputs[-1], [1.0, -1.0, 0.5], atol=0.15)
    np.testing.assert_allclose(names["network"].outputs[-1], names["limit"].outputs[-1], atol=0.1)
    assert "± " in capsys.readouterr().out
    exec(own, names)
    assert float(capsys.readouterr().out) < 0.5  # of 1 at the start
    exec(general, names)
    mean, variance = map(float, capsys.readouterr().out.split())
    # the printed exact values; 200 steps and 100,000 particles leave errors of 0.001 and 0.002
    assert abs(mean - 2 * np.exp(-0.5)) < 0.01
    assert abs(variance - (np.exp(-2) + 0.245 * (1 - np.exp(-2)))) < 0.01


def test_files_it_names_exist():
    named = re.findall(r"`((?:validation|notebooks)/[\w/]+\.\w+)`", README)
    anchors = {f"#{title.lower().replace(' ', '-')}" for title in re.findall(r"^## (.*)$", README, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", README) + named:
        assert target in anchors or (ROOT / target.split("#")[0]).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (demo|test|lint|docs|evidence|benchmark)", README)):
        assert f"\n{target}:" in makefile


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The files that the commands name; few particles for the demo, one section of the report, tiny figures."""
    pytest.importorskip("torch")
    from tests.validation.test_figures import TINY
    from validation import report
    from validation.figures import feature_learning

    monkeypatch.setattr("flds.cli.training.PARTICLE_CHOICES", (300,))
    monkeypatch.setattr(report, "SECTIONS", {"singular": report.SECTIONS["singular"]})
    monkeypatch.setattr(feature_learning, "SIZES", {"quick": TINY})
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", inputs=rng.standard_normal((20, 6)), targets=rng.standard_normal(20))
    (tmp_path / "FOLDER").mkdir()
    write_cifar10(tmp_path / "FOLDER")
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)  # `flds solve` writes its results come what may


@pytest.mark.filterwarnings("ignore:matched noise needs")
def test_the_commands_run_as_printed(small):
    from typer.testing import CliRunner

    from flds.cli.commands import app

    demo = re.search(r"(flds solve .*)", (ROOT / "Makefile").read_text())[1].replace("$(RESULTS)/", "")
    commands = [demo, *re.findall(r"^flds .*$", COMMANDS, re.MULTILINE)]
    assert len(commands) >= 10
    for command in commands:
        _, *arguments = shlex.split(command, comments=True)
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, (command, done.exception)
    for name in ("digits", "run", "mine", "flds", "again", "network", "longer", "limit", "grid/sweep"):
        assert Path(f"{name}.nc").exists(), name
    np.testing.assert_array_equal(flds.load("again.nc").outputs, flds.load("run.nc").outputs)
    assert Path("run.csv").exists()
    assert Path("validation-report/report.md").exists()


def test_every_figure_has_its_command():
    from validation import figures

    named = re.findall(r"^\| \[[12]\] (?:\d|later) \| `flds reproduce (\S+)` \|", COMMANDS, re.MULTILINE)
    assert named == list(figures.descriptions())
