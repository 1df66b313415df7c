"""A curation's folder: what stays as rows that `nunbit.data` reads, what went with its reason, and how it came about.

Pictures that lie in files are named where they lie. Those that came as bytes, out of tar shards or tables, are copied
to ``images/`` while records are read, under the sha256 of their bytes; the ones that went are removed in the end.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nunbit.config import to_plain
from nunbit.curate.curation import Curation
from nunbit.curate.pool import Dropped
from nunbit.curate.report import report_page
from nunbit.curate.rules import SPLITS
from nunbit.data.source import TEXT_COLUMNS
from nunbit.durable import replace_file
from nunbit.types import ImageText, Rejected

IMAGES = "images"
CACHE = "cache"

_OURS = ("image", *TEXT_COLUMNS)
_PACKAGES = ("nunbit", "numpy", "pillow", "py3langid")
_SIGNATURES = (
    (re.compile(rb"\xff\xd8\xff"), "jpg"),
    (re.compile(rb"\x89PNG"), "png"),
    (re.compile(rb"GIF8"), "gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "tif"),
    (re.compile(rb"....ftyp", re.DOTALL), "avif"),
    (re.compile(rb"BM"), "bmp"),
)


class PictureCopies:
    """Copies of pictures that are not files.

    Args:
        folder: Of the curation.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / IMAGES
        self._names: set[str] = set()

    def stored(self, records: Iterable[ImageText | Rejected]) -> Iterator[ImageText | Rejected]:
        """The same records, those with bytes naming a copy of them instead."""
        for record in records:
            if isinstance(record, ImageText) and isinstance(record.image, bytes):
                yield replace(record, image=str(self._store(record.image)))
            else:
                yield record

    def remove_others(self, kept: Iterable[ImageText]) -> None:
        """Remove the copies of this run that no kept record names."""
        named = {os.path.basename(record.image) for record in kept if isinstance(record.image, str)}
        for name in self._names - named:
            (self._folder / name).unlink(missing_ok=True)
        if self._names and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _store(self, data: bytes) -> Path:
        ending = next((ending for form, ending in _SIGNATURES if form.match(data)), "bin")
        path = self._folder / f"{hashlib.sha256(data).hexdigest()}.{ending}"
        self._names.add(path.name)
        if not (path.exists() and path.stat().st_size == len(data)):
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}.tmp")
            draft.write_bytes(data)
            draft.replace(path)
        return path


@dataclass(frozen=True, slots=True)
class Origin:
    """What a curation was made of.

    Attributes:
        sources: The path of each source → its signature.
        model: Name of the encoder; empty without one.
        fingerprint: Of the encoder; empty without one.
    """

    sources: Mapping[str, str]
    model: str = ""
    fingerprint: str = ""


def write_curation(curation: Curation, folder: Path, origin: Origin) -> None:
    """Write everything but the copies of pictures; each file is whole or as it was before.

    Args:
        curation: What came of it.
        folder: Made when it is not there.
        origin: For ``config.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(record, folder) for record in curation.kept]
    _write_lines(folder / "kept.jsonl", rows)
    for name in SPLITS:
        if name in curation.splits:
            _write_lines(folder / f"{name}.jsonl", [rows[place] for place in curation.splits[name]])
        else:
            (folder / f"{name}.jsonl").unlink(missing_ok=True)  # of a run with other rules
    _write_lines(folder / "dropped.jsonl", map(_dropped_row, curation.dropped))
    page = report_page(curation).encode("utf-8", "replace")
    replace_file(folder / "report.html", lambda file: file.write(page))
    config = json.dumps(_config(curation, origin), ensure_ascii=False, indent=2) + "\n"
    replace_file(folder / "config.json", lambda file: file.write(config.encode()))


def _row(record: ImageText, folder: Path) -> dict[str, Any]:
    """A kept record as `nunbit.data` reads it; other columns that it would take for texts are given other names."""
    path = os.path.abspath(os.fsdecode(record.image))
    inside = os.path.join(os.path.abspath(folder), IMAGES) + os.sep
    others = {f"other_{name}" if name in _OURS else name: value for name, value in record.metadata.items()}
    return {
        "key": others.pop("key", record.key),  # of the first source, when this is read again
        "image": f"{IMAGES}/{path.removeprefix(inside)}" if path.startswith(inside) else path,
        "texts": list(record.texts),
        "source": others.pop("source", record.source),
        **others,
    }


def _dropped_row(item: Dropped) -> dict[str, Any]:
    row: dict[str, Any] = {"key": item.key, "filter": item.filter, "detail": item.detail, "score": item.score}
    return row | ({"text": item.text} if item.text else {}) | ({"twin": item.twin} if item.twin else {})


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n" for row in rows)
    replace_file(path, lambda file: file.writelines(lines))


def _config(curation: Curation, origin: Origin) -> dict[str, Any]:
    """The rules as they were, and what else decides the result."""
    data = hashlib.sha256("\n".join(origin.sources.values()).encode()).hexdigest()
    return {
        "rules": to_plain(curation.config),
        "sources": dict(origin.sources),
        "data_fingerprint": data,
        "model": origin.model,
        "model_fingerprint": origin.fingerprint,
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "records": {"seen": curation.seen, "kept": len(curation.kept)},
    }


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
