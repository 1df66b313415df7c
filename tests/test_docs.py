"""docs/models.md says what the code says: its quotations, its running code, and the numbers beside its figures."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from nunbit.cli import nunbit as cli
from nunbit.clip import Clip
from nunbit.pretrained.encoder import ClipTowers

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGE = (DOCS / "models.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
QUOTED = re.compile(r"# (nunbit/\S+\.py)\n(.*)", re.S)
QUOTATIONS = [match.groups() for language, code in BLOCKS if language == "python" and (match := QUOTED.match(code))]
FIGURES = sorted((DOCS / "figures").iterdir())
PNG_BYTES = 200_000


def test_the_page_has_blocks_of_both_kinds() -> None:
    languages = [language for language, _ in BLOCKS]
    assert len(QUOTATIONS) > 5
    assert languages.count("python") - len(QUOTATIONS) > 5


@pytest.mark.parametrize(("path", "code"), QUOTATIONS, ids=lambda value: value.partition("\n")[0].strip())
def test_what_is_quoted_stands_in_the_file(path: str, code: str) -> None:
    """Line by line, whatever the indentation; a line of three dots skips, forward only."""
    source = _lines((ROOT / "src" / path).read_text(encoding="utf-8"))
    position = 0
    for piece in map(_lines, re.split(r"^\.\.\.$", code, flags=re.M)):
        assert piece
        starts = range(position, len(source) - len(piece) + 1)
        found = next((start for start in starts if source[start : start + len(piece)] == piece), None)
        assert found is not None, f"{path} no longer has, after line {position}:\n" + "\n".join(piece)
        position = found + len(piece)


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.fixture
def toy_pair(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("toy_pair")


def test_what_runs_prints_what_is_written(toy_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an untrained toy: shapes, token ids and formulas do not depend on weights."""
    monkeypatch.chdir(tmp_path)
    settings = toy_pair.make_settings()
    ClipTowers(Clip(settings.config), settings, license="Apache-2.0", name="shapes").save(Path("build/shapes"))
    names: dict[str, Any] = {}
    for (language, code), (following, printed) in itertools.pairwise([*BLOCKS, ("", "")]):
        if language == "python" and not QUOTED.match(code):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(code, "docs/models.md", "exec"), names)
            assert output.getvalue() == (printed if following == "text" else ""), code
    toy_pair.draw([("red", "circle")], np.random.default_rng(0)).save("drawing.png")
    for line in "".join(code for language, code in BLOCKS if language == "sh").splitlines():
        command, *arguments = shlex.split(line, comments=True)
        assert command == "nunbit"
        assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0, line


def test_the_numbers_are_those_of_the_figures() -> None:
    reports = {Image.open(path).text["Description"] for path in FIGURES}  # type: ignore[attr-defined]
    assert len(reports) == 1, "the figures come from different runs"
    assert ("text", f"{reports.pop()}\n") in BLOCKS


def test_figures_are_few_small_and_shown() -> None:
    shown = re.findall(r"\]\(figures/([^)]+)\)", PAGE)
    assert sorted(shown) == [path.name for path in FIGURES]
    for path in FIGURES:
        with Image.open(path) as image:
            assert image.format == "PNG"
        assert path.stat().st_size <= PNG_BYTES


def test_links_point_to_files() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert target.startswith("http") or (DOCS / target).exists(), target


def test_a_little_training_draws_all_figures(toy_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    draw_models = importlib.import_module("draw_models")
    for module in (toy_pair, draw_models):
        monkeypatch.setattr(module, "DRAWN", 25)
    options = ["--steps", "2", "--into", str(tmp_path / "figures"), "--model", str(tmp_path / "shapes")]
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(draw_models.main, options, catch_exceptions=False)
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 0
    assert "2 steps of 40 drawings" in result.output
    assert [path.name for path in sorted((tmp_path / "figures").iterdir())] == [path.name for path in FIGURES]


def test_captions_are_grammatical(toy_pair: Any) -> None:
    two = [("yellow", "cross"), ("orange", "star")]
    assert toy_pair.english(two) == "a yellow cross and an orange star"
    assert toy_pair.korean(two) == "노란 십자가와 주황 별"
    assert toy_pair.korean(two[::-1]) == "주황 별과 노란 십자가"


def test_what_is_never_shown_is_in_no_batch(toy_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    draw = toy_pair.draw
    monkeypatch.setattr(toy_pair, "draw", lambda things, rng: drawn.append(list(things)) or draw(things, rng))
    pixel_values, input_ids = toy_pair.make_batch(toy_pair.make_settings(), np.random.default_rng(0))
    assert tuple(pixel_values.shape) == (40, 3, 64, 64)
    assert len(input_ids) == len({frozenset(things) for things in drawn}) == 40
    assert not {tuple(thing) for things in drawn for thing in things} & set(toy_pair.NEVER)
