"""Formulas as MathML, made while the pages are built.

A browser needs no script and no network to show them.
"""

from __future__ import annotations

import re

from latex2mathml.converter import convert
from sphinx.util.docutils import SphinxTranslator, nodes

# a minus sign or bar after =, + or a comma belongs to what comes next
FOLLOWER = re.compile(
    r"(<mo>(?:&#x0003D;|&#x0002B;|&#x0002C;)</mo>)"
    r"<mo((?: stretchy=.false.)?>(?:&#x02212;|&#x0007C;))"
)


def mathml(formula: str, display: str) -> str:
    return FOLLOWER.sub(
        r'\1<mo form="prefix"\2', convert(formula, display=display)
    )


def inline(self: SphinxTranslator, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(self: SphinxTranslator, node: nodes.math_block) -> None:
    formula = mathml(node.astext(), "block")
    self.body.append(f'<div class="math">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(inline, None),
        block_renderers=(block, None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
