"""The memory of each library in a process that has no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pages import megabytes, table
from side_by_side import Turn, child, tell

NOTE = "Extra: peak resident memory less what is resident when the libraries are imported; weights are part of it."


def memory_alone(names: Sequence[str], folder: Path, inputs: Path, batch: int) -> str:
    """A table; the first library is the base.

    Args:
        names: As `peers.open_library` takes them.
        folder: The model.
        inputs: A file that ``as_written/one_library.py`` takes.
        batch: Inputs at a time.
    """
    turns: dict[str, Turn] = {}
    for name in names:
        tell(f"memory of {name}")
        turns[name] = child("one_library.py", name, folder, inputs, batch)()
    base = turns[names[0]].extra_mb or 1.0
    rows = [
        [name, megabytes(turn.peak_mb), megabytes(turn.extra_mb), f"{(turn.extra_mb or 0) / base:.2f}"]
        for name, turn in turns.items()
    ]
    return f"## Memory, batch {batch}\n\n{table(['', 'peak MB', 'of it extra', f'times {names[0]}'], rows)}\n\n{NOTE}"
