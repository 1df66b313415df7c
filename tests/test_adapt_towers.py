"""Rungs that change the picture tower: against a plain loop, on their way back to the start, and on the disk."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn import functional

import nunbit
from clip_models import make_towers, pictures
from nunbit.adapt import (
    ClassTexts,
    Example,
    Examples,
    FineTuning,
    FitOptions,
    LowRankTuning,
    Shots,
    Towers,
    ZeroShot,
    class_texts,
    climb,
    embed_examples,
    fit_head,
    save_fitted,
)
from nunbit.adapt.towers import _SHARES
from nunbit.cli import nunbit as command_line
from nunbit.encode import Encoder, EncoderInfo
from nunbit.errors import UsageError
from nunbit.head import encoder_of, load_head

NAMES = ("a cup", "a plate", "a spoon")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a small CLIP, and nine pictures beside it."""
    place = tmp_path_factory.mktemp("towers")
    (place / "published").mkdir()
    towers = make_towers(place / "published")
    Encoder(towers, EncoderInfo("tiny", 24, towers.settings.preprocessing)).save_pretrained(place / "model")
    for number, image in enumerate(pictures(9)):
        image.save(place / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return nunbit.load(folder / "model", engine="torch")


@pytest.fixture(scope="module")
def shots(folder: Path, encoder: Encoder) -> tuple[Towers, Shots]:
    towers = Towers(encoder)
    images = [str(folder / f"{number}.png") for number in range(9)]
    targets = np.eye(3, dtype=bool)[np.arange(9) % 3]
    return towers, Shots(encoder.encode_image(images), targets, inputs=towers.inputs(images))


def classes_of(encoder: Encoder, towers: Towers) -> ClassTexts:
    return replace(class_texts(encoder, NAMES), towers=towers)


def test_fine_tuning_is_a_plain_loop(encoder: Encoder, shots: tuple[Towers, Shots]) -> None:
    towers, given = shots
    classes = classes_of(encoder, towers)
    settings = {"steps": 5, "learning_rate": 1e-3, "words_rate": 1e-2, "share": 1.0}
    tuned = FineTuning(classes, **settings)._learn(given.inputs, given.targets, False)
    model = copy.deepcopy(encoder.model).eval().requires_grad_(True)
    words = torch.from_numpy(classes.rows).clone().requires_grad_(True)
    bias = torch.zeros(3, requires_grad=True)
    groups = [{"params": model.vision_encoder.parameters()}, {"params": [words, bias], "lr": 1e-2}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, eps=1e-4, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    pixels, truth = torch.from_numpy(given.inputs), torch.arange(9) % 3
    for _ in range(5):
        rows = functional.normalize(model.vision_encoder.image_features(pixels), dim=-1)
        optimizer.zero_grad()
        functional.cross_entropy(classes.logit_scale * rows @ words.T + bias, truth).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        rows = functional.normalize(model.vision_encoder.image_features(pixels), dim=-1)
        expected = (classes.logit_scale * rows @ words.T + bias).numpy()
    np.testing.assert_allclose(tuned.logits(given.inputs), expected, atol=2e-3)
    assert np.abs(tuned.embed(given.inputs) - given.rows).max() > 1e-3  # it moved


@pytest.mark.parametrize("rung", [FineTuning, LowRankTuning])
def test_shares_lead_from_the_words_to_what_was_learned(
    rung: type[FineTuning], encoder: Encoder, shots: tuple[Towers, Shots]
) -> None:
    towers, given = shots
    classes = classes_of(encoder, towers)
    words = ZeroShot(classes).fit(given.rows, given.targets.argmax(1)).decision_function(given.rows)
    none = rung(classes, share=0.0, steps=3)._learn(given.inputs, given.targets, False)
    np.testing.assert_allclose(none.logits(given.inputs), words, atol=2e-3)
    path = rung.path(classes, given.inputs, given.targets, False)
    assert [one.share for one in path] == list(_SHARES)
    alone = rung(classes, share=_SHARES[1])._learn(given.inputs, given.targets, False)
    np.testing.assert_allclose(path[1].logits(given.inputs), alone.logits(given.inputs), atol=1e-3)
    gone = [np.abs(one.logits(given.inputs) - words).mean() for one in path]
    assert gone == sorted(gone) and gone[-1] > 0.1
    if rung is LowRankTuning:
        matrices = {name for name in path[0].tuned if path[0].tuned[name].ndim >= 2}
        assert set(path[0].tuned) == matrices and all("vision_encoder.blocks" in name for name in matrices)


def test_a_changed_tower_is_kept_with_its_head(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    examples = [Example(f"{n}", str(folder / f"{n}.png"), (NAMES[n % 3],)) for n in range(9)]
    options = FitOptions(rungs=["fine-tuning"])
    fitted = fit_head(encoder, Examples(NAMES, tuple(examples), False, ()), options)
    assert fitted.tuned is not None and fitted.ladder.best.accuracy is not None
    save_fitted(fitted, tmp_path / "head", encoder, {})
    assert encoder_of(tmp_path / "head") == str(tmp_path / "head" / "encoder")
    changed = nunbit.load(encoder_of(tmp_path / "head"), engine="torch")
    assert changed.fingerprint != encoder.fingerprint
    head = load_head(tmp_path / "head", changed)
    assert head.unknown is not None and head.unknown.way == "energy"  # its own examples are too near to set a line by
    inputs = Towers(encoder).inputs([one.image for one in examples])
    rows = changed.encode_image([one.image for one in examples])
    np.testing.assert_allclose(head.logits(rows), fitted.tuned.logits(inputs), atol=2e-3)
    np.testing.assert_array_equal(changed.encode_text(["a cup"]), encoder.encode_text(["a cup"]))
    ran = CliRunner().invoke(
        command_line,
        ["recognize", str(folder / "0.png"), "--labels", str(tmp_path / "head"), "--engine", "torch", "--json"],
    )
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)["predictions"][0]
    assert said["probability"] == pytest.approx(float(head.probability(rows[:1]).max()), abs=1e-3)


def test_towers_need_their_inputs_and_their_encoder(encoder: Encoder, shots: tuple[Towers, Shots]) -> None:
    towers, given = shots
    with pytest.raises(UsageError, match="needs its inputs"):
        climb(classes_of(encoder, towers), Shots(given.rows, given.targets), ["lora"])
    with pytest.raises(UsageError, match="needs the picture tower"):
        LowRankTuning(class_texts(encoder, NAMES))._learn(given.inputs, given.targets, False)


def test_the_starter_changes_its_bridge(tmp_path: Path) -> None:
    colors = {"red": (200, 30, 30), "green": (30, 160, 40)}
    rng = np.random.default_rng(0)
    examples = []
    for number in range(8):
        name = ("red", "green")[number % 2]
        pixels = np.clip(np.array(colors[name]) + rng.integers(-30, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        examples.append(Example(str(number), str(tmp_path / f"{number}.png"), (name,)))
    starter = nunbit.load("starter", engine="torch")
    given = Examples(("red", "green"), tuple(examples), False, ())
    fitted = fit_head(starter, given, FitOptions(rungs=["zero-shot", "fine-tuning"]))
    tuned = next(one for one in fitted.ladder.results if one.name == "fine-tuning")
    assert tuned.accuracy == 100
    assert set(tuned.head.tuned) == {"class_vectors", "feature_map"}  # type: ignore[union-attr]


def test_near_duplicates_are_held_out_together(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    with Image.open(folder / "0.png") as opened:
        opened.convert("RGB").resize((60, 40)).save(tmp_path / "small.jpg", quality=70)
    named = {"0": folder / "0.png", "small": tmp_path / "small.jpg", "3": folder / "3.png", "1": folder / "1.png"}
    examples = [Example(name, str(path), (NAMES[name == "1"],)) for name, path in named.items()]
    found, _, _ = embed_examples(encoder, Examples(NAMES, tuple(examples), False, ()))
    assert found.groups is not None
    assert found.groups.tolist() == [0, 0, 2, 3]
