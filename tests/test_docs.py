"""The documentation builds without warnings, names everything that is public, and its code runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flds
import solvers

DOCS = Path(__file__).parent.parent / "docs"


def test_pages_build_without_warnings(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"FLDS_DOCS_EXECUTE": "off"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "notebooks" / "first_steps.html").exists()
    assert "dense_networks" in (tmp_path / "validation.html").read_text()


def test_reference_names_everything_public():
    listed = re.findall(r"^\.\. auto\w+:: (\S+)", (DOCS / "api.md").read_text(), re.MULTILINE)
    public = [f"{package.__name__}.{name}" for package in (flds, solvers) for name in package.__all__]
    assert sorted(listed) == sorted(public)


@pytest.mark.parametrize("page", ["tutorial", "howto"])
def test_code_runs_as_printed(page, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for code in blocks:
        exec(code, names)
    if page == "tutorial":
        assert names["limit"].status == "completed"
        assert names["estimate"].outputs_half_width.max() <= 0.2
    else:
        assert names["solution"].accuracy[-1] == 1.0
        assert (names["again"].outputs == names["stored"].outputs).all()
