"""The documentation site: Markdown pages and docstrings, built by Sphinx without a network. `make docs` builds it."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

import qtarget

log = logging.getLogger(__name__)

project = "qtarget"
copyright = "qtarget's authors"
version = release = qtarget.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["notebooks"]  # run by tests, read in Jupyter
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"qtarget {release}"
html_show_sourcelink = False
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
pygments_style, pygments_dark_style = "friendly", "monokai"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "undoc-members": False, "exclude-members": "model_config"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def _mathml(writer: Any, node: nodes.Element, block: bool) -> None:
    """Formulas as MathML, which browsers draw themselves: no script, no font, nothing from elsewhere."""
    try:
        writer.body.append(latex2mathml.tex2mathml(node.astext(), as_block=block))
    except MathError as error:
        log.warning("%s in formula %s", error, node.astext(), location=node)
    raise nodes.SkipNode


def _literal(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Docstrings mark code as Markdown does, with single backticks; reStructuredText wants two."""
    lines[:] = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", "\n".join(lines)).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _literal, priority=400)  # before napoleon looks for colons
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda writer, node: _mathml(writer, node, block=False), None),
        block_renderers=(lambda writer, node: _mathml(writer, node, block=True), None),
    )
    return {"parallel_read_safe": True}
