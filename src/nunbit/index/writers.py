"""Who writes to an index: any number of threads of one process, and no other process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nunbit.errors import StoreBusy
from nunbit.index.folder import writer_lock


class Writers:
    """Threads of one process that write to an index: one run of `Index.add`, and any number of small changes.

    The lock that keeps other processes out is taken by the first of them and let go of by the last.

    Args:
        folder: Of the index.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._inside = 0
        self._held = ExitStack()
        self._running = False

    @contextmanager
    def side_by_side(self) -> Iterator[None]:
        """Be one of those who write.

        Raises:
            StoreBusy: Another process writes.
        """
        with self._lock:
            if self._inside == 0:
                self._held.enter_context(writer_lock(self._folder))
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._held.close()

    @contextmanager
    def run(self) -> Iterator[None]:
        """Be the one run.

        Raises:
            StoreBusy: Another process writes, or there is a run in this one.
        """
        with self.side_by_side():
            with self._lock:
                if self._running:
                    raise StoreBusy(f"{self._folder} is being indexed already", hint="wait until it is done")
                self._running = True
            try:
                yield
            finally:
                self._running = False
