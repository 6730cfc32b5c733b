"""A few pieces of HTML; everything that comes from outside goes through :func:`text`."""

from __future__ import annotations

import base64
import html
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType


def text(value: object) -> str:
    """Return a value as text that HTML leaves as it is."""
    return html.escape(str(value))


def marked(value: str) -> str:
    """Return text in which `code`, ``code`` and *emphasis* are marked up."""
    plain = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", value)  # a role of Sphinx
    shown = re.sub(r"``(.+?)``|`(.+?)`", lambda m: f"<code>{m[1] or m[2]}</code>", text(plain))
    return re.sub(r"(?<!\w)\*([^*\s][^*]*)\*(?!\w)", r"<em>\1</em>", shown)


def link(target: str, label: str) -> str:
    """Return a link, inside the page where the target begins with ``#``."""
    return f'<a href="{text(target)}">{text(label)}</a>'


def image(path: Path, alt: str) -> str:
    """Return a PNG that lies inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{text(alt)}" src="data:image/png;base64,{data}">'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table that scrolls by itself on a narrow screen; cells are HTML."""
    titles = "".join(f'<th scope="col">{text(title)}</th>' for title in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{titles}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def pairs(items: Iterable[tuple[str, str]]) -> str:
    """Return names with their values, which are HTML; empty values are left out."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{value}</dd>" for name, value in items if value)
    return f"<dl>{rows}</dl>"


def explanation_of(module: ModuleType) -> str:
    """Return the paragraphs below the first line of a module's docstring, as HTML."""
    paragraphs = (inspect.getdoc(module) or "").split("\n\n")[1:]
    return "\n".join(
        f'<p class="question">{marked(" ".join(paragraph.split()))}</p>' for paragraph in paragraphs
    )
