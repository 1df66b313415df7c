"""The frame of a report: one page that needs nothing beside it and loads nothing.

Place in the river: what reports of training and of learning share. Whatever comes from a file is escaped and cut.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files

from nunbit.picture_files import one_line

_LONGEST_TITLE = 400
_LONGEST_TEXT = 240


def make_page(title: str, body: Iterable[str]) -> bytes:
    """The page, in UTF-8.

    Args:
        title: Any text.
        body: HTML.
    """
    style, script = _part("page.css"), _part("page.js")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'; script-src 'sha256-{allowed}'\">\n"
        f"<title>{escape(one_line(title[:_LONGEST_TITLE]))}</title>\n"
        f"<style>\n{style}</style></head><body>\n"
    )
    page = "".join([head, *body, f"<script>{script}</script></body></html>\n"])
    return page.encode("utf-8", "backslashreplace")


def section(title: str, content: Iterable[str]) -> Iterator[str]:
    """A heading and what is below it; nothing when there is nothing."""
    body = "".join(content)
    if body:
        yield f"<section><h2>{title}</h2>\n{body}</section>\n"


def headline(tiles: Iterable[tuple[str, str, str]]) -> str:
    """What matters most: a name, a value and a note each; a value that is empty is shown as missing."""
    parts = ['<dl class="headline">']
    for name, value, note in tiles:
        shown = f"<dd>{value}</dd><dd><small>{note}</small></dd>" if value else "<dd>–</dd><dd><small>none</small></dd>"
        parts.append(f"<div><dt>{name}</dt>{shown}</div>")
    return "".join([*parts, "</dl>\n"])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """HTML of a table; the first column names the rows, and all cells are HTML already."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
        for first, *cells in rows
    )
    return f'<table class="ledger"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n'


def shown_text(text: str, limit: int = _LONGEST_TEXT) -> str:
    """Any text, made fit for HTML: cut, its controls visible, and unable to turn its surroundings around."""
    parts = text[: limit + 1].split("\u200d")  # the one invisible character that emoji are made with
    line = "\u200d".join(map(one_line, parts))
    return f"<bdi>{escape(line if len(line) <= limit else line[: limit - 1] + '…')}</bdi>"


def _part(name: str) -> str:
    return (files("nunbit.pages") / name).read_text(encoding="utf-8")
