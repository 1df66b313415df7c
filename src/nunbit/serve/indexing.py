"""Indexing of folders by a running server, beside its searches: started, watched, canceled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from nunbit.errors import NunbitError
from nunbit.serve.problems import Problem

if TYPE_CHECKING:
    from nunbit.index import Index

_log = logging.getLogger("nunbit")
State: TypeAlias = Literal["idle", "running", "done", "canceled", "failed"]


class _Canceled(BaseException):
    """Ends a run between two pictures; what was encoded is committed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, or how it ended."""

    state: State = "idle"
    done: int = 0
    total: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    rejected: int = 0
    seconds: float = 0.0
    problem: str | None = None


class FolderIndexing:
    """At most one run at a time.

    Args:
        index: To add to.
        root: Whatever lies outside is neither listed nor read; None allows no run.
    """

    def __init__(self, index: Index, root: Path | None) -> None:
        self._index = index
        self.root = None if root is None else root.resolve()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._started = 0.0
        self._progress = Progress()

    @property
    def progress(self) -> Progress:
        """As it is now."""
        with self._lock:
            if self._progress.state == "running":
                return replace(self._progress, seconds=time.monotonic() - self._started)
            return self._progress

    def start(self, paths: Sequence[str]) -> Progress:
        """Begin to make the index agree with folders.

        Args:
            paths: Relative to the root.

        Raises:
            Problem: 403 without a root or for a path outside of it, 404 for one that is not there, 409 while a run
                is going on.
        """
        folders = [self._below_root(path) for path in paths]
        with self._lock:
            if self._progress.state == "running":
                hint = "GET /v1/indexing shows how far it is; DELETE cancels it"
                raise Problem(409, "indexing_runs", "an indexing is running already", hint)
            self._progress, self._started = Progress("running"), time.monotonic()
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, args=(folders,), name="nunbit-indexing", daemon=True)
            self._thread.start()
        return self.progress

    def cancel(self) -> Progress:
        """End the run; what it has encoded stays. Does nothing when there is none."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        return self.progress

    def _below_root(self, path: str) -> Path:
        if self.root is None:
            hint = "start it with --root FOLDER"
            raise Problem(403, "no_root", "this server was given no folder to index pictures from", hint)
        try:
            found = (self.root / path).resolve()
            there = found.exists()
        except (OSError, ValueError, RuntimeError):  # a link to itself, a zero byte
            found, there = self.root, False
        if not found.is_relative_to(self.root):
            raise Problem(403, "outside_root", "the path leads outside of the server's root", param="paths")
        if not there:
            raise Problem(404, "no_such_path", "there is no such file or folder below the server's root", param="paths")
        return found

    def _run(self, folders: list[Path]) -> None:
        try:
            report = self._index.add(folders, progress=self._step, within=self.root)
        except _Canceled:
            ended = replace(self.progress, state="canceled")
        except NunbitError as error:
            _log.warning("indexing failed: %s", error)
            ended = replace(self.progress, state="failed", problem=type(error).__name__)
        except Exception:
            _log.exception("indexing failed")
            ended = replace(self.progress, state="failed", problem="the server's log says more")
        else:
            ended = replace(
                self.progress,
                state="done",
                added=report.added,
                updated=report.updated,
                unchanged=report.unchanged,
                removed=report.removed,
                rejected=len(report.rejected),
            )
        with self._lock:
            self._progress = ended

    def _step(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise _Canceled
        with self._lock:
            self._progress = replace(self._progress, done=done, total=total)
