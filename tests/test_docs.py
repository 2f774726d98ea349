"""The documentation builds without warnings, names everything that is public, and its code runs as printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib as mpl
import numpy as np
import pytest

import flds
import solvers

DOCS = Path(__file__).parent.parent / "docs"


class Page(HTMLParser):
    """Links and anchors of a page, what it loads, and how many formulas it shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        text = path.read_text()
        self.loads = in_styles(text)
        self.formulas = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.formulas += tag == "math"
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
                if tag not in ("a", "area"):
                    self.loads.append(value)
            elif name in ("data", "poster", "srcset") and value:
                self.loads += [part.split()[0] for part in value.split(",")]
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def in_styles(text: str) -> list[str]:
    """What styles load: url(…) and @import."""
    return [a or b for a, b in re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", text)]


def from_the_network(folder: Path) -> list[str]:
    """Scripts, styles, fonts and pictures that do not lie beside the pages; links to click are none of these."""
    loads = [(path, load) for path in folder.rglob("*.html") for load in Page(path).loads]
    loads += [(path, load) for path in folder.rglob("*.css") for load in in_styles(path.read_text())]
    return [f"{path.name}: {load}" for path, load in loads if re.match(r"\s*(?!data:)(\w+:|//)", load)]


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


def test_what_comes_from_the_network_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="https://example.org/a"></a><script src="//example.org/b.js"></script><img src="c.png">'
        '<link href="http://example.org/d.css"><style>p {background: url(https://example.org/e.png)}</style>'
        '<img srcset="f.png 1x, https://example.org/g.png 2x"><img src="data:image/png;base64,">'
    )
    (tmp_path / "a.css").write_text('@import "https://example.org/h.css"; @font-face {src: url("i.woff2")}')
    assert sorted(found.partition("example.org/")[2] for found in from_the_network(tmp_path)) == [
        "b.js", "d.css", "e.png", "g.png", "h.css"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The pages, built without a warning; notebooks without output."""
    pytest.importorskip("sphinx")
    pytest.importorskip("torchsde")
    folder = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(folder)]
    done = subprocess.run(command, env=os.environ | {"FLDS_DOCS_EXECUTE": "off"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_are_whole(built):
    assert (built / "notebooks" / "first_steps.html").exists()
    assert "dense_networks" in (built / "validation.html").read_text()
    assert broken_links(built) == []


def test_pages_need_no_network(built):
    assert from_the_network(built) == []
    formulas = {path.stem: Page(path).formulas for path in built.rglob("*.html")}
    assert formulas["theory"] > 100
    assert formulas["mean_field_equations"] > 20
    for path in built.rglob("*.html"):
        text = path.read_text()
        assert "\\(" not in text, path  # TeX, waiting for a script
        assert not re.search('mathvariant="(?!normal)', text), path  # which browsers no longer show


def test_code_fits_its_column():
    for path in [*DOCS.glob("*.md"), *(DOCS / "reference").glob("*.md")]:
        for code in re.findall(r"^```(?:python|sh)\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
            assert all(len(line) <= 80 for line in code.splitlines()), (path.name, code)
    for path in (DOCS.parent / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                assert all(len(line) <= 80 for line in "".join(cell["source"]).splitlines()), (path.name, cell)


def test_reference_names_everything_public():
    import validation

    pages = [path for path in (DOCS / "reference").glob("*.md") if path.stem != "index"]
    text = "\n".join(path.read_text() for path in pages)
    listed = re.findall(r"^\.\. auto\w+:: (\S+)", text, re.MULTILINE)
    public = [
        f"{package.__name__}.{name}" for package in (flds, flds.nn, solvers, validation) for name in package.__all__
    ]
    assert sorted(listed) == sorted([*public, "flds.plotting"])
    index = (DOCS / "reference" / "index.md").read_text()
    for path in pages:
        assert f"]({path.name})" in index
        assert f"\n{path.stem}\n" in index


PAGES = ("index", "tutorial", "howto", "branches", "optimizers", "nn", "populations", "coming_from")


@pytest.mark.parametrize("page", PAGES)
def test_code_runs_as_printed(page, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    with mpl.rc_context():  # of which a page sets some
        for code in blocks:
            exec(code, names)
    if page == "index":
        # both approach the targets, the network with fluctuations of order 1/sqrt(width)
        np.testing.assert_allclose(names["limit"].outputs[-1], names["targets"], atol=0.15)
        np.testing.assert_allclose(names["network"].outputs[-1], names["limit"].outputs[-1], atol=0.1)
        assert Path("limit.png").exists()
    elif page == "tutorial":
        assert names["limit"].status == "completed"
        assert names["estimate"].outputs_half_width.max() <= 0.2
    elif page == "branches":
        assert names["limit"].loss[-1] < 0.5 * names["limit"].loss[0]
    elif page == "nn":
        assert names["loss"].item() < 0.1
        assert names["check"].passed
    elif page == "optimizers":
        assert names["limit"].status == "completed"
    elif page == "populations":
        assert np.hypot(*names["run"].moments[-1]) > 0.9
        assert names["rate"].grad < -0.1
        assert abs(names["found"].value - 1.0) < 0.5
    elif page == "coming_from":
        # of 10,000 particles
        assert abs(names["run"].mean[-1] - np.exp(-0.5)) < 4 * 0.2 / 100
    else:
        assert names["solution"].accuracy[-1] == 1.0
        assert (names["again"].outputs == names["stored"].outputs).all()
