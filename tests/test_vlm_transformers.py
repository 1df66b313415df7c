"""Folders of `transformers` with vision-language models: tiny random ones, both ways, with equal logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nunbit.errors import ModelNotFound, UnsupportedModel, UsageError, WeightsError
from nunbit.language_model.transformers_model import import_transformers
from nunbit.lora import LoraConfig
from nunbit.vlm.batching import SampleReader, collate
from nunbit.vlm.config import Stage
from nunbit.vlm.conversation import PICTURE, Turn
from nunbit.vlm.folder import VlmDescription, read_vlm, write_vlm
from nunbit.vlm.loading import load_vlm
from nunbit.vlm.model import IMAGE_TOKEN_ID, VisionLanguageModel, VlmInputs
from nunbit.vlm.stages import set_stage
from nunbit.vlm.transformers_folder import read_transformers_vlm, write_transformers_vlm
from nunbit.vlm.transformers_names import known_names
from tiny_vlm import byte_tokenizer, make_vlm, noise, shared_vlm

MARKS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
LLAMA = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
OPT = {
    "model_type": "opt",
    "vocab_size": 300,
    "hidden_size": 24,
    "word_embed_proj_dim": 24,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
}
T5 = {
    "model_type": "t5",
    "vocab_size": 300,
    "d_model": 24,
    "d_kv": 12,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}
EYE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
Q_FORMER = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 300,
    "max_position_embeddings": 32,
}
TIED = {"tie_word_embeddings": True}


def _config(family: str) -> Any:
    transformers = import_transformers()
    blip = {"vision_config": EYE, "qformer_config": Q_FORMER, "num_query_tokens": 4, "image_token_index": IMAGE}
    clip = {"model_type": "clip_vision_model", **EYE}
    smol = {"vision_config": EYE, "scale_factor": 2, "image_token_id": IMAGE, "text_config": LLAMA | TIED, **TIED}
    makers: dict[str, Callable[[], Any]] = {
        "llava": lambda: transformers.LlavaConfig(
            vision_config=clip, text_config=LLAMA, image_token_index=IMAGE, image_seq_length=16
        ),
        "llava-full": lambda: transformers.LlavaConfig(
            vision_config=clip,
            text_config=LLAMA,
            image_token_index=IMAGE,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        ),
        "blip2-opt": lambda: transformers.Blip2Config(**blip, text_config=OPT),
        "blip2-t5": lambda: transformers.Blip2Config(**blip, text_config=T5),
        "instructblip": lambda: transformers.InstructBlipConfig(**blip, text_config=LLAMA),
        "smolvlm": lambda: transformers.SmolVLMConfig(**smol),
        "idefics3": lambda: transformers.Idefics3Config(**smol),
    }
    return makers[family]()


FAMILIES = ["llava", "llava-full", "blip2-opt", "blip2-t5", "instructblip", "smolvlm", "idefics3"]
PROCESSORS: dict[str, Any] = {
    "llava": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16}, "crop_size": 16},
    "blip": {"image_processor_type": "BlipImageProcessor", "size": {"height": 16, "width": 16}},
    "smol": {
        "image_processor_type": "SmolVLMImageProcessor",
        "size": {"longest_edge": 32},
        "max_image_size": {"longest_edge": 16},
        "resample": 1,
    },
}


@cache
def tokenizer() -> Any:
    made = byte_tokenizer()
    made.add_tokens([*MARKS, *TILES], special_tokens=True)
    return made


IMAGE = byte_tokenizer().__len__()  # the first of the marks


def _processor(family: str) -> Any:
    return PROCESSORS["llava" if "llava" in family else "blip" if "blip" in family else "smol"]


def make_folder(folder: Path, family: str, seed: int = 0) -> Path:
    """A folder as ``save_pretrained`` writes it, of a model with random weights."""
    transformers = import_transformers()
    torch.manual_seed(seed)
    model = transformers.AutoModelForImageTextToText.from_config(_config(family))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # BLIP-2 begins next to zero
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_processor(family)), encoding="utf-8")
    tokenizer().save_pretrained(folder)
    if family == "instructblip":
        byte_tokenizer().save_pretrained(folder / "qformer_tokenizer")
    return folder


def open_theirs(folder: Path) -> Any:
    transformers = import_transformers()
    return transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def theirs_says(model: Any, inputs: VlmInputs, image_id: int = IMAGE) -> Tensor:
    """Logits of a model of `transformers` for what ours reads."""
    given: dict[str, Any] = {
        "input_ids": inputs.input_ids.masked_fill(inputs.input_ids == IMAGE_TOKEN_ID, image_id),
        "attention_mask": inputs.attention_mask.long(),  # type: ignore[union-attr]
        "pixel_values": inputs.pixel_values,
    }
    if model.config.model_type in ("smolvlm", "idefics3"):
        given["pixel_values"] = inputs.pixel_values[None]  # type: ignore[index]
    if inputs.instruction_ids is not None:
        given["qformer_input_ids"] = inputs.instruction_ids
        given["qformer_attention_mask"] = inputs.instruction_mask.long()  # type: ignore[union-attr]
    if model.config.is_encoder_decoder:
        given["labels"] = inputs.labels
    with torch.no_grad():
        logits: Tensor = model(**given).logits
    return logits


def inputs_of(model: VisionLanguageModel, pictures: int) -> VlmInputs:
    turns = [Turn("user", (*([PICTURE] * pictures), "Which?")), Turn("assistant", ("this",))]
    images = [noise(number) for number in range(pictures)]
    sample = SampleReader(model).read(turns, images)
    return collate([sample], encoder_decoder=model.language_model.is_encoder_decoder)


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_answers_here_as_it_does_there(family: str, pictures: int, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, family)
    model = load_vlm(folder)
    inputs = inputs_of(model, pictures)
    ours = model(inputs).logits
    assert float(ours.std()) > 0.1
    torch.testing.assert_close(ours, theirs_says(open_theirs(folder), inputs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_here_answers_there(family: str, tmp_path: Path) -> None:
    model = load_vlm(make_folder(tmp_path / "theirs", family))
    write_transformers_vlm(tmp_path / "ours", model)
    inputs = inputs_of(model, 2)
    expected = model(inputs).logits
    torch.testing.assert_close(theirs_says(open_theirs(tmp_path / "ours"), inputs), expected, rtol=0, atol=1e-4)
    again = load_vlm(tmp_path / "ours")
    torch.testing.assert_close(again(inputs).logits, expected, rtol=0, atol=1e-5)
    assert again.config.eye == model.config.eye
    assert again.config.projector == model.config.projector
    assert again.config.tiles == model.config.tiles


@pytest.mark.parametrize("name", ["llava-1.5", "blip2-opt", "blip2-flan-t5", "minigpt4", "instructblip", "smolvlm"])
def test_presets_are_written_for_them(name: str, tmp_path: Path) -> None:
    model = make_vlm(name)
    write_transformers_vlm(tmp_path, model)
    inputs = inputs_of(model, 2)
    image_id = model.language_model.tokenizer.get_vocab()["<image>"]  # type: ignore[attr-defined]
    found = theirs_says(open_theirs(tmp_path), inputs, image_id)
    torch.testing.assert_close(found, model(inputs).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["llava", "mplug-owl", "pali-x"])
def test_what_they_have_not_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="transformers has no model like this") as caught:
        write_transformers_vlm(tmp_path / "x", shared_vlm(name))
    assert "write_vlm" in caught.value.hint
    assert not (tmp_path / "x").exists()


def test_corrections_are_merged_first(tmp_path: Path) -> None:
    model = make_vlm("llava-1.5")
    set_stage(model, Stage(lora=LoraConfig(rank=2, targets=("*.q_proj.weight",))))
    with pytest.raises(UsageError, match="corrections beside its weights"):
        write_transformers_vlm(tmp_path, model)


def test_a_picture_needs_a_row(tmp_path: Path) -> None:
    model = make_vlm("llava-1.5")
    model.language_model.model.resize_token_embeddings(len(model.language_model.tokenizer), mean_resizing=False)
    with pytest.raises(UnsupportedModel, match="no row for it"):
        write_transformers_vlm(tmp_path, model)


@pytest.mark.parametrize(
    ("family", "lost"),
    [
        ("llava", "multi_modal_projector.linear_2.bias"),
        ("blip2-opt", "vision_model.encoder.layers.1.self_attn.qkv.bias"),
        ("instructblip", "qformer.embeddings.word_embeddings.weight"),
        ("smolvlm", "model.text_model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_a_missing_tensor_is_told_by_name(family: str, lost: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, family)
    tensors = load_file(folder / "model.safetensors")
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=lost.removeprefix("model.text_").replace(".", r"\.")):
        load_vlm(folder)


def test_a_tensor_too_many_is_told_by_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "llava")
    tensors = load_file(folder / "model.safetensors") | {"multi_modal_projector.linear_3.bias": torch.zeros(3)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 unexpected: multi_modal_projector\.linear_3\.bias"):
        load_vlm(folder)


def test_names_of_all_versions_are_known() -> None:
    one = torch.zeros(1)
    told = {
        "vision_tower.vision_model.pre_layrnorm.bias": "vision_model.pre_layrnorm.bias",
        "vision_tower.pre_layrnorm.bias": "vision_model.pre_layrnorm.bias",
        "model.vision_tower.vision_model.pre_layrnorm.bias": "vision_model.pre_layrnorm.bias",
        "model.multi_modal_projector.linear_1.bias": "multi_modal_projector.linear_1.bias",
        "model.language_model.norm.weight": "language_model.model.norm.weight",
        "language_model.model.norm.weight": "language_model.model.norm.weight",
        "model.text_model.norm.weight": "language_model.model.norm.weight",
        "lm_head.weight": "language_model.lm_head.weight",
        "model.connector.modality_projection.proj.weight": "connector.modality_projection.proj.weight",
        "query_tokens": "query_tokens",
    }
    for name, expected in told.items():
        assert list(known_names({name: one})) == [expected]


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llava", {"model_type": "qwen2_vl"}, "is a 'qwen2_vl' model"),
        ("llava", {"vision_feature_layer": [-2, -1]}, "patches from several layers"),
        ("llava", {"vision_config": {"model_type": "siglip_vision_model", **EYE}}, "an eye of the kind"),
        ("blip2-opt", {"vision_config": {**EYE, "qkv_bias": False}}, "queries have no biases"),
        ("blip2-opt", {"qformer_config": {**Q_FORMER, "use_qformer_text_input": True}}, "Q-Former reads texts"),
    ],
)
def test_what_is_not_known_is_refused(family: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, family)
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(content | changes), encoding="utf-8")
    with pytest.raises(UnsupportedModel, match=message):
        read_transformers_vlm(folder)


def test_a_tokenizer_without_the_marks_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "smolvlm")
    byte_tokenizer().save_pretrained(folder)
    with pytest.raises(UnsupportedModel, match="lacks <fake_token_around_image>"):
        load_vlm(folder)


def test_instructblip_has_a_second_tokenizer(tmp_path: Path) -> None:
    model = load_vlm(make_folder(tmp_path / "theirs", "instructblip"))
    assert model.instruction_tokenizer is not None
    write_vlm(tmp_path / "own", model, VlmDescription(config=model.config))
    assert read_vlm(tmp_path / "own").instruction_tokenizer is not None
    inputs = inputs_of(model, 1)
    torch.testing.assert_close(load_vlm(tmp_path / "own")(inputs).logits, model(inputs).logits, rtol=0, atol=1e-5)
    for path in (tmp_path / "theirs" / "qformer_tokenizer").iterdir():
        path.unlink()
    (tmp_path / "theirs" / "qformer_tokenizer").rmdir()
    with pytest.raises(UnsupportedModel, match="has no qformer_tokenizer"):
        load_vlm(tmp_path / "theirs")


@pytest.mark.parametrize("family", ["llava", "blip2-opt"])
def test_pictures_are_prepared_as_they_do(family: str, tmp_path: Path) -> None:
    transformers = import_transformers()
    folder = make_folder(tmp_path, family)
    image = noise(5, 40, 24)
    theirs = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")(image, return_tensors="np")
    ours = load_vlm(folder).eye.preprocessing(image)
    np.testing.assert_allclose(ours, theirs["pixel_values"][0], atol=0.02)


SIZES = [(40, 24), (24, 40), (33, 31), (64, 8), (100, 51), (16, 16), (31, 32), (32, 17), (17, 32)]


@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_theirs(size: tuple[int, int], tmp_path: Path) -> None:
    transformers = import_transformers()
    folder = make_folder(tmp_path, "smolvlm")
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    looker = SampleReader(load_vlm(folder)).looker
    image = noise(6, *size).resize((4, 4)).resize(size)  # smooth: they enlarge it in three steps
    theirs = processor(image, return_tensors="np", return_row_col_info=True)
    layout = looker.layout(*size)
    assert (layout.rows, layout.columns) == (theirs["rows"][0][0], theirs["cols"][0][0])
    ours, expected = looker.pixels(image), theirs["pixel_values"][0]
    assert ours.shape == expected.shape
    assert float(np.abs(ours - expected).mean()) < 0.1


def test_a_folder_that_is_none() -> None:
    with pytest.raises(ModelNotFound, match="no vision-language model") as caught:
        load_vlm("smolvlm")
    assert "preset" in caught.value.hint


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"has no nunbit_vlm\.json or config\.json"):
        load_vlm(tmp_path)
