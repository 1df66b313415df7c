"""Two processes give the curve of one; so do two that divide the parameters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from contrastive_toys import make_pairs, write_recipe

STEPS = 6


def train(folder: Path, name: str, processes: int, **changes: Any) -> Path:
    """Train in ``processes`` processes; the run's folder."""
    pairs = folder / "pairs"
    if not pairs.exists():
        make_pairs(pairs)
        (pairs / "train.jsonl").write_text(  # a broken picture is replaced by another one of the same process's share
            "".join(line for line in (pairs / "train.jsonl").open(encoding="utf-8") if "broken" not in line)
        )
    settings = {"training.steps": STEPS, "training.evaluate_every": 2, "training.checkpoint_every": 4}
    recipe = write_recipe(pairs, settings | {name.replace("__", "."): value for name, value in changes.items()})
    into = folder / name
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [*(launch if processes > 1 else [sys.executable, "-m"]), "nunbit", "train", "contrastive", str(recipe)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--into", str(into)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return into


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    return train(folder, "alone", 1)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gather", {"exchange": "gather"}),
        ("ring", {"exchange": "ring", "data__chunk_size": 3}),
        ("fsdp", {"training__fsdp": True}),
    ],
)
def test_two_processes_give_the_curve_of_one(name: str, changes: dict[str, Any], folder: Path, alone: Path) -> None:
    together = train(folder, name, 2, **changes)
    assert losses(together) == pytest.approx(losses(alone), abs=1e-5)
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (together, alone))
    assert all((ours[key] - theirs[key]).abs().max() < 1e-4 for key in theirs)


def test_divided_parameters_and_averages_go_on_from_a_checkpoint(folder: Path) -> None:
    whole = train(folder, "whole-fsdp", 2, training__fsdp=True)
    expected = load_file(whole / "model" / "model.safetensors")
    newest = sorted((whole / "checkpoints").glob("step-*"))[-1]
    assert newest.name == "step-00000006"
    shutil.rmtree(newest)  # as a kill after step 4 would have left it
    again = load_file(train(folder, "whole-fsdp", 2, training__fsdp=True) / "model" / "model.safetensors")
    assert all(torch.equal(again[key], expected[key]) for key in expected)
