"""``nunbit labels`` and ``nunbit recognize --labels FOLDER``, with the starter."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nunbit.cli import nunbit


def run(*arguments: str, cwd: Path) -> Result:
    with contextlib.chdir(cwd):
        return CliRunner().invoke(nunbit, arguments)


@pytest.fixture
def folder(tmp_path: Path, photos: Path) -> Path:
    shutil.copy(photos / "chelsea.png", tmp_path / "cat.png")
    rows = "name,synonyms,parent\ncat,고양이;kitten,animal\ncoffee,,drink\nrocket,,\n\ncat,,\n"
    (tmp_path / "labels.csv").write_text(rows, encoding="utf-8")
    return tmp_path


def test_the_life_of_a_label_set(folder: Path) -> None:
    built = run("labels", "build", "labels.csv", "--into", "set", cwd=folder)
    assert (built.exit_code, "3 labels, 5 rows, 5 embedded, 0 reused, 1 merged" in built.stdout) == (0, True)
    assert "1 set aside: empty" in built.stderr
    first = json.loads(run("recognize", "cat.png", "--labels", "set", "--json", cwd=folder).stdout)
    listed = json.loads(run("recognize", "cat.png", "--labels", "kitten,coffee,rocket", "--json", cwd=folder).stdout)
    assert first["predictions"][0]["label"] == "cat"
    assert sum(row["probability"] for row in first["predictions"]) == pytest.approx(1, abs=1e-5)
    assert {row["label"] for row in listed["predictions"]} == {"kitten", "coffee", "rocket"}
    added = run("labels", "add", "set", "tabby", "--synonyms", "striped cat", "--parents", "cat", cwd=folder)
    assert added.stdout == "1 added, 0 replaced\n"
    assert run("labels", "remove", "set", "rocket", "unicorn", cwd=folder).stdout == "1 removed, 1 not there\n"
    hit = json.loads(run("labels", "search", "set", "striped cat", "--top-k", "1", "--json", cwd=folder).stdout)
    assert (hit["label"], hit["text"]) == ("tabby", "striped cat")
    told = json.loads(run("labels", "info", "set", "tabby", "--json", cwd=folder).stdout)
    assert told == {"name": "tabby", "synonyms": ["striped cat"], "ancestors": ["cat", "animal"]}
    assert run("labels", "compact", "set", cwd=folder).stdout.startswith("set: 3 labels")
    info = json.loads(run("labels", "info", "set", "--json", cwd=folder).stdout)
    assert (info["labels"], info["changes"], info["templates"]) == (3, 0, ["{}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["labels", "build", "nowhere.txt", "--into", "set"], "there is no file"),
        (["labels", "search", "nowhere", "x"], "there is no label set"),
        (["labels", "info", "nowhere"], "there is no label set"),
    ],
)
def test_mistakes(folder: Path, arguments: list[str], message: str) -> None:
    result = run(*arguments, cwd=folder)
    assert result.exit_code != 0 and "error: " in result.stderr and message in result.stderr


def test_templates_of_another_set_are_refused(folder: Path) -> None:
    run("labels", "build", "labels.csv", "--into", "set", cwd=folder)
    result = run("recognize", "cat.png", "--labels", "set", "--templates", "photo", cwd=folder)
    assert result.exit_code == 1 and "['{}']" in result.stderr and "a photo of a" in result.stderr
