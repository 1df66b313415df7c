"""Every family of `transformers` on random weights: embeddings and logits, both ways, at any size and batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nunbit
from clip_models import TEXTS, pictures, randomize, write_byte_pairs, write_gemma, write_sentencepiece
from nunbit.errors import NunbitWarning
from nunbit.vision_encoder import PatchBatch
from nunbit.vision_encoder.naflex import cut_into_patches

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-5
VISION = {"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_clip(folder: Path) -> Any:
    size = write_byte_pairs(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    text = TEXT | {
        "vocab_size": size,
        "max_position_embeddings": 24,
        "eos_token_id": size - 1,
        "bos_token_id": size - 2,
    }
    vision = VISION | {"image_size": 64, "patch_size": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=40)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    return transformers.CLIPModel(config), tokenizer, processor


def make_siglip(folder: Path) -> Any:
    size = write_sentencepiece(folder)
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"), model_max_length=16)
    text = TEXT | {"vocab_size": size, "max_position_embeddings": 16, "hidden_size": 48, "num_attention_heads": 4}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION | {"image_size": 64, "patch_size": 16})
    return (
        transformers.SiglipModel(config),
        tokenizer,
        transformers.SiglipImageProcessor(size={"height": 64, "width": 64}),
    )


def make_siglip2(folder: Path) -> Any:
    model, _, processor = make_siglip(folder)
    (folder / "spiece.model").unlink()
    size = write_gemma(folder)
    text = model.config.text_config.to_dict() | {"vocab_size": size}
    config = transformers.SiglipConfig(text_config=text, vision_config=model.config.vision_config.to_dict())
    processor = transformers.SiglipImageProcessor(size={"height": 64, "width": 64}, resample=2)
    return transformers.SiglipModel(config), gemma(folder), processor


def make_naflex(folder: Path) -> Any:
    size = write_gemma(folder)
    text = TEXT | {"vocab_size": size, "max_position_embeddings": 16, "hidden_size": 48, "num_attention_heads": 4}
    config = transformers.Siglip2Config(text_config=text, vision_config=VISION | {"num_patches": 16, "patch_size": 16})
    processor = transformers.Siglip2ImageProcessor(max_num_patches=16, patch_size=16)
    return transformers.Siglip2Model(config), gemma(folder), processor


def gemma(folder: Path) -> Any:
    options = {"model_max_length": 16, "padding_side": "right", "add_eos_token": True}  # as Google's files say
    return transformers.Siglip2Tokenizer.from_pretrained(folder, **options)


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "clip": make_clip,
    "siglip": make_siglip,
    "siglip2": make_siglip2,
    "naflex": make_naflex,
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model, tokenizer, processor = FAMILIES[request.param](folder)
    randomize(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    if request.param in ("siglip2", "naflex"):  # Google's files are Gemma's own: no lower case in them, few marks named
        write_gemma(folder)
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer", "padding_side": "right"}')
    return request.param, folder, model, tokenizer, processor


def reference_ids(tokenizer: Any, texts: list[str], length: int) -> np.ndarray:
    options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "np"}
    ids: np.ndarray = np.concatenate([tokenizer([text], **options)["input_ids"] for text in texts])
    return ids


def own_input(kind: str, inputs: Any) -> Any:
    """The reference's pixels as our model takes them; NaFlex orders the numbers of a patch otherwise."""
    if kind != "naflex":
        return inputs["pixel_values"]
    patches = inputs["pixel_values"].unflatten(-1, (16, 16, 3)).permute(0, 1, 4, 2, 3).flatten(2)
    return PatchBatch(patches, inputs["pixel_attention_mask"].bool(), inputs["spatial_shapes"])


@pytest.mark.filterwarnings("ignore::nunbit.errors.NunbitWarning")
def test_token_ids_equal_the_reference(family: Any) -> None:
    _, folder, model, tokenizer, _ = family
    expected = reference_ids(tokenizer, TEXTS, model.config.text_config.max_position_embeddings)
    ids = nunbit.load(folder).tokenizer(TEXTS)
    np.testing.assert_array_equal(ids, expected[:, : ids.shape[1]])


@pytest.mark.parametrize("count", [1, 7])
def test_embeddings_and_logits_equal_the_reference(family: Any, count: int) -> None:
    kind, folder, model, tokenizer, processor = family
    module = nunbit.load(folder).model
    ids = torch.from_numpy(reference_ids(tokenizer, TEXTS[:count], model.config.text_config.max_position_embeddings))
    sizes = [(90, 60), (64, 64), (30, 120)]
    images = [pictures(1, sizes[number % 3 if kind == "naflex" else 0])[0] for number in range(count)]
    inputs = processor(images=images, return_tensors="pt")
    with torch.inference_mode():
        expected = model(input_ids=ids, **inputs)
        got = module(own_input(kind, inputs), ids)
    close(got.image_embeddings, expected.image_embeds)
    close(got.text_embeddings, expected.text_embeds)
    close(got.logits_per_image, expected.logits_per_image)


def test_other_sizes_interpolate_as_the_reference_does(family: Any) -> None:
    kind, folder, model, _, _ = family
    if kind == "naflex":
        pytest.skip("NaFlex interpolates always: the test above has three sizes")
    module = nunbit.load(folder).model
    for size in ((96, 80), (32, 48)):
        pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = model.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
            close(module.vision_encoder.image_features(pixels), expected)


def test_patch_features_equal_the_hidden_states(family: Any) -> None:
    kind, folder, model, _, processor = family
    vision = nunbit.load(folder).model.vision_encoder
    inputs = processor(images=pictures(2), return_tensors="pt")
    skip = 1 if kind == "clip" else 0
    seen = inputs["pixel_attention_mask"].bool() if kind == "naflex" else slice(None)
    with torch.inference_mode():
        expected = model.vision_model(**inputs, output_hidden_states=True)
        last, before = vision(own_input(kind, inputs)), vision(own_input(kind, inputs), layer=-2)
        final = expected.last_hidden_state
        final = model.vision_model.post_layernorm(final) if kind == "clip" else final
    close(last[seen], final[:, skip:][seen])
    close(before[seen], expected.hidden_states[-2][:, skip:][seen])
    assert last.shape[-1] == vision.hidden_size
    if kind != "naflex":
        assert last.shape[1] == vision.num_patches


def test_pixels_are_within_one_grey_level(family: Any) -> None:
    kind, folder, _, _, processor = family
    preprocessing = nunbit.load(folder).preprocessing
    for size in ((640, 480), (333, 500), (64, 64), (40, 20)):
        (image,) = pictures(1, size)
        inputs = processor(images=[image], return_tensors="pt")
        got = torch.from_numpy(preprocessing(image))
        expected = inputs["pixel_values"][0]
        if kind == "naflex":
            got = cut_into_patches(got, 16)
            expected = own_input(kind, inputs).patches[0, : len(got)]
        level = 1 / 255 / min(preprocessing.std)
        assert (got - expected).abs().max() <= 1.01 * level


@pytest.mark.filterwarnings("ignore::nunbit.errors.NunbitWarning")
def test_a_saved_folder_opens_in_transformers_with_equal_outputs(family: Any, tmp_path: Path) -> None:
    kind, folder, model, tokenizer, _ = family
    encoder = nunbit.load(folder)
    encoder.save_pretrained(tmp_path)
    again = nunbit.load(tmp_path)
    assert again.fingerprint == encoder.fingerprint
    theirs, problems = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(problems.values())
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    length = model.config.text_config.max_position_embeddings
    ids = reference_ids(tokenizer, TEXTS, length)
    np.testing.assert_array_equal(reference_ids(their_tokenizer, TEXTS, length), ids)
    inputs = transformers.AutoImageProcessor.from_pretrained(tmp_path)(images=pictures(3), return_tensors="pt")
    with torch.inference_mode():
        got = theirs(input_ids=torch.from_numpy(ids), **inputs)
        expected = model(input_ids=torch.from_numpy(ids), **inputs)
        own = again.model(own_input(kind, inputs), torch.from_numpy(ids))
    close(got.logits_per_image, expected.logits_per_image)
    close(own.logits_per_image, expected.logits_per_image)


def test_padding_of_clip_is_free_and_of_siglip_is_not(family: Any) -> None:
    kind, folder, _, _, _ = family
    encoder = nunbit.load(folder)
    short, long = encoder.tokenizer(["a cat"]), encoder.tokenizer(["a cat", "two dogs on a beach at the sea"])
    assert (short.shape[1] < long.shape[1]) == (kind == "clip")
    alone = encoder.encode_text(["a cat"])
    np.testing.assert_allclose(encoder.encode_text(["a cat", "two dogs on a beach"])[:1], alone, atol=1e-6)
    if kind != "clip":
        with torch.inference_mode():
            cut = encoder.model.embed_text(torch.from_numpy(short[:, :6])).numpy()
        assert np.abs(cut - alone).max() > 1e-3


def test_too_long_texts_are_cut_with_one_warning(family: Any) -> None:
    _, folder, _, _, _ = family
    encoder = nunbit.load(folder)
    with pytest.warns(NunbitWarning, match="2 of 3 texts are longer than") as caught:
        ids = encoder.tokenizer(["word " * 100, "a", "dog " * 100])
    assert len(caught) == 1
    assert (ids[[0, 2], -1] == encoder.tokenizer.config.end_token_id).all()


def test_pictures_of_several_sizes_share_a_batch(family: Any) -> None:
    _, folder, _, _, _ = family
    encoder = nunbit.load(folder)
    images = [pictures(1, size)[0] for size in ((90, 60), (30, 120), (64, 64))]
    together = encoder.encode_image(images, batch_size=3)
    alone = encoder.encode_image(images, batch_size=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
