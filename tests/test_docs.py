"""The documentation builds without warnings, names everything that is public, and its code runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import flds
import solvers

DOCS = Path(__file__).parent.parent / "docs"


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def broken_links(folder: Path) -> list[str]:
    pages = {path: Page(path) for path in folder.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if parts.scheme or parts.netloc:
                continue
            if not target.exists() or (parts.fragment and target in pages and
                                       unquote(parts.fragment) not in pages[target].anchors):  # fmt: skip
                broken.append(f"{path.name}: {link}")
    return broken


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<a id="here" href="b.html#there"></a><img src="c.png"><a href="#here"></a>')
    (tmp_path / "b.html").write_text('<p id="then"></p><a href="https://example.org/nothing"></a>')
    assert broken_links(tmp_path) == ["a.html: b.html#there", "a.html: c.png"]


def test_pages_build_without_warnings(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"FLDS_DOCS_EXECUTE": "off"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "notebooks" / "first_steps.html").exists()
    assert "dense_networks" in (tmp_path / "validation.html").read_text()
    assert broken_links(tmp_path) == []


def test_reference_names_everything_public():
    listed = re.findall(r"^\.\. auto\w+:: (\S+)", (DOCS / "api.md").read_text(), re.MULTILINE)
    public = [f"{package.__name__}.{name}" for package in (flds, solvers) for name in package.__all__]
    assert sorted(listed) == sorted([*public, "flds.plotting"])


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
