"""Folders of pictures with captions beside them → records: ``NAME.txt``, a caption a line, or ``NAME.json``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property

from nunbit.data.places import Entry, list_folder, read_small
from nunbit.data.rows import TEXT_BYTES, RowReader, UnfitRow, parse_lines, parse_object
from nunbit.data.source import Draft, Source, SourceConfig
from nunbit.picture_files import ENDING
from nunbit.types import Rejected

PICTURE = re.compile(ENDING, re.IGNORECASE)

_CAPTIONS = (".txt", ".json")


class FolderSource(Source):
    """A folder and what is below it, each folder a part. Hidden entries are passed over.

    Memory: the names in one folder at a time, and those of all folders.
    """

    def __init__(self, config: SourceConfig, name: str, entries: Sequence[Entry]) -> None:
        super().__init__(config, name)
        self._top = entries[0].path.rstrip("/")
        self._reader = RowReader(config, self._top)

    @property
    def parts(self) -> int:
        """Folders with pictures."""
        return len(self._folders)

    def count(self) -> int:
        """Pictures."""
        return sum(count for _, count in self._folders)

    def drafts(self, part: int) -> Iterator[Draft | Rejected]:
        """As in `Source`; a record is named by the path of its picture, below the folder."""
        entries = list_folder(self._folders[part][0])
        captions = {entry.name: entry for entry in entries if _is_caption(entry)}
        for entry in entries:
            if not _is_picture(entry):
                continue
            key = f"{self.name}:{self._relative(entry)}"
            stem = entry.name.rpartition(".")[0]
            try:
                yield self._draft(key, entry, [captions[stem + end] for end in _CAPTIONS if stem + end in captions])
            except UnfitRow as unfit:
                yield unfit.rejected(key)

    def facts(self) -> Iterator[str]:
        """As in `Source`."""
        for folder, _ in self._folders:
            for entry in list_folder(folder):
                if _is_picture(entry) or _is_caption(entry):
                    yield f"{self._relative(entry)}\t{entry.size}\t{entry.changed}"

    def _draft(self, key: str, picture: Entry, captions: Sequence[Entry]) -> Draft:
        if not picture.path.isascii() and picture.path.encode("utf-8", "replace").decode() != picture.path:
            raise UnfitRow("name is not UTF-8", "rename it: it could not be stored or shown faithfully")
        if not captions:
            stem = picture.name.rpartition(".")[0]
            raise UnfitRow("no text", f"neither {stem}.txt nor {stem}.json is beside it")
        lines, row = list[str](), {}
        for entry in captions:
            data = read_small(entry.path, TEXT_BYTES)
            if data is None:
                raise UnfitRow("too many bytes", f"{entry.name} has {entry.size:,} bytes, the limit is {TEXT_BYTES:,}")
            if entry.name.endswith(".txt"):
                lines = parse_lines(data)
            else:
                row = parse_object(data)
        return Draft(key, picture.path, self._reader.texts(row, lines), self._reader.metadata(row))

    def _relative(self, entry: Entry) -> str:
        return entry.path[len(self._top) + 1 :]

    @cached_property
    def _folders(self) -> list[tuple[str, int]]:
        """Each folder with pictures directly in it, and how many."""
        found, todo, seen = [], [self._top], set[str]()
        while todo:
            folder = todo.pop()
            real = os.path.realpath(folder)  # a link may lead back up; a URL stays as it is, apart from its slashes
            if real in seen:
                continue
            seen.add(real)
            entries = list_folder(folder)
            if count := sum(map(_is_picture, entries)):
                found.append((folder, count))
            todo += [entry.path for entry in reversed(entries) if entry.is_folder]
        return found


def _is_picture(entry: Entry) -> bool:
    return not entry.is_folder and PICTURE.fullmatch(entry.name[entry.name.rfind(".") :]) is not None


def _is_caption(entry: Entry) -> bool:
    return not entry.is_folder and entry.name.endswith(_CAPTIONS)
