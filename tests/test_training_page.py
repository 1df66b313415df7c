"""docs/training.md: its configurations can be meant, and it names every setting that there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from nunbit.augmentation import AugmentationConfig
from nunbit.config import from_plain
from nunbit.contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, ScratchConfig, TowerSize
from nunbit.data import SourceConfig
from nunbit.lora import LoraConfig
from nunbit.training.config import TrainingConfig

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
BENCHMARKS = sorted((Path(__file__).resolve().parents[1] / "benchmarks").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=range(len(RECIPES)))
def test_every_recipe_can_be_meant(recipe: str) -> None:
    from_plain(ContrastiveConfig, yaml.safe_load(recipe))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_every_recipe_of_a_benchmark_can_be_meant(path: Path) -> None:
    from_plain(ContrastiveConfig, yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("part", "config"),
    [
        ("the run", ContrastiveConfig),
        ("`model`", ModelConfig),
        ("`model.scratch`", ScratchConfig),
        ("`model.scratch.vision`", TowerSize),
        ("`model.lora`", LoraConfig),
        ("`data`", DataConfig),
        ("a source", SourceConfig),
        ("`data.augmentation`", AugmentationConfig),
        ("`training`", TrainingConfig),
    ],
)
def test_every_setting_is_listed(part: str, config: type) -> None:
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {part}") and line.count("|") == 3)
    assert re.findall(r"`(\w+)`", line.split("|")[2]) == [field.name for field in fields(config)]
