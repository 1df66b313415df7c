"""The report of a curation: one self-contained HTML page that shows what went, why, and what stays."""

from __future__ import annotations

import hashlib
import html
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from nunbit.curate.curation import Curation
from nunbit.curate.figures import draw_funnel
from nunbit.curate.filters import FILTERS
from nunbit.curate.pool import Dropped
from nunbit.pages.histograms import Histogram, draw_histogram
from nunbit.pages.thumbnails import Thumbnails
from nunbit.picture_files import one_line
from nunbit.types import ImageText

T = TypeVar("T")

_SHOWN = 6  # examples of a filter
_KEPT_SHOWN = 18
_LONG = 300  # characters of a text that are shown

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Curation</title>
<style>
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; --bar: #3b82c4; --faint: #8883; }
body { margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem; }
h2 { margin: 2.2rem 0 .3rem; font-size: 1.15rem; }
h2 small { font-weight: 400; opacity: .75; }
.sum { font-size: 1.1rem; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 500; opacity: .75; }
th, td { padding: .2rem .5rem; border-bottom: 1px solid var(--faint); }
.funnel th:nth-child(n+4), .number { text-align: right; font-variant-numeric: tabular-nums; }
.bar { width: 40%; }
.bar i { display: block; height: .9rem; border-radius: .2rem; background: var(--bar); min-width: 1px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; margin-top: 1rem; }
.plot { margin: 0; }
.plot svg { width: 100%; height: auto; }
.plot text { font-size: 11px; fill: currentColor; opacity: .75; }
.plot line { stroke: currentColor; opacity: .4; }
.all { fill: #8886; }
.kept { fill: var(--bar); }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; vertical-align: -.05rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .8rem; margin-top: .6rem; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); }
.card { border: 1px solid #8885; border-radius: .5rem; overflow: hidden; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 1px; }
.two figure { margin: 0; }
.two figcaption { font-size: .8rem; padding: .15rem .6rem; opacity: .75; }
img { display: block; width: 100%; height: 9rem; object-fit: contain; background: #8882; }
.card p { margin: .4rem .6rem; overflow-wrap: anywhere; }
.name { font-size: .8rem; opacity: .75; }
</style></head><body><h1>Curation</h1>
"""
_TAIL = "</body></html>\n"


def report_page(curation: Curation) -> str:
    """The page, at most 3 MB."""
    thumbnails = Thumbnails()
    images = {record.key: record.image for record in curation.pool.records}
    parts = [_HEAD, _summary(curation), draw_funnel(_funnel(curation)), _plots(curation)]
    by_filter: defaultdict[str, list[Dropped]] = defaultdict(list)
    for item in curation.dropped:
        by_filter[item.filter].append(item)
    for name in FILTERS:
        if by_filter[name]:
            parts += _section(name, by_filter[name], thumbnails, images.get)
    if curation.kept:
        parts.append(f'<h2>What stays <small>{len(curation.kept):,} records</small></h2><div class="cards">\n')
        parts += (_kept_card(record, thumbnails) for record in _some(curation.kept, lambda one: one.key, _KEPT_SHOWN))
        parts.append("</div>\n")
    return "".join([*parts, _TAIL])


def _summary(curation: Curation) -> str:
    texts = sum(len(record.texts) for record in curation.kept)
    share = len(curation.kept) / max(curation.seen, 1)
    lines = [
        f'<p class="sum">Of {curation.seen:,} records {len(curation.kept):,} stay ({share:.1%}), with {texts:,} texts.'
    ]
    if curation.splits:
        sides = ", ".join(f"{len(places):,} {name}" for name, places in curation.splits.items())
        groups, largest = curation.groups
        lines.append(f"<br>Divided into {sides}: {groups:,} groups, of which the largest has {largest:,} records.")
    return "".join(lines) + "</p>\n"


def _funnel(curation: Curation) -> list[tuple[str, int, int, int]]:
    left = curation.seen
    rows = [("Records that came", left, 0, 0)]
    for step in curation.steps:
        left -= step.records
        rows.append((FILTERS[step.filter], left, step.records, step.texts))
    return rows


def _plots(curation: Curation) -> str:
    pool = curation.pool
    rows = pool.rows()
    sides = [facts.short_side for facts in pool.facts]
    aspects = [min(facts.aspect, 10.0) for facts in pool.facts]
    lengths = [(row, len(text)) for row, record in enumerate(pool.records) for text in record.texts]
    kept = [len(text) for row in rows for text in pool.texts[row]]
    plots = [
        Histogram("Shorter side, pixels", sides, [sides[row] for row in rows], logarithmic=True),
        Histogram("Longer side by shorter side", aspects, [aspects[row] for row in rows], digits=1),
        Histogram("Characters of a text", [length or 1 for _, length in lengths], kept, logarithmic=True),
    ]
    if pool.similarity:
        every = list(pool.similarity.values())
        stays = [pool.similarity[row] for row in rows if row in pool.similarity]
        plots.append(Histogram("Cosine of a picture and its best text", every, stays, digits=2))
    key = (
        '<span class="key" style="background:#8886"></span> all <span class="key" style="background:var(--bar)"></span>'
    )
    return f'<p>{key} stays</p><div class="plots">{"".join(map(draw_histogram, plots))}</div>\n'


def _section(
    name: str, items: Sequence[Dropped], thumbnails: Thumbnails, image_of: Callable[[str], str | bytes | None]
) -> Iterator[str]:
    """Some examples of what one filter took out."""
    pairs = any(item.twin for item in items)
    texts = [item for item in items if item.text]
    counts = {"records": len(items) - len(texts), "texts": len(texts)}
    words = ", ".join(f"{count:,} {noun}" for noun, count in counts.items() if count)
    yield f"<h2>{html.escape(FILTERS[name])} <small>{words}</small></h2>"
    yield f'<div class="cards{" pairs" if pairs else ""}">\n'
    for item in _some(texts or items, lambda one: one.key + one.text, _SHOWN):
        twin = image_of(item.twin) if item.twin else None
        picture = thumbnails.tag(item.image, item.key)
        if twin is not None:
            other = thumbnails.tag(twin, item.twin)
            picture = (
                f'<div class="two"><figure>{picture}<figcaption>goes</figcaption></figure>'
                f"<figure>{other}<figcaption>stays</figcaption></figure></div>"
            )
        text = f"<p>{_shown(item.text)}</p>" if item.text else ""
        yield f'<div class="card">{picture}{text}<p>{_shown(item.detail)}</p>'
        yield f'<p class="name">{_shown(item.key)}</p></div>\n'
    yield "</div>\n"


def _kept_card(record: ImageText, thumbnails: Thumbnails) -> str:
    picture = thumbnails.tag(record.image, record.key)
    more = f" (+{len(record.texts) - 1})" if len(record.texts) > 1 else ""
    text = _shown(record.texts[0]) if record.texts else ""
    return f'<div class="card">{picture}<p>{text}{more}</p><p class="name">{_shown(record.key)}</p></div>\n'


def _some(items: Iterable[T], key: Callable[[T], str], count: int) -> list[T]:
    """Some of them, spread over all and the same every time."""
    chosen = sorted(items, key=lambda item: hashlib.blake2b(key(item).encode("utf-8", "replace")).digest())
    return chosen[:count]


def _shown(text: str) -> str:
    return html.escape(one_line(text if len(text) <= _LONG else text[:_LONG] + " …"))
