"""`benchmarks/starter_vlm_training.py` with a command that only pretends to train."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FAKE = """
import json, sys, time
from pathlib import Path
run = Path(sys.argv[1]) / "finetune"
run.mkdir(parents=True, exist_ok=True)
again = (run / "begun").exists()
(run / "begun").touch()
(run / "config.json").write_text(json.dumps({"training": {"checkpoint_every": 2}}))
with (run / "metrics.jsonl").open("w") as log:
    for step in range(1, 6 if again else 4):
        print(json.dumps({"step": step, "loss": step / 3}), file=log, flush=True)
if not again:
    time.sleep(600)
(run / "model").mkdir()
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    return importlib.import_module("starter_vlm_training")


def test_it_is_killed_once_and_goes_on(script: ModuleType, tmp_path: Path) -> None:
    fake, into = tmp_path / "fake.py", tmp_path / "run"
    fake.write_text(FAKE)
    script.train([sys.executable, str(fake), str(into)], into, 3)
    page = script.Page("x", "?")
    assert (into / "finetune" / "model").is_dir()
    assert script._compare(into, page) == []
    assert (
        "behind step 3" in page.parts[0] and "checkpoint of step 2" in page.parts[0] and f"{3 / 3!r}" in page.parts[0]
    )
    before = into / script.KILLED
    before.write_text(before.read_text() + json.dumps({"step": 4, "loss": 1.5}) + "\n")
    assert script._compare(into, page) == ["the loss of step 4 is another than before the kill"]
