"""Size budgets of the source, and what importing costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").glob("*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            count -= bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 50, f"{node.name} has {lines} lines"
            assert count <= 7, f"{node.name} has {count} parameters"


@pytest.mark.parametrize("module", ["nunbit", "nunbit.cli", "nunbit.encode", "nunbit.index", "nunbit.recognition"])
def test_importing_does_not_import_the_heavy_ones(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'lancedb') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_everything_announced_is_there() -> None:
    import nunbit

    for name in nunbit.__all__:
        assert getattr(nunbit, name) is not None
    assert callable(nunbit.recognize)


def test_every_deliberate_mistake_still_has_its_place_in_the_source() -> None:
    """`make mutations` takes minutes and runs seldom; a change of the source must not wait for it to be noticed."""
    for mistake in json.loads((ROOT / "tests" / "mutations.json").read_text(encoding="utf-8")):
        source = (ROOT / "src" / "nunbit" / mistake["file"]).read_text(encoding="utf-8")
        assert mistake["right"] in source, mistake["what"]
        for test in mistake["tests"]:
            file, _, name = test.partition("::")
            wanted = f"def {name.partition('[')[0]}(" if name else ""
            assert wanted in (ROOT / file).read_text(encoding="utf-8"), f"{mistake['what']}: {test}"
