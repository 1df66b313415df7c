"""Adding: the index agrees with the folders, and forgets only what is gone for sure; the ledger."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from index_fakes import FakeTowers, counts, ledger, names, picture, touch
from nunbit.index import Index
from nunbit.index import add as add_module
from nunbit.index.rows import picture_id

pytest_plugins = ["index_fixtures"]


def test_add_update_skip_forget(
    index: Index, photos: Path, towers: FakeTowers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counts(index.add([photos])) == (5, 0, 0, 0, 0)
    monkeypatch.setattr(add_module, "hash_file", lambda _: pytest.fail("an unchanged file was read"))
    assert counts(index.add([photos])) == (0, 0, 5, 0, 0)
    monkeypatch.undo()
    assert towers.encoded == 5

    picture(photos / "a.png", 77, (20, 20))
    picture(photos / "new.png", 78)
    (photos / "b.png").unlink()
    assert counts(index.add([photos])) == (1, 1, 3, 1, 0)
    assert towers.encoded == 7
    assert names(index) == ["a.png", "c.png", "d.jpg", "e.png", "new.png"]
    assert index.search(image=photos / "a.png", top_k=1)[0].metadata["width"] == 20
    assert index.search(image=photos / "a.png", top_k=1)[0].similarity == pytest.approx(1, abs=1e-5)


def test_a_touched_file_is_not_encoded_again(index: Index, photos: Path, towers: FakeTowers) -> None:
    index.add([photos])
    ids = [picture_id(str(photos / name)) for name in ("a.png", "b.png")]
    before = index.get_embeddings(ids)
    touch(photos / "a.png")
    assert counts(index.add([photos])) == (0, 1, 4, 0, 0)
    assert counts(index.add([photos])) == (0, 0, 5, 0, 0)
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


def test_a_renamed_file_moves(index: Index, photos: Path) -> None:
    index.add([photos])
    (photos / "a.png").rename(photos / "z.png")
    assert counts(index.add([photos])) == (1, 0, 4, 1, 0)
    assert names(index) == ["b.png", "c.png", "d.jpg", "e.png", "z.png"]


def test_what_is_not_under_the_given_paths_stays(index: Index, photos: Path, tmp_path: Path) -> None:
    picture(tmp_path / "photos2/x.png", 9)  # its path begins like the other folder's
    index.add([photos, tmp_path / "photos2"])
    (tmp_path / "photos2/x.png").unlink()
    (photos / "sub/c.png").unlink()
    (photos / "a.png").unlink()
    assert counts(index.add([photos / "sub"])) == (0, 0, 2, 1, 0)
    assert names(index) == ["a.png", "b.png", "d.jpg", "e.png", "x.png"]


def test_a_missing_folder_forgets_nothing(index: Index, photos: Path, tmp_path: Path) -> None:
    index.add([photos])
    photos.rename(tmp_path / "elsewhere")
    report = index.add([photos])
    assert counts(report) == (0, 0, 0, 0, 1)
    assert (report.rejected[0].path, report.rejected[0].reason) == (str(photos), "no such file or folder")
    assert len(index) == 5
    (tmp_path / "elsewhere").rename(photos)
    assert counts(index.add([photos])) == (0, 0, 5, 0, 0)
    assert ledger(index) == {}


def test_an_empty_folder_forgets_nothing(index: Index, photos: Path, tmp_path: Path) -> None:
    """A mount point without its disk is an empty folder; also when the folder above is given too."""
    index.add([photos])
    (photos / "sub").rename(tmp_path / "disk")
    (photos / "sub").mkdir()
    report = index.add([photos, photos / "sub"])
    assert counts(report) == (0, 0, 2, 0, 1)
    assert (report.rejected[0].path, report.rejected[0].reason) == (str(photos / "sub"), "empty folder")
    assert "3 pictures stay" in report.rejected[0].detail
    assert len(index) == 5
    (tmp_path / "disk/c.png").unlink()
    (photos / "sub").rmdir()
    (tmp_path / "disk").rename(photos / "sub")
    assert counts(index.add([photos])) == (0, 0, 4, 1, 0)


def test_an_emptied_folder_below_a_given_one_is_forgotten(index: Index, photos: Path) -> None:
    index.add([photos])
    (photos / "sub/deep/e.png").unlink()
    assert index.add([photos]).removed == 1


def test_a_link_to_a_disk_that_is_away_forgets_nothing(index: Index, photos: Path, tmp_path: Path) -> None:
    (photos / "sub").rename(tmp_path / "disk")
    (photos / "sub").symlink_to(tmp_path / "disk")
    index.add([photos])
    assert len(index) == 5
    (tmp_path / "disk").rename(tmp_path / "away")
    assert index.add([photos]).removed == 0
    assert len(index) == 5


def test_a_file_given_by_name(index: Index, photos: Path) -> None:
    odd = photos / "picture.dat"
    (photos / "a.png").rename(odd)
    index.add([photos, odd])
    assert counts(index.add([photos])) == (0, 0, 4, 0, 0)  # not listed in its folder, but there
    odd.unlink()
    report = index.add([odd])
    assert (report.removed, report.rejected[0].reason) == (1, "no such file or folder")
    assert len(index) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads whatever has no permission")
def test_a_folder_without_permission_forgets_nothing(index: Index, photos: Path) -> None:
    index.add([photos])
    (photos / "sub").chmod(0)
    try:
        report = index.add([photos])
    finally:
        (photos / "sub").chmod(0o755)
    assert counts(report) == (0, 0, 2, 0, 1)
    assert len(index) == 5


def test_progress_is_told(index: Index, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"")
    index.add([photos / "a.png"])
    told: list[tuple[int, int]] = []
    index.add([photos], progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(7)]


def test_bad_becomes_good_and_good_becomes_bad(index: Index, photos: Path) -> None:
    odd = photos / "이름\n둘.jpg"
    odd.write_bytes(b"not a picture")
    (photos / "empty.png").write_bytes(b"")
    report = index.add([photos])
    assert counts(report) == (5, 0, 0, 0, 2)
    assert ledger(index) == {str(odd): "not an image", str(photos / "empty.png"): "empty file"}
    assert {rejected.path: rejected.reason for rejected in report.rejected} == ledger(index)

    picture(photos / "empty.png", 50)
    (photos / "a.png").write_bytes((photos / "a.png").read_bytes()[:60])
    report = index.add([photos])
    assert counts(report) == (1, 0, 4, 1, 2)
    assert ledger(index) == {str(odd): "not an image", str(photos / "a.png"): "truncated"}
    assert "a.png" not in names(index)

    odd.unlink()
    (photos / "a.png").unlink()
    assert counts(index.add([photos])) == (0, 0, 5, 0, 0)
    assert ledger(index) == {}


def test_the_ledger_keeps_what_other_runs_found(index: Index, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other/bad.jpg"
    other.parent.mkdir()
    other.write_bytes(b"")
    (photos / "bad.jpg").write_bytes(b"")
    index.add([other.parent])
    index.add([photos])
    assert set(ledger(index)) == {str(other), str(photos / "bad.jpg")}
    other.unlink()
    index.add([photos])
    assert set(ledger(index)) == {str(photos / "bad.jpg")}


def test_the_ledger_is_current_during_a_run_and_does_not_grow(index: Index, photos: Path, towers: FakeTowers) -> None:
    (photos / "0.jpg").write_bytes(b"")
    seen: list[dict[str, str]] = []

    def look_and_stop() -> None:
        seen.append(ledger(index))
        raise KeyboardInterrupt

    for number in range(3):
        picture(photos / "sub/deep/e.png", 100 + number)
        with pytest.raises(KeyboardInterrupt):
            index.add([photos], progress=lambda done, _: look_and_stop() if done == 4 else None)
    assert seen == [{str(photos / "0.jpg"): "empty file"}] * 3
    with index.ledger_path.open("a") as file:  # a killed run's double line, and one cut off
        file.write(index.ledger_path.read_text() + '{"path": "half')
    index.add([photos])
    assert ledger(index) == {str(photos / "0.jpg"): "empty file"}


def test_a_file_that_vanishes_midway(index: Index, photos: Path, towers: FakeTowers) -> None:
    for number in range(20):
        picture(photos / f"last/{number}.png", number)
    towers.before_batch = lambda: (photos / "last/9.png").unlink(missing_ok=True)
    report = index.add([photos])
    assert counts(report) == (24, 0, 0, 0, 1)
    assert report.rejected[0].reason == "missing"
    assert ledger(index) == {str(photos / "last/9.png"): "missing"}
    assert index.add([photos]).rejected == ()
    assert ledger(index) == {}
