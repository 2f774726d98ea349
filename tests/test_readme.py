"""The README's example runs as printed, its commands exist, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import flds

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs_as_printed(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    # both approach the targets, the network with fluctuations of order 1/sqrt(width)
    np.testing.assert_allclose(names["limit"].outputs[-1], [1.0, -1.0, 0.5], atol=0.15)
    np.testing.assert_allclose(names["network"].outputs[-1], names["limit"].outputs[-1], atol=0.1)
    assert flds.load("limit.nc").status == "completed"
    assert capsys.readouterr().out


def test_files_it_names_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README) + re.findall(r"`(validation/reports/\w+\.md)`", README):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (demo|test|lint|evidence|benchmark)", README)):
        assert f"\n{target}:" in makefile


def test_options_it_shows_are_options():
    from typer.testing import CliRunner

    from flds.cli import app

    runner = CliRunner()
    commands = re.findall(r"^flds .*$", README, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        _, name, *arguments = shlex.split(command, comments=True)
        text = runner.invoke(app, [name, "--help"]).stdout
        for argument in arguments:
            if argument.startswith("--"):
                assert argument in text


@pytest.mark.parametrize("name", [name for name in flds.__all__ if name[0].islower()])
def test_public_functions_say_what_they_take_return_and_raise(name):
    text = getattr(flds, name).__doc__
    assert re.search(r"\bReturns?\b", text)
    if name not in ("load_digits",):
        assert "Raises" in text or "raises" in text
