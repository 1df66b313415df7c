"""Break the encoders on purpose, one mistake at a time, and see that the tests notice: ``make mutations``.

Each mistake in ``mutations.json`` is one that costs accuracy without any error message. A copy of the package is
changed, the named tests run against the copy, and a mistake that no test notices is reported, with exit code 1.

Usage: python tests/mutations.py [WORDS]      (only those whose description has these words)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One change of the source that must not pass."""

    what: str
    file: str
    right: str
    wrong: str
    tests: list[str]


def main() -> int:
    """Try all mistakes; print a table; 1 when one was not noticed."""
    words = " ".join(sys.argv[1:])
    listing = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    chosen = [Mistake(**row) for row in listing if words in row["what"]]
    missed = 0
    for tests in {tuple(mistake.tests) for mistake in chosen}:
        if broken := run_tests(ROOT / "src", tests):
            raise SystemExit(f"{broken[0]} fails without any mistake")
    print("| mistake | noticed by | s |\n|---|---|---|", flush=True)
    for mistake in chosen:
        start = time.monotonic()
        caught = noticed_by(mistake)
        missed += caught is None
        print(f"| {mistake.what} | {caught or '**nobody**'} | {time.monotonic() - start:.0f} |", flush=True)
    print(f"\n{len(chosen) - missed} of {len(chosen)} mistakes noticed", flush=True)
    return 1 if missed else 0


def noticed_by(mistake: Mistake) -> str | None:
    """The first test that fails with the mistake in place."""
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(shutil.copytree(ROOT / "src", Path(scratch, "src"))) / "nunbit"
        path = package / mistake.file
        source = path.read_text(encoding="utf-8")
        if mistake.right not in source:
            raise SystemExit(f"{mistake.what}: {mistake.file} no longer has {mistake.right!r}")
        path.write_text(source.replace(mistake.right, mistake.wrong), encoding="utf-8")
        failed = run_tests(package.parent, mistake.tests)
        return failed[0].removeprefix("tests/") if failed else None


def run_tests(source: Path, tests: Sequence[str]) -> list[str]:
    """Names of the tests that fail, up to the first, with the package in ``source``."""
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--tb=no", "-rfE", *tests]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return [line.split()[1] for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]


if __name__ == "__main__":
    sys.exit(main())
