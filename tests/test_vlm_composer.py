"""Every preset in small: batches, packed rows, stages, folders, and the sizes of the real ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nunbit.config import from_plain, to_plain
from nunbit.errors import ConfigError, UnsupportedModel, UsageError, WeightsError
from nunbit.language_model import make_language_model
from nunbit.lora import LoraConfig
from nunbit.vlm.assembly import assemble, build, list_presets, read_preset
from nunbit.vlm.batching import Sample, SampleReader, pack
from nunbit.vlm.config import Stage, VlmConfig
from nunbit.vlm.conversation import PICTURE, Turn
from nunbit.vlm.folder import CONFIG, WEIGHTS, VlmDescription, read_vlm, write_vlm
from nunbit.vlm.model import VisionLanguageModel, VlmInputs
from nunbit.vlm.stages import rate_of, set_stage
from tiny_vlm import byte_tokenizer, make_lively_vlm, make_vlm, noise, samples, shared_vlm, together

PRESETS = list_presets()
CAUSAL = [name for name in PRESETS if name not in ("blip2-flan-t5", "pali-x")]
STAGES = [
    (name, stage) for name in PRESETS for stage in ("align", "finetune") if stage != "align" or read_preset(name).align
]


def _loss_alone(model: VisionLanguageModel, some: list[Sample]) -> tuple[float, int]:
    """The summed loss of samples that are read one by one, and how many tokens are asked."""
    total, count = 0.0, 0
    for sample in some:
        inputs = together(model, [sample])
        assert inputs.labels is not None
        asked = model.language_model.count_labels(inputs.labels)
        loss = model(inputs).loss
        assert loss is not None
        total, count = total + float(loss) * asked, count + asked
    return total, count


def _summed_loss(model: VisionLanguageModel, inputs: VlmInputs) -> float:
    assert inputs.labels is not None
    embedded = model.embed(inputs.input_ids, model.image_tokens(inputs))
    loss = model.language_model.loss
    return float(loss(embedded, inputs.attention_mask, inputs.labels, position_ids=inputs.position_ids))


@pytest.mark.parametrize("name", PRESETS)
def test_one_picture_several_and_none(name: str) -> None:
    model = shared_vlm(name)
    for sample in samples(model):
        inputs = together(model, [sample])
        output = model(inputs)
        answered = inputs.labels if model.language_model.is_encoder_decoder else inputs.input_ids
        assert answered is not None
        assert output.logits.shape == (*answered.shape, model.language_model.vocab_size)
        assert np.isfinite(float(output.loss))


@pytest.mark.parametrize("pad", ["left", "right"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_padded_batch_loses_what_its_samples_lose_alone(name: str, pad: str) -> None:
    model = shared_vlm(name)
    some = samples(model)
    inputs = together(model, some, pad=pad)
    total, count = _loss_alone(model, some)
    assert float(model(inputs).loss) == pytest.approx(total / count, rel=1e-5)
    assert _summed_loss(model, inputs) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_packed_row_loses_what_its_samples_lose_alone(name: str) -> None:
    model = shared_vlm(name)
    some = samples(model)
    inputs = pack([[one] for one in some])
    assert len(inputs.input_ids) == 1
    total, count = _loss_alone(model, some)
    assert _summed_loss(model, inputs) == pytest.approx(total, rel=1e-5)
    assert model.language_model.count_labels(inputs.labels) == count


@pytest.mark.parametrize("name", ["llava", "instructblip"])
def test_questions_about_one_picture_share_it_only_where_it_is_read_alike(name: str) -> None:
    model = make_lively_vlm(name)
    reader, image = SampleReader(model), noise(5)
    some = [
        reader.read([Turn("user", (PICTURE, words)), Turn("assistant", ("yes",))], [image])
        for words in ("Is it red at all?", "How many are there?", "What?")
    ]
    inputs = pack([some])
    looks = 3 if model.reads_instruction else 1  # a Q-Former sees another picture with every question
    assert len(inputs.pixel_values) == looks  # type: ignore[arg-type]
    total, _ = _loss_alone(model, some)
    assert _summed_loss(model, inputs) == pytest.approx(total, rel=1e-5)


def test_a_model_that_counts_its_positions_itself_refuses_a_packed_row() -> None:
    bloom = {"model_type": "bloom", "vocab_size": 300, "hidden_size": 24, "n_layer": 1, "n_head": 2}
    model = build(replace(read_preset("llava", tiny=True), language_model=bloom), byte_tokenizer())
    some = samples(model)
    assert np.isfinite(float(model(together(model, some)).loss))
    with pytest.raises(UsageError, match="counts its positions itself"):
        model(pack([[one] for one in some]))


@pytest.mark.parametrize("name", PRESETS)
def test_features_that_were_kept_stand_for_the_pixels(name: str) -> None:
    model = shared_vlm(name)
    (sample, *_) = samples(model)
    assert sample.pixel_values is not None
    kept = replace(sample, pixel_values=None, image_features=model.image_features(sample.pixel_values))
    torch.testing.assert_close(model(together(model, [kept])).logits, model(together(model, [sample])).logits)
    with pytest.raises(UsageError, match="some samples have pixels and others features"):
        together(model, [kept, sample])


@pytest.mark.parametrize("name", PRESETS)
def test_pictures_matter_each_at_its_place(name: str) -> None:
    model = shared_vlm(name)
    (_, sample, _) = samples(model)
    assert sample.pixel_values is not None
    inputs = together(model, [sample])
    turned = together(model, [replace(sample, pixel_values=sample.pixel_values.flip(0))])
    assert not torch.allclose(model(inputs).logits, model(turned).logits)
    tokens = model.image_tokens(inputs)
    assert tokens is not None
    places = inputs.input_ids[0] == -200
    embedded = model.embed(inputs.input_ids, tokens)[0]
    torch.testing.assert_close(embedded[places], tokens.flatten(0, 1))
    words = inputs.input_ids[0][~places]
    torch.testing.assert_close(embedded[~places], model.language_model.embed(words))


def test_places_and_pictures_are_counted() -> None:
    model = shared_vlm("llava")
    (sample, *_) = samples(model)
    assert sample.pixel_values is not None
    inputs = together(model, [sample])
    with pytest.raises(UsageError, match=r"16 places .* there are 32"):
        model(replace(inputs, pixel_values=torch.cat([sample.pixel_values] * 2)))
    with pytest.raises(UsageError, match=r"16 places .* there are 0"):
        model(replace(inputs, pixel_values=None))


def test_a_projector_that_reads_the_question_asks_for_it() -> None:
    model = shared_vlm("instructblip")
    (sample, *_) = samples(model)
    assert bytes(i for i in sample.instruction)  # one token a byte
    assert len(sample.instruction) == len("What is it?")
    with pytest.raises(UsageError, match="reads the question, too"):
        model(together(model, [replace(sample, instruction=())]))
    other = replace(sample, instruction=sample.instruction[::-1])
    assert not torch.allclose(model(together(model, [other])).logits, model(together(model, [sample])).logits)


def _never_moves(name: str) -> bool:
    """A softmax does not see the biases of keys; what InstructBLIP's last layer says of the question is dropped."""
    return bool(re.search(r"attention\.key\.bias$|layers\.1\.text_(mlp|norm)\.", name))


def _copies(model: VisionLanguageModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("name", "which"), STAGES)
def test_a_stage_changes_what_it_names_and_nothing_else(name: str, which: str) -> None:
    model = make_vlm(name)
    stage = model.config.stage(which)
    inputs = together(model, samples(model))
    learning = set(set_stage(model, stage))
    before = _copies(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):  # of a correction one half is zero at first, so that the other half moves at the second step
        optimizer.zero_grad()
        loss = model(inputs).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert changed <= learning
    assert {key for key in learning - changed if not _never_moves(key)} == set()
    named = set(stage.train) | ({"language_model"} if stage.lora else set())
    assert {key.split(".")[0] for key in changed} == {prefix.split(".")[0] for prefix in named}
    for key in learning:
        assert key.startswith(tuple(f"{prefix}." for prefix in stage.train)) or key.endswith((".up", ".down"))


def test_stages_of_the_real_presets_name_what_is_there() -> None:
    for name in PRESETS:
        for which in ("align", "finetune"):
            if (name, which) in STAGES:
                assert set_stage(_on_meta(name), read_preset(name).stage(which))


def test_a_stage_that_names_nothing_that_is_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no parameter is called so"):
        set_stage(make_vlm("llava"), Stage(train=("projector.fc1",)))
    with pytest.raises(ConfigError, match="is no part"):
        Stage(train=("nose",))
    with pytest.raises(ConfigError, match="trains nothing"):
        Stage()
    with pytest.raises(ConfigError, match="no stage 'align'"):
        read_preset("smolvlm").stage("align")


def test_the_longest_name_says_the_rate() -> None:
    stage = Stage(train=("eye", "projector"), rates={"eye": 0.1, "eye.encoder.norm": 0.5})
    names = ("eye.encoder.norm.weight", "eye.encoder.blocks.0.norm1.weight", "projector.fc1.weight", "eyes.x")
    assert [rate_of(stage, name) for name in names] == [0.5, 0.1, 1.0, 1.0]


@pytest.mark.parametrize("name", PRESETS)
def test_a_folder_gives_the_same_model_back(name: str, tmp_path: Path) -> None:
    model = shared_vlm(name)
    write_vlm(tmp_path, model, VlmDescription(config=model.config))
    again = read_vlm(tmp_path)
    inputs = together(model, samples(model))
    torch.testing.assert_close(again(inputs).logits, model(inputs).logits, rtol=0, atol=2e-5)
    assert again.config == from_plain(VlmConfig, to_plain(model.config))
    for ours, theirs in zip(samples(again), samples(model), strict=True):
        assert ours.encoded == theirs.encoded


def test_a_folder_keeps_corrections(tmp_path: Path) -> None:
    model = make_vlm("mplug-owl")
    lora = LoraConfig(rank=2, targets=("language_model.*.q_proj.weight",))
    names = set_stage(model, Stage(lora=lora))
    for name in names:
        torch.nn.init.normal_(model.get_parameter(name))
    write_vlm(tmp_path, model, VlmDescription(config=model.config, lora=lora))
    again = read_vlm(tmp_path)
    assert not [name for name in again.state_dict() if "parametrizations" in name]
    inputs = together(model, samples(model))
    torch.testing.assert_close(again(inputs).logits, model(inputs).logits, rtol=0, atol=1e-5)
    assert not torch.allclose(shared_vlm("mplug-owl")(inputs).logits, model(inputs).logits, atol=1e-3)


def test_a_folder_that_was_changed_is_refused(tmp_path: Path) -> None:
    model = shared_vlm("llava")
    write_vlm(tmp_path, model, VlmDescription(config=model.config))
    described = (tmp_path / CONFIG).read_text(encoding="utf-8")
    (tmp_path / CONFIG).write_text(described.replace('"format": 1', '"format": 9'), encoding="utf-8")
    with pytest.raises(UnsupportedModel, match="another version"):
        read_vlm(tmp_path)
    (tmp_path / CONFIG).write_text(described, encoding="utf-8")
    weights = bytearray((tmp_path / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(weights)
    with pytest.raises(WeightsError, match="not the file that was written"):
        read_vlm(tmp_path)


def test_marks_are_added_to_a_language_model_that_is_there() -> None:
    config = read_preset("smolvlm", tiny=True)
    language_model = make_language_model({**config.language_model, "vocab_size": 262}, byte_tokenizer())
    before = language_model.embed(torch.arange(262)).clone()
    model = assemble(config, language_model)
    assert model.language_model.vocab_size == len(language_model.tokenizer) == 262 + 3 + 4
    assert model.config.language_model["vocab_size"] == 269
    torch.testing.assert_close(model.language_model.embed(torch.arange(262)), before)
    assert build(config, byte_tokenizer()).language_model.vocab_size == 400  # there were enough


def test_marks_of_tiles_are_one_token_each() -> None:
    model = shared_vlm("smolvlm")
    sample = SampleReader(model).read([Turn("user", (PICTURE, "?"))], [noise(1)], answer=True)
    ids, vocabulary = sample.encoded.input_ids, model.language_model.tokenizer.get_vocab()  # type: ignore[attr-defined]
    around, whole = vocabulary["<fake_token_around_image>"], vocabulary["<global-img>"]
    tiles = [vocabulary[f"<row_{row}_col_{column}>"] for row in (1, 2) for column in (1, 2)]
    assert [token for token in ids if token in (around, whole, *tiles)] == [
        *(token for tile in tiles for token in (around, tile)),
        *(around, whole, around),
    ]
    for mark in (*tiles, whole):
        place = ids.index(mark)
        assert ids[place - 1] == around
        assert ids[place + 1 : place + 5] == [-200] * 4
    assert sample.looks == 5
    assert ids.count(-200) == 5 * model.tokens_per_picture


def test_tiles_show_the_parts_and_the_whole() -> None:
    model = shared_vlm("smolvlm")
    looker = SampleReader(model).looker
    quarters = Image.new("RGB", (64, 64))
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    for number, color in enumerate(colors):
        quarters.paste(color, (number % 2 * 32, number // 2 * 32, number % 2 * 32 + 32, number // 2 * 32 + 32))
    looks = looker.pixels(quarters)
    assert looks.shape == (5, 3, 32, 32)
    for look, color in zip(looks, colors, strict=False):
        expected = np.array(color, np.float32)[:, None, None] / 255 * 2 - 1
        np.testing.assert_allclose(look[:, 8:24, 8:24], np.broadcast_to(expected, (3, 16, 16)), atol=1e-6)
    np.testing.assert_array_equal(looks[4], model.eye.preprocessing(quarters))
    assert (looker.layout(640, 100).rows, looker.layout(640, 100).columns) == (1, 2)


def _on_meta(name: str) -> VisionLanguageModel:
    config = read_preset(name)
    with torch.device("meta"):
        return VisionLanguageModel(config, make_language_model(config.language_model))


# What the publications and their code say: patches, their width, tokens a picture, width of the language model.
JOINTS = {
    "llava": (256, 1024, 256, 4096),
    "llava-1.5": (576, 1024, 576, 4096),
    "smolvlm": (1024, 768, 64, 576),
    "nanovlm": (196, 768, 49, 576),
    "blip2-opt": (257, 1408, 32, 2560),
    "blip2-flan-t5": (257, 1408, 32, 2048),
    "instructblip": (257, 1408, 32, 4096),
    "minigpt4": (257, 1408, 32, 4096),
    "mplug-owl": (257, 1024, 65, 4096),
    "pali-x": (256, 6144, 256, 4096),
    "starter": (64, 2272, 16, 576),
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_joints_of_the_real_models(name: str) -> None:
    model = _on_meta(name)
    patches, width, tokens, wide = JOINTS[name]
    assert (model.eye.num_patches, model.eye.hidden_size) == (patches, width)
    assert (model.tokens_per_picture, model.language_model.hidden_size) == (tokens, wide)
    side = model.config.eye_size
    features = model.image_features(torch.zeros(1, 3, side, side, device="meta"))
    assert features.shape == (1, patches, width)
    ids = {} if not model.reads_instruction else {"instruction_ids": torch.zeros(1, 3, dtype=torch.long, device="meta")}
    inputs = VlmInputs(input_ids=torch.zeros(1, 1), image_features=features, **ids)
    assert model.image_tokens(inputs).shape == (1, tokens, wide)  # type: ignore[union-attr]


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_sizes_of_the_real_models() -> None:
    smol, nano, owl = _on_meta("smolvlm"), _on_meta("nanovlm"), _on_meta("mplug-owl")
    assert (_count(smol.projector), _count(smol.eye)) == (7_077_888, 86_433_024)
    assert smol.projector.projection.projection.weight.shape == (576, 12_288)  # type: ignore[union-attr]
    assert _count(nano.language_model) == 134_515_008
    assert nano.projector.projection.projection.weight.shape == (576, 3_072)  # type: ignore[union-attr]
    assert owl.projector.config.num_queries == 64  # type: ignore[union-attr]
    maps = [module for module in _on_meta("llava-1.5").projector.modules() if isinstance(module, torch.nn.Linear)]
    assert [(one.in_features, one.out_features) for one in maps] == [(1024, 4096), (4096, 4096)]
    assert round(_count(_on_meta("pali-x")) / 1e9) == 53  # 22 of the eye, 31 of UL2


def test_a_preset_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="did you mean 'smolvlm'"):
        read_preset("smolvml")


@pytest.fixture(autouse=True, scope="module")
def _forget() -> Iterator[None]:
    yield
    shared_vlm.cache_clear()
