"""Figures of the report, as inline SVG and HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence


def draw_funnel(rows: Sequence[tuple[str, int, int, int]]) -> str:
    """How many records are left after each filter.

    Args:
        rows: What a filter takes out, the records left after it, the records and the texts that it took out. The first
            row is what came in.
    """
    most = max(rows[0][1], 1)
    lines = ['<table class="funnel"><thead><tr><th>Filter<th>Records left<th><th>Records out<th>Texts out<tbody>\n']
    for words, left, records, texts in rows:
        width = 100 * left / most
        lines.append(
            f'<tr><td>{html.escape(words)}<td class="bar"><i style="width:{width:.2f}%"></i>'
            f'<td class="number">{left:,}<td class="number">{_count(records)}<td class="number">{_count(texts)}\n'
        )
    return "".join(lines) + "</table>\n"


def _count(number: int) -> str:
    return f"{number:,}" if number else "–"
