"""The filters that need all records: repeated texts, duplicates, similarities, balance, and the split."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nunbit.curate.balance import balance, find_concepts, stable_order
from nunbit.curate.embedder import Embedder, embed_pictures, text_similarities
from nunbit.curate.filters import Finding
from nunbit.curate.kept_facts import KeptEmbeddings
from nunbit.curate.near import Looks, Search, find_twins, search_embeddings, search_looks
from nunbit.curate.pool import Pool
from nunbit.curate.rules import SPLITS, CurationConfig
from nunbit.curate.splits import choose_sides, group_records
from nunbit.curate.words import plain
from nunbit.types import Rejected

if TYPE_CHECKING:
    import numpy.typing as npt

PASSED = "passed_rules"
"""The name, among a kept record's metadata, of what tells that it passed these rules about similarity before."""

_SPLIT_ALIKE = 0.95  # what must not be on two sides is looked for more widely than what is a duplicate
_SPLIT_CLOSER = 0.02


def drop_repeats(pool: Pool, config: CurationConfig) -> None:
    """Drop texts that too many different pictures have."""
    if not config.max_repeats:
        return
    pictures: defaultdict[str, set[str]] = defaultdict(set)
    for row in pool.rows():
        for text in pool.texts[row]:
            pictures[plain(text)].add(pool.facts[row].pixels)
    for row in pool.rows():
        counts = [(text, len(pictures[plain(text)])) for text in pool.texts[row]]
        often = [(text, number) for text, number in counts if number > config.max_repeats]
        if often:
            findings = (
                (text, Finding("repeats", f"the text of {number:,} pictures", number)) for text, number in often
            )
            pool.drop_texts(row, findings)


def drop_copies(pool: Pool, config: CurationConfig) -> None:
    """Of pictures with the same pixels, keep one, and give it the texts of the others."""
    if not config.exact_duplicates:
        return
    stays: dict[str, int] = {}
    for row in pool.preferred():
        facts = pool.facts[row]
        twin = stays.setdefault(facts.pixels, row)
        if twin == row:
            continue
        if config.merge_texts:
            pool.texts[twin] += [text for text in pool.texts[row] if text not in pool.texts[twin]]
        same = facts.sha256 == pool.facts[twin].sha256
        name, words = ("same_bytes", "the same file") if same else ("same_pixels", "the same pixels")
        pool.drop(row, Finding(name, f"{words} as {pool.records[twin].key}"), twin)


def read_looks(pool: Pool) -> Looks:
    """What the pictures of all rows look like."""
    layouts = b"".join(facts.layout for facts in pool.facts)
    hashes = np.array([facts.looks for facts in pool.facts], np.uint64)
    return Looks(hashes, np.frombuffer(layouts, np.uint8).reshape(len(hashes), 192))


def drop_near(pool: Pool, search: Search, by: str) -> None:
    """Of pictures that are near each other, keep one.

    Args:
        pool: The records.
        search: How near ones are found.
        by: ``near_hash`` or ``near_embedding``.
    """
    twins = find_twins(pool.preferred(), search)
    for row in sorted(twins):
        twin = twins[row]
        key = pool.records[twin.row].key
        if by == "near_hash":
            pool.drop(row, Finding(by, f"{twin.nearness:.0f} of 64 bits from {key}", twin.nearness), twin.row)
        else:
            cosine = round(1 - twin.nearness, 4)
            pool.drop(row, Finding(by, f"cosine {cosine:.3f} with {key}", cosine), twin.row)


def embed_pool(pool: Pool, embedder: Embedder, keep_in: Path | None) -> npt.NDArray[np.float16]:
    """Embed the pictures that are still there; one that cannot be is dropped.

    Returns:
        (N, D) float16, by row; zeros for those that are gone.
    """
    rows = pool.rows()
    kept = KeptEmbeddings(keep_in, embedder.identity)
    try:
        images, hashes = [pool.records[row].image for row in rows], [pool.facts[row].sha256 for row in rows]
        found = embed_pictures(embedder, images, hashes, kept)
    finally:
        kept.close()
    good = [item for item in found.values() if not isinstance(item, Rejected)]
    embeddings = np.zeros((len(pool.records), len(good[0]) if good else 0), np.float16)
    for place, row in enumerate(rows):
        item = found[place]
        if isinstance(item, Rejected):
            pool.drop(row, Finding("broken", f"{item.reason}: {item.detail}"))
        else:
            embeddings[row] = item
    return embeddings


def judge_similarity(
    pool: Pool, config: CurationConfig, embedder: Embedder, embeddings: npt.NDArray[np.float16]
) -> None:
    """Drop texts that do not fit their picture, and the records whose best text fits least.

    Records that passed the same rules before, as their metadata say, are not judged again: a share of a share would be
    less each time.
    """
    rows = pool.rows()
    pairs = [(row, text) for row in rows for text in pool.texts[row]]
    cosines: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for (row, text), cosine in zip(pairs, text_similarities(embedder, pairs, embeddings).tolist(), strict=True):
        cosines[row][text] = round(cosine, 4)
    new = [row for row in rows if pool.records[row].metadata.get(PASSED) != passed(pool, row, config, embedder)]
    for row in new:
        low = [(text, cosine) for text, cosine in cosines[row].items() if cosine < config.min_similarity]
        if low:
            pool.drop_texts(row, ((text, Finding("similarity", f"cosine {c:.3f}", c)) for text, c in low))
    pool.similarity = {row: max(cosines[row][text] for text in pool.texts[row]) for row in pool.rows()}
    left = [row for row in new if pool.alive[row]]
    if config.top_similarity == 1:
        return
    order = sorted(left, key=lambda row: (-pool.similarity[row], stable_order(config.seed, pool.facts[row].sha256)))
    for row in order[math.ceil(config.top_similarity * len(order)) :]:
        cosine, text = max((cosines[row][text], text) for text in pool.texts[row])
        detail = f"cosine {cosine:.3f}, not of the best {config.top_similarity:.0%}: {text}"
        pool.drop(row, Finding("top_similarity", detail, cosine))


def passed(pool: Pool, row: int, config: CurationConfig, embedder: Embedder) -> str:
    """What only this picture, with these texts, under these rules of this encoder has."""
    rules = [embedder.identity, config.min_similarity, config.top_similarity]
    texts = sorted(text.strip() for text in pool.texts[row])
    return hashlib.sha256(json.dumps([rules, pool.facts[row].sha256, texts]).encode()).hexdigest()[:32]


def drop_frequent(pool: Pool, config: CurationConfig, words: Sequence[str]) -> None:
    """Drop records of frequent concepts."""
    rows = pool.rows()
    order = {row: stable_order(config.seed, pool.facts[row].sha256) for row in rows}
    concepts = find_concepts({row: pool.texts[row] for row in rows}, words, config.balance_min_count)
    for row, finding in balance(concepts, order, config.balance_cap, config.balance_others).items():
        pool.drop(row, finding)


def split_pool(
    pool: Pool, config: CurationConfig, looks: Looks, embeddings: npt.NDArray[np.float16] | None
) -> tuple[dict[str, list[int]], tuple[int, int]]:
    """Put what is left on sides.

    Returns:
        Split → places among the rows that are left; and how many groups there are, with the records of the largest.
    """
    rows = pool.rows()
    if not config.split:
        return {}, (0, 0)
    left = Looks(looks.hashes[rows], looks.layouts[rows])
    searches = [] if config.split_distance < 0 else [search_looks(left, config.split_distance, _SPLIT_ALIKE)]
    if embeddings is not None and config.near_similarity:
        searches.append(search_embeddings(embeddings[rows], left, config.near_similarity - _SPLIT_CLOSER))
    texts = [pool.texts[row] for row in rows] if config.split_texts else None
    groups = group_records(texts, [pool.facts[row].pixels for row in rows], searches)
    sides = choose_sides(groups, [pool.facts[row].sha256 for row in rows], config.split, config.seed)
    splits = {name: [place for place, side in enumerate(sides) if side == number] for number, name in _names(config)}
    sizes = np.bincount(groups)
    return splits, (int((sizes > 0).sum()), int(sizes.max(initial=0)))


def _names(config: CurationConfig) -> list[tuple[int, str]]:
    return list(enumerate(SPLITS[: len(config.split)]))
