"""Records → fewer, better records.

Place in the river: `nunbit.data` → here → training, the index. Records stream in; of each only its texts and about 500
bytes of facts are kept (with an encoder its embedding in float16 too), never pictures that lie in files.

Filters run in the order of `nunbit.curate.filters.FILTERS`: each picture and each text by itself, then what needs all.
What stays does not depend on the order in which records came. What stayed, curated again by the same rules, stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from nunbit.curate import stages
from nunbit.curate.embedder import Embedder
from nunbit.curate.facts import PictureFacts
from nunbit.curate.filters import FILTERS, TextFilters, judge_picture, words_of_file
from nunbit.curate.kept_facts import KeptFacts
from nunbit.curate.measuring import measure_stream
from nunbit.curate.near import search_embeddings, search_looks
from nunbit.curate.pool import Dropped, Pool
from nunbit.curate.rules import CurationConfig
from nunbit.errors import ConfigError
from nunbit.types import ImageText, Rejected


@dataclass(frozen=True, slots=True)
class Step:
    """What one filter took out: records, and single texts of records."""

    filter: str
    records: int
    texts: int


@dataclass(frozen=True, slots=True)
class Curation:
    """What came of a curation.

    Attributes:
        config: The rules.
        kept: The records that stay, in the order in which they came, with the texts that stay.
        dropped: What went: records and single texts, in the order in which they went.
        splits: Split → places in ``kept``; empty without ``config.split``.
        groups: How many groups were divided among the splits, and the records of the largest; zeros without a split.
        seen: How many records came, with those that were unreadable.
        pool: All records that were measured.
    """

    config: CurationConfig
    kept: list[ImageText]
    dropped: list[Dropped]
    splits: dict[str, list[int]]
    groups: tuple[int, int]
    seen: int
    pool: Pool

    @property
    def steps(self) -> list[Step]:
        """What each filter took out, in their order; those that took out nothing are left out."""
        records = Counter(item.filter for item in self.dropped if not item.text)
        texts = Counter(item.filter for item in self.dropped if item.text)
        return [Step(name, records[name], texts[name]) for name in FILTERS if records[name] or texts[name]]


def curate(
    records: Iterable[ImageText | Rejected],
    config: CurationConfig,
    *,
    embedder: Embedder | None = None,
    keep_in: Path | None = None,
    threads: int | None = None,
) -> Curation:
    """Curate records.

    Args:
        records: Read once, lazily.
        config: The rules.
        embedder: Embeds pictures and texts, for the rules that compare those.
        keep_in: A folder in which what was measured is kept for the next run.
        threads: Decoding threads, by default the number of cores.

    Raises:
        ConfigError: A rule needs an encoder and there is none, a list of words cannot be read, a language is unknown.

    Example:
        >>> curation = curate(open_source(SourceConfig("pairs.jsonl")).records(), CurationConfig(min_side=64))
        >>> len(curation.kept)
        912
    """
    if embedder is None and config.measures_similarity:
        raise ConfigError("a rule about similarity needs an encoder", hint="name one, such as --model starter")
    judge = TextFilters(config)
    concepts = [*config.balance_words, *words_of_file(config.balance_words_file)]
    pool, seen = _measure(records, config, judge, KeptFacts(keep_in), threads)
    stages.drop_repeats(pool, config)
    stages.drop_copies(pool, config)
    looks, embeddings = stages.read_looks(pool), None
    if config.near_distance >= 0:
        stages.drop_near(pool, search_looks(looks, config.near_distance), "near_hash")
    if embedder and (config.near_similarity or config.measures_similarity):
        embeddings = stages.embed_pool(pool, embedder, keep_in)
        if config.near_similarity:
            stages.drop_near(pool, search_embeddings(embeddings, looks, config.near_similarity), "near_embedding")
        stages.judge_similarity(pool, config, embedder, embeddings)
    if config.balance_cap:
        stages.drop_frequent(pool, config, concepts)
    splits, groups = stages.split_pool(pool, config, looks, embeddings)
    kept = [_finished(pool, row, config, embedder) for row in pool.rows()]
    return Curation(config, kept, pool.dropped, splits, groups, seen, pool)


def _measure(
    records: Iterable[ImageText | Rejected],
    config: CurationConfig,
    judge: TextFilters,
    facts: KeptFacts,
    threads: int | None,
) -> tuple[Pool, int]:
    """Measure all records, and judge each by itself."""
    pool, seen = Pool(), 0
    try:
        for item in measure_stream(records, facts, threads=threads):
            seen += 1
            if isinstance(item, Rejected):
                pool.dropped.append(Dropped(item.path, "unreadable", f"{item.reason}: {item.detail}"))
                continue
            record, measured = item
            if isinstance(measured, Rejected):
                pool.dropped.append(Dropped(record.key, "broken", f"{measured.reason}: {measured.detail}"))
            else:
                _judge(record, measured, pool, config, judge)
    finally:
        facts.close()
    return pool, seen


def _judge(record: ImageText, facts: PictureFacts, pool: Pool, config: CurationConfig, judge: TextFilters) -> None:
    row = pool.add(record, facts)
    if found := judge_picture(facts, config):
        pool.drop(row, found)
        return
    findings = [(text, found) for text in pool.texts[row] if (found := judge.judge(text))]
    if findings or not pool.texts[row]:
        pool.drop_texts(row, findings)


def _finished(pool: Pool, row: int, config: CurationConfig, embedder: Embedder | None) -> ImageText:
    """A record as it stays: with the texts that are left, and marked when it was judged by its similarity."""
    record, metadata = pool.records[row], dict(pool.records[row].metadata)
    metadata.pop(stages.PASSED, None)
    if embedder and config.measures_similarity:
        metadata[stages.PASSED] = stages.passed(pool, row, config, embedder)
    return replace(record, texts=tuple(pool.texts[row]), metadata=metadata)
