"""The README's Python prints what the README says, and its card's figures are the README's."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_code_prints_what_is_written(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        shutil.copy(photos / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    (printed,) = re.findall(r"```text\n(.*?)```", README, re.S)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, {})
    assert output.getvalue() == printed


def test_the_card_repeats_the_readme() -> None:
    card = (ROOT / "src/nunbit/starter/weights/README.md").read_text(encoding="utf-8")
    for row in ("starter", "baseline, nearest concept", "baseline, soft concepts"):
        (ours,) = re.findall(rf"^\| {row}[^|]*((?:\| [\d.]+ )+)\|$", README, re.M)
        assert f"| {row} {ours}|" in card


def test_links_point_to_files() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md"]
    for page in pages:
        words = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", words):
            assert target.startswith("http") or (page.parent / target).exists(), (page.name, target)
