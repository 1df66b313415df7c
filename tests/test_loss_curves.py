"""The first twenty steps of both objectives cost what they cost when the curves were recorded.

`python tests/test_loss_curves.py` records them again; a change of the curves is a change of what training does.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from contrastive_toys import make_pairs, write_recipe
from nunbit.contrastive.run import load_config, run_contrastive
from nunbit.training.diagnosis import Finding

CURVES = Path(__file__).parent / "loss_curves.json"
OBJECTIVES = ("softmax", "sigmoid")


class Losses:
    """Remembers the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def progress(self, step: int, values: Mapping[str, float]) -> None:
        self.values.append(round(values["loss"], 6))

    def found(self, finding: Finding) -> None:
        """Say nothing."""


def curve(objective: str, folder: Path) -> list[float]:
    recipe = write_recipe(make_pairs(folder / "pairs"), {"model.objective": objective, "training.steps": 20})
    losses = Losses()
    run_contrastive(load_config(recipe), folder / "run", losses)
    return losses.values


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_twenty_steps_are_as_recorded(objective: str, tmp_path: Path) -> None:
    recorded = json.loads(CURVES.read_text())[objective]
    assert len(recorded) == 20
    assert curve(objective, tmp_path) == pytest.approx(recorded, abs=2e-3)


def test_both_curves_fall() -> None:
    recorded = json.loads(CURVES.read_text())
    assert all(recorded[name][-1] < 0.9 * recorded[name][0] for name in OBJECTIVES)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: curve(name, Path(scratch) / name) for name in OBJECTIVES}
    CURVES.write_text(json.dumps(found, indent=1) + "\n")
