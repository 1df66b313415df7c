"""ONNX files answer as torch does at every batch and length, say which encoder they are, or are not written."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import nunbit
from clip_models import pictures, randomize, write_byte_pairs
from nunbit import onnx_export
from nunbit.cli import nunbit as command_line
from nunbit.clip import Clip, ClipConfig
from nunbit.encode import Encoder, EncoderInfo
from nunbit.errors import DriftError, ModelError, UnsupportedModel, UsageError, WeightsError
from nunbit.onnx_export import OnnxModels, export_onnx, read_onnx_metadata
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained.encoder import ClipTowers, load_clip
from nunbit.pretrained.parts import Settings
from nunbit.pretrained.tokenizer_files import read_clip_tokenizer
from nunbit.text import TokenizerConfig
from nunbit.text.saved import restore_tokenizer
from nunbit.text_encoder import TextConfig
from nunbit.vision_encoder import ResNetConfig
from test_parity_transformers import FAMILIES

TOLERANCE = 1e-5
LENGTH = 24


def make_family(kind: str, folder: Path) -> Encoder:
    torch.manual_seed(0)
    for part in FAMILIES[kind](folder):
        (randomize(part) if isinstance(part, torch.nn.Module) else part).save_pretrained(folder)
    return nunbit.load(folder)


def make_resnet(folder: Path) -> Encoder:
    size = write_byte_pairs(folder)
    vision = ResNetConfig(image_size=64, layers=(1, 1, 1, 1), width=8, num_attention_heads=4, projection_size=20)
    text = TextConfig(
        vocab_size=size,
        max_position_embeddings=LENGTH,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        causal=True,
        pooling="end_token",
        end_token_id=size - 1,
        projection_size=20,
        projection_bias=False,
    )
    config = ClipConfig(vision=vision, text=text, objective="softmax")
    torch.manual_seed(0)
    model = Clip(config)
    randomize(model)
    preprocessing = Preprocessing(64, 1.0, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "crop", "bicubic")
    settings = Settings(config, preprocessing, read_clip_tokenizer(folder, config, "open_clip"))
    towers = ClipTowers(model, settings, license="mit", name="tiny-resnet")
    return Encoder(towers, EncoderInfo("tiny-resnet", 20, preprocessing))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return make_family("clip", tmp_path_factory.mktemp("my-clip"))


@pytest.fixture(scope="module")
def clip_models(clip: Encoder) -> OnnxModels:
    return export_onnx(clip, Path(clip.name) / "onnx")


@pytest.fixture(scope="module", params=["clip", "siglip", "resnet"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, OnnxModels]:
    if request.param == "clip":
        return request.getfixturevalue("clip"), request.getfixturevalue("clip_models")
    folder = tmp_path_factory.mktemp(request.param)
    encoder = make_resnet(folder) if request.param == "resnet" else make_family(request.param, folder)
    return encoder, export_onnx(encoder, folder / "onnx")


@pytest.fixture
def in_no_time(clip_models: OnnxModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the files of an earlier export where how they are written does not matter."""
    folder = clip_models.image_encoder.parent
    monkeypatch.setattr(onnx_export, "_write", lambda *given: shutil.copy(folder / given[-1].name, given[-1]))


def run(path: Path, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (rows,) = session.run(None, {session.get_inputs()[0].name: values})
    assert rows.dtype == np.float32
    return np.asarray(rows)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_pictures_become_the_same_rows(exported: tuple[Encoder, OnnxModels], count: int) -> None:
    encoder, models = exported
    images = pictures(count)
    pixels = np.stack([encoder.preprocessing(image) for image in images])
    np.testing.assert_allclose(run(models.image_encoder, pixels), encoder.encode_image(images), atol=TOLERANCE, rtol=0)


@pytest.mark.filterwarnings("ignore::nunbit.errors.NunbitWarning")
@pytest.mark.parametrize("count", [1, 2, 7])
def test_texts_become_the_same_rows(exported: tuple[Encoder, OnnxModels], count: int) -> None:
    encoder, models = exported
    for words in (1, 3, 100):
        texts = ["a cat on a beach", "x", "고양이", "🐈‍⬛!", "two dogs", "a red bus", "해변"][:count]
        texts[0] = " ".join(["cat"] * words)
        rows = run(models.text_encoder, encoder.tokenizer(texts))
        np.testing.assert_allclose(rows, encoder.encode_text(texts), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 5, LENGTH])
def test_the_token_count_is_free_where_padding_changes_nothing(
    exported: tuple[Encoder, OnnxModels], length: int
) -> None:
    encoder, models = exported
    config = encoder.tokenizer.config
    ids = np.random.default_rng(length).integers(0, 60, (2, length))
    ids[:, -1] = config.end_token_id
    if config.padding == "max_length":
        with pytest.raises(Exception, match="Got invalid dimensions for input: input_ids"):
            run(models.text_encoder, ids)
        return
    with torch.inference_mode():
        expected = encoder.model.embed_text(torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(run(models.text_encoder, ids), expected, atol=TOLERANCE, rtol=0)


def test_names_and_free_dimensions(exported: tuple[Encoder, OnnxModels]) -> None:
    encoder, models = exported
    image, text = (onnx.load(path) for path in (models.image_encoder, models.text_encoder))
    length = "tokens" if encoder.tokenizer.config.padding == "longest" else 16
    assert signature(image) == {
        "pixel_values": ["batch", 3, 64, 64],
        "image_embeddings": ["batch", encoder.embedding_size],
    }
    assert signature(text) == {"input_ids": ["batch", length], "text_embeddings": ["batch", encoder.embedding_size]}
    for model in (image, text):
        onnx.checker.check_model(model)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]


def signature(model: Any) -> dict[str, list[str | int]]:
    values = [*model.graph.input, *model.graph.output]
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_the_metadata_says_which_encoder_it_is(exported: tuple[Encoder, OnnxModels]) -> None:
    encoder, models = exported
    for path in (models.image_encoder, models.text_encoder):
        metadata = read_onnx_metadata(path)
        assert metadata == {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert metadata["fingerprint"] == encoder.fingerprint
        assert metadata["name"] == encoder.name
        assert int(metadata["embedding_size"]) == encoder.embedding_size
        assert float(metadata["logit_scale"]) == encoder.logit_scale
        bias = metadata.get("logit_bias")
        assert (None if bias is None else float(bias)) == encoder.logit_bias
        assert metadata["license"] == ("mit" if encoder.name == "tiny-resnet" else "")
        preprocessing = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(metadata["preprocessing"]).items()
        }
        assert Preprocessing(**preprocessing) == encoder.preprocessing


def test_the_tokenizer_beside_the_files_gives_the_same_ids(exported: tuple[Encoder, OnnxModels]) -> None:
    encoder, models = exported
    settings = TokenizerConfig(**json.loads(read_onnx_metadata(models.text_encoder)["tokenizer"]))
    again = restore_tokenizer(models.text_encoder.parent, settings)
    texts = ["a Photo of a cat", "창가의 고양이", "🐈‍⬛"]
    np.testing.assert_array_equal(again(texts), encoder.tokenizer(texts))
    assert again.vocabulary.digest() == encoder.tokenizer.vocabulary.digest()


def test_the_files_hold_their_own_tower_and_no_path_of_this_machine(exported: tuple[Encoder, OnnxModels]) -> None:
    encoder, models = exported
    assert models.difference is not None
    assert models.difference <= TOLERANCE
    names = {path.name for path in models.image_encoder.parent.iterdir()}
    assert {name for name in names if ".onnx" in name or name.startswith(".")} == {
        "image_encoder.onnx",
        "text_encoder.onnx",
    }
    for path, tower in ((models.image_encoder, "vision_encoder"), (models.text_encoder, "text_encoder")):
        content = path.read_bytes()
        parameters = getattr(encoder.model, tower).parameters()
        assert len(content) < 4 * sum(parameter.numel() for parameter in parameters) + 100_000
        assert os.fsencode(Path(nunbit.__file__).parent) not in content


@pytest.mark.usefixtures("in_no_time")
def test_files_that_differ_are_not_kept(clip: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image_encoder.onnx").write_bytes(b"an earlier export")
    monkeypatch.setattr(type(clip), "encode_pixels", lambda self, pixels: np.full((len(pixels), 40), np.nan))
    with pytest.raises(DriftError, match="differ from torch by nan"):
        export_onnx(clip, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["image_encoder.onnx"]
    assert (tmp_path / "image_encoder.onnx").read_bytes() == b"an earlier export"


def test_what_cannot_be_exported_is_refused(starter: Encoder, clip: Encoder, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="starter is not a CLIP or SigLIP model"):
        export_onnx(starter, tmp_path / "onnx")
    (tmp_path / "naflex").mkdir()
    with pytest.raises(UnsupportedModel, match="NaFlex"):
        export_onnx(make_family("naflex", tmp_path / "naflex"), tmp_path / "onnx")
    with pytest.raises(UsageError, match="bfloat16 on cpu; only float32"):
        export_onnx(load_clip(Path(clip.name), "half", precision="bfloat16"), tmp_path / "onnx")
    with pytest.raises(UsageError, match="holds a model already"):
        export_onnx(clip, clip.name)
    assert not (tmp_path / "onnx").exists()


def test_what_torch_cannot_write_leaves_nothing(clip: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **options: object) -> None:
        raise RuntimeError("no operator for that\nand much more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(UnsupportedModel, match=r"torch cannot write image_encoder.onnx .*: no operator for that$"):
        export_onnx(clip, tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_packages(clip: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelError, match=re.escape("pip install 'nunbit[export]'")):
        export_onnx(clip, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\x0a\x3a\xff\xff\x03<graph", b"\x72\x03\x0a\x05k"])
def test_metadata_of_something_else(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match="is no ONNX file, or not a whole one"):
        read_onnx_metadata(tmp_path / "x.onnx")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_onnx_metadata(tmp_path / "missing.onnx")


@pytest.fixture
def at_home(clip: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder as the examples imagine it."""
    (tmp_path / "my-clip").symlink_to(clip.name)
    monkeypatch.chdir(tmp_path)


def examples(capfd: pytest.CaptureFixture[str]) -> list[list[str]]:
    command_line.main(["export", "--help"], standalone_mode=False)
    return [shlex.split(line) for line in re.findall(r"^\s+nunbit (.*)$", capfd.readouterr().out, re.M)]


@pytest.mark.usefixtures("at_home", "in_no_time")
def test_the_plain_example_runs(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command_line.main(examples(capfd)[0], standalone_mode=False)
    lines = r"my-clip-onnx/image_encoder.onnx: 0\.\d MB\nmy-clip-onnx/text_encoder.onnx: 0\.\d MB\n"
    assert re.fullmatch(lines + r"largest difference to torch: \d\.\de-0[678]\n", capfd.readouterr().out)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    command_line.main(examples(capfd)[0], standalone_mode=False)
    printed = capfd.readouterr()
    assert re.fullmatch(lines, printed.out)
    assert printed.err == "not compared with torch: onnxruntime is not installed\n"


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("at_home")
def test_the_other_example_prints_one_line_and_large_weights_stand_beside_their_file(
    clip: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "_LARGEST_FILE", 300_000)  # the picture tower is larger, the text tower is not
    command_line.main(examples(capfd)[1], standalone_mode=False)
    printed = capfd.readouterr()
    assert printed.err == ""
    row = json.loads(printed.out)
    assert set(row) == {"image_encoder", "text_encoder", "megabytes", "largest_difference"}
    assert 0 < row["largest_difference"] <= TOLERANCE

    path = Path("my-clip-onnx/image_encoder.onnx")
    assert [row["image_encoder"], row["text_encoder"]] == [str(path), "my-clip-onnx/text_encoder.onnx"]
    sizes = [path.stat().st_size, Path(f"{path}.data").stat().st_size]
    assert sizes[0] < 100_000 < 300_000 < sizes[1]
    assert row["megabytes"]["image_encoder"] == pytest.approx(sum(sizes) / 1e6, abs=1e-3)
    assert not Path("my-clip-onnx/text_encoder.onnx.data").exists()
    assert read_onnx_metadata(path)["fingerprint"] == clip.fingerprint

    moved = Path("my-clip-onnx").rename(tmp_path / "moved") / path.name
    pixels = np.stack([clip.preprocessing(image) for image in pictures(2)])
    np.testing.assert_allclose(run(moved, pixels), clip.encode_pixels(pixels), atol=TOLERANCE, rtol=0)


@pytest.mark.usefixtures("in_no_time")
def test_weights_of_an_earlier_larger_model_go(clip: Encoder, tmp_path: Path) -> None:
    (tmp_path / "text_encoder.onnx.data").write_bytes(b"weights")
    export_onnx(clip, tmp_path)
    assert not (tmp_path / "text_encoder.onnx.data").exists()
