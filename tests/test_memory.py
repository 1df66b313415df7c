"""What was freed goes back to the system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nunbit.memory import give_back

MEBIBYTE = 2**20


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that keeps what was freed")
def test_what_was_freed_is_given_back() -> None:
    give_back()
    blocks = [bytearray(b"x" * 50_000) for _ in range(4000)]  # too small to be given back one by one
    kept = blocks[::100]  # between them and the end of the heap
    blocks.clear()
    before = resident()
    give_back()
    assert before - resident() > 100 * MEBIBYTE
    assert all(block == b"x" * 50_000 for block in kept)
