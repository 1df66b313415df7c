"""A description of a source → the source."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from nunbit.data.coco import CocoSource
from nunbit.data.folders import PICTURE, FolderSource
from nunbit.data.places import Entry, find_entries, list_folder
from nunbit.data.source import Source, SourceConfig
from nunbit.data.tables import CsvSource, JsonLinesSource, ParquetSource, common_folder
from nunbit.data.tar_shards import TarSource
from nunbit.errors import ConfigError, UsageError

_SOURCES: dict[str, Callable[[SourceConfig, str, Sequence[Entry]], Source]] = {
    "folder": FolderSource,
    "csv": CsvSource,
    "jsonl": JsonLinesSource,
    "parquet": ParquetSource,
    "webdataset": TarSource,
    "coco": CocoSource,
}
_ENDINGS = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".tar.gz": "webdataset",
    ".tgz": "webdataset",
    ".json": "coco",
}


def open_source(config: SourceConfig) -> Source:
    """Open a source of records. Nothing is read but what tells its columns.

    Args:
        config: Where it is, and which columns of it are meant.

    Raises:
        UsageError: There is nothing at the path, or nothing that is known here.
        ConfigError: A setting cannot be meant, or a column that is asked for does not exist.
    """
    _check(config)
    entries = find_entries(config.path)
    kind = config.kind if config.kind != "auto" else _tell_kind(config.path, entries)
    if kind != "folder":
        entries = [file for entry in entries for file in (_files_in(entry, kind) if entry.is_folder else [entry])]
    elif len(entries) > 1 or not entries[0].is_folder:
        raise UsageError(f"{config.path} is not one folder", hint="give the folder above, or each as its own source")
    return _SOURCES[kind](config, config.name or _name(entries), entries)


def _check(config: SourceConfig) -> None:
    if not config.path:
        raise ConfigError("a source has no path")
    if not (config.weight > 0 and math.isfinite(config.weight)):
        raise ConfigError(f"the weight of {config.path} is {config.weight}, expected a number above 0")
    if not config.image or not config.texts or isinstance(config.texts, str):
        raise ConfigError(f"{config.path}: image must name a column, texts a list of them")


def _tell_kind(path: str, entries: Sequence[Entry]) -> str:
    """The kind of what is there, by endings alone."""
    if len(entries) == 1 and entries[0].is_folder:
        inside = list_folder(entries[0].path)
        kinds = {kind for entry in inside if not entry.is_folder and (kind := _kind_of(entry)) not in ("", "coco")}
        pictures = any(entry.is_folder or PICTURE.search(entry.name) for entry in inside)
        if not kinds:
            return "folder"
        if kinds == {"webdataset"} and not pictures:
            return "webdataset"
        shown = next(entry.name for entry in inside if _kind_of(entry) in kinds)
        raise UsageError(
            f"{path} holds {shown}: is it meant, or the pictures in the folder?",
            hint=f"give {path.rstrip('/')}/{shown}, or the kind: folder",
        )
    kinds = {_kind_of(entry) for entry in entries}
    if len(kinds) == 1 and (kind := kinds.pop()):
        return kind
    known = ", ".join(ending for ending in _ENDINGS if ending.count(".") == 1)
    raise UsageError(f"{path} is of no kind that is known here", hint=f"a folder, or files that end in {known}")


def _kind_of(entry: Entry) -> str:
    name = entry.name.lower()
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), "")


def _files_in(folder: Entry, kind: str) -> list[Entry]:
    """The files of a kind that lie in a folder."""
    found = [entry for entry in list_folder(folder.path) if not entry.is_folder and _kind_of(entry) == kind]
    if not found:
        endings = ", ".join(ending for ending, of in _ENDINGS.items() if of == kind)
        raise UsageError(f"there is no {kind} file in {folder.path}", hint=f"files that end in {endings}")
    return found


def _name(entries: Sequence[Entry]) -> str:
    """Of one file or folder its own name without endings, of several that of the folder that they share."""
    path = entries[0].path if len(entries) == 1 else common_folder(entries)
    last = path.rstrip("/").rpartition("/")[2]
    return re.sub(r"(?<=.)\.(?:tar|csv|tsv|jsonl|ndjson|parquet|json|tgz)(?:\.gz)?$", "", last) or "data"
