"""API keys: made here, shown once, kept as hashes.

A key has 256 random bits, so a plain sha256 of it cannot be searched for; a slow hash would only slow every request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from nunbit.durable import only_writer, replace_file
from nunbit.errors import StoreError, UsageError

KEYS = "keys.json"
"""The file of keys in an index's folder."""

_PREFIX = "nb-"
_NAME = re.compile(r"[\w.@-]{1,64}")


class Scope(IntEnum):
    """What a key is good for; a higher one includes the lower ones."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a request comes from: a key's name, or an address where no keys are needed."""

    name: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key as it is kept."""

    name: str
    scope: Scope
    sha256: str
    created: str


class KeyFile:
    """A file of keys. It is read again when it changes, so that a revoked key is refused by a running server.

    Args:
        path: Need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: tuple[int, int, int] | None = None
        self._entries: tuple[KeyEntry, ...] = ()

    def entries(self) -> tuple[KeyEntry, ...]:
        """All keys.

        Raises:
            StoreError: The file cannot be read: then nobody may pass.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._state, self._entries = None, ()
            return ()
        state = (status.st_mtime_ns, status.st_size, status.st_ino)
        if state != self._state:
            self._entries, self._state = _parsed(self.path), state
        return self._entries

    @property
    def exists(self) -> bool:
        """Whether keys are in use: once there is a file, revoking the last key opens nothing."""
        return self.path.exists()

    def find(self, key: str) -> Caller | None:
        """Whose key this is. Takes as long for a wrong key as for a right one."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for entry in self.entries():
            if hmac.compare_digest(entry.sha256, digest):
                found = Caller(entry.name, entry.scope)
        return found

    def add(self, name: str, scope: Scope) -> str:
        """Make a key.

        Args:
            name: Unique; for logs and for `revoke`.
            scope: What it is good for.

        Returns:
            The key, which nobody can find out again.

        Raises:
            UsageError: The name is taken, or not a name.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a key", hint="up to 64 letters, digits and . _ @ -")
        key = _PREFIX + secrets.token_urlsafe(32)
        with only_writer(self._lock(), "the file of keys", wait=True):
            entries = self.entries()
            if any(entry.name == name for entry in entries):
                raise UsageError(f"there is a key {name!r} already", hint="revoke it first, or choose another name")
            digest = hashlib.sha256(key.encode()).hexdigest()
            self._write((*entries, KeyEntry(name, scope, digest, datetime.now(UTC).isoformat(timespec="seconds"))))
        return key

    def revoke(self, name: str) -> None:
        """Make a key worthless.

        Raises:
            UsageError: There is none of that name.
        """
        with only_writer(self._lock(), "the file of keys", wait=True):
            entries = self.entries()
            kept = tuple(entry for entry in entries if entry.name != name)
            if len(kept) == len(entries):
                known = ", ".join(entry.name for entry in entries) or "none"
                raise UsageError(f"there is no key {name!r}", hint=f"there are: {known}")
            self._write(kept)

    def _lock(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.with_name(self.path.name + ".lock")

    def _write(self, entries: tuple[KeyEntry, ...]) -> None:
        rows = [
            {"name": e.name, "scope": e.scope.name.lower(), "sha256": e.sha256, "created": e.created} for e in entries
        ]
        text = json.dumps({"keys": rows}, ensure_ascii=False, indent=2) + "\n"

        def write(file: BinaryIO) -> None:
            os.fchmod(file.fileno(), 0o600)
            file.write(text.encode())

        replace_file(self.path, write)


def _parsed(path: Path) -> tuple[KeyEntry, ...]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["keys"]
        return tuple(
            KeyEntry(str(row["name"]), Scope[row["scope"].upper()], str(row["sha256"]), str(row["created"]))
            for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"the file of keys {path} cannot be used ({type(error).__name__})", hint="mend it, or make keys anew"
        ) from error
