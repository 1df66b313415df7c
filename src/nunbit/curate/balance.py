"""Balance over concepts, as MetaCLIP does it (arXiv 2309.16671): frequent concepts are capped, rare ones kept whole.

A concept lets the first ``cap`` of its records stay, in an order that hashes of their pictures and the seed decide. A
record stays when one of its concepts lets it. The order is one for all concepts, so that what is left of a frequent
concept is hardly more than its cap, and whoever balances what stayed finds every concept's choice unchanged.

Without a given list every frequent word is a concept: one with ``min_count`` records or more. As this is at most the
cap, a word that was one is one again afterwards.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from nunbit.curate.filters import Finding
from nunbit.curate.words import Phrases, split_words

_EMPTY_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "has",
        "have",
        "he",
        "her",
        "his",
        "in",
        "into",
        "is",
        "it",
        "its",
        "near",
        "next",
        "no",
        "not",
        "of",
        "off",
        "on",
        "one",
        "or",
        "out",
        "over",
        "several",
        "she",
        "some",
        "that",
        "the",
        "their",
        "there",
        "these",
        "they",
        "this",
        "three",
        "to",
        "two",
        "up",
        "was",
        "were",
        "which",
        "while",
        "who",
        "with",
        "그",
        "이",
        "저",
        "것",
        "수",
        "등",
        "및",
        "한",
        "두",
        "세",
        "있는",
        "있다",
        "위에",
        "옆에",
        "앞에",
        "그리고",
    ]
)


def stable_order(seed: int, sha256: str) -> bytes:
    """What decides for a picture: the same wherever it lies and whatever comes beside it."""
    return hashlib.blake2b(f"{seed}:{sha256}".encode(), digest_size=16).digest()


def find_concepts(texts: Mapping[int, Sequence[str]], words: Sequence[str], min_count: int) -> dict[str, list[int]]:
    """Tell which records are about what.

    Args:
        texts: Row → its texts.
        words: The concepts; none for the frequent words.
        min_count: In how many records a word is frequent.

    Returns:
        Concept → rows, each once.
    """
    concepts: defaultdict[str, list[int]] = defaultdict(list)
    phrases = Phrases(words)
    for row, given in texts.items():
        found = dict[str, None]()
        for text in given:
            found.update(dict.fromkeys(phrases.find(text) if words else split_words(text)))
        for concept in found:
            concepts[concept].append(row)
    if words:
        return dict(concepts)
    return {
        word: rows
        for word, rows in concepts.items()
        if len(rows) >= min_count and word not in _EMPTY_WORDS and not word.isdecimal()
    }


def balance(
    concepts: Mapping[str, Sequence[int]], order: Mapping[int, bytes], cap: int, others: bool
) -> dict[int, Finding]:
    """Tell which records go.

    Args:
        concepts: As `find_concepts` gives them.
        order: Row → `stable_order`, of all rows.
        cap: How many records a concept lets stay.
        others: Whether rows without a concept stay.

    Returns:
        Row → why it goes.
    """
    stay = set[int]()
    rarest: dict[int, tuple[int, str]] = {}
    for concept, rows in concepts.items():
        stay.update(sorted(rows, key=lambda row: order[row])[:cap])
        for row in rows:
            rarest[row] = min(rarest.get(row, (len(rows), concept)), (len(rows), concept))
    gone: dict[int, Finding] = {}
    for row in order:
        if row in rarest and row not in stay:
            count, concept = rarest[row]
            gone[row] = Finding("balance", f"{concept!r} has {count:,} records, {cap:,} let stay", count)
        elif row not in rarest and not others:
            gone[row] = Finding("balance", "none of the concepts", 0)
    return gone
