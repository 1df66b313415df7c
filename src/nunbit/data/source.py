"""What a source of records is, whatever files it is made of.

Place in the river: files → sources → `nunbit.data.mixture` → training, curation. A source is divided into parts (tar
shards, row groups, folders, files) that can be read one after another in any order; within a part the order is fixed.
Pictures are not opened here, and where they can be read later by themselves they are.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from nunbit.data.places import is_remote, read_slice, read_small
from nunbit.errors import UsageError
from nunbit.types import ImageText, Rejected

Kind: TypeAlias = Literal["auto", "folder", "csv", "jsonl", "parquet", "webdataset", "coco"]

IMAGE_BYTES = 64 << 20
"""Pictures inside of tars and tables, or behind URLs, with more bytes than this are set aside."""

TEXT_COLUMNS = ("texts", "text", "caption", "captions")
LABEL_COLUMNS = ("label", "labels")
"""Of either of these two, the columns that a table has are read; of columns that somebody names, all must be there."""


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Where records come from.

    Attributes:
        path: A folder, a file, several (``shards/{000..012}.tar``, ``shards/*.tar``), or a URL that fsspec understands.
        kind: What is there; ``"auto"`` tells it by endings.
        weight: How often its records are drawn beside those of other sources: see `Mixture`.
        name: What its keys begin with; by default made of the path.
        image: The column with the picture: a path, or in Parquet its bytes.
        texts: Columns with texts, each a text or a list of them; every one that is there is taken.
        images: The folder that relative paths of pictures start from; by default that of the file.
    """

    path: str
    kind: Kind = "auto"
    weight: float = 1.0
    name: str = ""
    image: str = "image"
    texts: tuple[str, ...] = TEXT_COLUMNS
    images: str = ""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` shares of a source; ``index`` counts from 0. All shares together are the whole."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(f"shard {self.index} of {self.count}: the index counts from 0 and is below the count")


@dataclass(frozen=True, slots=True)
class Slice:
    """A picture inside of a file that is not compressed: read when it is needed."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A record whose picture may still have to be read.

    Attributes:
        key: As in `ImageText`.
        image: A path or URL, bytes, or a part of a file.
        texts: As in `ImageText`.
        metadata: As in `ImageText`.
    """

    key: str
    image: str | bytes | Slice
    texts: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def held_bytes(self) -> int:
        """How much of the picture is in memory already."""
        return len(self.image) if isinstance(self.image, bytes) else 0

    def load(self, source: str) -> ImageText:
        """Make the record, reading a picture that lies inside of a file or behind a URL."""
        image = self.image
        if isinstance(image, Slice):
            image = read_slice(image.path, image.offset, image.size)
        elif isinstance(image, str) and is_remote(image):
            image = _fetched(image)
        return ImageText(self.key, image, self.texts, source, self.metadata)


class Source(ABC):
    """Records of one source, in a fixed order.

    Attributes:
        config: How it was described.
        name: What its keys begin with.
    """

    def __init__(self, config: SourceConfig, name: str) -> None:
        self.config = config
        self.name = name

    @property
    @abstractmethod
    def parts(self) -> int:
        """How many parts there are."""

    @abstractmethod
    def drafts(self, part: int) -> Iterator[Draft | Rejected]:
        """The records of one part, without the pictures that can be read later."""

    @abstractmethod
    def count(self) -> int | None:
        """How many records there are, with those that will be set aside; None where one had to read all to know."""

    @abstractmethod
    def facts(self) -> Iterator[str]:
        """A line for each file: name, size and when it was changed."""

    def records(self, shard: Shard = Shard()) -> Iterator[ImageText | Rejected]:
        """Read the source, or a share of it, from the beginning.

        Args:
            shard: Which share. Of a source with at least as many parts as shares, every ``count``-th part; of others
                every ``count``-th record.

        Yields:
            Records, and at their places those that were set aside. Whether a picture can be decoded is not looked at.
        """
        whole = self.parts >= shard.count
        number = 0
        for part in range(shard.index, self.parts, shard.count) if whole else range(self.parts):
            for item in self.drafts(part):
                if whole or number % shard.count == shard.index:
                    yield item.load(self.name) if isinstance(item, Draft) else item
                number += 1

    def signature(self) -> str:
        """sha256 (hex) over names, sizes and times of its files and over which columns are read: the data fingerprint.

        It does not read the files, and of pictures that a table names it knows nothing.
        """
        digest = hashlib.sha256()
        for line in (self.config.image, *self.config.texts, self.config.images, *self.facts()):
            digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()


def _fetched(url: str) -> str | bytes:
    """The bytes behind a URL. One that leads nowhere, or to more than `IMAGE_BYTES`, stays: it opens as missing."""
    try:
        return read_small(url, IMAGE_BYTES) or url
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return url
        raise
