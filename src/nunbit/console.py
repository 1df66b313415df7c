"""What people see while they wait: progress on stderr, so that stdout carries results alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Draw a bar with count, rate and time left on stderr while the block runs, if stderr is a terminal.

    Args:
        label: What is being done, in one or two words.

    Yields:
        A function to call with (done, total) as work goes on.
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
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None, rate="")

        def show(done: int, total: int) -> None:
            speed = progress.tasks[task].speed
            progress.update(task, completed=done, total=total, rate=f"{speed:.0f}/s" if speed else "")

        yield show


def track(items: Iterable[T], *, label: str, total: int) -> Iterator[T]:
    """Pass items through under a `progress_bar`."""
    with progress_bar(label) as show:
        for done, item in enumerate(items, start=1):
            yield item
            show(done, total)
