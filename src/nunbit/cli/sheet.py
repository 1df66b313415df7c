"""A contact sheet: one self-contained HTML page with pictures, labels and bars."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from nunbit.errors import ImageError
from nunbit.images import open_image
from nunbit.picture_files import one_line

THUMBNAIL = 320

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }}
body {{ margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; border: 1px solid #8885; border-radius: .5rem; overflow: hidden; }}
img {{ display: block; width: 100%; height: 11rem; object-fit: contain; background: #8882; }}
figcaption {{ padding: .6rem .7rem; }}
.name {{ overflow-wrap: anywhere; font-weight: 600; margin-bottom: .3rem; }}
.row {{ display: grid; grid-template-columns: 1fr 3.5rem; gap: .5rem; }}
.value {{ text-align: right; font-variant-numeric: tabular-nums; }}
.bar {{ grid-column: 1 / -1; height: .3rem; border-radius: .15rem; background: #8883; margin-bottom: .35rem; }}
.bar i {{ display: block; height: 100%; border-radius: inherit; background: #3b82c4; }}
</style></head><body><h1>{title}</h1><main>
"""
_TAIL = "</main></body></html>\n"


@dataclass(frozen=True, slots=True)
class Card:
    """One picture of the sheet.

    Attributes:
        path: The picture.
        bars: Label, length of its bar in [0, 1], and the value as text.
        drawn: What is shown instead of the picture as it is.
    """

    path: str
    bars: tuple[tuple[str, float, str], ...]
    drawn: Image.Image | None = None


def write_sheet(target: Path, title: str, cards: Iterable[Card]) -> None:
    """Write the page, a picture at a time; it appears under its name only when it is whole."""
    partial = target.with_name(target.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(_HEAD.format(title=html.escape(title)))
        for card in cards:
            file.writelines(_figure(card))
        file.write(_TAIL)
    os.replace(partial, target)


def _figure(card: Card) -> Iterator[str]:
    name = html.escape(one_line(os.path.basename(card.path)))
    try:
        picture = f'<img alt="{name}" src="{_thumbnail(card)}">'
    except ImageError as error:  # it was good a moment ago; its answer still is
        picture = f"<p>{html.escape(error.reason)}</p>"
    yield f'<figure>{picture}<figcaption><div class="name">{name}</div>\n'
    for label, length, value in card.bars:
        width = 100 * min(max(length, 0.0), 1.0)
        yield f'<div class="row"><span>{html.escape(label)}</span><span class="value">{html.escape(value)}</span>'
        yield f'<div class="bar"><i style="width:{width:.1f}%"></i></div></div>\n'
    yield "</figcaption></figure>\n"


def _thumbnail(card: Card) -> str:
    image = open_image(card.path)[0] if card.drawn is None else card.drawn.copy()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
