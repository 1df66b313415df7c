"""One run of ``Index.add``: look through the given paths, encode what is new or changed, forget what is gone.

Memory stays flat: of the pictures that the index knows there are a few arrays, of those to encode a chunk. What is
encoded is committed every ``_COMMIT_ROWS`` pictures or ``_COMMIT_SECONDS``, and that is all that a kill can lose.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from nunbit.encode import Encoded, encode_stream
from nunbit.errors import StoreError
from nunbit.index.known import FileState, KnownPictures, Roots, hash_file
from nunbit.index.ledger import Ledger
from nunbit.index.rows import Row, in_chunks
from nunbit.picture_files import find_images
from nunbit.types import Rejected

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.index.store import Store

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many of the found pictures are dealt with and how many there are, in the caller's thread."""

Committed: TypeAlias = Callable[[Sequence["Row"], Sequence[str]], None]
"""Called with rows that were added or replaced, and ids that were deleted, in whichever thread committed them."""

_COMMIT_ROWS = 256
_COMMIT_SECONDS = 5.0
_CHUNK = 1024  # pictures that are looked at before the first of them is encoded


@dataclass(frozen=True, slots=True)
class AddReport:
    """What a run of ``Index.add`` did.

    Attributes:
        added: Pictures that are new in the index.
        updated: Pictures whose file was modified; encoded again only when its bytes changed.
        unchanged: Pictures that were skipped without reading their files.
        removed: Pictures that the index has no longer: their files are gone, or became bad.
        rejected: What was set aside, in the order in which it was met.
        seconds: How long it took.
    """

    added: int
    updated: int
    unchanged: int
    removed: int
    rejected: tuple[Rejected, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class HowToAdd:
    """What `Index.add` was asked for.

    Attributes:
        progress: Told after every picture.
        exact: Whether large JPEGs are decoded in full.
        within: A folder, resolved, outside of which nothing is listed or read; None for no such bound.
    """

    progress: Progress | None = None
    exact: bool = False
    within: Path | None = None


class AddRun:
    """One run. Only for the holder of the writer's lock.

    Args:
        store: To write to.
        encoder: Whose embeddings are in it.
        ledger: For bad pictures.
        how: What the caller asked for.
        committed: Told rows and deleted ids after each commit.
    """

    def __init__(self, store: Store, encoder: Encoder, ledger: Ledger, how: HowToAdd, committed: Committed) -> None:
        self._store = store
        self._encoder = encoder
        self._ledger = ledger
        self._progress = how.progress
        self._exact = how.exact
        self._within = how.within
        self._committed = committed
        self._known = KnownPictures(store)
        self._rows: dict[str, tuple[Row, FileState]] = {}
        self._touched: dict[str, FileState] = {}
        self._bad: list[str] = []
        self._rejected: list[Rejected] = []
        self._added = self._updated = self._unchanged = self._removed = 0
        self._done = self._total = 0
        self._committed_at = time.monotonic()
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="nunbit-commit")

    def run(self, paths: Sequence[str | os.PathLike[str]]) -> AddReport:
        """Do all of it; what was encoded when something interrupts it is committed before that goes on its way."""
        started = time.monotonic()
        with self._committer:
            self._run(paths)
        seconds = time.monotonic() - started
        rejected = tuple(self._rejected)
        return AddReport(self._added, self._updated, self._unchanged, self._removed, rejected, seconds)

    def _run(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        try:
            self._count(paths)
            self._encode(chain.from_iterable(in_chunks(self._to_encode(paths), _CHUNK)))
            self._commit()
            roots = Roots(map(os.fsdecode, paths))
            self._forget(roots)
        except BaseException as error:
            if not isinstance(error, StoreError):
                self._commit()
            with suppress(StoreError):
                self._ledger.close()
            raise
        self._ledger.close(roots.covers)
        self._store.tidy(final=True)

    def _count(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        if self._progress is not None:
            self._total = sum(1 for _ in find_images(paths, within=self._within))
            self._progress(0, self._total)

    def _step(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._total = max(self._total, self._done)  # files may come while the run lasts
            self._progress(self._done, self._total)

    def _to_encode(self, paths: Sequence[str | os.PathLike[str]]) -> Iterator[FileState]:
        for found in find_images(paths, within=self._within):
            if isinstance(found, Rejected):
                self._reject(found)
                continue
            state = self._known.look_at(found)
            if self._known.unchanged(state):
                self._unchanged += 1
            elif self._known.same_content(state):
                self._touched[state.id] = state
            else:
                yield state
                continue
            self._good(state)

    def _encode(self, states: Iterable[FileState]) -> None:
        ahead: deque[FileState] = deque()  # taken by the stream, not answered yet

        def sources() -> Iterator[str]:
            for state in states:
                ahead.append(state)
                yield state.path

        # Closed at once when something interrupts: what was encoded is then committed, without work beside it.
        with closing(encode_stream(self._encoder, sources(), exact=self._exact)) as results:
            for result in results:
                state = ahead.popleft()
                if isinstance(result, Encoded):
                    self._rows[state.id] = (_row(state, result), state)
                    self._good(state)
                else:
                    # A vanished file is not bad: whether it is gone, or its whole disk, is seen at the end.
                    if state.place >= 0 and result.reason != "missing":
                        self._known.mark(state)
                        self._bad.append(state.id)
                    self._reject(Rejected(state.path, result.reason, result.detail))

    def _good(self, state: FileState) -> None:
        self._known.mark(state)
        self._ledger.forget(state.path)
        self._step()
        waiting = len(self._rows) + len(self._touched)
        if waiting >= _COMMIT_ROWS or (waiting and time.monotonic() - self._committed_at >= _COMMIT_SECONDS):
            self._commit()

    def _reject(self, rejected: Rejected) -> None:
        self._rejected.append(rejected)
        self._ledger.note(rejected)
        self._step()

    def _commit(self) -> None:
        # An interrupt that meets LanceDB here would leave a commit going on in the background. In its own single
        # thread it is finished, and one that follows the interrupt waits for it.
        self._committer.submit(self._write).result()

    def _write(self) -> None:
        with self._store.committing():
            self._write_all()
        self._committed_at = time.monotonic()

    def _write_all(self) -> None:
        if self._bad:
            self._removed += self._delete(self._bad)
            self._bad.clear()
        if self._touched:
            self._store.refresh({id_: (state.size, state.mtime_ns) for id_, state in self._touched.items()})
            self._updated += len(self._touched)
            self._touched.clear()
        if self._rows:
            rows = self._with_what_was_given([row for row, _ in self._rows.values()])
            self._store.upsert(rows)
            self._committed(rows, ())
            new = sum(1 for _, state in self._rows.values() if state.place < 0)
            self._added += new
            self._updated += len(self._rows) - new
            self._rows.clear()
            self._store.tidy(final=False)

    def _with_what_was_given(self, rows: list[Row]) -> list[Row]:
        """Keep the names and attributes that people gave to pictures whose files have changed."""
        known = self._store.given([row.id for row in rows if self._rows[row.id][1].place >= 0])
        given = {id_: (name, attributes or "") for id_, (name, attributes) in known.items() if name is not None}
        return [
            replace(row, name=given[row.id][0], attributes=given[row.id][1]) if row.id in given else row for row in rows
        ]

    def _delete(self, ids: Sequence[str]) -> int:
        deleted = self._store.delete(ids)
        self._committed((), ids)
        return deleted

    def _forget(self, roots: Roots) -> None:
        """Delete the rows of files that are gone. A folder that is missing or empty may be a disk: see `Roots`."""
        if self._known.all_seen():
            return
        gone: list[str] = []
        for records in self._store.records(["id", "path"]):
            gone += [
                record["id"]
                for record in records
                if self._known.unseen(record["id"]) and roots.forgettable(record["path"])
            ]
        with self._store.committing():
            self._removed += self._delete(gone)
        for folder, pictures in roots.empty.items():
            if pictures:
                kept = f"nothing is in it; its {pictures} pictures stay in the index, as its disk may not be mounted"
                self._reject(Rejected(folder, "empty folder", kept))


def _row(state: FileState, encoded: Encoded) -> Row:
    info = encoded.info
    return Row(
        id=state.id,
        path=state.path,
        size=state.size,
        mtime_ns=state.mtime_ns,
        width=info.width,
        height=info.height,
        format=info.format,
        taken=info.taken,
        content_hash=hash_file(state),
        name=os.path.basename(state.path),
        attributes="",
        embedding=encoded.embedding,
    )
