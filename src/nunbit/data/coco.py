"""COCO's ``captions_*.json`` → records: every picture with its captions, without reading the file as a whole.

Memory: 48 bytes for each picture and each caption, 36 MB for COCO's training set; the texts stay in the file.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from nunbit.data.places import Entry, open_file
from nunbit.data.rows import UnfitRow
from nunbit.data.source import Draft, SourceConfig
from nunbit.data.tables import FilesSource
from nunbit.errors import UsageError
from nunbit.types import Rejected

_CHUNK = 1 << 20
_VALUE_BYTES = 16 << 20  # one picture, one caption, or another value at the top: more is no such file
_BETWEEN = re.compile(r"[\s,:]*")
_DECODER = json.JSONDecoder()


@dataclass(slots=True)
class _Contents:
    """Where things are in a file.

    Attributes:
        pictures: (N, 3) int64: id, offset, size, in the order of the file.
        captions: (M, 3) int64: id of the picture, offset, size; sorted by id, then in the order of the file.
        unfit: What is neither, with its offset.
    """

    pictures: npt.NDArray[np.int64]
    captions: npt.NDArray[np.int64]
    unfit: list[tuple[int, str]]

    def captions_of(self, picture: int) -> Iterator[tuple[int, int]]:
        """Offset and size of each caption of a picture."""
        first, last = np.searchsorted(self.captions[:, 0], [picture, picture + 1])
        for _, offset, size in self.captions[first:last].tolist():
            yield offset, size

    def strays(self) -> list[int]:
        """Ids of pictures that have captions but are not listed."""
        strays: list[int] = np.setdiff1d(self.captions[:, 0], self.pictures[:, 0]).tolist()
        return strays


class CocoSource(FilesSource):
    """COCO captions; a picture without any is set aside."""

    def __init__(self, config: SourceConfig, name: str, entries: Sequence[Entry]) -> None:
        super().__init__(replace(config, image="file_name", texts=("captions",)), name, entries)
        self._known: dict[int, _Contents] = {}

    def count(self) -> int:
        """Pictures; found by reading the files through, once."""
        return sum(len(self._contents(part).pictures) for part in range(self.parts))

    def drafts(self, part: int) -> Iterator[Draft | Rejected]:
        """As in `Source`; a record is named by the id of its picture."""
        entry, contents = self.entries[part], self._contents(part)
        reader = self.reader(entry)
        with open_file(entry.path) as file:
            for number, offset, size in contents.pictures.tolist():
                captions = [_read(file, *place)["caption"] for place in contents.captions_of(number)]
                yield reader.draft(self.key(entry, number), {**_read(file, offset, size), "captions": captions})
        for number in contents.strays():
            yield Rejected(self.key(entry, number), "no picture", "captions of a picture that is not listed")
        for offset, detail in contents.unfit:
            yield Rejected(self.key(entry, f"byte {offset}"), "unknown entry", detail)

    def _contents(self, part: int) -> _Contents:
        if part not in self._known:
            entry = self.entries[part]
            try:
                with open_file(entry.path) as file:
                    self._known[part] = _index(_Scanner(file))
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{entry.path} is not a file of COCO captions: {error}") from error
        return self._known[part]


def _read(file: BinaryIO, offset: int, size: int) -> dict[str, Any]:
    file.seek(offset)
    value: dict[str, Any] = json.loads(file.read(size).decode("utf-8", "replace"))
    return value


def _index(scanner: _Scanner) -> _Contents:
    pictures, captions = array("q"), array("q")
    unfit: list[tuple[int, str]] = []
    found = set()
    for name, value, offset, size in scanner.elements(("images", "annotations")):
        found.add(name)
        try:
            if name == "images":
                _need(value, "id", "file_name")
                pictures.extend((value["id"], offset, size))
            else:
                _need(value, "image_id", "caption")
                captions.extend((value["image_id"], offset, size))
        except UnfitRow as row:
            unfit.append((offset, row.detail))
    if not pictures or not captions:
        raise ValueError("expected the lists images and annotations, and captions among the annotations")
    table = np.array(captions, np.int64).reshape(-1, 3)
    order = np.argsort(table[:, 0], kind="stable")
    return _Contents(np.array(pictures, np.int64).reshape(-1, 3), table[order], unfit)


def _need(value: Any, number: str, text: str) -> None:
    good = isinstance(value, dict) and isinstance(value.get(number), int) and isinstance(value.get(text), str)
    if not good or abs(value[number]) >= 1 << 62:
        raise UnfitRow("unknown entry", f"expected an object with the number {number} and the text {text}")


@dataclass(slots=True)
class _Scanner:
    """Goes through a JSON object, an element of its lists at a time.

    Bytes are looked at as Latin-1, where a character is a byte: places are right, texts are not, nobody reads them.
    """

    file: BinaryIO
    text: str = ""
    start: int = 0  # where in the file the text begins
    at: int = 0  # where in the text the next value is

    def elements(self, names: Sequence[str]) -> Iterator[tuple[str, Any, int, int]]:
        """Name of the list, element, offset and size, for every element of the named lists at the top.

        Raises:
            ValueError: It is no JSON object.
        """
        if self._peek() == "\xef":  # a byte order mark
            self.at += 3
        if self._peek() != "{":
            raise ValueError("it does not begin with {")
        self.at += 1
        while self._peek() != "}":
            name = self._value()[0]
            if self._peek() == "[" and name in names:
                self.at += 1
                while self._peek() != "]":
                    yield name, *self._value()
                self.at += 1
            else:
                self._value()

    def _value(self) -> tuple[Any, int, int]:
        while True:
            self._peek()
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or not self._more():
                    offset, size = self.start + self.at, end - self.at
                    self.at = end
                    return value, offset, size
            except json.JSONDecodeError:
                if len(self.text) - self.at > _VALUE_BYTES or not self._more():
                    raise

    def _peek(self) -> str:
        """The next character that is not between values."""
        while True:
            match = _BETWEEN.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                raise ValueError("it ends early")

    def _more(self) -> bool:
        data = self.file.read(_CHUNK)
        self.start += self.at
        self.text = self.text[self.at :] + data.decode("latin-1")
        self.at = 0
        return bool(data)
