"""The cache of thumbnails: bounded, and never a reason for a server to fail."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import pytest

from nunbit.serve.thumbnails import Thumbnails
from serving import png


def fill(thumbnails: Thumbnails, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        thumbnails.get(str(number), partial(png, 0), 160, 10**6)


def reads(thumbnails: Thumbnails, key: str) -> int:
    """How often a thumbnail that is asked for is made."""
    read = []
    thumbnails.get(key, lambda: read.append(1) or png(0), 160, 10**6)  # type: ignore[func-returns-value]
    return len(read)


def test_what_was_not_looked_at_for_longest_goes_first(tmp_path: Path) -> None:
    size = len(Thumbnails(tmp_path / "one.sqlite", 1 << 30).get("0", lambda: png(0), 160, 10**6))
    thumbnails = Thumbnails(tmp_path / "t.sqlite", 100 * size)
    fill(thumbnails, 96)
    assert reads(thumbnails, "0") == 0
    fill(thumbnails, 40, start=96)
    assert thumbnails.total_bytes() <= 101 * size
    assert (reads(thumbnails, "0"), reads(thumbnails, "1")) == (0, 1)
    thumbnails.close()


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    path.write_bytes(b"this is no database" * 1000)
    thumbnails = Thumbnails(path, 1 << 20)
    assert (reads(thumbnails, "0"), reads(thumbnails, "0")) == (1, 0)
    thumbnails.close()


def test_a_cache_that_is_damaged_while_in_use_is_made_anew(tmp_path: Path) -> None:
    thumbnails = Thumbnails(tmp_path / "t.sqlite", 1 << 20)
    fill(thumbnails, 3)

    class Damaged:
        def execute(self, *given: object) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        def close(self) -> None:
            pass

    thumbnails._database = Damaged()  # type: ignore[assignment]
    assert reads(thumbnails, "9") == 1
    assert reads(thumbnails, "9") == 0
    thumbnails.close()


def test_without_a_place_on_the_disk_thumbnails_are_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    thumbnails = Thumbnails(tmp_path / "file" / "t.sqlite", 1 << 30)
    assert (reads(thumbnails, "0"), reads(thumbnails, "0")) == (1, 0)
    assert "in memory" in caplog.text
    thumbnails.close()
