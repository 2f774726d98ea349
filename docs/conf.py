"""Settings of the documentation: pages in MyST, notebooks as they are, references from the docstrings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import flds

HERE = Path(__file__).parent

project = "flds"
author = "the flds authors"
version = release = flds.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = os.environ.get("FLDS_DOCS_EXECUTE", "cache")  # "off" shows notebooks without their output
nb_execution_timeout = 300
nb_execution_raise_on_error = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
default_role = "code"
suppress_warnings = ["ref.python"]  # shapes such as (samples,) are not names of attributes
html_theme = "furo"
html_title = "flds"
exclude_patterns = ["_build"]


def _plain_signs(app: object, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Absolute values and products in docstrings are not markup."""
    for index, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("|", r"\|").replace("*", r"\*") for part in parts[::2]]
        lines[index] = "`".join(parts)


def setup(app):
    app.connect("autodoc-process-docstring", _plain_signs, priority=0)


# the notebooks live beside the packages, and are shown from a copy
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True)
