"""Resident memory of a process and of the workers that it starts, from Linux's /proc.

The kernel's ``ru_maxrss`` of a child starts at what its parent had; ``VmHWM`` is the process's own.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

INTERVAL = 0.1
"""Seconds between looks at the workers."""


def resident_mb() -> float:
    """Resident memory of this process now."""
    return _status("self", "VmRSS")


def peak_mb() -> float:
    """The most that this process ever had resident."""
    return _status("self", "VmHWM")


class Watch:
    """Looks at a process until it ends.

    ``peak_mb`` then is the most of what it had resident at a time, plus what its workers held for themselves alone:
    what they share with it is not counted again.
    """

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            with suppress(OSError, ValueError):  # it may end between two lines
                workers = sum(_private(child) for child in _descendants(self._pid))
                alone = _status(str(self._pid), "VmRSS")
                self.peak_mb = max(self.peak_mb, alone + workers, 0.0 if workers else _status(str(self._pid), "VmHWM"))
            self._over.wait(INTERVAL)


def _status(pid: str, name: str) -> float:
    for line in Path("/proc", pid, "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no {name}")


def _private(pid: int) -> float:
    with suppress(OSError):
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
    return 0.0


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path("/proc", str(pid), "task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found
