"""Kill -9 at random moments while a folder is indexed: nothing lost, nothing doubled, and the next run goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from index_fakes import counts, ledger, make_encoder, picture
from nunbit.index import Index

KILLS = 10
PICTURES = 60
CHANGED = 12  # before every run: three batches of four, so that every run takes longer than the latest kill
BATCH_SECONDS = 0.15
LATEST_KILL = 0.4

INDEXER = f"""
import sys, time
import lancedb
from index_fakes import FakeTowers, make_encoder
from nunbit.index import Index, add
add._COMMIT_ROWS = 3
towers = FakeTowers()
towers.before_batch = lambda: time.sleep({BATCH_SECONDS})
print("ready", flush=True)
with Index.open(sys.argv[1], make_encoder(towers=towers)) as index:
    index.add([sys.argv[2]])
"""


def killed_run(folder: Path, photos: Path, delay: float) -> None:
    command = [sys.executable, "-c", INDEXER, str(folder), str(photos)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.kill()
        assert process.wait() == -signal.SIGKILL


def check_rows(index: Index) -> int:
    """Check that no picture is there twice, and none with an embedding of other bytes than it says."""
    items = list(index.items())
    assert len({item.id for item in items}) == len({item.path for item in items}) == len(items)
    current = [item for item in items if item.metadata["mtime_ns"] == Path(item.path).stat().st_mtime_ns]
    if current:
        expected = make_encoder().encode_image([item.path for item in current])
        np.testing.assert_allclose(index.get_embeddings([item.id for item in current]), expected, atol=1e-6)
    return len(items)


@pytest.mark.parametrize("seed", [1])
def test_ten_kills(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    photos, folder = tmp_path / "photos", tmp_path / "x.nunbit"
    good = [picture(photos / f"{number % 7}/{number:02}.png", number) for number in range(PICTURES)]
    bad = {photos / "0/empty.jpg": "empty file", photos / "3/text.png": "not an image", photos / "9.gif": "truncated"}
    for path, content in zip(bad, (b"", b"text", b"GIF89a"), strict=True):
        path.write_bytes(content)

    there = 0
    for kill in range(KILLS):
        delay = rng.uniform(0, LATEST_KILL)
        killed_run(folder, photos, delay)
        if (folder / "index.json").exists():
            with Index.open(folder, make_encoder(), create=False) as index:
                rows = check_rows(index)
                assert there <= rows <= PICTURES, "a picture was lost"
                there = rows
        for number in rng.sample(range(PICTURES), CHANGED):
            picture(good[number], 1000 * (kill + 1) + number)
    assert there > 0

    with Index.open(folder, make_encoder()) as index:
        report = index.add([photos])
        assert report.added == PICTURES - there
        assert report.removed == 0
        assert check_rows(index) == PICTURES
        assert {item.path for item in index.items()} == {str(path) for path in good}
        assert ledger(index) == {str(path): reason for path, reason in bad.items()}
        assert counts(index.add([photos])) == (0, 0, PICTURES, 0, len(bad))
