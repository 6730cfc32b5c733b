"""The templates of the report and the ledger, and how verdicts and docstrings are written in them."""

from __future__ import annotations

import html
import re
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lgn_analysis.report.wording import (
    css_class,
    format_effect,
    format_interval,
    format_p,
    format_smallest,
    tally,
)


def marked(value: str) -> Markup:
    """Return text as HTML, in which `code`, ``code`` and *emphasis* are marked up."""
    plain = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", value)  # a role of Sphinx
    escaped = html.escape(plain)
    shown = re.sub(r"``(.+?)``|`(.+?)`", lambda m: f"<code>{m[1] or m[2]}</code>", escaped)
    return Markup(re.sub(r"(?<!\w)\*([^*\s][^*]*)\*(?!\w)", r"<em>\1</em>", shown))


TEMPLATES: Final = Environment(
    loader=PackageLoader("lgn_analysis.report"),
    autoescape=lambda name: name is None or name.endswith(".html.j2"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
"""What goes into HTML is escaped, unless it is marked up already."""
TEMPLATES.filters |= {
    "css": css_class,
    "effect": format_effect,
    "interval": format_interval,
    "marked": marked,
    "p": format_p,
    "smallest": format_smallest,
    "tally": tally,
}
