"""From a report's values to its text: templates with every value escaped, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from ..terminal.tables import duration
from ..terminal.visible import visible

LONGEST = 1200
"""Characters of a completion or prompt that are shown; the rest is in items.jsonl."""
TEMPLATES = {"html": "{}.html.jinja", "markdown": "{}.md.jinja"}


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("qtarget.search.report", "templates"),
        autoescape=select_autoescape(enabled_extensions=("html.jinja",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "visible": visible,
        "worded": worded,
        "clipped": clipped,
        "cell": cell,
        "points": lambda value: f"{100 * value:+.1f}",
        "score": lambda value: "" if value is None else f"{value:.3f}",
        "duration": duration,
        "counts": counts,
        "number": lambda value: f"{value:,}".replace(",", "\u202f"),
    }
    return found


def render(kind: str, page: Mapping[str, Any], name: str = "report") -> str:
    """The `report` of a study or of a `campaign` as `html` or `markdown`."""
    script, style = (_source(name) for name in ("report.js", "report.css"))
    values = {
        **page,
        "plots": {name: Markup(svg) for name, svg in page["plots"].items()},  # our own drawings, their texts escaped
        "script": Markup(script),
        "style": Markup(style),
        "policy": policy(script),
    }
    return _environment().get_template(TEMPLATES[kind].format(name)).render(values)


def _source(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]


def worded(text: str) -> Markup:
    """`text` made visible, with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(visible(text)))))


def policy(script: str) -> str:
    """A Content-Security-Policy under which only `script` runs and nothing is fetched."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"


def clipped(text: str) -> str:
    """`text` made visible, its end left out when it is long."""
    shown = visible(text[:LONGEST])
    return shown if len(text) <= LONGEST else f"{shown} … ({len(text) - LONGEST} characters more)"


def cell(text: Any) -> str:
    """`text` for a cell of a Markdown table: one line, nothing in it read as Markdown or HTML."""
    line = " ".join(visible(str(text)).split())
    for mark in "&\\`*_{}[]<>|#~!$":
        line = line.replace(mark, f"\\{mark}" if mark not in "<>&" else {"<": "&lt;", ">": "&gt;", "&": "&amp;"}[mark])
    return line


def counts(found: Mapping[str, int]) -> str:
    """`12 correct, 3 wrong`; what did not happen is left out."""
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in found.items() if number)
