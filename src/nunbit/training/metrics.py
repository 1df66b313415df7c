"""The numbers of a training run: `metrics.jsonl`, a line of JSON for each step that was written.

Place in the river: beside the training loop, which writes, and the run report, which reads. Torch is never imported
here. The file only grows but for `MetricLog.truncate`.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from nunbit.durable import replace_file
from nunbit.errors import StoreError, UsageError
from nunbit.training.lines import line_of, open_lines, read_lines

METRICS = "metrics.jsonl"
EVENTS = "tensorboard"

_LAST_STEP = 2**53  # steps are exact as float64


class MetricLog:
    """The metric log of a run folder.

    Args:
        folder: Of the run; made when it is not there.
        tensorboard: Write every number to event files for TensorBoard as well, in ``folder/tensorboard``.

    Raises:
        UsageError: ``tensorboard`` is asked for, and what writes event files is not installed.

    Example:
        >>> with MetricLog(Path("run")) as log:
        ...     log.write(1, loss=4.2, learning_rate=1e-4)
        ...     log.write(1, **{"validation/loss": 4.1})
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        self._folder = folder
        self._path = folder / METRICS
        self._file: IO[bytes] | None = None
        self._events = _EventFiles(folder / EVENTS) if tensorboard else None

    def write(self, step: int, **values: float) -> None:
        """Append a line, and hand it to the system: a process that is killed later does not lose it.

        A number that is NaN or infinite is written as null, and the line names it under ``not_finite``.

        Args:
            step: At least 0. One step may have several lines, such as one of training and one of validation.
            **values: Numbers by name: Python's, or whatever ``float`` takes.

        Raises:
            UsageError: A step that is none, or a number called ``not_finite``.
        """
        if not _is_step(step):
            raise UsageError(f"step is {step!r}, expected a whole number of at least 0")
        if "not_finite" in values:
            raise UsageError("a number is called 'not_finite', which names those that are NaN", hint="rename it")
        numbers = {name: value if type(value) is int else float(value) for name, value in values.items()}
        odd = [name for name, value in numbers.items() if not math.isfinite(value)]
        row = {"step": step} | numbers | dict.fromkeys(odd) | ({"not_finite": odd} if odd else {})
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = open_lines(self._path)
        self._file.write(line_of(row))
        self._file.flush()
        if self._events is not None:
            self._events.write(step, numbers)

    def rows(self) -> list[dict[str, Any]]:
        """Read all lines, in the order in which they were written; none when there is no file.

        Raises:
            StoreError: A line, other than a last one that was cut off, cannot be understood.
        """
        rows, damaged = read_metrics(self._path)
        if damaged:
            hint = "the disk may have lost a part of it; delete that line, and go on without it"
            raise StoreError(f"line {damaged[0]} of {self._path} is damaged", hint=hint)
        return rows

    def truncate(self, after: int) -> None:
        """Drop what was written for steps beyond one: a run that resumes from its checkpoint repeats them.

        The file is whole at every moment. TensorBoard is told to hide those steps; nothing is taken from its files.

        Args:
            after: The last step that stays.

        Raises:
            StoreError: As in `rows`.
        """
        self.close()
        if self._path.exists():
            kept = b"".join(line_of(row) for row in self.rows() if row["step"] <= after)
            replace_file(self._path, lambda file: file.write(kept))
        if self._events is not None:
            self._events.hide(after)

    def close(self) -> None:
        """Let go of the files; the next `write` opens them again."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _EventFiles:
    """Files for TensorBoard; a new one each time they are opened."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            message = "files for TensorBoard are written by tensorboardX, which is not installed"
            raise UsageError(message, hint="pip install 'nunbit[tensorboard]'") from error
        self._new_writer = SummaryWriter
        self._folder = folder
        self._writer: Any = None
        self._hidden_from: int | None = None

    def write(self, step: int, numbers: dict[str, float]) -> None:
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = self._new_writer(
                str(self._folder),
                purge_step=self._hidden_from,
                flush_secs=10,
                # Without it, two files of one second have one name, and the second replaces the first.
                filename_suffix=f".{len(list(self._folder.iterdir()))}",
            )
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def hide(self, after: int) -> None:
        self._hidden_from = after + 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._hidden_from = None


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Read a metric log as `read_lines` does; a line without a step is damaged, too."""
    return read_lines(path, lambda row: _is_step(row.get("step")))


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LAST_STEP
