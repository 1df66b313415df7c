"""What the model made of a few pictures: the matrix of similarities, and the texts found for each picture.

Place in the river: a part of the run report, as tables and cards of HTML.

Shapes: P pictures, T texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from nunbit.pages.charts import shown_number
from nunbit.pages.page import shown_text
from nunbit.training.report_run import Examples, Retrieval

_PICTURE = re.compile(r"data:image/(?:jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")
_LONGEST_PICTURE = 48_000  # characters: some tens of pictures are in the page, which stays below 5 MB
_LONGEST_TEXT = 240
_WARM, _HOT = 57, 79  # percent of heat: from there on black on a dark page, white on a light one, reads better
_CARDS, _TOP = 12, 5


def draw_matrices(examples: Sequence[Examples]) -> Iterator[str]:
    """Draw the matrix of each step as a heat map, the last one first; all share one range of color.

    Args:
        examples: In the order of their steps; those without a matrix are left out.
    """
    shown = [item for item in examples if item.matrix and item.texts]
    values = [value for item in shown for row in item.matrix for value in row if math.isfinite(value)]
    if not values:
        return
    low, high = min(values), max(values)
    for item in reversed(shown):
        yield from _matrix(item, low, high)


def draw_retrieval(examples: Examples) -> Iterator[str]:
    """Draw a card for each of the first pictures: what was found for it, and whether it is right."""
    if not examples.retrieval:
        return
    right = sum(bool(item.top) and item.top[0][2] for item in examples.retrieval)
    yield (
        f'<p class="lead">At step {examples.step:,}, {right} of {len(examples.retrieval)} pictures find a text of '
        'their own first.</p><div class="cards">\n'
    )
    for item in examples.retrieval[:_CARDS]:
        yield _card(examples, item)
    yield "</div>\n"


def _matrix(examples: Examples, low: float, high: float) -> Iterator[str]:
    columns = range(len(examples.matrix))
    yield f'<figure class="wide"><div class="scroll"><table class="matrix" style="--pictures:{len(columns)}">'
    yield f'<thead><tr><th scope="col">step {examples.step:,}</th>'
    for number in columns:
        yield f'<th scope="col">{_picture(examples.pictures[number], f"picture {number + 1}")}</th>'
    yield "</tr></thead><tbody>\n"
    ahead = [_ahead_of_own(examples, number) for number in columns]
    for place, text in enumerate(examples.texts):
        yield f'<tr><th scope="row"><div>{shown_text(text)}</div></th>'
        for number in columns:
            value = examples.matrix[number][place]
            mistaken = value == ahead[number] and text != examples.texts[number]
            yield _cell(value, (low, high), own=place == number, mistaken=mistaken)
        yield "</tr>\n"
    yield f"</tbody></table></div>{_scale(low, high)}<figcaption>{_matrix_words(examples)}</figcaption></figure>\n"


def _cell(value: float, between: tuple[float, float], *, own: bool, mistaken: bool) -> str:
    low, high = between
    if not math.isfinite(value):
        return '<td class="none" title="not finite">–</td>'
    heat = 100 * (value - low) / (high - low) if high > low else 0.0
    names = ["own"] * own + ["mistaken"] * mistaken
    if heat >= _WARM:
        names.append("hot" if heat >= _HOT else "warm")
    shown = _short(value).replace("0.", ".", 1) if abs(value) < 1 else _short(value)
    return f'<td class="{" ".join(names)}" style="--heat:{heat:.0f}%" title="{value:.4f}">{shown}</td>'


def _short(value: float) -> str:
    return f"{value:z.2f}".replace("-", "−") if abs(value) < 1000 else shown_number(value)


def _ahead_of_own(examples: Examples, number: int) -> float:
    """The highest similarity of a picture with other texts, when its own text is not above it; else NaN."""
    if number >= len(examples.texts):
        return math.nan
    row, own = examples.matrix[number], examples.texts[number]
    others = [value for value, text in zip(row, examples.texts, strict=True) if text != own and math.isfinite(value)]
    highest = max(others, default=math.nan)
    return math.nan if row[number] > highest else highest


def _matrix_words(examples: Examples) -> str:
    """What the matrix says, in one or two sentences."""
    pairs = range(min(len(examples.matrix), len(examples.texts)))
    own = [examples.matrix[place][place] for place in pairs if math.isfinite(examples.matrix[place][place])]
    others = [
        value
        for number, row in enumerate(examples.matrix)
        for place, value in enumerate(row)
        if place != number and math.isfinite(value)
    ]
    nearest = sum(math.isnan(_ahead_of_own(examples, number)) for number in pairs)
    means = []
    if own:
        means.append(f"pairs that belong together (framed) {_short(sum(own) / len(own))} on average")
    if others:
        means.append(f"all others {_short(sum(others) / len(others))}")
    return (
        f"Similarity (cosine) of pictures and texts at step {examples.step:,}: {', '.join(means)}. For {nearest} of "
        f"{len(pairs)} pictures their own text is the nearest; where another one is, it is marked."
    )


def _scale(low: float, high: float) -> str:
    return f'<div class="scale" aria-hidden="true"><span>{_short(low)}</span><i></i><span>{_short(high)}</span></div>'


def _card(examples: Examples, item: Retrieval) -> str:
    source = examples.pictures[item.picture] if 0 <= item.picture < len(examples.pictures) else ""
    found = item.top[:_TOP]
    best = next((rank for rank, (_, _, right) in enumerate(found) if right), len(found))
    own = f'<p class="truth">Its own: {shown_text(item.truth)}</p>' if best == len(found) else ""
    rows = "".join(_found(entry, ahead=rank < best) for rank, entry in enumerate(found))
    return (
        f'<article class="card">{_picture(source, f"picture {item.picture + 1}")}<div><ol>{rows}</ol>{own}</div>'
        "</article>\n"
    )


def _found(entry: tuple[str, float, bool], *, ahead: bool) -> str:
    """One text; a wrong one counts as a mistake only where it is ahead of all right ones."""
    text, value, right = entry
    mark = '<b class="right" title="its own">✓</b>' if right else f'<b class="{"wrong" if ahead else "other"}">✗</b>'
    shown = _short(value) if math.isfinite(value) else "–"
    return f"<li>{mark}<span>{shown_text(text)}</span><span>{shown}</span></li>"


def _picture(source: str, name: str) -> str:
    if len(source) > _LONGEST_PICTURE or not _PICTURE.fullmatch(source):
        return (
            f'<span class="no-picture" title="{name}: not a picture of at most {_LONGEST_PICTURE:,} characters"></span>'
        )
    return f'<img alt="{name}" src="{source}">'
