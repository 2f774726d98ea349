"""The README's example runs as printed, its commands exist, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np

import flds

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs_as_printed(tmp_path, monkeypatch, capsys):
    code, mean_ode, general = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    # both approach the targets, the network with fluctuations of order 1/sqrt(width)
    np.testing.assert_allclose(names["limit"].outputs[-1], [1.0, -1.0, 0.5], atol=0.15)
    np.testing.assert_allclose(names["network"].outputs[-1], names["limit"].outputs[-1], atol=0.1)
    assert flds.load("limit.nc").status == "completed"
    assert capsys.readouterr().out
    exec(mean_ode, names)
    loss, travel, error = map(float, capsys.readouterr().out.split())
    assert loss < 0.02
    assert 2 < travel < 4
    assert 0 < error < 0.02
    exec(general, names)
    mean, variance = map(float, capsys.readouterr().out.split())
    # the printed exact values; 200 steps and 100,000 particles leave errors of 0.001 and 0.002
    assert abs(mean - 2 * np.exp(-0.5)) < 0.01
    assert abs(variance - (np.exp(-2) + 0.245 * (1 - np.exp(-2)))) < 0.01


def test_files_it_names_exist():
    named = re.findall(r"`((?:validation|notebooks)/[\w/]+\.\w+)`", README)
    for target in re.findall(r"\]\(([^)]+)\)", README) + named:
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (demo|test|lint|docs|evidence|benchmark)", README)):
        assert f"\n{target}:" in makefile


def test_options_it_shows_are_options():
    from typer.testing import CliRunner

    from flds.cli import app

    runner = CliRunner()
    commands = re.findall(r"^flds .*$", README, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        _, name, *arguments = shlex.split(command, comments=True)
        text = runner.invoke(app, [name, "--help"]).stdout
        for argument in arguments:
            if argument.startswith("--"):
                assert argument in text
