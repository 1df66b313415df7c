"""The folder of a label set: what makes it one, whose it is, who may write, and how a file is replaced.

| name | content |
|---|---|
| ``labels.json`` | Format version, encoder, templates, which base and journal hold. Replaced last: the commit. |
| ``base-ID/`` | What a build made; never changed. |
| ``changes-N.jsonl`` | Labels added and removed since, a line each. |
| ``building/`` | What a build that is not done yet has embedded. |
| ``writer.lock`` | Locked while somebody writes; its content means nothing. |
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nunbit.durable import only_writer, replace_file
from nunbit.errors import EncoderMismatch, StoreError, StoreFull, StoreNotFound

if TYPE_CHECKING:
    from nunbit.encode import Encoder

FORMAT_VERSION = 1
IDENTITY = "labels.json"
BUILDING = "building"
_LOCK = "writer.lock"
_AGAIN = "build the labels again into a new folder"


@dataclass(frozen=True, slots=True)
class Identity:
    """What ``labels.json`` says.

    Attributes:
        encoder: The name that the encoder was loaded by.
        fingerprint: Of the encoder.
        embedding_size: D.
        templates: Sentences around every label.
        base: Of the folder ``base-...``.
        generation: Of the journal; each build begins another.
    """

    encoder: str
    fingerprint: str
    embedding_size: int
    templates: tuple[str, ...]
    base: str
    generation: int

    def base_folder(self, folder: Path) -> Path:
        """Where the base is."""
        return folder / f"base-{self.base}"

    def journal(self, folder: Path) -> Path:
        """Where changes since the build are; not there when there are none."""
        return folder / f"changes-{self.generation}.jsonl"


def is_label_set(folder: Path) -> bool:
    """Whether there is a finished label set."""
    return (folder / IDENTITY).is_file()


def is_begun(folder: Path) -> bool:
    """Whether there is a label set, or one whose first build is not done."""
    return is_label_set(folder) or (folder / BUILDING).is_dir()


def read_identity(folder: Path) -> Identity:
    """Read ``labels.json``.

    Raises:
        StoreNotFound: There is none: no label set, or its first build is not done.
        StoreError: It is damaged or of another format version.
    """
    try:
        text = (folder / IDENTITY).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        begun = (folder / BUILDING).is_dir()
        hint = "run the same nunbit labels build again" if begun else f"nunbit labels build FILE --into {folder}"
        raise StoreNotFound(f"there is no {'finished ' if begun else ''}label set at {folder}", hint=hint) from error
    try:
        content = json.loads(text)
        version = content.pop("format_version")
        if version == FORMAT_VERSION:
            return Identity(**content | {"templates": tuple(content["templates"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder / IDENTITY} is damaged: {error}", hint=_AGAIN) from error
    raise StoreError(
        f"{folder} has format version {version}, this release of nunbit reads {FORMAT_VERSION}",
        hint=f"use the release that made it, or {_AGAIN}",
    )


def write_identity(folder: Path, identity: Identity) -> None:
    """Replace ``labels.json``: what it names becomes the label set."""
    text = json.dumps({"format_version": FORMAT_VERSION} | asdict(identity), ensure_ascii=False, indent=2) + "\n"
    replace_file(folder / IDENTITY, lambda file: file.write(text.encode()))


def check_encoder(folder: Path, identity: Identity, encoder: Encoder) -> None:
    """Refuse an encoder that would compare apples with oranges.

    Raises:
        EncoderMismatch: The set was made with another one.
    """
    if identity.fingerprint != (fingerprint := encoder.fingerprint):
        made, this = f"{identity.encoder!r} ({identity.fingerprint[:12]})", f"{encoder.name!r} ({fingerprint[:12]})"
        raise EncoderMismatch(
            f"{folder} was made with the encoder {made}, this one is {this}",
            hint=f"load {identity.encoder!r} as it was, or {_AGAIN}",
        )


def check_templates(folder: Path, identity: Identity, templates: tuple[str, ...]) -> None:
    """Refuse templates other than those that the set was made with.

    Raises:
        EncoderMismatch: They are others.
    """
    if identity.templates != templates:
        raise EncoderMismatch(
            f"{folder} was made with the templates {_shown(identity.templates)}, these are {_shown(templates)}",
            hint=f"give the same templates, or {_AGAIN}",
        )


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Be the one writer. The system lets go of the lock when the process ends, however it ends.

    Raises:
        StoreBusy: Somebody else is writing, in this process or another.
    """
    with folder_errors(folder), only_writer(folder / _LOCK, str(folder)):
        yield


@contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Turn what the system raises about a folder into a StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"{folder}: the disk is full; what was committed before is safe",
                hint="make room and run again: it continues where it stopped",
            ) from error
        raise StoreError(
            f"{folder}: {error.strerror or error}", hint="check that it can be read and written"
        ) from error


def check_usable(folder: Path) -> None:
    """Refuse to make a label set of what is something else already.

    Raises:
        StoreError: A file, or a folder with other things in it.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file, expected a folder for the label set", hint="give another name")
    ours = (IDENTITY, BUILDING, _LOCK, "base-")
    if folder.is_dir() and not is_label_set(folder):
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(ours)]
        if others:
            raise StoreError(
                f"{folder} is a folder of something else: it is not empty and has no {IDENTITY}",
                hint="give a folder that is empty or does not exist yet",
            )


def _shown(templates: tuple[str, ...]) -> str:
    return repr(list(templates)) if len(templates) <= 3 else f"{list(templates[:2])} and {len(templates) - 2} more"
