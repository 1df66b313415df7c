"""What people see of a run while it goes on: a bar on a terminal, a line now and then in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from nunbit.console import ShowProgress, progress_bar, say
from nunbit.training.diagnosis import Finding

_SECONDS = 30


class ConsoleWatcher:
    """Tells of a run on stderr.

    Args:
        steps: Of the whole run.
        bar: Draws the bar; None where stderr is no terminal.
        unit: What a step sees many of.
    """

    def __init__(self, steps: int, bar: ShowProgress | None, unit: str) -> None:
        self._steps, self._bar, self._unit = steps, bar, unit
        self._begin, self._first = 0.0, 0
        self._told = 0.0

    def progress(self, step: int, values: Mapping[str, float]) -> None:
        """A step was made."""
        note = f"loss {values['loss']:.3f}"
        if "logit_scale" in values:
            note += f" · scale {values['logit_scale']:.1f}"
        note += f" · {values['samples_per_second']:,.0f} {self._unit}/s · {values['memory_mb'] / 1000:.1f} GB"
        if self._bar is not None:
            self._bar(step, self._steps, note)
            return
        now = time.monotonic()
        if not self._first:  # what was prepared before says nothing of a step
            self._begin, self._first = now, step
        if now - self._told < _SECONDS and step != self._steps:
            return
        self._told = now
        if step > self._first:
            left = (now - self._begin) / (step - self._first) * (self._steps - step) / 60
            note += f" · {left:.0f} min left"
        say(f"step {step} of {self._steps} · {note}")

    def found(self, finding: Finding) -> None:
        """Something goes wrong."""
        say(f"step {finding.step}: {finding.words}; {finding.remedy}")


@contextmanager
def console_watcher(steps: int, *, leads: bool, unit: str = "pairs") -> Iterator[ConsoleWatcher]:
    """Watch on stderr while the block runs.

    Args:
        steps: Of the whole run.
        leads: This is the process that talks.
        unit: What a step sees many of.
    """
    if not leads or not sys.stderr.isatty():
        yield ConsoleWatcher(steps, None, unit)
        return
    with progress_bar("training") as bar:
        yield ConsoleWatcher(steps, bar, unit)
