"""What people see while they wait: progress on stderr, so that stdout carries results alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class ShowProgress(Protocol):
    """Shows how far work has come."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """So much of so much is done."""


@contextmanager
def progress_bar(label: str) -> Iterator[ShowProgress]:
    """Draw a bar with count, rate and time left on stderr while the block runs, if stderr is a terminal.

    Args:
        label: What is being done, in one or two words.

    Yields:
        A function to call with (done, total) as work goes on, and with what else there is to say.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None, rate="", note="")

        def show(done: int, total: int, note: str = "") -> None:
            speed = progress.tasks[task].speed
            rate = f"{speed:.0f}/s" if speed and speed >= 10 else f"{speed:.1f}/s" if speed else ""
            progress.update(task, completed=done, total=total, rate=rate, note=note)

        yield show


def say(words: str) -> None:
    """Tell on stderr, at once; a bar that is being drawn stays whole."""
    sys.stderr.write(words + "\n")
    sys.stderr.flush()


def track(items: Iterable[T], *, label: str, total: int) -> Iterator[T]:
    """Pass items through under a `progress_bar`."""
    with progress_bar(label) as show:
        for done, item in enumerate(items, start=1):
            yield item
            show(done, total)
