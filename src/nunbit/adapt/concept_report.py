"""The page of a concept: its photographs, what of the index is most like it, and what was forgotten.

Place in the river: a concept and the pictures that it was learned from → HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nunbit.adapt.concept import Concept, most_alike
from nunbit.pages.page import headline, make_page, section, shown_text, table
from nunbit.pages.thumbnails import Thumbnails

_ALIKE, _PERHAPS = 24, 12


@dataclass(frozen=True, slots=True)
class ConceptPictures:
    """Where pictures are.

    Attributes:
        photographs: Of the thing, as they were used.
        index: Of the index, in the order of `Concept.scores`.
    """

    photographs: Sequence[str]
    index: Sequence[str]


def concept_page(concept: Concept, pictures: ConceptPictures) -> bytes:
    """The page."""
    return make_page(f"{concept.head.classnames[0]}: learned from photographs", _body(concept, pictures))


def _body(concept: Concept, pictures: ConceptPictures) -> Iterator[str]:
    thumbnails = Thumbnails()
    name = concept.head.classnames[0]
    yield (
        f'<header><p class="kind">One thing</p><h1>{shown_text(name, 120)}</h1>'
        f"<p>{len(pictures.photographs)} photographs, told from the {len(concept.hard)} of {len(pictures.index):,} "
        "pictures of the index that are most like it</p></header>\n"
    )
    yield headline(_tiles(concept))
    yield from section("Its photographs", _cards(pictures.photographs, _ranks(concept, pictures), thumbnails))
    alike = most_alike(concept, _ALIKE)
    words = [f"{1 / (1 + np.exp(-concept.scores[row])):.0%}" for row in alike]
    yield from section(
        "What of the index is most like it", _cards([pictures.index[row] for row in alike], words, thumbnails)
    )
    likest = concept.perhaps[np.argsort(-concept.scores[concept.perhaps], kind="stable")]
    perhaps = [pictures.index[row] for row in likest[:_PERHAPS]]
    lead = '<p class="lead">As near to a photograph as these are to each other: they taught nothing.</p>'
    shown = [lead, *_cards(perhaps, [""] * len(perhaps), thumbnails)] if perhaps else []
    yield from section("Perhaps the thing itself", shown)
    yield from section("What was forgotten", _forgotten(concept))


def _tiles(concept: Concept) -> Iterator[tuple[str, str, str]]:
    first = int((concept.found == 0).sum())
    of = f"of {len(concept.found)} photographs, each left out in turn"
    yield "Found first", f"{first}" if len(concept.found) else "", of
    others = np.delete(concept.scores, concept.perhaps)
    yield "Called by its name", f"{(others > 0).mean():.1%}", "of the other pictures of the index"
    if len(concept.before):
        yield "Forgotten", f"{int(concept.taken.sum()):,}", f"of {int(concept.before.sum()):,} pictures of other labels"


def _ranks(concept: Concept, pictures: ConceptPictures) -> list[str]:
    if not len(concept.found):
        return [""] * len(pictures.photographs)
    return ["found first" if rank == 0 else f"found after {rank:,} others" for rank in concept.found.tolist()]


def _cards(paths: Sequence[str], words: Sequence[str], thumbnails: Thumbnails) -> Iterator[str]:
    yield '<div class="strip">'
    for path, word in zip(paths, words, strict=True):
        yield f"<figure>{thumbnails.tag(path, path)}<small>{shown_text(word)}</small></figure>"
    yield "</div>\n"


def _forgotten(concept: Concept) -> Iterator[str]:
    names = concept.head.classnames[1:]
    if not len(concept.before):
        return
    rows = [
        [shown_text(name), f"{before:,}", f"{before - taken:,}", f"{taken:,}"]
        for name, before, taken in zip(names, concept.before.tolist(), concept.taken.tolist(), strict=True)
    ]
    yield '<p class="lead">Pictures of the index by what they are called, without the concept and with it.</p>\n'
    yield table(["Label", "before", "after", "called by its name now"], rows)
