"""Tar shards: which members make a record, and tars that nobody should trust."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nunbit.data import SourceConfig, open_source
from nunbit.data.source import Draft, Slice
from nunbit.data.tars import DamagedTar, TarReader
from nunbit.types import ImageText, Rejected
from picture_sources import png, rows, write_tar


def records(path: Path, **settings: Any) -> list[ImageText | Rejected]:
    return list(open_source(SourceConfig(str(path), name="s", **settings)).records())


def test_members_of_one_name_are_one_record(tmp_path: Path) -> None:
    content = [
        ("./가/1.jpg", b"one"),
        ("./가/1.txt", "하나\n둘\n".encode()),
        ("./가/1.json", '{"caption": "둘", "license": "CC0"}'.encode()),
        ("./가/1.cls", b"3"),
        ("나/1.seg.png", b"mask"),
        ("나/1.JPG", b"two"),
        ("나/1.depth.png", b"another mask"),
        ("나/._1.jpg", b"of a Mac"),
        ("나/1.text.txt", b"deux"),
    ]
    found = records(write_tar(tmp_path / "a.tar", content))
    assert found == [
        ImageText("s:a.tar:가/1", b"one", ("하나", "둘"), "s", {"license": "CC0"}),
        ImageText("s:a.tar:나/1", b"two", ("deux",), "s"),
    ]


def test_what_makes_no_record_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.data.tar_shards.IMAGE_BYTES", 100)
    monkeypatch.setattr("nunbit.data.tar_shards.TEXT_BYTES", 50)
    content = [
        ("1.jpg", b"no text"),
        ("2.txt", b"no picture"),
        ("3.jpg", b"x" * 101),
        ("3.txt", b"x"),
        ("4.jpg", b"x"),
        ("4.txt", b"x" * 51),
        ("5.jpg", b"x"),
        ("5.txt", "나쁘다".encode("cp949")),
        ("6.jpg", b"x"),
        ("6.json", b"{"),
        ("7.jpg", b"good"),
        ("7.txt", b"good"),
    ]
    found = records(write_tar(tmp_path / "a.tar", content))
    assert [(getattr(item, "path", ""), getattr(item, "reason", "")) for item in found] == [
        ("s:a.tar:1", "no text"),
        ("s:a.tar:2", "no picture"),
        ("s:a.tar:3", "too many bytes"),
        ("s:a.tar:4", "too many bytes"),
        ("s:a.tar:5", "not UTF-8"),
        ("s:a.tar:6", "broken JSON"),
        ("", ""),
    ]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cc"]), min_size=1)
        .map(lambda name: name[:90])
        .filter(lambda name: name not in (".", "..")),
        max_size=5,
    ),
    sizes=st.lists(st.sampled_from([0, 1, 511, 512, 513, 1025]), min_size=5, max_size=5),
    seekable=st.booleans(),
    deep=st.booleans(),
)
def test_tars_are_read_as_tarfile_reads_them(
    kind: int, names: list[str], sizes: list[int], seekable: bool, deep: bool
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, size in zip(names, sizes, strict=False):
            prefix = "" if not deep else "d" * (60 if kind == tarfile.USTAR_FORMAT else 150) + "/"
            info = tarfile.TarInfo(prefix + name)
            info.size = size
            try:
                tar.addfile(info, io.BytesIO(bytes(size)))
            except ValueError:
                continue  # too long for this format
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        expected = [(info.name, info.offset_data, info.size) for info in tar if not info.name.endswith("/")]
    buffer.seek(0)
    found = TarReader(buffer, seekable).members()
    assert [(member.name, member.offset, member.size) for member in found] == expected


def _special(kind: bytes, **attributes: Any) -> bytes:
    info = tarfile.TarInfo("x.jpg")
    info.type = kind
    for name, value in attributes.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    special = b"".join(
        _special(kind, linkname="/etc/passwd")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    )
    good = write_tar(tmp_path / "good.tar", [("../../1.jpg", b"x"), ("../../1.txt", b"t")]).read_bytes()
    (tmp_path / "a.tar").write_bytes(special + good)
    assert records(tmp_path / "a.tar") == [ImageText("s:a.tar:../../1", b"x", ("t",), "s")]


def _huge(kind: bytes) -> Callable[[bytes], bytes]:
    return lambda good: good + _special(kind, size=1 << 40)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: good + b"nonsense" * 64,
        lambda good: good + b"short",
        lambda good: good + _special(tarfile.REGTYPE, size=600) + b"x",
        lambda good: good + _special(tarfile.REGTYPE, size=-(1 << 40)),
        lambda good: good + _special(tarfile.GNUTYPE_SPARSE, size=512) + bytes(512),
        lambda good: good + _special(tarfile.XHDTYPE, size=22) + b"22 size=-1\n" + bytes(501) + _special(b"0"),
        _huge(tarfile.GNUTYPE_LONGNAME),
        _huge(tarfile.XHDTYPE),
    ],
)
@pytest.mark.parametrize("seekable", [True, False])
def test_a_damaged_tar_gives_what_came_before_and_says_so(
    tmp_path: Path, spoil: Callable[[bytes], bytes], seekable: bool
) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("1.txt", b"t"), ("2.txt", b"next")])
    blocks = path.read_bytes()[: 6 * 512]
    path.write_bytes(spoil(blocks))
    found = records(path)
    assert found[0] == ImageText("s:a.tar:1", b"x", ("t",), "s")
    assert (found[-1].path, found[-1].reason) == ("s:a.tar:", "damaged")
    reader = TarReader(io.BytesIO(path.read_bytes()), seekable)
    with pytest.raises(DamagedTar):
        list(reader.members())


def test_headers_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.data.tars._HEADER_BYTES", 250)
    path = write_tar(tmp_path / "a.tar", [("d" * 190 + ".jpg", b"x"), ("e" * 300 + ".jpg", b"x")])
    found = TarReader(io.BytesIO(path.read_bytes()), seekable=True).members()
    assert next(found).name.startswith("ddd")
    with pytest.raises(DamagedTar, match="the limit is 250"):
        next(found)


def test_pictures_of_plain_tars_are_read_when_they_are_needed(tmp_path: Path) -> None:
    content = [(f"{row['n']}.{end}", data) for row in rows(3) for end, data in (("png", png(row["n"])), ("txt", b"t"))]
    plain = open_source(SourceConfig(str(write_tar(tmp_path / "a.tar", content)), name="s"))
    packed = open_source(SourceConfig(str(write_tar(tmp_path / "a.tar.gz", content, "w:gz")), name="s"))
    drafts = [draft for draft in plain.drafts(0) if isinstance(draft, Draft)]
    assert [type(draft.image) for draft in drafts] == [Slice] * 3
    assert [draft.held_bytes for draft in drafts] == [0] * 3
    assert [draft.load("s").image for draft in drafts] == [png(n) for n in range(3)]
    assert [draft.image for draft in packed.drafts(0) if isinstance(draft, Draft)] == [png(n) for n in range(3)]


def test_one_bad_shard_of_many_loses_only_itself(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("1.jpg", b"x"), ("1.txt", b"t")])
    (tmp_path / "1.tar").write_bytes(b"not a tar" * 100)
    write_tar(tmp_path / "2.tar", [("1.jpg", b"y"), ("1.txt", b"t")])
    found = records(tmp_path)
    assert [getattr(item, "key", "") or item.reason for item in found] == ["s:0.tar:1", "damaged", "s:2.tar:1"]
