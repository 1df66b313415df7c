"""Small sources of every kind, made of the same records."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from nunbit.data import Source
from nunbit.types import ImageText, Rejected

WORDS = ("빨간 고양이", 'a "red" cat,\nasleep', "개 두 마리", "a dog")


def png(color: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (color % 256, color // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"image": f"사진/{n}.png", "text": f"{WORDS[n % 4]} {n}", "n": n} for n in range(first, first + count)]


def write_jsonl(path: Path, content: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
    return path


def write_csv(path: Path, content: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, content[0], delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(content)
    return path


def write_parquet(path: Path, content: list[dict[str, Any]], group: int = 3) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(content), path, row_group_size=group)
    return path


def write_coco(path: Path, content: list[dict[str, Any]]) -> Path:
    images = [{"id": row["n"] + 7, "file_name": row["image"], "n": row["n"]} for row in content]
    annotations = [{"image_id": row["n"] + 7, "caption": row["text"], "id": row["n"]} for row in reversed(content)]
    whole = {"info": {"a": [1, {"b": "}]"}]}, "annotations": annotations, "x": 12, "images": images, "licenses": []}
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members(content: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    for row in content:
        stem = row["image"].removesuffix(".png")
        yield f"{stem}.cls", b"7"
        yield f"{stem}.png", png(row["n"])
        yield f"{stem}.json", json.dumps({"text": row["text"], "n": row["n"]}).encode()


def write_folder(folder: Path, content: list[dict[str, Any]]) -> Path:
    for row in content:
        picture = folder / row["image"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(png(row["n"]))
        picture.with_suffix(".json").write_text(json.dumps({"text": row["text"], "n": row["n"]}), encoding="utf-8")
    return folder


def good(source: Source) -> list[ImageText]:
    found = list(source.records())
    assert not [item for item in found if isinstance(item, Rejected)]
    return [item for item in found if isinstance(item, ImageText)]


def reasons(source: Source) -> list[str]:
    return [item.reason for item in source.records() if isinstance(item, Rejected)]
