"""Members of a tar, one after another, whoever wrote it.

Only headers are read; the content of a member is read when it is asked for, and skipped otherwise. Python's `tarfile`
keeps a list of all members and reads headers of any length, which a hostile file may make gigabytes; here a header has
a limit, nothing is kept, and names are never used to write.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

_BLOCK = tarfile.BLOCKSIZE
_HEADER_BYTES = 1 << 20  # long names and extended headers
_PIECE = 1 << 20
_LONG_NAME, _EXTENDED = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class DamagedTar(Exception):
    """A tar cannot be read any further; the message says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar: its name, and which bytes of the tar it is."""

    name: str
    offset: int
    size: int


@dataclass(slots=True)
class TarReader:
    """Reads a tar from its beginning to its end.

    Args:
        file: The tar, decompressed.
        seekable: Whether skipping may seek; otherwise it reads.
    """

    file: BinaryIO
    seekable: bool
    position: int = 0
    _length: int = 0  # of a tar that can seek
    _long_name: str | None = None
    _extended: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seekable:
            self._length = self.file.seek(0, os.SEEK_END)
            self.file.seek(0)

    def members(self) -> Iterator[Member]:
        """Every regular file. Between two of them, `read` gives the content of the first.

        Raises:
            DamagedTar: It is no tar, ends early, or uses what is not read here.
        """
        while True:
            block = self._take(_BLOCK)
            if not block.strip(b"\0"):  # the end; some writers leave it out
                return
            if len(block) < _BLOCK:
                raise DamagedTar("it ends in a header")
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.HeaderError, ValueError) as error:
                raise DamagedTar(f"no header where one should be: {error}") from error
            end = self._end(info.name, info.size)
            if info.type in (_LONG_NAME, _EXTENDED):
                self._remember(info)
            elif info.type == tarfile.GNUTYPE_SPARSE or any(name.startswith("GNU.sparse") for name in self._extended):
                raise DamagedTar(f"{info.name!r} is stored with holes")
            else:
                member = self._member(info)
                end = self._end(member.name, member.size)
                self._long_name, self._extended = None, {}
                if info.type in _REGULAR and not member.name.endswith("/"):
                    yield member
            self._skip(info.name, end)

    def read(self, member: Member) -> bytes:
        """The content of the member that was given last.

        Raises:
            DamagedTar: The tar ends in it.
        """
        data = self._take(member.size)
        if len(data) < member.size:
            raise DamagedTar(f"it ends in {member.name!r}")
        return data

    def _member(self, info: tarfile.TarInfo) -> Member:
        size = info.size
        if "size" in self._extended:
            if not self._extended["size"].isdecimal():
                raise DamagedTar(f"the size of {info.name!r} is {self._extended['size'][:40]!r}")
            size = int(self._extended["size"])
        return Member(self._extended.get("path") or self._long_name or info.name, self.position, size)

    def _remember(self, info: tarfile.TarInfo) -> None:
        """Read a header about the next member: its long name, or names and values."""
        if not 0 <= info.size <= _HEADER_BYTES:
            raise DamagedTar(f"a header of {info.size:,} bytes, the limit is {_HEADER_BYTES:,}")
        content = self._take(info.size).decode("utf-8", "surrogateescape")
        if info.type == _LONG_NAME:
            self._long_name = content.rstrip("\0")
            return
        for line in re.finditer(r"\d+ ([^=\n]+)=(.*)\n", content):  # each says its length, too; nobody needs that
            self._extended[line[1]] = line[2]

    def _end(self, name: str, size: int) -> int:
        """Where the content of a member ends that begins here."""
        if size < 0:
            raise DamagedTar(f"{name!r} has {size} bytes")
        end = self.position + size
        if self.seekable and end > self._length:
            raise DamagedTar(f"it ends in {name!r}")
        return end

    def _skip(self, name: str, end: int) -> None:
        """Go to the next header."""
        following = -(-end // _BLOCK) * _BLOCK
        if self.seekable:
            self.position = self.file.seek(following)
        while self.position < following and self._take(min(_PIECE, following - self.position)):
            pass
        if self.position < end:
            raise DamagedTar(f"it ends in {name!r}")

    def _take(self, size: int) -> bytes:
        data = self.file.read(size)
        self.position += len(data)
        return data
