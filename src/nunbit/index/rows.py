"""Rows of the table, as they go in and as they come out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from nunbit.types import FloatArray

T = TypeVar("T")

FILTER_COLUMNS = (
    "id",
    "path",
    "size",
    "mtime_ns",
    "width",
    "height",
    "format",
    "taken",
    "content_hash",
    "name",
    "attributes",
)
"""Columns that a filter may name; in the table ``vector`` comes before the last two."""

ADDED_COLUMNS = ("name", "attributes")
"""Those that came with format version 2."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is stored of one good picture.

    Attributes:
        id: See `picture_id`.
        path: Absolute; of an upload relative to the index's folder.
        size: Of the file, in bytes.
        mtime_ns: When the file was last modified, in nanoseconds since 1970.
        width: In pixels, after EXIF rotation.
        height: In pixels, after EXIF rotation.
        format: Pillow's name of the format.
        taken: ISO 8601 without a time zone, or None.
        content_hash: BLAKE2b-128 of the file's bytes in hex; empty when the file changed while it was read.
        name: For people: that of the file, or what the uploader called it.
        attributes: As `as_attributes` writes them.
        embedding: (D,) float32, unit length.
    """

    id: str
    path: str
    size: int
    mtime_ns: int
    width: int
    height: int
    format: str
    taken: str | None
    content_hash: str
    name: str
    attributes: str
    embedding: FloatArray

    def record(self) -> dict[str, Any]:
        """As the table gives it back, without the embedding."""
        record = {name: getattr(self, name) for name in FILTER_COLUMNS}
        record["taken"] = datetime.fromisoformat(self.taken) if self.taken else None
        return record


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of an index.

    Attributes:
        id: Stable as long as the path is.
        path: Absolute.
        metadata: ``size`` (bytes), ``mtime_ns``, ``width``, ``height`` (pixels), ``format``, ``taken`` (ISO 8601 or
            None) and ``content_hash``.
        name: For people: that of the file, or what the uploader called it.
        attributes: The user's own facts: texts, numbers and truth values by name.
    """

    id: str
    path: str
    metadata: Mapping[str, Any]
    name: str
    attributes: Mapping[str, Any]

    @property
    def modified(self) -> str:
        """When the file was last modified, in ISO 8601, UTC, to the second."""
        return datetime.fromtimestamp(self.metadata["mtime_ns"] // 10**9, UTC).isoformat().replace("+00:00", "Z")


def picture_id(path: str) -> str:
    """Name a picture by where it is: the first 32 hex digits of the sha256 of its absolute path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of ``size``, the last of which may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def item_of(record: dict[str, Any], folder: Path) -> Item:
    """Make an item of a record of the table's filter columns; ``taken`` becomes text again.

    Args:
        record: Of the table.
        folder: Of the index.
    """
    apart = ("id", "path", "name", "attributes")
    metadata = {name: record[name] for name in FILTER_COLUMNS if name not in apart}
    metadata["taken"] = metadata["taken"].isoformat() if metadata["taken"] else None
    path = str(folder / record["path"])
    name = record["name"] or os.path.basename(path)
    return Item(record["id"], path, metadata, name, json.loads(record["attributes"] or "{}"))


def as_attributes(attributes: Mapping[str, Any]) -> str:
    """Write attributes as they are stored: JSON, keys in order; nothing where there are none."""
    return json.dumps(attributes, ensure_ascii=False, sort_keys=True) if attributes else ""
