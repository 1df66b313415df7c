"""A file of labels → entries, and the rows that were set aside with their reasons.

Place in the river: words → `files` → build. Three formats, told by the ending:

- ``.txt``: one label a line.
- ``.jsonl``: one object a line: ``name``, ``synonyms`` and ``parents`` (each a list, or one text with ``;`` between).
- ``.csv``, ``.tsv``: a header with ``name`` and, if there are any, ``synonyms`` and ``parents``, ``;`` between several.

``parent`` is read as ``parents``; other columns are passed over. Names are compared after Unicode's NFC, so that Korean
from a Mac is the same label as Korean from elsewhere, and with white space made single.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from nunbit.errors import UsageError

SEPARATOR = ";"
MAX_LENGTH = 1000
"""Characters in a name. What is longer is no label but a line that lost its line ends."""

SHOWN_REJECTS = 100


@dataclass(frozen=True, slots=True)
class LabelEntry:
    """One label as it is kept.

    Attributes:
        name: What a search answers with.
        synonyms: Other texts for the same thing, in any language; each is embedded and searched like the name.
        parents: Names of what it is a kind of; they may, but need not, be labels themselves.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """What is embedded: the name, then the synonyms."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row of a file that was set aside: its line, counted from 1, and a short, stable reason."""

    line: int
    reason: str


@dataclass(slots=True)
class LabelFile:
    """What a file of labels holds.

    Attributes:
        entries: Every label once, in the order of first appearance.
        merged: Rows that repeated a label; their synonyms and parents were added to it.
        reasons: How many rows were set aside for which reason; empty lines are among them.
        rejected: The first `SHOWN_REJECTS` of them.
    """

    entries: list[LabelEntry] = field(default_factory=list)
    merged: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rejected: list[RejectedRow] = field(default_factory=list)


_Row: TypeAlias = "tuple[int, LabelEntry | str]"  # line, and the label or why there is none


def read_labels(path: Path) -> LabelFile:
    """Read a file of labels.

    Args:
        path: UTF-8, with or without a byte order mark.

    Raises:
        UsageError: The file is not there, has another ending, no column ``name``, or not one label.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="give a file with one label a line")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        endings = ", ".join(_READERS)
        raise UsageError(f"{path.name} ends in {path.suffix!r}, expected one of {endings}", hint="rename or convert it")
    with path.open("rb") as file:
        found = merge(reader(_decoded(file)))
    if not found.entries:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.reasons.most_common())
        raise UsageError(f"there is no label in {path.name}" + (f": {reasons}" if reasons else ""))
    return found


def make_entry(name: Any, synonyms: Any = (), parents: Any = ()) -> LabelEntry | str:
    """One label from what a file or a caller says, or the reason why it is none.

    Args:
        name: A text.
        synonyms: A list of texts, one text with ``;`` between several, or nothing.
        parents: Likewise.
    """
    if not isinstance(name, str):
        return "no name"
    name = normalize(name)
    lists = [_texts(synonyms), _texts(parents)]
    if not name:
        return "empty"
    if lists[0] is None or lists[1] is None:
        return "synonyms or parents that are no texts"
    if any(len(text) > MAX_LENGTH for text in (name, *lists[0], *lists[1])):
        return "too long"
    kept = (tuple(dict.fromkeys(text for text in texts if text and text != name)) for texts in (lists[0], lists[1]))
    return LabelEntry(name, *kept)


def normalize(text: str) -> str:
    """NFC, white space single and none around."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def merge(rows: Iterable[_Row]) -> LabelFile:
    """Unite rows of the same name, and count what was set aside."""
    found = LabelFile()
    by_name: dict[str, int] = {}
    for line, row in rows:
        if isinstance(row, str):
            found.reasons[row] += 1
            if len(found.rejected) < SHOWN_REJECTS:
                found.rejected.append(RejectedRow(line, row))
        elif (at := by_name.setdefault(row.name, len(found.entries))) == len(found.entries):
            found.entries.append(row)
        else:
            before = found.entries[at]
            found.merged += 1
            synonyms = tuple(dict.fromkeys(before.synonyms + row.synonyms))
            found.entries[at] = LabelEntry(row.name, synonyms, tuple(dict.fromkeys(before.parents + row.parents)))
    return found


def _texts(value: Any) -> list[str] | None:
    if value is None:
        return []
    parts = value.split(SEPARATOR) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        return None
    return [normalize(part) for part in parts]


def _decoded(lines: Iterable[bytes]) -> Iterator[tuple[int, str | None]]:
    """Line number and text, None for bytes that are not UTF-8."""
    for number, line in enumerate(lines, start=1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            yield number, None


def _read_text(lines: Iterable[tuple[int, str | None]]) -> Iterator[_Row]:
    for number, line in lines:
        yield number, "not UTF-8" if line is None else make_entry(line)


def _read_jsonl(lines: Iterable[tuple[int, str | None]]) -> Iterator[_Row]:
    for number, line in lines:
        if line is None or not line.strip():
            yield number, "not UTF-8" if line is None else "empty"
            continue
        try:
            row = json.loads(line)
        except ValueError:
            yield number, "not JSON"
            continue
        if not isinstance(row, dict):
            yield number, "not a JSON object"
            continue
        yield number, make_entry(row.get("name"), row.get("synonyms"), row.get("parents", row.get("parent")))


def _table_reader(delimiter: str) -> Callable[[Iterable[tuple[int, str | None]]], Iterator[_Row]]:
    def read(lines: Iterable[tuple[int, str | None]]) -> Iterator[_Row]:
        bad: list[int] = []

        def good() -> Iterator[str]:
            for number, line in lines:
                if line is None:
                    bad.append(number)
                else:
                    yield line

        table = csv.reader(good(), delimiter=delimiter)
        columns = [cell.strip().lower() for cell in next(table, [])]
        if "name" not in columns:
            raise UsageError(f"the table has no column 'name' but {columns}", hint="give the first line as a header")
        places = [_place(columns, names) for names in (("name",), ("synonyms", "synonym"), ("parents", "parent"))]
        for cells in _rows(table):
            if cells is None:
                yield table.line_num + len(bad), "not a table"
            elif not any(cell.strip() for cell in cells):
                yield table.line_num + len(bad), "empty"
            elif len(cells) > len(columns):
                yield table.line_num + len(bad), "more cells than columns"
            else:
                padded = [*cells, *[""] * (len(columns) - len(cells))]
                yield table.line_num + len(bad), make_entry(*("" if at is None else padded[at] for at in places))
        for number in bad:
            yield number, "not UTF-8"

    return read


def _rows(table: Iterator[list[str]]) -> Iterator[list[str] | None]:
    """Rows of a table, None for one that its quotes or a zero byte make unreadable."""
    while True:
        try:
            yield next(table)
        except StopIteration:
            return
        except csv.Error:
            yield None


def _place(columns: Sequence[str], names: Sequence[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


_READERS = {".txt": _read_text, ".jsonl": _read_jsonl, ".csv": _table_reader(","), ".tsv": _table_reader("\t")}
