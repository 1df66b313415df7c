"""Runs that start from a model: locked towers, adapters, a way back to the start, the starter, other precisions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import nunbit
from contrastive_toys import make_pairs, write_recipe
from nunbit.contrastive.run import load_config, run_contrastive
from nunbit.errors import ConfigError
from nunbit.layers import Attention, Block
from nunbit.training.checkpoint import list_checkpoints, load_checkpoint
from watching import Watching


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("짝"))


@pytest.fixture(scope="module")
def start(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained a little."""
    into = tmp_path_factory.mktemp("runs") / "start"
    run_contrastive(load_config(write_recipe(pairs)), into, Watching())
    return into / "model"


def tune(
    pairs: Path, into: Path, model: dict[str, Any], *, fall_at: int | None = None, **changes: Any
) -> tuple[Path, Watching]:
    settings = {name.replace("__", "."): value for name, value in changes.items()}
    watching = Watching(fall_at)
    run_contrastive(load_config(write_recipe(pairs, {"model": model} | settings)), into, watching)
    return into / "model", watching


def differing(one: Path, other: Path) -> set[str]:
    """The tensors in which two model folders differ."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return {name for name in ours if not torch.equal(ours[name], theirs[name])}


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_locked_tower_stays_and_its_outputs_are_computed_once(
    pairs: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"start": str(start), "locked": ["vision"]}
    with pytest.raises(KeyboardInterrupt):
        tune(pairs, tmp_path / "run", model, fall_at=4)
    keys = (tmp_path / "run" / "features" / "images.keys.jsonl").read_text()
    assert sum(len(json.loads(line)) for line in keys.splitlines()) == 54  # one is broken
    from nunbit.contrastive import batches

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a picture was read again")

    monkeypatch.setattr(batches, "open_image", refuse)
    resumed, _ = tune(pairs, tmp_path / "run", model)
    monkeypatch.undo()
    whole, _ = tune(pairs, tmp_path / "whole", model)
    assert digest(resumed) == digest(whole)
    changed = differing(whole, start)
    assert changed and not any("vision" in name or "visual" in name for name in changed)


def test_features_give_the_loss_that_pictures_give(pairs: Path, start: Path, tmp_path: Path) -> None:
    quiet = {"data__augmentation": {}, "training__steps": 1}
    _, locked = tune(pairs, tmp_path / "locked", {"start": str(start), "locked": ["vision", "text"]}, **quiet)
    _, free = tune(pairs, tmp_path / "free", {"start": str(start)}, **quiet)
    assert locked.losses == pytest.approx(free.losses, abs=1e-5)


def test_adapters_change_the_weights_that_they_are_on(pairs: Path, start: Path, tmp_path: Path) -> None:
    lora = {"rank": 2, "alpha": 2, "targets": ["vision_encoder.blocks.1.mlp.*.weight"]}
    model, _ = tune(pairs, tmp_path / "run", {"start": str(start), "lora": lora})
    changed = differing(model, start)
    assert {name for name in changed if "logit_scale" not in name} == {
        "vision_model.encoder.layers.1.mlp.fc1.weight",
        "vision_model.encoder.layers.1.mlp.fc2.weight",
    }
    again, _ = tune(pairs, tmp_path / "again", {"start": str(start), "lora": lora})
    assert digest(again) == digest(model)


def test_adapters_go_on_where_they_were(pairs: Path, start: Path, tmp_path: Path) -> None:
    model = {"start": str(start), "lora": {"rank": 2}}
    whole, _ = tune(pairs, tmp_path / "whole", model)
    with pytest.raises(KeyboardInterrupt):
        tune(pairs, tmp_path / "run", model, fall_at=5)
    resumed, _ = tune(pairs, tmp_path / "run", model)
    assert digest(resumed) == digest(whole)


def test_the_card_says_how_far_the_way_was_gone(pairs: Path, start: Path, tmp_path: Path) -> None:
    model = {"start": str(start), "wise_ft": True, "may_lose": 0.0}
    sources = [{"path": "validation.jsonl", "name": name} for name in ("one", "two")]
    tuned, _ = tune(pairs, tmp_path / "run", model, data__validation=sources)
    card = (tuned / "README.md").read_text()
    assert "image-to-text R@1 of two by that share" in card
    (line,) = [line for line in card.splitlines() if "share of the way from the start (WiSE-FT)" in line]
    alpha = float(line.rpartition(": ")[2])
    before, after = (nunbit.load(folder, engine="torch").model.state_dict() for folder in (start, tuned))
    end = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1]).tensors
    moved = [name for name in before if f"average/{name}" in end]
    assert len(moved) > 20
    for name in moved:
        expected = (1 - alpha) * before[name] + alpha * end[f"average/{name}"]
        torch.testing.assert_close(after[name], expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(ConfigError, match="may_lose"):
        tune(pairs, tmp_path / "other", model | {"may_lose": -1.0}, data__validation=sources)
    with pytest.raises(ConfigError, match="bounds what all validation sets but the first may lose"):
        tune(pairs, tmp_path / "other", model)
    with pytest.raises(ConfigError, match="there is none"):
        tune(pairs, tmp_path / "other", {"start": str(start), "wise_ft": True}, data__validation=[])
    twice = [{"path": "validation.jsonl"}] * 2
    with pytest.raises(ConfigError, match="two validation sources are called"):
        tune(pairs, tmp_path / "other", model, data__validation=twice)


def test_the_starter_learns_on_its_towers_outputs(pairs: Path, tmp_path: Path) -> None:
    model, watching = tune(pairs, tmp_path / "run", {"start": "starter", "dropout": 0.1}, training__learning_rate=3e-3)
    encoder = nunbit.load(model, engine="torch")
    assert encoder.embedding_size == 512
    assert encoder.fingerprint != nunbit.load("starter", engine="torch").fingerprint
    assert watching.losses[-1] < watching.losses[0]
    assert "How it was trained" in (model / "README.md").read_text()


def test_settings_that_mean_nothing_to_the_starter_are_refused(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no blocks"):
        tune(pairs, tmp_path / "run", {"start": "starter", "layer_decay": 0.7})


def test_a_column_that_no_record_has_is_refused(pairs: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'knid', which no record"):
        tune(pairs, tmp_path / "run", {"start": str(start)}, data__positives="knid")


def test_bfloat16_costs_what_float32_costs_but_for_rounding(pairs: Path, start: Path, tmp_path: Path) -> None:
    _, low = tune(pairs, tmp_path / "low", {"start": str(start)}, training__precision="bfloat16")
    _, full = tune(pairs, tmp_path / "full", {"start": str(start)})
    assert low.losses == pytest.approx(full.losses, rel=0.05)
    assert low.losses != full.losses


@pytest.mark.parametrize("causal", [False, True])
def test_plain_attention_is_the_fused_one(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from nunbit import layers

    torch.manual_seed(0)
    attention, x = Attention(16, 4), torch.randn(2, 5, 16)
    mask = None if causal else torch.rand(2, 1, 1, 5) > 0.3
    fused = attention(x, mask, causal=causal)
    monkeypatch.setattr(layers, "_plain_is_quicker", lambda _: True)
    assert attention.training
    torch.testing.assert_close(attention(x, mask, causal=causal), fused, atol=1e-6, rtol=1e-5)


def test_a_deep_tower_in_bfloat16_says_the_same_with_and_without_a_graph() -> None:
    """What gradient caching rests on."""
    torch.manual_seed(0)
    blocks, x = (
        nn.Sequential(*(Block(32, 4, 64, activation="gelu", eps=1e-5) for _ in range(12))),
        torch.randn(2, 9, 32),
    )
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            first = blocks(x)
        second = blocks(x)
    assert second.requires_grad and torch.equal(first, second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_curve_of_the_cpu(pairs: Path, start: Path, tmp_path: Path) -> None:
    _, cpu = tune(pairs, tmp_path / "cpu", {"start": str(start)}, training__device="cpu")
    _, gpu = tune(pairs, tmp_path / "gpu", {"start": str(start)}, training__device="cuda")
    assert gpu.losses == pytest.approx(cpu.losses, abs=1e-3)


def test_what_the_starter_cannot_have_is_told(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="softmax objective"):
        tune(pairs, tmp_path / "run", {"start": "starter", "objective": "sigmoid"})
