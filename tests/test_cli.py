"""The command line: documented forms, exit codes, one line and one hint, examples that run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nunbit.cli import COMMANDS

NUNBIT = [str(Path(sys.executable).with_name("nunbit"))]
CHEAP = ("index", "search", "adapt fit", "recognize", "models", "doctor", "demo", "vlm", "vlm plan")


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NUNBIT, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as the examples imagine it, indexed once."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "photos").mkdir()
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        shutil.copy(photos / name, folder / "photos")
    shutil.copy(photos / "chelsea.png", folder / "photo.jpg")
    shutil.copy(photos / "coffee.png", folder / "query.jpg")
    (folder / "more").mkdir()
    shutil.copy(photos / "astronaut.png", folder / "more" / "one.jpg")
    (folder / "labels.txt").write_text("cat\n\n커피\n", encoding="utf-8")
    for name, label in {"chelsea.png": "cat", "coffee.png": "커피"}.items():
        (folder / "products" / label).mkdir(parents=True)
        shutil.copy(photos / name, folder / "products" / label)
    (folder / "labels.csv").write_text("image,label\nphoto.jpg,cat\nquery.jpg,커피\n", encoding="utf-8")
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "a cat"}]
    (folder / "conversations.jsonl").write_text(json.dumps({"image": "photo.jpg", "conversations": turns}))
    for made in (
        ("labels", "build", "labels.txt", "--into", "nouns.labels"),
        ("adapt", "fit", "products", "--into", "products.head"),
    ):
        result = run(*made, cwd=folder)
        assert result.returncode == 0, result.stderr
    (folder / "photos" / "깨진\n사진.jpg").write_bytes(b"")
    for made in (
        ("index", "photos/", "--into", "photos.nunbit"),
        ("adapt", "concept", "my mug", "query.jpg", "--in", "photos.nunbit", "--into", "mug.head"),
    ):
        result = run(*made, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


def test_help_is_there_for_every_command() -> None:
    for name in COMMANDS:
        result = run(name, "--help")
        assert result.returncode == 0
        assert "Examples:" in result.stdout


@pytest.mark.parametrize("name", CHEAP)
def test_examples_of_the_help_run(name: str, folder: Path) -> None:
    for line in re.findall(r"^\s+nunbit (.*)$", run(*name.split(), "--help").stdout, re.M):
        result = run(*shlex.split(line), cwd=folder)
        assert result.returncode == ("--strict" in line), (line, result.stderr)


def test_recognize_prints_the_documented_json(folder: Path) -> None:
    result = run("recognize", "photo.jpg", "--labels", "cat,dog", "--json", cwd=folder)
    (row,) = map(json.loads, result.stdout.splitlines())
    assert set(row) == {"path", "predictions"}
    assert [set(p) for p in row["predictions"]] == [{"label", "probability", "similarity"}] * 2
    assert row["predictions"][0]["label"] == "cat"


def test_search_prints_the_documented_json(folder: Path) -> None:
    result = run("search", "커피", "--in", "photos.nunbit", "--top-k", "2", "--json", cwd=folder)
    rows = list(map(json.loads, result.stdout.splitlines()))
    assert [set(row) for row in rows] == [{"rank", "id", "path", "similarity"}] * 2
    assert rows[0]["path"].endswith("coffee.png")


def test_a_broken_picture_is_one_line_and_the_run_goes_on(folder: Path) -> None:
    result = run("recognize", "photos", "--labels", "cat,coffee,rocket", "--top-k", "1", cwd=folder)
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 3
    assert "깨진\\n사진.jpg: empty file" in result.stderr
    assert run("recognize", "photos", "--labels", "a,b", "--strict", cwd=folder).returncode == 1


def test_the_sheet_is_one_page_with_every_picture(folder: Path) -> None:
    run("recognize", "photos", "--labels", "cat,<b>coffee", "--sheet", "sheet.html", cwd=folder)
    page = (folder / "sheet.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 3
    assert "&lt;b&gt;coffee" in page
    assert "http" not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recognize", "photo.jpg", "--labels", "cat,,dog"], "label 2 of 3 is empty"),
        (["recognize", "photo.jpg", "--labels", "cat,cat"], "given twice"),
        (["recognize", "photo.jpg"], "--labels or --labels-file"),
        (["recognize", "nowhere", "--labels", "cat,dog"], "there is no file or folder nowhere"),
        (["recognize", "photo.jpg", "--labels", "cat,dog", "--model", "startr"], "did you mean 'starter'"),
        (["search", "x", "--in", "missing.nunbit"], "there is no index"),
        (["search", "x", "--in", "photos.nunbit", "--where", "foo > 1"], "foo"),
        (["serch", "x", "--in", "photos.nunbit"], "did you mean 'search'"),
        (["search", "x"], "Missing option '--in'"),
        (["index", "nowhere", "--into", "new.nunbit"], "there is no file or folder nowhere"),
        (["index", "photos", "--into", "photos"], "photos"),
    ],
)
def test_errors_are_a_line_and_a_hint(arguments: list[str], words: str, folder: Path) -> None:
    result = run(*arguments, cwd=folder)
    assert result.returncode in (1, 2)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert re.search("^error: .*\nhint: .+$", result.stderr, re.M)


def test_debug_shows_the_trace(folder: Path) -> None:
    result = run("--debug", "search", "x", "--in", "missing.nunbit", cwd=folder)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_paths_come_from_standard_input_and_a_sheet_survives_a_vanished_picture(folder: Path, tmp_path: Path) -> None:
    from nunbit.cli.sheet import Card, write_sheet

    command = [*NUNBIT, "recognize", "-", "--labels", "cat,coffee", "--json"]
    result = subprocess.run(
        command, input="photo.jpg\nquery.jpg\n", capture_output=True, text=True, cwd=folder, check=True
    )
    assert len(result.stdout.splitlines()) == 2
    write_sheet(tmp_path / "s.html", "t", [Card("gone.jpg", (("cat", 0.5, "50%"),))])
    assert "missing" in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_the_bare_command_is_its_help(folder: Path) -> None:
    result = run(cwd=folder)
    assert result.returncode == 0 and result.stdout.startswith("Usage: nunbit") and not result.stderr


def test_help_imports_neither_torch_nor_lancedb() -> None:
    ask = "c.nunbit.main(['--help'], standalone_mode=False); print({'torch', 'lancedb'} & sys.modules.keys())"
    code = f"import sys, nunbit.cli as c; {ask}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


def test_a_mistyped_index_is_not_served(tmp_path: Path) -> None:
    result = run("serve", "--in", tmp_path / "typo.nunbit")
    assert result.returncode == 1
    assert "there is no index" in result.stderr
    assert "--model starter" in result.stderr
    assert not (tmp_path / "typo.nunbit").exists()
