"""Fixtures of the tests of the index; loaded by them as a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from index_fakes import FakeTowers, make_encoder, picture
from nunbit.index import Index


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with five good pictures."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(("a.png", "b.png", "sub/c.png", "sub/d.jpg", "sub/deep/e.png")):
        picture(folder / name, seed)
    return folder


@pytest.fixture
def towers() -> FakeTowers:
    return FakeTowers()


@pytest.fixture
def index(tmp_path: Path, towers: FakeTowers) -> Iterator[Index]:
    with Index.open(tmp_path / "x.nunbit", make_encoder(towers=towers)) as opened:
        yield opened
