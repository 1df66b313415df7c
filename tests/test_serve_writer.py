"""Changes of a served index that meet: whatever their order, a row has its file."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import lancedb
import numpy as np
import pytest
from PIL import Image

from index_fakes import FakeTowers, make_encoder, picture, touch, unit
from nunbit.errors import StoreBusy, StoreFull
from nunbit.images import ImageInfo, find_images
from nunbit.index import Index
from nunbit.index.folder import writer_lock
from nunbit.serve.collection import Collection
from nunbit.serve.problems import Problem
from nunbit.serve.service import Service
from nunbit.serve.settings import Settings
from nunbit.serve.writer import NewPicture, Writer


def new_picture(seed: int) -> NewPicture:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    row = unit(np.random.default_rng(seed).normal(size=(1, 8)))[0]
    return NewPicture(buffer.getvalue(), ImageInfo(8, 6, None, "PNG"), row, f"{seed}.png", {"seed": seed})


def run(index: Index, work: Callable[[Writer, Collection], Awaitable[object]]) -> None:
    async def main() -> None:
        collection = Collection(8)
        index.watch(collection.apply)
        writer = Writer(index, collection)
        await work(writer, collection)
        await writer.close()

    asyncio.run(main())


def check_files(index: Index) -> None:
    assert {Path(item.path) for item in index.items()} == {
        path for path in index.uploads.folder.rglob("*") if path.is_file()
    }


def test_a_picture_that_is_deleted_and_sent_again_at_once_has_its_file(index: Index) -> None:
    async def work(writer: Writer, collection: Collection) -> None:
        item = await writer.add(new_picture(1))
        await asyncio.gather(writer.remove(item.id), writer.add(new_picture(1)))
        assert len(collection.view) == 1

    run(index, work)
    check_files(index)
    assert len(index) == 1


def test_a_name_given_while_the_picture_is_replaced_goes_to_the_new_picture(index: Index) -> None:
    async def work(writer: Writer, collection: Collection) -> None:
        item = await writer.add(new_picture(1))
        await asyncio.gather(writer.add(new_picture(2), item.id), writer.change(item.id, "mug", None))
        found = collection.get(item.id)
        assert found is not None
        assert (found.name, found.attributes) == ("mug", {"seed": 2})

    run(index, work)
    check_files(index)


def test_a_change_that_cannot_be_made_does_not_keep_the_others_from_it(index: Index) -> None:
    async def work(writer: Writer, collection: Collection) -> None:
        results = await asyncio.gather(
            writer.add(new_picture(1)), writer.remove("0" * 32), writer.add(new_picture(2)), return_exceptions=True
        )
        assert isinstance(results[1], Problem) and results[1].status == 404
        assert len(collection.view) == 2

    run(index, work)
    check_files(index)


def test_a_file_without_a_row_is_removed_and_others_are_not(index: Index) -> None:
    async def work(writer: Writer, collection: Collection) -> None:
        await writer.add(new_picture(1))

    run(index, work)
    index.uploads.write("f" * 32, "0" * 32, b"half", "PNG")
    assert index.remove_orphans() == 1
    check_files(index)
    assert len(index) == 1


def test_a_server_starts_while_another_program_indexes(tmp_path: Path) -> None:
    async def main() -> None:
        service = Service(Settings(tmp_path / "x.nunbit"), make_encoder())
        with writer_lock(tmp_path / "x.nunbit"):
            await service.start()
            assert service.ready
            with pytest.raises(StoreBusy):
                await service.writer.add(new_picture(1))
        await service.writer.add(new_picture(1))
        await service.stop()

    asyncio.run(main())


def test_names_and_attributes_outlive_a_changed_file(index: Index, tmp_path: Path) -> None:
    path = picture(tmp_path / "album" / "a.png", 1)
    index.add([path.parent])
    item = next(index.items())

    async def work(writer: Writer, collection: Collection) -> None:
        with index.snapshot() as parts:
            collection.replace_all(parts)
        await writer.change(item.id, "mug", {"sku": "A-17"})

    run(index, work)
    picture(path, 2)
    assert index.add([path.parent]).updated == 1
    changed = next(index.items())
    assert (changed.name, changed.attributes) == ("mug", {"sku": "A-17"})
    assert changed.metadata["content_hash"] != item.metadata["content_hash"]


def test_a_file_that_was_only_touched_is_read_again(index: Index, album: Path) -> None:
    index.add([album])
    with index.snapshot() as parts:
        assert sum(len(items) for items, _ in parts) == 5
    assert not index.changed_by_others()
    touch(album / "a.png")
    assert index.add([album]).updated == 1
    assert index.changed_by_others()
    with index.snapshot() as parts:
        list(parts)
    assert not index.changed_by_others()


def test_an_index_of_format_1_is_upgraded_when_it_is_opened(tmp_path: Path, album: Path) -> None:
    folder, encoder = tmp_path / "x.nunbit", make_encoder(towers=FakeTowers())
    with Index.open(folder, encoder) as index:
        index.add([album])
    lancedb.connect(folder).open_table("pictures").drop_columns(["name", "attributes"])
    identity = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**identity, "format_version": 1}))
    with Index.open(folder, encoder) as index:
        assert sorted(item.name for item in index.items()) == ["a.png", "b.png", "c.png", "d.jpg", "e.png"]
        assert index.add([album]).unchanged == 5
        picture(album / "f.png", 6)
        assert index.add([album]).added == 1
        assert len(index.search("x", top_k=9)) == 6
    assert json.loads((folder / "index.json").read_text()) == {**identity, "format_version": 2}


def test_nothing_outside_of_the_given_folder_is_listed(tmp_path: Path) -> None:
    inside, outside = picture(tmp_path / "in" / "a.png", 1), picture(tmp_path / "out" / "b.png", 2)
    (inside.parent / "link.png").symlink_to(outside)
    (inside.parent / "folder").symlink_to(outside.parent)
    within = inside.parent.resolve()
    assert list(find_images([inside.parent, outside, outside.parent], within=within)) == [inside]
    assert len(list(find_images([inside.parent]))) == 3


def test_what_another_process_commits_is_noticed_whenever_it_does(index: Index) -> None:
    """Before a commit of this process, and while this process reads."""

    def other(seed: int) -> None:
        with Index.open(index._folder, make_encoder()) as theirs:
            run(theirs, lambda writer, _: writer.add(new_picture(seed)))

    with index.snapshot() as parts:
        list(parts)
    assert not index.changed_by_others()
    other(1)
    run(index, lambda writer, _: writer.add(new_picture(2)))
    assert index.changed_by_others()
    with index.snapshot() as parts:
        list(parts)
        other(3)
    assert index.changed_by_others()
    with index.snapshot() as parts:
        assert sum(len(items) for items, _ in parts) == 3
    assert not index.changed_by_others()


def test_nothing_is_written_while_another_process_may_tidy_up(index: Index) -> None:
    async def work(writer: Writer, collection: Collection) -> None:
        with writer_lock(index._folder):
            results = await asyncio.gather(*(writer.add(new_picture(n)) for n in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [StoreBusy] * 3
        assert not list(index.uploads.folder.rglob("*.png"))

    run(index, work)


def test_a_commit_that_fails_leaves_no_file_and_takes_none(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(writer: Writer, collection: Collection) -> None:
        await writer.add(new_picture(1))
        with monkeypatch.context() as broken:
            broken.setattr(index, "put", fail)
            results = await asyncio.gather(*(writer.add(new_picture(n)) for n in (1, 2)), return_exceptions=True)
        assert [type(result) for result in results] == [StoreFull] * 2

    def fail(rows: object) -> None:
        raise StoreFull("full")

    run(index, work)
    check_files(index)
    assert len(index) == 1


def test_an_index_within_an_indexed_folder_is_no_part_of_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    with Index.open(tmp_path / "x.nunbit", make_encoder()) as index:
        run(index, lambda writer, _: writer.add(new_picture(2)))
        assert index.add([tmp_path]).added == 1
        assert len(index) == 2
