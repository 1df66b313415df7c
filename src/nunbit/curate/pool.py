"""Records on their way through the filters, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nunbit.curate.facts import PictureFacts
from nunbit.curate.filters import FILTERS, Finding
from nunbit.types import ImageText


@dataclass(frozen=True, slots=True)
class Dropped:
    """A record that went, or one text of a record.

    Attributes:
        key: Of the record.
        filter: One of `nunbit.curate.filters.FILTERS`.
        detail: What was found, for people.
        score: What was measured, where something was.
        text: The text that went; empty when it was the record.
        twin: Key of the record that stays instead, of a duplicate.
        image: The picture.
    """

    key: str
    filter: str
    detail: str
    score: float | None = None
    text: str = ""
    twin: str = ""
    image: str | bytes = b""


@dataclass(slots=True)
class Pool:
    """Records whose pictures were measured, by row; a row that went keeps its place.

    Attributes:
        records: As they came, by row.
        facts: Of their pictures, by row.
        texts: What is left of their texts, by row.
        alive: Whether they are still there, by row.
        dropped: What went, records and texts.
        similarity: Row → the cosine of its picture and the text that fits best, where that was measured.
    """

    records: list[ImageText] = field(default_factory=list)
    facts: list[PictureFacts] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)
    alive: list[bool] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    similarity: dict[int, float] = field(default_factory=dict)

    def add(self, record: ImageText, facts: PictureFacts) -> int:
        """Put in a record and give its row."""
        self.records.append(record)
        self.facts.append(facts)
        self.texts.append(list(dict.fromkeys(record.texts)))
        self.alive.append(True)
        return len(self.records) - 1

    def rows(self) -> list[int]:
        """The rows that are still there."""
        return [row for row, alive in enumerate(self.alive) if alive]

    def drop(self, row: int, finding: Finding, twin: int | None = None) -> None:
        """Take out a record."""
        record = self.records[row]
        self.alive[row] = False
        other = "" if twin is None else self.records[twin].key
        self.dropped.append(
            Dropped(record.key, finding.filter, finding.detail, finding.score, twin=other, image=record.image)
        )

    def drop_texts(self, row: int, findings: Iterable[tuple[str, Finding]]) -> None:
        """Take texts out of a record, and the record itself when none is left."""
        record, filters = self.records[row], set[str]()
        for text, finding in findings:
            self.texts[row].remove(text)
            filters.add(finding.filter)
            self.dropped.append(
                Dropped(record.key, finding.filter, finding.detail, finding.score, text=text, image=record.image)
            )
        if not self.texts[row]:
            last = max(filters, key=list(FILTERS).index, default="unreadable")
            self.drop(row, Finding(last, "no text is left"))

    def preferred(self) -> list[int]:
        """The rows that are still there, those first that rather stay than a duplicate.

        Most pixels first, then the longest text, then the smallest key.
        """

        def wish(row: int) -> tuple[int, int, str, str]:
            facts = self.facts[row]
            longest = max(map(len, self.texts[row]))
            return -facts.width * facts.height, -longest, self.records[row].key, facts.sha256

        return sorted(self.rows(), key=wish)
