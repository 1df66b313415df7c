"""Training a vision-language model: what is learned, that it goes on where it was, that shortcuts change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from instruct_toys import make_conversations, make_language_folder, write_recipe
from nunbit.errors import ConfigError, UsageError
from nunbit.images import open_image
from nunbit.instruct.config import InstructDataConfig, InstructModelConfig
from nunbit.instruct.formats import read_conversations
from nunbit.instruct.lessons import cut
from nunbit.instruct.run import load_config, run_instruct
from nunbit.language_model.model import IGNORED
from nunbit.training.run_folder import RunFolder
from nunbit.vlm.assembly import read_preset
from nunbit.vlm.batching import SampleReader, collate
from nunbit.vlm.conversation import Encoded
from nunbit.vlm.folder import read_vlm
from nunbit.vlm.model import IMAGE_TOKEN_ID
from watching import Watching

END_TOKENS = 1  # ``</s>`` is one mark


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instruct")
    make_conversations(folder)
    make_language_folder(folder / "lm")
    return folder


def train(folder: Path, into: Path, watching: Watching | None = None, **changes: Any) -> list[float]:
    watching = watching or Watching()
    run_instruct(load_config(write_recipe(folder, **changes)), into, watching)
    return watching.losses


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    train(folder, folder / "whole")
    return folder / "whole"


def test_it_learns_and_its_folder_answers_as_it_did(folder: Path, whole: Path, tmp_path: Path) -> None:
    losses = train(folder, tmp_path / "run", training__steps=60, training__learning_rate=1e-2)
    assert losses[-1] < 0.6 * losses[0]
    assert "<svg" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    measured = {"data__validation": [{"path": "train.jsonl"}], "training__steps": 1}
    train(folder, tmp_path / "measured", **measured)
    told = json.loads((tmp_path / "measured" / "metrics.jsonl").read_text().splitlines()[-1])["validation/loss"]
    model = read_vlm(tmp_path / "measured" / "model")
    found = list(read_conversations(folder / "train.jsonl", lambda _: None))
    usable = [one for one in found if one.id not in ("broken", "gone")]
    reader = SampleReader(model)
    samples = [reader.read(one.turns, [open_image(str(image))[0] for image in one.images]) for one in usable]
    assert told == pytest.approx(float(model(collate(samples)).loss), abs=1e-3)  # features were kept in float16


@pytest.mark.parametrize(("preset", "changes"), [("blip2-flan-t5", {"dropout_rate": 0.0}), ("instructblip", {})])
def test_other_shapes_lose_in_a_step_what_their_samples_lose(
    preset: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    make_conversations(tmp_path)
    make_language_folder(tmp_path / "lm", preset, **changes)
    settings = {"model__preset": preset, "data__batch_size": 25, "data__cache": "float32", "training__steps": 1}
    together = train(tmp_path, tmp_path / "together", **settings, data__micro_tokens=9999)
    apart = train(tmp_path, tmp_path / "apart", **settings, data__micro_tokens=1, data__pack=False)
    assert together == pytest.approx(apart, abs=1e-5)
    rows = (tmp_path / "together" / "metrics.jsonl").read_text().splitlines()
    asked = sum(len(f"{number * place} of a".encode()) + 1 for number in range(8) for place in range(3)) + 9
    lead = len(read_preset(preset, tiny=True).chat.answer_lead)
    assert json.loads(rows[0])["answer_tokens"] == asked + 25 * (lead + END_TOKENS - 1)


def test_a_start_that_was_changed_is_another_run(tmp_path: Path) -> None:
    make_conversations(tmp_path)
    make_language_folder(tmp_path / "lm")
    train(tmp_path, tmp_path / "run", training__steps=1)
    torch.manual_seed(7)
    make_language_folder(tmp_path / "lm")
    with pytest.raises(UsageError, match="began with another model"):
        train(tmp_path, tmp_path / "run", training__steps=1)


def test_a_question_without_an_answer_is_set_aside_also_where_questions_are_dropped(tmp_path: Path) -> None:
    make_conversations(tmp_path)
    make_language_folder(tmp_path / "lm")
    with (tmp_path / "train.jsonl").open("a", encoding="utf-8") as file:
        turns = [{"from": "human", "value": "<image>\nWhat?"}]
        file.write(json.dumps({"id": "silent", "image": "0.png", "conversations": turns}) + "\n")
    train(tmp_path, tmp_path / "run", model__stage="align", training__steps=1)
    assert '"silent"' in (tmp_path / "run" / "ledger.jsonl").read_text(encoding="utf-8")


def test_an_interrupted_run_ends_as_one_that_was_not(folder: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "run", Watching(fall_at=3))
    losses = train(folder, tmp_path / "run")
    assert len(losses) == 4  # from the checkpoint after step 2
    ours, theirs = weights(tmp_path / "run"), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_bad_picture_is_set_aside_and_the_run_goes_on(whole: Path) -> None:
    rows = [json.loads(line) for line in (whole / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["path"] for row in rows if row["path"] in ("broken", "gone")} == {"broken", "gone"}
    assert {Path(row["path"]).name for row in rows} == {"broken.png", "gone.png", "broken", "gone"}


@pytest.mark.parametrize("changes", [{"data__cache": None}, {"data__cache": "float32"}], ids=["looking", "float32"])
def test_kept_features_teach_what_looking_each_time_does(
    changes: dict[str, Any], folder: Path, whole: Path, tmp_path: Path
) -> None:
    kept = [json.loads(line)["loss"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert train(folder, tmp_path / "run", **changes) == pytest.approx(kept, abs=1e-3)


@pytest.mark.parametrize(
    "changes", [{"data__micro_tokens": 1}, {"data__micro_tokens": 9999}], ids=["one by one", "all at once"]
)
def test_however_a_step_is_cut_it_is_the_same(changes: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    expected = train(folder, tmp_path / "a", training__steps=3)
    assert train(folder, tmp_path / "b", training__steps=3, **changes) == pytest.approx(expected, abs=1e-5)


def test_samples_in_rows_lose_what_they_lose_padded(folder: Path, tmp_path: Path) -> None:
    size = {"data__batch_size": 25, "training__steps": 1}  # all of them, whatever their order
    packed = train(folder, tmp_path / "packed", **size)
    padded = train(folder, tmp_path / "padded", data__pack=False, **size)
    assert packed == pytest.approx(padded, abs=1e-5)


def test_align_teaches_the_projector_alone_and_finetune_begins_there(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "align", model__stage="align")
    begun = tmp_path / "align" / "model"
    before = weights(tmp_path / "align")
    recipe = {"preset": "", "tiny": False, "language_model": "", "start": str(begun)}
    train(folder, tmp_path / "finetune", **{f"model__{name}": value for name, value in recipe.items()})
    after = weights(tmp_path / "finetune")
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"projector", "language_model"}
    fresh = train(folder, tmp_path / "zero", model__stage="align", training__learning_rate=1e-12)
    assert len(fresh) == 6
    untouched = weights(tmp_path / "zero")
    changed = {name.split(".")[0] for name in before if not torch.allclose(before[name], untouched[name])}
    assert changed == {"projector"}


def test_corrections_are_saved_and_added(folder: Path, tmp_path: Path) -> None:
    learns = {"train": ["projector"], "lora": {"rank": 2, "targets": ["language_model.*.q_proj.weight"]}}
    train(folder, tmp_path / "run", model__learns=learns)
    assert any(".parametrizations." in name for name in weights(tmp_path / "run"))
    model = read_vlm(tmp_path / "run" / "model")
    assert not any("parametrizations" in name for name, _ in model.named_parameters())


def test_two_processes_give_the_curve_of_one(folder: Path, whole: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nunbit"]
    command = [*launch, "train", "vlm", str(write_recipe(folder)), "--into", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    curves = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "run", whole)
    ]
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_other_conversations_are_another_run(tmp_path: Path) -> None:
    make_conversations(tmp_path)
    make_language_folder(tmp_path / "lm")
    train(tmp_path, tmp_path / "run", training__steps=1)
    make_conversations(tmp_path, broken=False)
    with pytest.raises(UsageError, match="holds a run with other data"):
        train(tmp_path, tmp_path / "run", training__steps=1)


def test_what_begins_is_named_once(folder: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is given to begin with"):
        load_config(write_recipe(folder, model__preset=""))
    with pytest.raises(ConfigError, match="start and preset are given"):
        load_config(write_recipe(folder, model__start="x"))
    with pytest.raises(UsageError, match="no weights of a language model"):
        run_instruct(load_config(write_recipe(folder, model__language_model="")), folder / "none", Watching())


def test_a_cut_never_goes_through_a_picture() -> None:
    picture, words = [IMAGE_TOKEN_ID] * 4, [5, 6, 7, 8]
    encoded = Encoded([*picture, *words], [IGNORED] * 5 + [6, 7, 8])
    assert cut(encoded, 8) is encoded
    assert cut(encoded, 6) == Encoded([*picture, 5, 6], [IGNORED] * 5 + [6])
    assert cut(encoded, 3).asked == 0
    assert cut(Encoded([5, 6, *picture], [IGNORED, 6, *[IGNORED] * 4]), 4).asked == 0


def test_a_ledger_keeps_what_was_set_aside_once(whole: Path) -> None:
    lines = (whole / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines))
    assert RunFolder(whole).model.is_dir()


def test_every_setting_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "instructing.md").read_text(encoding="utf-8")
    for group, config in (("model", InstructModelConfig), ("data", InstructDataConfig)):
        for field in fields(config):
            assert f"`{group}.{field.name}`" in text, field.name
