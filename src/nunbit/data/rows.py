"""One row of a table, or one JSON object → a record, or why there is none."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nunbit.data.places import is_remote, join
from nunbit.data.source import IMAGE_BYTES, LABEL_COLUMNS, TEXT_COLUMNS, Draft, SourceConfig
from nunbit.errors import ConfigError
from nunbit.types import Rejected

TEXT_BYTES = 1 << 20
"""Caption files with more bytes than this are set aside."""


class UnfitRow(Exception):
    """A row that makes no record.

    Args:
        reason: Short and stable, for counting.
        detail: What was found in this very row.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def rejected(self, key: str) -> Rejected:
        """The line of the ledger."""
        return Rejected(key.encode("utf-8", "backslashreplace").decode(), self.reason, self.detail)


class RowReader:
    """Rows → records, by the columns of a configuration.

    Args:
        config: Which columns.
        folder: What relative paths of pictures start from: absolute, or a URL.
    """

    def __init__(self, config: SourceConfig, folder: str) -> None:
        self._config = config
        self._folder = folder

    def draft(self, key: str, row: Mapping[str, Any]) -> Draft | Rejected:
        """The record of a row with a picture and texts, or why there is none."""
        try:
            image = self._image(row)
            return Draft(key, image, self.texts(row), self.metadata(row))
        except UnfitRow as unfit:
            return unfit.rejected(key)

    def texts(self, row: Mapping[str, Any], more: Iterable[str] = ()) -> tuple[str, ...]:
        """The texts of a row, each once, without white space around.

        Args:
            row: By column.
            more: Texts that come before those of the row.

        Raises:
            UnfitRow: There is none, or a column holds something else.
        """
        found = list(more)
        for name in self._config.texts:
            value = row.get(name)
            for text in value if isinstance(value, (list, tuple)) else (value,):
                if text is None:
                    continue
                if not isinstance(text, str):
                    raise UnfitRow("not a text", f"{name} holds {type(text).__name__}, expected texts")
                found.append(text)
        kept = tuple(dict.fromkeys(text for text in map(str.strip, found) if text))
        if not kept and not self._says_none(row):
            raise UnfitRow("no text", f"nothing in {', '.join(self._config.texts)}")
        return kept

    def _says_none(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has a list of labels, which is empty: the picture shows none of them."""
        return self._config.texts == LABEL_COLUMNS and any(isinstance(row.get(n), (list, tuple)) for n in LABEL_COLUMNS)

    def metadata(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The other columns, without those that are empty."""
        used = {self._config.image, *self._config.texts}
        return {name: value for name, value in row.items() if value is not None and name not in used}

    def _image(self, row: Mapping[str, Any]) -> str | bytes:
        name = self._config.image
        value = row.get(name)
        if isinstance(value, Mapping):  # the form of the `datasets` library
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) and value:
            if len(value) > IMAGE_BYTES:
                raise UnfitRow("too many bytes", f"{name} has {len(value):,} bytes, the limit is {IMAGE_BYTES:,}")
            return value
        if not isinstance(value, str) or not value.strip():
            raise UnfitRow("no picture", f"{name} holds {'nothing' if not value else type(value).__name__}")
        path = join(self._folder, value)
        if is_remote(path) and path.split("/")[:3] != self._folder.split("/")[:3]:
            raise UnfitRow("picture elsewhere", f"{value} would have to be fetched")  # only what was asked for is
        return path


def check_columns(config: SourceConfig, there: Sequence[str], where: str, *, complete: bool) -> None:
    """Refuse columns that a table does not have.

    Args:
        config: Which columns are read.
        there: The columns of the table.
        where: Its name, for messages.
        complete: Whether ``there`` is all that there can be. If not (JSON lines), a text column may be missing that is
            unlike those that are there.

    Raises:
        ConfigError: With the one that was probably meant.
    """
    given = config.texts if config.texts not in (TEXT_COLUMNS, LABEL_COLUMNS) else ()
    missing = [name for name in given if name not in there]
    if not complete:
        missing = [name for name in missing if _close(name, there, given)]
    if not any(name in there for name in config.texts):
        missing = missing or list(config.texts)
    if config.image not in there:
        missing.insert(0, config.image)
    if not missing:
        return
    used = (config.image, *config.texts)
    close = next((match for name in missing if (match := _close(name, there, used))), "")
    columns = ", ".join(there)
    setting = "image" if config.image in missing else "texts"
    raise ConfigError(
        f"{where} has no column {' or '.join(missing)}; there are: {columns}",
        hint=f"did you mean {close!r}?" if close else f"name the columns: {setting} in the source's settings",
    )


def parse_object(data: bytes) -> dict[str, Any]:
    """One JSON object.

    Raises:
        UnfitRow: It is none.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"))
        if b"\\ud" in data.lower():  # half a character cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise UnfitRow("not UTF-8", f"byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise UnfitRow("broken JSON", str(error)) from error
    if not isinstance(value, dict):
        raise UnfitRow("not an object", f"{type(value).__name__}, expected names and values")
    return value


def parse_lines(data: bytes) -> list[str]:
    """The lines of a caption file.

    Raises:
        UnfitRow: It is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UnfitRow("not UTF-8", f"byte {error.start} of a caption file") from error


def _close(name: str, there: Sequence[str], used: Sequence[str]) -> str:
    """The column that was probably meant, if it is not read already."""
    return next(iter(difflib.get_close_matches(name, [one for one in there if one not in used], n=1)), "")
