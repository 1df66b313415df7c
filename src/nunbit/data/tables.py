"""CSV, JSON lines and Parquet → records: a line or a row group at a time."""

from __future__ import annotations

import csv
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from functools import cached_property
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from nunbit.data.places import Entry, absolute, file_errors, is_remote, open_file, reading
from nunbit.data.rows import RowReader, UnfitRow, check_columns, parse_object
from nunbit.data.source import Draft, Source, SourceConfig
from nunbit.errors import ConfigError, UsageError
from nunbit.types import Rejected

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

LINE_BYTES = 16 << 20
"""Longer lines are set aside: what is so long has lost its line ends."""

_CHUNK = 1 << 20
_BATCH = 64  # rows of Parquet that are in memory as Python values; pictures may be among them
_PEEK = 100  # lines of JSON that are looked at to learn which columns there are
_DAMAGED = (EOFError, zlib.error, OSError)  # what reading compressed files raises


class FilesSource(Source):
    """A source made of one or more files.

    Args:
        config: How it was described.
        name: What its keys begin with.
        entries: The files, in order.
    """

    def __init__(self, config: SourceConfig, name: str, entries: Sequence[Entry]) -> None:
        super().__init__(config, name)
        self.entries = entries
        self._root = len(common_folder(entries)) + 1

    @property
    def parts(self) -> int:
        """Its files."""
        return len(self.entries)

    def facts(self) -> Iterator[str]:
        """As in `Source`; names are relative, so that a copy which keeps the files' times is the same source."""
        for entry in self.entries:
            yield f"{self.relative(entry)}\t{entry.size}\t{entry.changed}"

    def relative(self, entry: Entry) -> str:
        """The name of a file, below the folder that all of them share."""
        return entry.path[self._root :]

    def key(self, entry: Entry, inside: object) -> str:
        """The key of a record: source, file, and what names it in the file."""
        return f"{self.name}:{self.relative(entry)}:{inside}"

    def reader(self, entry: Entry) -> RowReader:
        """What makes records of the rows of a file."""
        images = self.config.images
        return RowReader(self.config, absolute(images) if images else entry.path.rpartition("/")[0])


class _LinesSource(FilesSource):
    def count(self) -> int | None:
        """Rows, for files on this machine that are not compressed; found by reading them through, a gigabyte a second.

        Empty lines count too.
        """
        if any(is_remote(entry.path) or entry.path.endswith(".gz") for entry in self.entries):
            return None
        return sum(map(self._count_rows, self.entries))

    @abstractmethod
    def _count_rows(self, entry: Entry) -> int: ...


class JsonLinesSource(_LinesSource):
    """One JSON object a line.

    Raises:
        ConfigError: The first lines do not have the columns that were asked for.
    """

    def __init__(self, config: SourceConfig, name: str, entries: Sequence[Entry]) -> None:
        super().__init__(config, name, entries)
        columns: dict[str, None] = {}
        with suppress(*_DAMAGED), reading(entries[0].path) as file:  # told when the records are read
            for _, line in islice(read_lines(file), _PEEK):
                with suppress(UnfitRow):
                    columns.update(dict.fromkeys(parse_object(line or b"")))
        if columns:
            check_columns(config, list(columns), self.relative(entries[0]), complete=False)

    def drafts(self, part: int) -> Iterator[Draft | Rejected]:
        """As in `Source`; a record is named by its line, counted from 1."""
        entry = self.entries[part]
        reader = self.reader(entry)
        number = 0
        try:
            with reading(entry.path) as file:
                for number, line in read_lines(file):
                    key = self.key(entry, number)
                    try:
                        if line is None:
                            raise UnfitRow("too many bytes", f"a line of more than {LINE_BYTES:,} bytes")
                        yield reader.draft(key, parse_object(line))
                    except UnfitRow as unfit:
                        yield unfit.rejected(key)
        except _DAMAGED as error:
            yield Rejected(self.key(entry, number + 1), "damaged", f"cannot be read from here on: {error}")

    def _count_rows(self, entry: Entry) -> int:
        return sum(int(np.count_nonzero(chunk == ord("\n"))) for chunk in _chunks(entry))


class CsvSource(_LinesSource):
    """A header, then rows; commas between fields, or tabs where the file's name says ``.tsv``.

    Raises:
        ConfigError: The header does not have the columns that were asked for.
    """

    def __init__(self, config: SourceConfig, name: str, entries: Sequence[Entry]) -> None:
        super().__init__(config, name, entries)
        for entry in entries:
            try:
                with reading(entry.path) as file:
                    header = self._header(entry, self._rows(entry, file))
            except _DAMAGED as error:
                raise UsageError(f"{entry.path} cannot be read: {error}") from error
            check_columns(config, header, self.relative(entry), complete=True)

    def drafts(self, part: int) -> Iterator[Draft | Rejected]:
        """As in `Source`; a record is named by the line that it begins in, counted from 1."""
        entry = self.entries[part]
        reader = self.reader(entry)
        number = 1
        try:
            with reading(entry.path) as file:
                rows = self._rows(entry, file)
                header = self._header(entry, rows)
                for number, row in rows:
                    key = self.key(entry, number)
                    if isinstance(row, UnfitRow):
                        yield row.rejected(key)
                    elif len(row) > len(header):
                        yield Rejected(key, "too many fields", f"{len(row)}, the header has {len(header)}")
                    else:
                        yield reader.draft(key, dict(zip(header, row, strict=False)))
        except _DAMAGED as error:
            yield Rejected(self.key(entry, number + 1), "damaged", f"cannot be read from here on: {error}")

    def _header(self, entry: Entry, rows: Iterator[tuple[int, list[str] | UnfitRow]]) -> list[str]:
        _, header = next(rows, (0, UnfitRow("empty", "it is empty")))
        if isinstance(header, UnfitRow):
            raise ConfigError(
                f"{self.relative(entry)} has no header: {header.detail}", hint="write the names of the columns first"
            )
        return header

    def _rows(self, entry: Entry, file: BinaryIO) -> Iterator[tuple[int, list[str] | UnfitRow]]:
        """Every row that is not empty, with the line it begins in."""
        lines = ((line or b"").decode("utf-8", "surrogateescape") for _, line in read_lines(file, blank=True))
        reader = csv.reader(lines, delimiter="\t" if ".tsv" in entry.name.lower() else ",")
        while True:
            number = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:  # a quotation mark that nobody closes, most of the time
                yield number, UnfitRow("broken row", str(error))
                continue
            if row is None:
                return
            if any("\udc80" <= letter <= "\udcff" for field in row if not field.isascii() for letter in field):
                yield number, UnfitRow("not UTF-8", "save the file as UTF-8")
            elif row:
                yield number, row

    def _count_rows(self, entry: Entry) -> int:
        rows, inside = -1, 0  # the header is none
        for chunk in _chunks(entry):
            quoted = (np.cumsum(chunk == ord('"')) + inside) & 1
            rows += int(np.count_nonzero((chunk == ord("\n")) & (quoted == 0)))
            inside = int(quoted[-1])
        return max(rows, 0)


class ParquetSource(FilesSource):
    """Parquet files, a row group at a time; pictures are paths, or bytes in the column or in its field ``bytes``.

    Raises:
        ConfigError: A file does not have the columns that were asked for.
    """

    @property
    def parts(self) -> int:
        """Row groups."""
        return len(self._groups)

    def count(self) -> int:
        """As in `Source`; the files' footers tell it."""
        return sum(rows for *_, rows in self._groups)

    def drafts(self, part: int) -> Iterator[Draft | Rejected]:
        """As in `Source`; a record is named by its row, counted from 0."""
        index, group, first, _ = self._groups[part]
        entry = self.entries[index]
        reader = self.reader(entry)
        number = first
        with open_file(entry.path) as file:
            parquet = self._open(entry, file)
            batches = parquet.iter_batches(_BATCH, row_groups=[group], columns=self._columns(parquet))
            try:
                for row in (row for batch in batches for row in _rows(batch)):
                    key = self.key(entry, number)
                    number += 1
                    yield row.rejected(key) if isinstance(row, UnfitRow) else reader.draft(key, self._plain(row))
            except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
                yield Rejected(self.key(entry, number), "damaged", f"row group {group}, from here on: {error}")

    def _plain(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: value if name == self.config.image else _plain(value) for name, value in row.items()}

    @cached_property
    def _groups(self) -> list[tuple[int, int, int, int]]:
        """Of each row group: file, its number there, its first row, its rows."""
        groups = []
        for index, entry in enumerate(self.entries):
            with open_file(entry.path) as file:
                parquet = self._open(entry, file)
                check_columns(self.config, parquet.schema_arrow.names, self.relative(entry), complete=True)
                first = 0
                for group in range(parquet.num_row_groups):
                    rows = parquet.metadata.row_group(group).num_rows
                    groups.append((index, group, first, rows))
                    first += rows
        return groups

    def _open(self, entry: Entry, file: BinaryIO) -> ParquetFile:
        from pyarrow.parquet import ParquetFile

        with file_errors(entry.path):
            return ParquetFile(file)

    def _columns(self, parquet: ParquetFile) -> list[str]:
        """All but bytes that are no pictures to us."""
        import pyarrow.types as kinds

        fields = parquet.schema_arrow
        heavy = {field.name for field in fields if kinds.is_binary(field.type) or kinds.is_large_binary(field.type)}
        return [name for name in fields.names if name not in heavy or name == self.config.image]


def read_lines(file: BinaryIO, *, blank: bool = False) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a file, without a byte order mark, numbered from 1; None for one of more than `LINE_BYTES`.

    Args:
        file: Bytes.
        blank: Also those of nothing but white space.
    """
    number = 0
    while line := file.readline(LINE_BYTES + 1):
        number += 1
        too_long = len(line) > LINE_BYTES
        while too_long and line and not line.endswith(b"\n"):
            line = file.readline(LINE_BYTES)
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if too_long:
            yield number, None
        elif blank or line.strip():
            yield number, line


def common_folder(entries: Sequence[Entry]) -> str:
    """The folder that all files are below, without a slash at its end."""
    folders = [entry.path.split("/")[:-1] for entry in entries]
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(min(folders), max(folders), strict=False))
    return "/".join(part for part, _ in shared)


def _chunks(entry: Entry) -> Iterator[Any]:
    """A file in arrays of bytes, with an end of line after the last line in any case."""
    with open_file(entry.path) as file:
        last = b"\n"
        while data := file.read(_CHUNK):
            yield np.frombuffer(data, np.uint8)
            last = data
    if not last.endswith(b"\n"):
        yield np.frombuffer(b"\n", np.uint8)


def _rows(batch: RecordBatch) -> Iterator[dict[str, Any] | UnfitRow]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # pyarrow does not look at texts before they are asked for
        for number in range(batch.num_rows):
            try:
                yield cast("dict[str, Any]", batch.slice(number, 1).to_pylist()[0])
            except UnicodeDecodeError as error:
                yield UnfitRow("not UTF-8", str(error))


def _plain(value: Any) -> Any:
    """As JSON can hold it; bytes become None."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    return None if isinstance(value, (bytes, bytearray)) else str(value)
