"""The folder of an index: what makes it one, whose it is, and who may write to it."""

from __future__ import annotations

import errno
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nunbit.durable import only_writer, replace_file
from nunbit.errors import EncoderMismatch, NunbitError, StoreBusy, StoreError, StoreFull, StoreNotFound
from nunbit.picture_files import one_line

if TYPE_CHECKING:
    from nunbit.encode import Encoder

FORMAT_VERSION = 2
"""1 lacked the columns ``name`` and ``attributes``; `nunbit.index.store` adds them when such an index is written to."""

_READABLE = (1, FORMAT_VERSION)
IDENTITY = "index.json"
LOCK = "writer.lock"
_AGAIN = "index the pictures again into a new folder"
_FULL = re.compile(r"no space left|quota exceeded", re.IGNORECASE)
_SOURCE_LINE = re.compile(r",? ?\S+\.rs:\d+(:\d+)?")  # Lance tells where in its own source it failed
_CREATION_WAIT = 2.0  # seconds for another process to write index.json, which takes it milliseconds


@dataclass(frozen=True, slots=True)
class Identity:
    """What ``index.json`` says: the encoder that made the index, and the version of the format."""

    name: str
    fingerprint: str
    embedding_size: int
    version: int = FORMAT_VERSION


def open_folder(folder: Path, encoder: Encoder, *, create: bool) -> None:
    """Make sure that a folder is an index made with this encoder, creating it when allowed.

    Raises:
        StoreNotFound: There is none and ``create`` is false.
        EncoderMismatch: It was made with another encoder.
        StoreError: It is something else than an index, or damaged.
    """
    with store_errors(folder):
        identity = read_identity(folder)
        if identity is None:
            _check_usable(folder, create=create)
            identity = _create(folder, encoder)
    if identity.fingerprint != encoder.fingerprint:
        raise EncoderMismatch(
            f"{shown(folder)} was made with the encoder {_named(identity)}, this one is {_named(encoder)}",
            hint=f"load {identity.name!r} as it was, or {_AGAIN}",
        )
    if identity.embedding_size != encoder.embedding_size:
        raise _damaged(folder, f"it says embeddings of {identity.embedding_size}, not {encoder.embedding_size}")


def is_outdated(folder: Path) -> bool:
    """Whether an index has the format of an earlier release."""
    identity = read_identity(folder)
    return identity is not None and identity.version != FORMAT_VERSION


def mark_upgraded(folder: Path) -> None:
    """Note that an index has the format of this release. Only for the writer."""
    content = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    write_atomically(folder / IDENTITY, _as_text({**content, "format_version": FORMAT_VERSION}))


def encoder_name(folder: Path) -> str | None:
    """The name of the encoder that an index was made with; None when there is no index.

    Raises:
        StoreError: It is damaged.
    """
    with store_errors(folder):
        identity = read_identity(folder)
    return None if identity is None else identity.name


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Be the one writer of an index. The system lets go of the lock when the process ends, however it ends.

    Raises:
        StoreBusy: Somebody else is writing, in this process or another.
    """
    with store_errors(folder), only_writer(folder / LOCK, shown(folder)):
        yield


@contextmanager
def store_errors(folder: Path) -> Iterator[None]:
    """Turn what the system and LanceDB raise about a folder into a StoreError; let everything else pass."""
    try:
        yield
    except NunbitError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise _translated(folder, error) from error


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by another of this content (UTF-8), or, when that fails, leave it as it was."""
    replace_file(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def lance_message(error: Exception) -> str:
    """Give what LanceDB says on one line, without its own source lines."""
    return one_line(_SOURCE_LINE.sub("", str(error)).strip())[:300] or type(error).__name__


def _translated(folder: Path, error: Exception) -> StoreError:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(str(error)):
        return StoreFull(
            f"{shown(folder)}: the disk is full; what was committed before is safe",
            hint="make room and run again: it continues where it stopped",
        )
    if isinstance(error, OSError) and number is not None:
        return StoreError(
            f"{shown(folder)}: {error.strerror or error}", hint="check that the folder can be read and written"
        )
    return _damaged(folder, lance_message(error))


def _damaged(folder: Path, detail: str) -> StoreError:
    return StoreError(f"{shown(folder)} is not an index that can be used: {detail}", hint=_AGAIN)


def read_identity(folder: Path) -> Identity | None:
    """What an index's folder says of itself; None when it is none.

    Raises:
        StoreError: It is damaged, or of a version that this release does not read.
    """
    try:
        text = (folder / IDENTITY).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        content: dict[str, Any] = json.loads(text)
        version, encoder = content["format_version"], content["encoder"]
        identity = Identity(
            str(encoder["name"]), str(encoder["fingerprint"]), int(encoder["embedding_size"]), int(version)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{IDENTITY} is damaged ({type(error).__name__}: {error})") from error
    if version not in _READABLE:
        readable = " and ".join(map(str, _READABLE))
        raise StoreError(
            f"{shown(folder)} has format version {version}, this release of nunbit reads {readable}",
            hint=f"use the release that made it, or {_AGAIN}",
        )
    return identity


def _check_usable(folder: Path, *, create: bool) -> None:
    """Refuse to make an index of what is something else already."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{shown(folder)} is a file, expected the folder of an index", hint="give another name")
    # A run that was killed while it made the index leaves the first two behind; keys may be made before the index is.
    ours = (LOCK, IDENTITY, "keys.json")
    others = folder.is_dir() and any(not entry.name.startswith(ours) for entry in folder.iterdir())
    if others:
        raise StoreError(
            f"{shown(folder)} is a folder of something else: it is not empty and has no {IDENTITY}",
            hint="give the folder of an index, or for a new one a folder that is empty or does not exist yet",
        )
    if not create:
        raise StoreNotFound(f"there is no index at {shown(folder)}", hint=f"nunbit index PHOTOS --into {folder}")


def _create(folder: Path, encoder: Encoder) -> Identity:
    """Write index.json, unless another process is quicker."""
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + _CREATION_WAIT
    while True:
        try:
            with writer_lock(folder):
                if (identity := read_identity(folder)) is None:
                    identity = Identity(encoder.name, encoder.fingerprint, encoder.embedding_size)
                    _write_identity(folder, identity)
                return identity
        except StoreBusy:
            if (identity := read_identity(folder)) is not None:
                return identity
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _write_identity(folder: Path, identity: Identity) -> None:
    encoder = {
        "name": identity.name,
        "fingerprint": identity.fingerprint,
        "embedding_size": identity.embedding_size,
    }
    content = {
        "format_version": FORMAT_VERSION,
        "encoder": encoder,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(folder / IDENTITY, _as_text(content))


def _as_text(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _named(encoder: Encoder | Identity) -> str:
    return f"{encoder.name!r} ({encoder.fingerprint[:12]})"


def shown(folder: Path) -> str:
    """A folder's path as messages show it, on one line."""
    return one_line(str(folder))
