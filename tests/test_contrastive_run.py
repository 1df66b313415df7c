"""Whole runs on toy pairs: they end with a model that answers, and go on after a kill as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import nunbit
from contrastive_toys import make_pairs, write_recipe
from nunbit.cli import nunbit as command_line
from nunbit.contrastive.run import RunResult, load_config, run_contrastive
from nunbit.errors import ConfigError, StoreBusy, TrainingError, UsageError
from nunbit.training.run_folder import RunFolder
from nunbit.vision_encoder.timm_backbone import import_timm
from watching import Watching


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("짝"))


def run(pairs: Path, into: Path, *, fall_at: int | None = None, **changes: Any) -> tuple[RunResult | None, Watching]:
    watching = Watching(fall_at)
    config = load_config(write_recipe(pairs, {name.replace("__", "."): value for name, value in changes.items()}))
    return run_contrastive(config, into, watching), watching


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(pairs, folder)
    return folder


def test_a_run_ends_with_a_model_that_others_open(whole: Path, pairs: Path) -> None:
    encoder = nunbit.load(whole / "model", engine="torch")
    images = encoder.encode_image([pairs / "그림" / "0.png"])
    texts = encoder.encode_text(["a red circle", "파란 사각형"])
    assert images.shape == (1, 16) and texts.shape == (2, 16)
    import_timm()  # before transformers asks for torchvision, whose compiled part may not fit here
    from transformers import CLIPModel

    theirs = CLIPModel.from_pretrained(whole / "model")
    assert theirs.config.text_config.vocab_size == encoder.model.config.text.vocab_size


def test_the_folder_tells_what_happened(whole: Path) -> None:
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 9))
    assert [row["step"] for row in rows if "validation/image_to_text_r1" in row] == [4, 8]
    ledger = [json.loads(line) for line in (whole / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Path(row["path"]).name for row in ledger] == ["broken.png"]
    config = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    assert config["training"]["seed"] == 0 and config["versions"]["torch"] == torch.__version__
    assert len(config["data_fingerprint"]) == 64
    assert "a red circle" in (whole / "report.html").read_text(encoding="utf-8")
    assert "validation/image_to_text_r1" in (whole / "model" / "README.md").read_text()


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 7, 8])
def test_a_run_that_fell_over_ends_as_one_that_did_not(step: int, whole: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(pairs, tmp_path / "run", fall_at=step)
    _, watching = run(pairs, tmp_path / "run")
    assert len(watching.losses) == 8 - 3 * ((step - 1) // 3)  # from the last checkpoint on
    assert weights(tmp_path / "run") == weights(whole)


def test_a_run_with_two_optimizers_goes_on_as_one_that_did_not_stop(pairs: Path, tmp_path: Path, whole: Path) -> None:
    run(pairs, tmp_path / "straight", training__optimizer="muon")
    with pytest.raises(KeyboardInterrupt):
        run(pairs, tmp_path / "stopped", fall_at=5, training__optimizer="muon")
    run(pairs, tmp_path / "stopped", training__optimizer="muon")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "straight") != weights(whole)


def test_a_run_that_was_killed_twice_ends_as_one_that_was_not(whole: Path, pairs: Path, tmp_path: Path) -> None:
    recipe, into = write_recipe(pairs), tmp_path / "run"
    command = [sys.executable, "-m", "nunbit", "train", "contrastive", str(recipe), "--into", str(into)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    for steps in (2, 5):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        log, deadline = into / "metrics.jsonl", time.monotonic() + 100
        while time.monotonic() < deadline and process.poll() is None:
            if log.exists() and log.read_bytes().count(b'"loss"') >= steps:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert weights(into) == weights(whole)


def test_a_chunked_step_is_the_whole_step(pairs: Path, tmp_path: Path, whole: Path) -> None:
    _, chunked = run(pairs, tmp_path / "run", data__chunk_size=5)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    expected = [row["loss"] for row in rows if "loss" in row]
    assert chunked.losses == pytest.approx(expected, abs=1e-5)


def test_recomputing_changes_nothing(pairs: Path, tmp_path: Path, whole: Path) -> None:
    run(pairs, tmp_path / "run", model__recompute=True)
    assert weights(tmp_path / "run") == weights(whole)


def test_a_cache_for_pictures_changes_nothing(pairs: Path, tmp_path: Path, whole: Path) -> None:
    run(pairs, tmp_path / "run", data__cache_mb=0)
    assert weights(tmp_path / "run") == weights(whole)


def test_another_seed_is_another_model(pairs: Path, tmp_path: Path, whole: Path) -> None:
    run(pairs, tmp_path / "run", training__seed=1)
    assert weights(tmp_path / "run") != weights(whole)


def test_shapes_are_learned(pairs: Path, tmp_path: Path) -> None:
    changes = {"training__steps": 400, "training__learning_rate": 2e-3, "training__evaluate_every": 0}
    changes |= {"data__positives": "kind", "training__checkpoint_every": 1000, "training__ema_decay": 0}
    result, watching = run(pairs, tmp_path / "run", **changes)
    assert result is not None
    assert watching.losses[-1] < watching.losses[0] - 0.5
    assert result.validation["validation/image_to_text_r1"] >= 35  # a ninth by chance; 18 pictures


def test_the_sigmoid_objective_learns_with_a_bias(pairs: Path, tmp_path: Path) -> None:
    result, _ = run(pairs, tmp_path / "run", model__objective="sigmoid")
    assert result is not None
    assert nunbit.load(result.model, engine="torch").logit_bias == pytest.approx(-10, abs=0.2)


def test_another_configuration_is_refused(whole: Path, pairs: Path) -> None:
    with pytest.raises(UsageError, match=r"training\.learning_rate was 0\.001, is 0\.01"):
        run(pairs, whole, training__learning_rate=0.01)


def test_what_is_only_looked_at_may_change(whole: Path, pairs: Path) -> None:
    before = weights(whole)
    run(pairs, whole, training__log_every=5)
    assert weights(whole) == before


def test_changed_data_are_refused(pairs: Path, tmp_path: Path) -> None:
    copy = make_pairs(tmp_path / "own")
    with pytest.raises(KeyboardInterrupt):
        run(copy, tmp_path / "run", fall_at=4)
    with (copy / "train.jsonl").open("a") as file:
        file.write('{"image": "그림/1.png", "texts": ["another"]}\n')
    with pytest.raises(UsageError, match="other data"):
        run(copy, tmp_path / "run")


def test_only_one_process_trains_in_a_folder(pairs: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").opened({}), pytest.raises(StoreBusy):
        run(pairs, tmp_path / "run")


def test_a_foreign_folder_is_left_alone(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds other files"):
        run(pairs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_nothing_but_broken_pictures_is_an_error(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path / "pairs")
    for path in (folder / "그림").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"no picture of .*validation.* can be read"):
        run(folder, tmp_path / "run")
    with pytest.raises(TrainingError, match="none of 16 pictures of a batch can be read"):
        run(folder, tmp_path / "other", data__validation=[])


def test_a_loss_without_numbers_ends_the_run_with_a_remedy(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nunbit.contrastive import task

    monkeypatch.setattr(task, "tiled_softmax", lambda images, texts, *_, **__: (images.sum() + texts.sum()) * torch.nan)
    with pytest.raises(TrainingError, match="the last 20 steps before step 20 gave no numbers"):
        run(pairs, tmp_path / "run", training__steps=40)
    findings = [json.loads(line) for line in (tmp_path / "run" / "diagnosis.jsonl").read_text().splitlines()]
    assert "not finite" in {finding["problem"] for finding in findings}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__lerning_rate": 1.0}, "did you mean 'learning_rate'"),
        ({"model__start": "starter"}, "either start"),
        ({"model__scratch": None}, "either start"),
        ({"data__train": []}, "no training source"),
        ({"data__train": [{"path": "nowhere.jsonl"}]}, "nowhere.jsonl"),
        ({"data__batch_size": 1}, "batch_size must be at least 2"),
        ({"training__ema_decay": 1.5}, r"ema_decay is 1\.5"),
        ({"data__augmentation": {"crop": [0, 1]}}, "crop is"),
        ({"model__scratch": {"vocabulary_size": 100}}, "a vocabulary of 100 tokens"),
    ],
)
def test_what_cannot_be_meant_is_told(changes: dict[str, Any], message: str, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, UsageError), match=message):
        run(pairs, tmp_path / "run", **changes)


def test_the_command_line(pairs: Path, tmp_path: Path) -> None:
    recipe = write_recipe(pairs)
    arguments = ["train", "contrastive", str(recipe), "--into", str(tmp_path / "run"), "--json", "--set"]
    result = CliRunner().invoke(command_line, [*arguments, "training.steps=2"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert Path(answer["model"]).is_dir() and "validation/text_to_image_r5" in answer
    result = CliRunner().invoke(command_line, [*arguments, "training.stepz=2"])
    assert result.exit_code == 2
    assert "did you mean 'steps'?" in result.stderr
