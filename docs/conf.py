"""Settings of the documentation: pages in MyST, notebooks, docstrings.

The pages need no network: formulas are MathML, with a font that lies beside
them, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref

import flds

HERE = Path(__file__).parent
PROPERTIES = ("attribute", "data", "property")
sys.path.insert(0, str(HERE))  # mathml

project = "flds"
author = "the flds authors"
version = release = flds.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
myst_update_mathjax = False
html_math_renderer = "mathml"
# "off" shows notebooks without their output
nb_execution_mode = os.environ.get("FLDS_DOCS_EXECUTE", "cache")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "warn"  # a notebook that warns is mended
nb_ipywidgets_js = {}  # these would come from the network
add_module_names = False
autodoc_typehints = "none"  # the docstrings give types and shapes
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_google_docstring = False
default_role = "code"
toc_object_entries_show_parents = "hide"
html_theme = "furo"
html_title = "flds"
html_static_path = ["_static"]
html_css_files = ["flds.css"]
html_show_copyright = False
# a browser does not let a search read pages that are files
html_show_search_summary = False
exclude_patterns = ["_build"]


def _plain_signs(app, what, name, item, options, lines):
    """Absolute values and products in docstrings are not markup."""
    for index, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        parts = line.split("`")
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[index] = "`".join(parts)
    if what in PROPERTIES:  # what precedes a colon is not a type
        lines[:] = [line.replace(":", "\0") for line in lines]


def _colons(app, what, name, item, options, lines):
    """Colons come back once napoleon has looked for types."""
    if what in PROPERTIES:
        lines[:] = [line.replace("\0", ":") for line in lines]


def _links(app, document):
    """Shapes such as (samples,) are not names of attributes.

    A `Solution` is that of the package at hand.
    """
    for link in list(document.findall(pending_xref)):
        name = link.get("reftarget", "")
        if link.get("reftype") != "class":
            continue
        if name.islower() and "." not in name:
            link.replace_self(link.children)
        elif name == "Solution":
            package = link["py:module"].partition(".")[0]
            link["reftarget"] = f"{package}.{name}"


def _exponents(app, document):
    """The numbers of the report do not break at their minus signs."""
    if app.env.docname == "validation":
        for text in list(document.findall(nodes.Text)):
            text.parent.replace(
                text, nodes.Text(re.sub(r"(\de)-(\d)", r"\1−\2", text))
            )


def setup(app):
    app.connect("autodoc-process-docstring", _plain_signs, priority=0)
    app.connect("autodoc-process-docstring", _colons, priority=1000)
    app.connect("doctree-read", _links)
    app.connect("doctree-read", _exponents)


# the notebooks live beside the packages, and are shown from a copy
shutil.copytree(
    HERE.parent / "notebooks",
    HERE / "notebooks",
    dirs_exist_ok=True,
    ignore=shutil.ignore_patterns("ruff.toml"),
)
