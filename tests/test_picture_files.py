"""`find_images`: folders are listed in order, everything once, and what cannot be listed is told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import bad_pictures as bad
from nunbit.errors import UsageError
from nunbit.images import find_images
from nunbit.types import Rejected


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in (
        "b.jpg",
        "a.PNG",
        "notes.txt",
        ".hidden.jpg",
        "z/c.webp",
        "c/.git/d.jpg",
        "c/한글.gif",
        "c/two\nlines.bmp",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def names(root: Path, *paths: str | Path) -> list[str]:
    return [str(found.relative_to(root)) if isinstance(found, Path) else found.reason for found in find_images(paths)]


EVERYTHING = ["a.PNG", "b.jpg", "c/two\nlines.bmp", "c/한글.gif", "z/c.webp"]


def test_find_in_order_each_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(tree, tree) == EVERYTHING
    assert names(tree, tree, tree / "c", tree / "b.jpg", tree) == EVERYTHING
    assert names(tree, tree / "b.jpg", tree / "b.jpg", tree) == ["b.jpg", *(e for e in EVERYTHING if e != "b.jpg")]
    monkeypatch.chdir(tree)
    assert names(tree, "z", "./z/c.webp", "z/../notes.txt", ".hidden.jpg", "c/.git") == [
        "z/c.webp", "notes.txt", ".hidden.jpg", "c/.git/d.jpg",
    ]  # fmt: skip


def test_find_follows_links_but_no_loop(tree: Path, tmp_path: Path) -> None:
    (tree / "c" / "loop").symlink_to(tree)
    (tree / "aa").symlink_to(tree / "z")
    (tree / "self").symlink_to("self")
    (tree / "self.jpg").symlink_to("self.jpg")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "e.jpg").write_bytes(b"x")
    (tree / "linked").symlink_to(elsewhere)
    (tree / "file.jpg").symlink_to(elsewhere / "e.jpg")
    assert names(tree, tree) == ["a.PNG", "b.jpg", "file.jpg", "broken link", *EVERYTHING[2:], "linked/e.jpg"]


def test_find_what_is_not_there(tree: Path, tmp_path: Path) -> None:
    (tree / "gone.jpg").symlink_to("nowhere")
    assert names(tree, tmp_path / "no", "", tmp_path / "no", tree / "gone.jpg", "nul\0") == [
        "no such file or folder", "no such file or folder", "broken link", "no such file or folder",
    ]  # fmt: skip
    assert "broken link" in names(tree, tree)
    with pytest.raises(UsageError):
        find_images(str(tree))


def test_find_in_a_folder_without_permission(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(path: str) -> Any:
        if Path(path).name == "c":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert names(tree, tree, tree / "c") == ["a.PNG", "b.jpg", "not readable", "z/c.webp"]
    assert names(tree, tree / "c", tree / "c" / "한글.gif") == ["not readable", "c/한글.gif"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="such names cannot exist here")
def test_find_a_name_that_is_not_utf8(tree: Path) -> None:
    raw = os.fsencode(tree / "z") + b"/caf\xe9.jpg"
    try:
        Path(os.fsdecode(raw)).write_bytes(b"x")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such names")
    found = [*find_images([tree / "z"]), *find_images([os.fsdecode(raw)])]
    rejected = [entry for entry in found if isinstance(entry, Rejected)]
    assert [entry.reason for entry in rejected] == ["name is not UTF-8"] * 2
    assert all(entry.path.encode().endswith(b"caf\\udce9.jpg") for entry in rejected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere paths cannot be that long")
def test_find_in_folders_deeper_than_the_recursion_limit(tmp_path: Path) -> None:
    folders = [str(tmp_path) + "/d" * depth for depth in range(1, sys.getrecursionlimit() + 200)]
    for folder in folders:
        Path(folder).mkdir()
    deep = Path(folders[-1] + "/deep.jpg")
    deep.write_bytes(b"x")
    try:
        assert list(find_images([tmp_path])) == [deep]
    finally:  # removing such a tree is too much for shutil
        deep.unlink()
        for folder in reversed(folders):
            Path(folder).rmdir()


def test_what_was_written_is_found(tmp_path: Path) -> None:
    written = {odd.path.name for odd in bad.write_all(tmp_path)}
    found = {Path(f.path).name if isinstance(f, Rejected) else f.name for f in find_images([tmp_path])}
    assert found == written
