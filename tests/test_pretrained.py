"""Model folders: what does not fit is named, what was saved is what is loaded, and drift is loud."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import nunbit
from clip_models import make_towers, pictures
from nunbit.cli.models import command
from nunbit.clip import Clip
from nunbit.encode import Encoder
from nunbit.errors import DriftError, EncoderMismatch, NunbitError, UnsupportedModel, UsageError, WeightsError
from nunbit.golden import FILE, compare_golden, record_golden
from nunbit.pretrained.encoder import ClipTowers


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    towers = make_towers(tmp_path_factory.mktemp("vocabulary"))
    towers.save(folder)
    record_golden(nunbit.load(folder), folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def as_transformers(folder: Path) -> Path:
    """The same folder as somebody else would have made it: without what we add."""
    for name in ("nunbit.json", "open_clip_config.json", "open_clip_model.safetensors", FILE):
        (folder / name).unlink()
    return folder


def test_a_folder_survives_saving_and_loading(original: Path, tmp_path: Path) -> None:
    encoder = nunbit.load(original)
    encoder.save_pretrained(tmp_path / "again")
    again = nunbit.load(tmp_path / "again")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.encode_image(pictures(3)), encoder.encode_image(pictures(3)))
    np.testing.assert_array_equal(again.encode_text(["a cat"]), encoder.encode_text(["a cat"]))
    assert compare_golden(again, tmp_path / "again").token_ids_equal == (6, 6)


def test_the_interface_of_the_module(original: Path) -> None:
    encoder = nunbit.load(original)
    module = encoder.model
    assert isinstance(module, Clip)
    pixels = torch.randn(2, 3, 32, 32)
    ids = torch.from_numpy(encoder.tokenizer(["a cat", "two dogs on a beach"]))
    with torch.inference_mode():
        images, texts = module.embed_image(pixels), module.embed_text(ids, attention_mask=torch.ones_like(ids))
        torch.testing.assert_close(texts, module.embed_text(ids), atol=1e-6, rtol=0)
        logits = module(pixels, ids).logits_per_image
    torch.testing.assert_close(images.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(logits, module.logit_scale.exp() * images @ texts.T)
    assert module.vision_encoder(pixels).shape == (
        2,
        module.vision_encoder.num_patches,
        module.vision_encoder.hidden_size,
    )
    with pytest.raises(UsageError, match="25 tokens, this text encoder reads 24"):
        module.embed_text(torch.zeros(1, 25, dtype=torch.int64))


def test_texts_of_all_lengths_answer_as_each_alone(original: Path) -> None:
    encoder = nunbit.load(original)
    words = ["a", "man", "riding", "a", "wave", "on", "a", "red", "board", "at", "the", "beach", "with", "two", "dogs"]
    texts = [" ".join(words[: 1 + number % 6]) for number in range(150)]
    alone = np.concatenate([encoder.encode_text([text]) for text in texts[:12]])
    np.testing.assert_allclose(encoder.encode_text(texts), alone[[number % 6 for number in range(150)]], atol=1e-6)


def test_attention_probabilities_are_those_of_the_forward_pass(original: Path) -> None:
    attention = nunbit.load(original).model.vision_encoder.blocks[0].attention
    x = torch.randn(2, 5, attention.qkv.in_features)
    with torch.inference_mode():
        probabilities = attention.probabilities(x)
        value = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1))[:, :, 2].transpose(1, 2)
        mixed = attention.out((probabilities @ value).transpose(1, 2).flatten(2))
        torch.testing.assert_close(mixed, attention(x))


def test_shards_are_one_model(folder: Path) -> None:
    whole = nunbit.load(folder).fingerprint
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    for number, chosen in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in chosen}, folder / f"model-{number}.safetensors")
    weight_map = {name: f"model-{names.index(name) % 2}.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    assert nunbit.load(folder).fingerprint == whole
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"lacks model-1\.safetensors"):
        nunbit.load(folder)


def test_tensors_that_do_not_fit_are_listed(folder: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["surprise"] = torch.zeros(1)
        del tensors["logit_scale"]
        tensors["text_projection.weight"] = torch.zeros(2, 2)

    edit_tensors(folder / "model.safetensors", spoil)
    with pytest.raises(WeightsError) as caught:
        nunbit.load(folder)
    for words in (
        "1 missing: logit_scale",
        "1 unexpected: surprise",
        "1 misshapen: text_projection.weight 2x2, expected",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", lambda c: c["text_config"].update(hidden_act="relu"), "activation 'relu'"),
        ("config.json", lambda c: c["vision_config"].update(image_size=[32, 64]), "only squares"),
        ("config.json", lambda c: c["vision_config"].update(num_channels=4), "4 channels"),
        ("preprocessor_config.json", lambda c: c.update(resample=0), "resize filter 0"),
        ("preprocessor_config.json", lambda c: c.update(do_center_crop=False), "sizes would differ"),
        ("preprocessor_config.json", lambda c: c.update(do_normalize=False), "do_normalize"),
        ("preprocessor_config.json", lambda c: c.update(image_processor_type="Other"), "Other"),
    ],
)
def test_what_is_not_known_is_refused(folder: Path, file: str, change: Any, words: str) -> None:
    edit(as_transformers(folder) / file, change)
    with pytest.raises(UnsupportedModel, match=words):
        nunbit.load(folder)


@pytest.mark.parametrize("file", ["preprocessor_config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named_with_a_remedy(folder: Path, file: str) -> None:
    (as_transformers(folder) / file).unlink()
    with pytest.raises(NunbitError, match=str(folder)) as caught:
        nunbit.load(folder)
    assert caught.value.hint


def test_pickled_weights_are_refused(folder: Path) -> None:
    (as_transformers(folder) / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match=r"pytorch_model\.bin, which can run code"):
        nunbit.load(folder)


def test_a_changed_file_of_a_saved_folder_is_noticed(folder: Path) -> None:
    edit_tensors(folder / "model.safetensors", lambda t: t["text_projection.weight"].add_(1e-3))
    with pytest.raises(WeightsError, match="fingerprint"):
        nunbit.load(folder)


ANSWER_CHANGERS: dict[str, tuple[str, Any]] = {
    "activation": ("model", lambda c: c["text"].update(hidden_act="gelu")),
    "interpolation of positions": ("model", lambda c: c["vision"].update(position_interpolation="bicubic_antialias")),
    "resize filter": ("preprocessing", lambda c: c.update(interpolation="bilinear")),
    "crop": ("preprocessing", lambda c: c.update(resize="squash")),
    "mean": ("preprocessing", lambda c: c.update(mean=[0.5, 0.5, 0.5])),
    "padding": ("tokenizer", lambda c: c.update(padding="max_length")),
    "padding token": ("tokenizer", lambda c: c.update(pad_token_id=3)),
    "length": ("tokenizer", lambda c: c.update(context_length=20)),
    "canonicalization": ("tokenizer", lambda c: c.update(canonicalization="repair_lower")),
}


@pytest.mark.parametrize("what", ANSWER_CHANGERS)
def test_everything_that_changes_an_answer_changes_the_fingerprint(folder: Path, what: str) -> None:
    before = nunbit.load(folder).fingerprint
    section, change = ANSWER_CHANGERS[what]
    edit(folder / "nunbit.json", lambda c: (change(c[section]), c.pop("fingerprint")))
    assert nunbit.load(folder).fingerprint != before


def test_precision_and_vocabulary_change_the_fingerprint(folder: Path) -> None:
    before = nunbit.load(folder)
    half = nunbit.load(folder, precision="bfloat16")
    assert half.fingerprint != before.fingerprint
    close = np.sum(half.encode_image(pictures(3)) * before.encode_image(pictures(3)), axis=1)
    assert close.min() > 0.99
    with pytest.raises(UsageError, match="float32"):
        half.save_pretrained(folder)
    edit(folder / "nunbit.json", lambda c: c.pop("fingerprint"))
    edit(folder / "tokenizer.json", lambda c: c["model"]["merges"].pop())
    assert nunbit.load(folder).fingerprint != before.fingerprint


def test_an_index_refuses_the_encoder_after_any_change(folder: Path, tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "a.png")
    with nunbit.Index.open(tmp_path / "x.nunbit", nunbit.load(folder)) as index:
        index.add([tmp_path / "a.png"])
        assert index.search("a cat", top_k=1)[0].path.endswith("a.png")
    edit(folder / "nunbit.json", lambda c: (c["preprocessing"].update(interpolation="bilinear"), c.pop("fingerprint")))
    with pytest.raises(EncoderMismatch):
        nunbit.Index.open(tmp_path / "x.nunbit", nunbit.load(folder))


def test_drift_is_loud_and_says_where(folder: Path) -> None:
    edit(folder / "nunbit.json", lambda c: (c["preprocessing"].update(interpolation="bilinear"), c.pop("fingerprint")))
    with pytest.raises(DriftError, match="pixels differ by up to") as caught:
        compare_golden(nunbit.load(folder), folder)
    assert "image_embeddings differ" in caught.value.message and "text_embeddings differ" not in caught.value.message
    result = CliRunner().invoke(command, ["verify", str(folder)])
    assert isinstance(result.exception, DriftError)
    (folder / FILE).unlink()
    with pytest.raises(UsageError, match="no golden outputs"):
        compare_golden(nunbit.load(folder), folder)
    assert CliRunner().invoke(command, ["verify", str(folder), "--record"]).exit_code == 0
    assert "answers as it did" in CliRunner().invoke(command, ["verify", str(folder)]).output


def test_an_architecture_of_our_own_is_kept_under_our_own_names(tmp_path: Path) -> None:
    towers = make_towers(tmp_path, pooling="mean", class_token=False, patch_bias=True)
    encoder_fingerprint = towers.fingerprint
    towers.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/nunbit.json").read_text())["formats"] == ["nunbit"]
    loaded = nunbit.load(tmp_path / "saved")
    assert isinstance(loaded, Encoder) and loaded.fingerprint == encoder_fingerprint


def test_a_typo_in_our_own_file_is_an_error(folder: Path) -> None:
    edit(folder / "nunbit.json", lambda c: c["model"]["vision"].update(hiden_size=3))
    with pytest.raises(UsageError, match="did you mean 'hidden_size'"):
        nunbit.load(folder)


def test_the_license_travels(folder: Path) -> None:
    as_transformers(folder)
    (folder / "README.md").write_text("---\nlicense: mit\ntags:\n- x\n---\n# A model\n")
    nunbit.load(folder).save_pretrained(folder / "again")
    assert json.loads((folder / "again/nunbit.json").read_text())["license"] == "mit"
    assert "license: mit" in (folder / "again/README.md").read_text()


def test_weights_that_were_trained_on_have_another_fingerprint_and_are_saved(original: Path, tmp_path: Path) -> None:
    encoder = nunbit.load(original)
    before, scale = encoder.fingerprint, encoder.logit_scale
    with torch.no_grad():
        encoder.model.text_encoder.projection.weight.add_(0.01)
        encoder.model.logit_scale.add_(1)
    assert encoder.fingerprint != before and encoder.logit_scale > 2 * scale
    encoder.save_pretrained(tmp_path)
    assert nunbit.load(tmp_path).fingerprint == encoder.fingerprint


def test_saving_over_another_model_leaves_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    make_towers(tmp_path / "words").save(tmp_path / "saved")
    other = make_towers(tmp_path / "words", pooling="mean", class_token=False, patch_bias=True)
    other.save(tmp_path / "saved")
    assert not (tmp_path / "saved/model.safetensors").exists()
    assert nunbit.load(tmp_path / "saved").fingerprint == other.fingerprint
    with pytest.raises(UsageError, match="holds other files"):
        other.save(tmp_path / "words")


def test_either_weight_file_may_be_deleted(folder: Path) -> None:
    before = nunbit.load(folder).fingerprint
    (folder / "model.safetensors").unlink()
    assert nunbit.load(folder).fingerprint == before


@pytest.mark.parametrize("end", [2, None])
def test_texts_read_at_another_token_than_their_end_are_refused(folder: Path, end: int | None) -> None:
    as_transformers(folder)
    size = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    edit(folder / "config.json", lambda c: c["text_config"].update(eos_token_id=2 if end else size - 2))
    if end:  # an old file: the token of the highest id is meant, and a token was added behind the end mark
        added = {"id": size, "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False}
        added |= {"normalized": False, "special": True}
        edit(folder / "tokenizer.json", lambda c: c["added_tokens"].append(added))
        edit(folder / "config.json", lambda c: c["text_config"].update(vocab_size=size + 1))
        rows = torch.zeros(1, 32)
        name = "text_model.embeddings.token_embedding.weight"
        edit_tensors(folder / "model.safetensors", lambda t: t.update({name: torch.cat([t[name], rows])}))
    with pytest.raises(UnsupportedModel, match="the tokenizer closes them with"):
        nunbit.load(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"precision": "fp16"}, "precision is 'fp16'"), ({"device": "gpu"}, "cannot compute on 'gpu'")],
)
def test_places_and_precisions_that_do_not_exist(original: Path, options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        nunbit.load(original, **options)


FILES = ("config.json", "nunbit.json", "open_clip_config.json", "preprocessor_config.json", "tokenizer.json",
         "tokenizer_config.json")  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_files_with_anything_in_them_give_an_error_that_names_the_folder(folder: Path, file: str) -> None:
    """Whatever stands where a name or a number is expected, the error is one that people can read."""
    if file != "nunbit.json":
        (folder / "nunbit.json").unlink()
    if file == "open_clip_config.json":
        (folder / "model.safetensors").unlink()
    text = (folder / file).read_text(encoding="utf-8")
    content = json.loads(text)
    sections = [content, *(value for value in content.values() if isinstance(value, dict))]
    spoiled: list[str] = ["", "[]", "{}", "version https://git-lfs.github.com/spec/v1", text[: len(text) // 2]]
    for section in sections:
        for name in [*section][:12]:
            kept = section[name]
            for odd in (None, "odd", -1, [], {"odd": 1}, True):
                section[name] = odd
                spoiled.append(json.dumps(content))
            section[name] = kept
    for number, words in enumerate(spoiled[::3] if file != "tokenizer.json" else spoiled[::9]):
        (folder / file).write_text(words, encoding="utf-8")
        try:
            nunbit.load(folder)
        except NunbitError as error:
            assert str(error), number


def test_an_unknown_license_stays_unknown(tmp_path: Path, original: Path) -> None:
    towers = nunbit.load(original).towers
    ClipTowers(towers.model, towers.settings, license="", name="x").save(tmp_path / "a")
    assert nunbit.load(tmp_path / "a").towers.license == ""
