"""Tar shards in WebDataset's form → records: ``000.jpg``, ``000.txt`` and ``000.json`` are one of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from nunbit.data.folders import PICTURE
from nunbit.data.places import is_remote, reading
from nunbit.data.rows import TEXT_BYTES, RowReader, UnfitRow, parse_lines, parse_object
from nunbit.data.source import IMAGE_BYTES, Draft, Slice
from nunbit.data.tables import FilesSource
from nunbit.data.tars import DamagedTar, Member, TarReader
from nunbit.types import Rejected


@dataclass(slots=True)
class _Sample:
    """What was read of one record so far."""

    name: str
    image: bytes | Slice | None = None
    ending: str = ""
    texts: dict[str, bytes] = field(default_factory=dict)
    too_large: str = ""


class TarSource(FilesSource):
    """Tar shards, each a part.

    Files of one record lie next to each other and share their path up to the first dot of the name. ``.txt`` holds a
    caption a line, ``.json`` what a row of a table would hold, one of the usual endings says what is the picture (of
    several the one with the shortest ending); the rest is passed over.

    Of a tar on this machine that is not compressed only headers and texts are read, and pictures when they are needed;
    others are read through, and hold the bytes of their pictures.
    """

    def count(self) -> None:
        """Not known: it is written nowhere."""

    def drafts(self, part: int) -> Iterator[Draft | Rejected]:
        """As in `Source`; a record is named by its path in the tar, without endings."""
        entry = self.entries[part]
        self_contained = is_remote(entry.path) or entry.name.lower().endswith((".gz", ".tgz"))
        reader = self.reader(entry)
        try:
            with reading(entry.path) as file:
                tar = TarReader(file, seekable=not self_contained)
                for sample in self._samples(tar, None if self_contained else entry.path):
                    key = self.key(entry, sample.name)
                    try:
                        yield _draft(key, sample, reader)
                    except UnfitRow as unfit:
                        yield unfit.rejected(key)
        except (DamagedTar, EOFError, zlib.error, OSError) as error:
            yield Rejected(self.key(entry, ""), "damaged", f"cannot be read further: {error}")

    def _samples(self, tar: TarReader, path: str | None) -> Iterator[_Sample]:
        """Members next to each other that share a name. ``path``: of the tar, where its parts can be read later."""
        sample: _Sample | None = None
        for member in tar.members():
            folder, _, name = member.name.removeprefix("./").rpartition("/")
            if name.startswith("."):
                continue  # of the system that made it
            stem, _, ending = name.partition(".")
            stem = f"{folder}/{stem}" if folder else stem
            if sample is None or sample.name != stem:
                if sample is not None:
                    yield sample
                sample = _Sample(stem)
            _take(sample, ending.lower(), member, tar, path)
        if sample is not None:
            yield sample


def _take(sample: _Sample, ending: str, member: Member, tar: TarReader, path: str | None) -> None:
    """Add a member to its record, if it belongs there."""
    last = "." + ending.rpartition(".")[2]
    picture = PICTURE.fullmatch(last) is not None
    if picture and sample.ending and len(sample.ending) <= len(ending):
        return
    if not picture and last not in (".txt", ".json"):
        return
    limit = IMAGE_BYTES if picture else TEXT_BYTES
    if member.size > limit:
        sample.too_large = f"{member.name} has {member.size:,} bytes, the limit is {limit:,}"
    elif not picture:
        sample.texts[last] = tar.read(member)
    else:
        sample.ending = ending
        sample.image = Slice(path, member.offset, member.size) if path else tar.read(member)


def _draft(key: str, sample: _Sample, reader: RowReader) -> Draft:
    if sample.too_large:
        raise UnfitRow("too many bytes", sample.too_large)
    if sample.image is None:
        raise UnfitRow("no picture", "no member with a picture's ending")
    lines = parse_lines(sample.texts.get(".txt", b""))
    row = parse_object(sample.texts[".json"]) if ".json" in sample.texts else {}
    return Draft(key, sample.image, reader.texts(row, lines), reader.metadata(row))
