"""``exact`` reaches the decoder from everywhere: without it large JPEGs are decoded small, with it in full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import nunbit.encode as encode_module
import nunbit.loading as loading
from index_fakes import make_encoder, picture
from nunbit.cli import nunbit as cli
from nunbit.images import open_image
from nunbit.index import Index
from nunbit.recognition import recognize
from nunbit.zero_shot import zero_shot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of one picture each, large for an encoder that looks at 6 x 6 pixels."""
    for seed, name in enumerate(("cat", "dog")):
        picture(tmp_path / f"classes/{name}/a.jpg", seed, (96, 80))
    return tmp_path / "classes"


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The scale of every picture that was decoded to be encoded."""
    seen: list[int] = []

    def watched(source: Any, **options: Any) -> Any:
        image, info = open_image(source, **options)
        seen.append(info.scale)
        return image, info

    monkeypatch.setattr(encode_module, "open_image", watched)
    monkeypatch.setattr(loading, "load", lambda *_, **__: make_encoder())
    return seen


def add(folder: Path, exact: bool) -> None:
    with Index.open(folder.parent / "x.nunbit", make_encoder()) as index:
        index.add([folder], exact=exact)


def search(folder: Path, exact: bool) -> None:
    with Index.open(folder.parent / "x.nunbit", make_encoder()) as index:
        index.search(image=folder / "cat/a.jpg", exact=exact)


CALLS: dict[str, Callable[[Path, bool], object]] = {
    "encode_image": lambda folder, exact: make_encoder().encode_image([folder / "cat/a.jpg"], exact=exact),
    "recognize": lambda folder, exact: recognize(make_encoder(), [folder / "cat/a.jpg"], ["a", "bc"], exact=exact),
    "zero_shot": lambda folder, exact: zero_shot(make_encoder(), folder, exact=exact),
    "Index.add": add,
    "Index.search": search,
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(folder: Path, scales: list[int], name: str) -> None:
    CALLS[name](folder, True)
    assert set(scales) == {1}
    scales.clear()
    if name == "Index.add":
        for seed, path in enumerate(sorted(folder.rglob("*.jpg")), start=10):
            picture(path, seed, (96, 81))
    CALLS[name](folder, False)
    assert set(scales) == {4}


@pytest.mark.parametrize("command", ["index", "search", "recognize", "zeroshot"])
def test_the_option(folder: Path, scales: list[int], command: str) -> None:
    into = str(folder.parent / "cli.nunbit")
    assert CliRunner().invoke(cli, ["index", str(folder), "--into", into]).exit_code == 0
    assert set(scales) == {4}
    calls = {
        "index": ["index", str(folder), "--into", into + "2"],
        "search": ["search", "--image", str(folder / "cat/a.jpg"), "--in", into],
        "recognize": ["recognize", str(folder), "--labels", "cat,doggy"],
        "zeroshot": ["eval", "zeroshot", str(folder)],
    }
    for options, scale in (([], 4), (["--exact"], 1)):
        scales.clear()
        calls["index"][-1] += "x"  # another index every time, or there would be nothing to do
        result = CliRunner().invoke(cli, [*calls[command], *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert set(scales) == {scale}
