"""Formulas as MathML, made while the pages are built.

A browser needs no script and no network to show them.
"""

from __future__ import annotations

import re
import unicodedata

from latex2mathml.converter import convert
from sphinx.util.docutils import SphinxTranslator, nodes

MINUS, BAR, SLASH, INFINITY = "&#x02212;", "&#x0007C;", "&#x0002F;", "&#x0221E;"
THIN, FUNCTION = '<mspace width="0.167em" />', "<mi>[a-z]{2,}</mi>"
REPAIRS = [
    # a minus sign or bar after =, + or a comma belongs to what comes next
    (
        r"(<mo>(?:&#x0003D;|&#x0002B;|&#x0002C;)</mo>)"
        rf"<mo((?: stretchy=.false.)?>(?:{MINUS}|{BAR}))",
        r'\1<mo form="prefix"\2',
    ),
    (f"<mo>{SLASH}", f'<mo lspace="0" rspace="0">{SLASH}'),
    (f"<mo>{INFINITY}</mo>", f"<mi>{INFINITY}</mi>"),
    ("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>"),  # ∼
    # room between a function such as cos and the letters beside it
    (rf"(?<=</mi>)(?={FUNCTION})", THIN),
    (rf"({FUNCTION}|<msup>{FUNCTION}<mn>2</mn></msup>)(?=<mi>)", rf"\1{THIN}"),
    # browsers no longer show script letters by an attribute
    (
        '<mi mathvariant="script">([A-Z])</mi>',
        lambda letter: f"<mi>{script(letter[1])}</mi>",
    ),
]


def mathml(formula: str, display: str) -> str:
    found = convert(formula, display=display)
    for pattern, repair in REPAIRS:
        found = re.sub(pattern, repair, found)
    return found


def script(letter: str) -> str:
    """Return a script capital, of which Unicode has some elsewhere."""
    try:
        return unicodedata.lookup(f"MATHEMATICAL SCRIPT CAPITAL {letter}")
    except KeyError:
        return unicodedata.lookup(f"SCRIPT CAPITAL {letter}")


def inline(self: SphinxTranslator, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(self: SphinxTranslator, node: nodes.math_block) -> None:
    """Show equations side by side, or one by one where there is no room."""
    formula = node.astext()
    parts = [formula] if r"\begin" in formula else formula.split(r"\qquad")
    found = " ".join(mathml(part, "block") for part in parts)
    found = found.replace('display="block"', 'displaystyle="true"')
    self.body.append(f'<div class="math">{found}</div>\n')
    raise nodes.SkipNode


def unbroken(app, page, template, context, document):
    """Keep a formula and the comma after it on one line."""
    if "body" in context:
        context["body"] = re.sub(
            r"(<math [^>]*inline(?:(?!</math>).)*</math>)([,.;:)]+)",
            r'<span class="unbroken">\1\2</span>',
            context["body"],
            flags=re.DOTALL,
        )


def setup(app):
    app.connect("html-page-context", unbroken)
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(inline, None),
        block_renderers=(block, None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
