"""Adding: the index agrees with the folders, and forgets only what is gone for sure; the ledger."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from index_fakes import FakeTowers, counts, ledger, names, picture, touch
from nunbit.index import Index
from nunbit.index.rows import picture_id


def test_add_update_skip_forget(index: Index, album: Path, towers: FakeTowers) -> None:
    assert counts(index.add([album])) == (5, 0, 0, 0, 0)
    before = (album / "b.png").stat()
    (album / "b.png").write_bytes(b"?" * before.st_size)  # what is not read is not missed
    os.utime(album / "b.png", ns=(1, before.st_mtime_ns))
    assert counts(index.add([album])) == (0, 0, 5, 0, 0)
    assert towers.encoded == 5

    picture(album / "a.png", 77, (20, 20))
    picture(album / "new.png", 78)
    (album / "b.png").unlink()
    assert counts(index.add([album])) == (1, 1, 3, 1, 0)
    assert towers.encoded == 7
    assert names(index) == ["a.png", "c.png", "d.jpg", "e.png", "new.png"]
    assert index.search(image=album / "a.png", top_k=1)[0].metadata["width"] == 20
    assert index.search(image=album / "a.png", top_k=1)[0].similarity == pytest.approx(1, abs=1e-5)


def test_a_touched_file_is_not_encoded_again(index: Index, album: Path, towers: FakeTowers) -> None:
    index.add([album])
    ids = [picture_id(str(album / name)) for name in ("a.png", "b.png")]
    before = index.get_embeddings(ids)
    touch(album / "a.png")
    assert counts(index.add([album])) == (0, 1, 4, 0, 0)
    assert counts(index.add([album])) == (0, 0, 5, 0, 0)
    assert (towers.encoded, len(index)) == (5, 5)
    np.testing.assert_array_equal(index.get_embeddings(ids), before)
    assert next(iter(index.items("path LIKE '%a.png'"))).metadata["format"] == "PNG"


def test_other_bytes_of_the_same_size_are_encoded(index: Index, tmp_path: Path) -> None:
    path = picture(tmp_path / "p/a.bmp", 1)
    index.add([tmp_path / "p"])
    size = path.stat().st_size
    picture(path, 2)
    assert path.stat().st_size == size
    touch(path)
    assert index.add([tmp_path / "p"]).updated == 1
    assert index.search(image=path, top_k=1)[0].similarity == pytest.approx(1, abs=1e-5)


def test_a_renamed_file_moves(index: Index, album: Path) -> None:
    index.add([album])
    (album / "a.png").rename(album / "z.png")
    assert counts(index.add([album])) == (1, 0, 4, 1, 0)
    assert names(index) == ["b.png", "c.png", "d.jpg", "e.png", "z.png"]


def test_what_is_not_under_the_given_paths_stays(index: Index, album: Path, tmp_path: Path) -> None:
    picture(tmp_path / "album2/x.png", 9)  # its path begins like the other folder's
    index.add([album, tmp_path / "album2"])
    (tmp_path / "album2/x.png").unlink()
    (album / "sub/c.png").unlink()
    (album / "a.png").unlink()
    assert counts(index.add([album / "sub"])) == (0, 0, 2, 1, 0)
    assert names(index) == ["a.png", "b.png", "d.jpg", "e.png", "x.png"]
    assert index.add([album]).removed == 1
    assert names(index) == ["b.png", "d.jpg", "e.png", "x.png"]


def test_a_missing_folder_forgets_nothing(index: Index, album: Path, tmp_path: Path) -> None:
    index.add([album])
    album.rename(tmp_path / "elsewhere")
    report = index.add([album])
    assert counts(report) == (0, 0, 0, 0, 1)
    assert (report.rejected[0].path, report.rejected[0].reason) == (str(album), "no such file or folder")
    assert len(index) == 5
    (tmp_path / "elsewhere").rename(album)
    assert counts(index.add([album])) == (0, 0, 5, 0, 0)
    assert ledger(index) == {}


def test_an_empty_folder_forgets_nothing(index: Index, album: Path, tmp_path: Path) -> None:
    """A mount point without its disk is an empty folder; also when the folder above is given too."""
    index.add([album])
    (album / "sub").rename(tmp_path / "disk")
    (album / "sub").mkdir()
    report = index.add([album, album / "sub"])
    assert counts(report) == (0, 0, 2, 0, 1)
    assert (report.rejected[0].path, report.rejected[0].reason) == (str(album / "sub"), "empty folder")
    assert "3 pictures stay" in report.rejected[0].detail
    assert len(index) == 5
    (tmp_path / "disk/c.png").unlink()
    (album / "sub").rmdir()
    (tmp_path / "disk").rename(album / "sub")
    assert counts(index.add([album])) == (0, 0, 4, 1, 0)


def test_an_emptied_folder_below_a_given_one_is_forgotten(index: Index, album: Path) -> None:
    index.add([album])
    (album / "sub/deep/e.png").unlink()
    assert index.add([album]).removed == 1


def test_a_link_to_a_disk_that_is_away_forgets_nothing(index: Index, album: Path, tmp_path: Path) -> None:
    (album / "sub").rename(tmp_path / "disk")
    (album / "sub").symlink_to(tmp_path / "disk")
    index.add([album])
    assert len(index) == 5
    (tmp_path / "disk").rename(tmp_path / "away")
    assert index.add([album]).removed == 0
    assert len(index) == 5


def test_a_file_given_by_name(index: Index, album: Path) -> None:
    odd = album / "picture.dat"
    (album / "a.png").rename(odd)
    index.add([album, odd])
    assert counts(index.add([album])) == (0, 0, 4, 0, 0)  # not listed in its folder, but there
    odd.unlink()
    report = index.add([odd])
    assert (report.removed, report.rejected[0].reason) == (1, "no such file or folder")
    assert len(index) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads whatever has no permission")
def test_a_folder_without_permission_forgets_nothing(index: Index, album: Path) -> None:
    index.add([album])
    (album / "sub").chmod(0)
    try:
        report = index.add([album])
    finally:
        (album / "sub").chmod(0o755)
    assert counts(report) == (0, 0, 2, 0, 1)
    assert len(index) == 5


def test_progress_is_told(index: Index, album: Path) -> None:
    (album / "bad.jpg").write_bytes(b"")
    index.add([album / "a.png"])
    told: list[tuple[int, int]] = []
    index.add([album], progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(7)]


def test_bad_becomes_good_and_good_becomes_bad(index: Index, album: Path) -> None:
    odd = album / "이름\n둘.jpg"
    odd.write_bytes(b"not a picture")
    (album / "empty.png").write_bytes(b"")
    report = index.add([album])
    assert counts(report) == (5, 0, 0, 0, 2)
    assert ledger(index) == {str(odd): "not an image", str(album / "empty.png"): "empty file"}
    assert {rejected.path: rejected.reason for rejected in report.rejected} == ledger(index)

    picture(album / "empty.png", 50)
    (album / "a.png").write_bytes((album / "a.png").read_bytes()[:60])
    report = index.add([album])
    assert counts(report) == (1, 0, 4, 1, 2)
    assert ledger(index) == {str(odd): "not an image", str(album / "a.png"): "truncated"}
    assert "a.png" not in names(index)

    odd.unlink()
    (album / "a.png").unlink()
    assert counts(index.add([album])) == (0, 0, 5, 0, 0)
    assert ledger(index) == {}


def test_the_ledger_keeps_what_other_runs_found(index: Index, album: Path, tmp_path: Path) -> None:
    other = tmp_path / "other/bad.jpg"
    other.parent.mkdir()
    other.write_bytes(b"")
    (album / "bad.jpg").write_bytes(b"")
    index.add([other.parent])
    index.add([album])
    assert set(ledger(index)) == {str(other), str(album / "bad.jpg")}
    other.unlink()
    index.add([album])
    assert set(ledger(index)) == {str(album / "bad.jpg")}


def test_the_ledger_is_current_during_a_run_and_does_not_grow(index: Index, album: Path, towers: FakeTowers) -> None:
    (album / "0.jpg").write_bytes(b"")
    seen: list[dict[str, str]] = []

    def look_and_stop() -> None:
        seen.append(ledger(index))
        raise KeyboardInterrupt

    for number in range(3):
        picture(album / "sub/deep/e.png", 100 + number)
        with pytest.raises(KeyboardInterrupt):
            index.add([album], progress=lambda done, _: look_and_stop() if done == 4 else None)
    assert seen == [{str(album / "0.jpg"): "empty file"}] * 3
    with index.ledger_path.open("a") as file:  # a killed run's double line, and one cut off
        file.write(index.ledger_path.read_text() + '{"path": "half')
    (album / "1.jpg").write_bytes(b"")
    index.add([album], progress=lambda *_: seen.append(ledger(index)))
    assert seen[-1] == ledger(index) == {str(album / name): "empty file" for name in ("0.jpg", "1.jpg")}


def test_a_disk_that_vanishes_midway(index: Index, album: Path, tmp_path: Path, towers: FakeTowers) -> None:
    for number in range(40):
        picture(album / f"last/{number:02}.png", number)
    index.add([album])
    for path in sorted(album.rglob("*.png")):
        touch(picture(path, 99))
    towers.before_batch = lambda: album.rename(tmp_path / "away") if album.exists() else None
    report = index.add([album])
    assert report.rejected[-1].reason == "missing"
    assert (report.removed, len(index)) == (0, 45)
    towers.before_batch = lambda: None
    (tmp_path / "away").rename(album)
    assert counts(index.add([album]))[1:] == (len(report.rejected), 45 - len(report.rejected), 0, 0)


def test_a_file_that_vanishes_midway(index: Index, album: Path, towers: FakeTowers) -> None:
    for number in range(20):
        picture(album / f"last/{number}.png", number)
    towers.before_batch = lambda: (album / "last/9.png").unlink(missing_ok=True)
    report = index.add([album])
    assert counts(report) == (24, 0, 0, 0, 1)
    assert report.rejected[0].reason == "missing"
    assert ledger(index) == {str(album / "last/9.png"): "missing"}
    assert index.add([album]).rejected == ()
    assert ledger(index) == {}
