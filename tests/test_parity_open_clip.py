"""Every family of open_clip on random weights, OpenAI's archives included: embeddings and logits, both ways."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nunbit
from clip_models import TEXTS, pictures, randomize, write_byte_pairs, write_sentencepiece_json, write_xlm_json
from nunbit.errors import NunbitError, UnsupportedModel, WeightsError
from nunbit.pretrained.open_clip_folder import open_clip_config
from nunbit.pretrained.tokenizer_files import read_open_clip_tokenizer
from nunbit.vision_encoder import make_vision_encoder
from nunbit.vision_encoder.timm_backbone import import_timm

open_clip = pytest.importorskip("open_clip")

TOLERANCE = 1e-5
SHORT = ["a photo of a cat", "It's NOT a_dog!", "두 마리의 개", "x"]
VIT = {"image_size": 64, "patch_size": 16, "width": 48, "head_width": 12, "layers": 3, "mlp_ratio": 2.1}
RESNET = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 16, "head_width": 64, "patch_size": None}
TEXT = {"context_length": 24, "width": 32, "heads": 2, "layers": 2}
SIGLIP_TEXT = {
    "context_length": 16,
    "width": 32,
    "heads": 2,
    "layers": 1,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "hf_tokenizer_name": "own",
    "tokenizer_kwargs": {"clean": "canonicalize"},
}


def timm(name: str, size: int, pool: str, projection: str | None) -> dict[str, Any]:
    return {"timm_model_name": name, "image_size": size, "timm_pool": pool, "timm_proj": projection}


SIGLIP = timm("vit_base_patch32_siglip_256", 64, "map", "none")
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 40, "vision_cfg": VIT, "text_cfg": TEXT},
    "vit-quickgelu": {"embed_dim": 40, "vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "vit-avg": {"embed_dim": 40, "vision_cfg": VIT | {"pool_type": "avg", "no_ln_pre": True}, "text_cfg": TEXT},
    "vit-custom-text": {"embed_dim": 40, "vision_cfg": VIT, "text_cfg": TEXT, "custom_text": True},
    "resnet": {"embed_dim": 40, "vision_cfg": RESNET, "text_cfg": TEXT, "quick_gelu": True},
    "convnext": {"embed_dim": 40, "vision_cfg": timm("convnext_atto", 64, "", "linear"), "text_cfg": TEXT},
    "mobileclip": {
        "embed_dim": 40,
        "vision_cfg": timm("fastvit_mci0", 64, "avg", None),
        "text_cfg": TEXT | {"no_causal_mask": True},
        "custom_text": True,
    },
    "pe-core": {
        "embed_dim": 40,
        "vision_cfg": timm("vit_pe_core_tiny_patch16_384", 384, "map", None),
        "text_cfg": TEXT,
        "custom_text": True,
    },
    "siglip": {
        "embed_dim": 768,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": SIGLIP | {"image_size": 256},
        "text_cfg": SIGLIP_TEXT,
    },
}
ARCHIVED = {  # OpenAI's heads are 64 wide
    "archive-vit": {
        "embed_dim": 40,
        "vision_cfg": VIT | {"width": 64, "head_width": 64, "mlp_ratio": 4},
        "text_cfg": TEXT | {"width": 64, "heads": 1},
        "quick_gelu": True,
    },
    "archive-resnet": FAMILIES["resnet"] | {"text_cfg": TEXT | {"width": 64, "heads": 1}},
}


def write_open_clip(folder: Path, name: str) -> Any:
    """A folder as `open_clip.push_to_hf_hub` writes it, and the model in it."""
    cfg = json.loads(json.dumps((FAMILIES | ARCHIVED)[name]))
    siglip = name == "siglip"
    cfg["text_cfg"]["vocab_size"] = write_sentencepiece_json(folder) if siglip else write_byte_pairs(folder)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"} if siglip else {}
    content = {"model_cfg": cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    randomize(model)
    save_file(
        {key: tensor.contiguous() for key, tensor in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, write_open_clip(folder, request.param)


@pytest.mark.filterwarnings("ignore::nunbit.errors.NunbitWarning")
@pytest.mark.parametrize("count", [1, 7])
def test_embeddings_and_logits_equal_the_reference(family: Any, count: int) -> None:
    _, folder, model = family
    encoder = nunbit.load(folder)
    ids = torch.from_numpy(encoder.tokenizer(TEXTS[:count]))
    padded = torch.nn.functional.pad(ids, (0, model_length(model) - ids.shape[1]))
    pixels = torch.randn(count, 3, encoder.model.vision_encoder.image_size, encoder.model.vision_encoder.image_size)
    with torch.inference_mode():
        images, texts = model.encode_image(pixels, normalize=True), model.encode_text(padded, normalize=True)
        logits = model.get_logits(pixels, padded)[0]
        got = encoder.model(pixels, ids)
    close(got.image_embeddings, images)
    close(got.text_embeddings, texts)
    torch.testing.assert_close(got.logits_per_image, logits, atol=3 * TOLERANCE, rtol=0)


def test_patch_features_have_the_published_shape(family: Any) -> None:
    _, folder, _ = family
    vision = nunbit.load(folder).model.vision_encoder
    with torch.inference_mode():
        features = vision(torch.zeros(2, 3, vision.image_size, vision.image_size))
    assert features.shape == (2, vision.num_patches, vision.hidden_size)


def test_a_saved_folder_opens_in_open_clip_with_equal_outputs(family: Any, tmp_path: Path) -> None:
    _, folder, model = family
    encoder = nunbit.load(folder)
    encoder.save_pretrained(tmp_path)
    assert nunbit.load(tmp_path).fingerprint == encoder.fingerprint
    theirs = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    ids = torch.nn.functional.pad(torch.from_numpy(encoder.tokenizer(["a cat", "two dogs"])), (0, 0))
    ids = torch.nn.functional.pad(ids, (0, model_length(model) - ids.shape[1]))
    pixels = torch.randn(2, 3, encoder.model.vision_encoder.image_size, encoder.model.vision_encoder.image_size)
    with torch.inference_mode():
        got, expected = theirs.get_logits(pixels, ids)[0], model.get_logits(pixels, ids)[0]
    close(got, expected)


def test_siglip_towers_are_timms() -> None:
    library = import_timm()
    for name in (n for n in library.list_models("vit_*siglip*") if "gap" not in n):
        with torch.device("meta"):
            trunk = library.create_model(name)
        cfg = FAMILIES["siglip"] | {"vision_cfg": timm(name, trunk.patch_embed.img_size[0], "map", "none")}
        vision = open_clip_config(cfg | {"embed_dim": trunk.num_features}).vision
        with torch.device("meta"):
            own = make_vision_encoder(vision)
        assert sum(p.numel() for p in own.parameters()) == sum(p.numel() for p in trunk.parameters())
        acts = {"GELU": "gelu", "GELUTanh": "gelu_tanh"}
        assert acts[type(trunk.blocks[0].mlp.act).__name__] == vision.hidden_act, name
        assert trunk.blocks[0].attn.num_heads == vision.num_attention_heads


def test_a_tokenizer_with_marks_on_both_sides(tmp_path: Path) -> None:
    """As MetaCLIP 2 has it: XLM's vocabulary, read at its end mark."""
    size = write_xlm_json(tmp_path)
    text = TEXT | {"vocab_size": size, "hf_tokenizer_name": "own", "pool_type": "eos", "eos_id": 2}
    cfg = {"embed_dim": 40, "vision_cfg": VIT, "text_cfg": text, "custom_text": True}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": {}}))
    model = randomize(open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    encoder = nunbit.load(tmp_path)
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(SHORT)
    np.testing.assert_array_equal(encoder.tokenizer(SHORT), ids.numpy())
    with torch.inference_mode():
        close(torch.from_numpy(encoder.encode_text(SHORT)), model.encode_text(ids, normalize=True))


def test_the_saved_folders_own_tokenizer_and_pixels_in_open_clip(tmp_path: Path) -> None:
    for name in ("vit", "siglip"):
        (tmp_path / name).mkdir()
        write_open_clip(tmp_path / name, name)
        encoder = nunbit.load(tmp_path / name)
        encoder.save_pretrained(tmp_path / name / "saved")
        model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / name / 'saved'}")
        ids = open_clip.get_tokenizer(f"local-dir:{tmp_path / name / 'saved'}")(SHORT)
        (image,) = pictures(1)
        with torch.inference_mode():
            texts, images = model.encode_text(ids, normalize=True), model.encode_image(preprocess(image)[None], True)
        close(torch.from_numpy(encoder.encode_text(SHORT)), texts)
        close(torch.from_numpy(encoder.encode_image([image])), images)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["vision_cfg"].update(pool_typ="avg"), "vision_cfg.pool_typ"),
        (lambda c: c["vision_cfg"].update(ls_init_value=0.1), "vision_cfg.ls_init_value"),
        (lambda c: c["text_cfg"].update(tokenizer_kwargs={"strip_sep_token": True}), "strip_sep_token"),
        (lambda c: c["text_cfg"].update(hf_model_name="roberta-base"), "hf_model_name"),
        (lambda c: c["text_cfg"].update(tokenizer_kwargs={"clean": "none"}), "cannot be understood"),
        (lambda c: c["text_cfg"].update(pool_type="eos", eos_id=5), "closes them with"),
        (lambda c: c["vision_cfg"].update(timm_model_name="hf-hub:some/body"), "no name of a timm backbone"),
        (lambda c: c["vision_cfg"].update(patch_size=0), "at least 1"),
    ],
)
def test_what_open_clip_would_do_otherwise_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    write_open_clip(tmp_path, "vit")
    content = json.loads((tmp_path / "open_clip_config.json").read_text())
    change(content["model_cfg"])
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(NunbitError, match=words):
        nunbit.load(tmp_path)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_other_sizes_interpolate_as_open_clip_does(name: str, tmp_path: Path) -> None:
    model = write_open_clip(tmp_path, name)
    own = nunbit.load(tmp_path).model.vision_encoder
    for side in (32, 96):
        pixels = torch.randn(2, 3, side, side)
        if name == "vit":
            cfg = json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"]
            cfg["vision_cfg"]["image_size"] = side
            resized = open_clip.CLIP(**cfg)
            state = dict(model.state_dict())
            open_clip.model.resize_pos_embed(state, resized)
            resized.load_state_dict(state)
            with torch.inference_mode():
                close(own.image_features(pixels), resized.eval().visual(pixels))
        else:  # open_clip itself does not resize a ResNet's pooling
            assert own.image_features(pixels).shape == (2, 40)


def test_preprocessing_equals_open_clips(tmp_path: Path) -> None:
    write_open_clip(tmp_path, "vit")
    preprocessing = nunbit.load(tmp_path).preprocessing
    for mode, interpolation in (("shortest", "bicubic"), ("squash", "bilinear"), ("squash", "bicubic")):
        theirs = open_clip.image_transform(64, is_train=False, resize_mode=mode, interpolation=interpolation)
        if (mode, interpolation) != ("shortest", "bicubic"):
            content = json.loads((tmp_path / "open_clip_config.json").read_text())
            content["preprocess_cfg"] = {"resize_mode": mode, "interpolation": interpolation}
            (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
            preprocessing = nunbit.load(tmp_path).preprocessing
        for size in ((640, 480), (333, 500), (64, 64), (40, 20)):
            (image,) = pictures(1, size)
            np.testing.assert_allclose(preprocessing(image), theirs(image).numpy(), atol=1e-6)


def test_tokenizers_equal_open_clips(tmp_path: Path, shared: Path) -> None:
    shutil.copy(shared / "golden/openai_clip/bpe_simple_vocab_16e6.txt.gz", tmp_path)
    write_open_clip(tmp_path, "vit")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink()
    content = json.loads((tmp_path / "open_clip_config.json").read_text())
    for cleaning in ("lower", "whitespace", "canonicalize"):
        content["model_cfg"]["text_cfg"] |= {"vocab_size": 49408, "tokenizer_kwargs": {"clean": cleaning}}
        content["model_cfg"]["text_cfg"]["context_length"] = 77
        config = open_clip_config(content["model_cfg"])
        own = read_open_clip_tokenizer(tmp_path, config, content["model_cfg"]["text_cfg"])
        texts = [*TEXTS[:5], "&amp;lt;b&gt; â€œquotedâ€ snake_case"]
        expected = open_clip.SimpleTokenizer(clean=cleaning)(texts).numpy()
        ids = own(texts)
        np.testing.assert_array_equal(ids, expected[:, : ids.shape[1]])
        assert not expected[:, ids.shape[1] :].any()


class Program(torch.nn.Module):
    """Stands for OpenAI's traced program: the same tensor names, half of them in half precision, and numbers beside."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        for name, child in model.half().named_children():
            self.add_module(name, child)
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(self, name, torch.nn.Parameter(getattr(model, name).detach()))
        for name, number in (("input_resolution", 64), ("context_length", 24), ("vocab_size", 700)):
            self.register_buffer(name, torch.tensor(number))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.logit_scale


def write_archive(folder: Path, name: str) -> Any:
    model = write_open_clip(folder, name)
    for file in ("open_clip_config.json", "open_clip_model.safetensors"):
        (folder / file).unlink()
    torch.jit.save(torch.jit.trace(Program(model), torch.zeros(1, dtype=torch.half)), folder / "model.pt")
    return model.float()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["archive-vit", "archive-resnet"])
def test_openais_archives_are_read_and_not_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_archive(tmp_path, name)
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch, "load", None)
    encoder = nunbit.load(tmp_path / "model.pt")
    ids = torch.from_numpy(encoder.tokenizer(["a cat", "두 마리의 개"]))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        padded = torch.nn.functional.pad(ids, (0, 24 - ids.shape[1]))
        close(encoder.model(pixels, ids).logits_per_image, model.get_logits(pixels, padded)[0])
    encoder.save_pretrained(tmp_path / "saved")
    assert nunbit.load(tmp_path / "saved").fingerprint == encoder.fingerprint


def test_an_archive_that_asks_for_more_memory_than_it_has_is_refused(tmp_path: Path) -> None:
    class Tensor:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, (10**9,), (0,), False, OrderedDict())

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 1) if isinstance(obj, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer).dump(Tensor())
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w") as archive:
        archive.writestr("bomb/data.pkl", buffer.getvalue())
        archive.writestr("bomb/data/0", b"\0" * 4)
    with pytest.raises(UnsupportedModel, match="1000000000 numbers from 1"):
        nunbit.load(tmp_path / "bomb.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_archive_that_would_run_something_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps(Evil()))
    with pytest.raises(UnsupportedModel, match="mkdir"):
        nunbit.load(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "text.pt").write_text("no archive")
    with pytest.raises(UnsupportedModel, match="not a TorchScript archive"):
        nunbit.load(tmp_path / "text.pt")
    write_archive(tmp_path, "archive-vit")
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((UnsupportedModel, WeightsError), match="cut.pt"):
        nunbit.load(tmp_path / "cut.pt")


def model_length(model: Any) -> int:
    return int(model.context_length)


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


def test_a_model_of_either_library_opens_in_the_other(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_open_clip(tmp_path, "vit-quickgelu")
    encoder = nunbit.load(tmp_path)
    encoder.save_pretrained(tmp_path / "first")
    theirs = transformers.CLIPModel.from_pretrained(tmp_path / "first").eval()
    for file in ("nunbit.json", "open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / "first" / file).unlink()
    nunbit.load(tmp_path / "first").save_pretrained(tmp_path / "second")  # read as a folder of transformers
    back = open_clip.create_model(f"local-dir:{tmp_path / 'second'}").eval()
    ids, pixels = torch.from_numpy(encoder.tokenizer(["a cat", "개 두 마리"])), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = encoder.model(pixels, ids).logits_per_image
        close(theirs(input_ids=ids, pixel_values=pixels).logits_per_image, expected)
        padded = torch.nn.functional.pad(ids, (0, 24 - ids.shape[1]))
        close(back.get_logits(pixels, padded)[0], expected)
