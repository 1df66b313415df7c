"""Presets: architectures have exactly the parameters of the published models, and figures are the published ones."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from nunbit.clip import Clip
from nunbit.errors import ConfigError
from nunbit.presets import RESEARCH_LICENSES, architecture, find_preset, list_architectures, list_presets
from nunbit.vision_encoder import ResNetConfig, TimmConfig, VitConfig
from nunbit.vision_encoder.timm_backbone import import_timm

SIGLIP = re.compile(r"siglip(2?)-(base|large|so400m|giant-opt)-patch(\d+)-(\d+|naflex)(-i18n|-multilingual)?")
SIGLIPS = [name for name in list_architectures() if SIGLIP.fullmatch(name)]
OPEN_CLIPS = [name for name in list_architectures() if name not in SIGLIPS]
SIGLIP_SIZES = {  # width, layers, heads, inner width
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giant-opt": (1536, 40, 16, 6144),
}
PUBLISHED_COUNTS = {  # of the weight files on the hub
    "siglip-base-patch16-512": 203_791_874,
    "siglip-base-patch16-256-multilingual": 370_626_050,
    "siglip-large-patch16-384": 652_478_466,
    "siglip-so400m-patch14-224": 877_360_306,
    "siglip-so400m-patch14-384": 877_960_498,
    "siglip-so400m-patch16-256-i18n": 1_128_758_962,
    "siglip2-base-patch32-256": 376_856_066,
    "siglip2-large-patch16-512": 882_313_218,
    "siglip2-so400m-patch16-512": 1_136_555_698,
    "siglip2-giant-opt-patch16-256": 1_871_393_906,
    "siglip2-giant-opt-patch16-384": 1_871_885_426,
}
TABLE = "open_clip results table"
TABLE_ROWS = {
    "openai-rn50": ("RN50", "openai"),
    "openai-rn101": ("RN101", "openai"),
    "openai-rn50x4": ("RN50x4", "openai"),
    "openai-rn50x16": ("RN50x16", "openai"),
    "openai-rn50x64": ("RN50x64", "openai"),
    "openai-vit-b-32": ("ViT-B-32", "openai"),
    "openai-vit-b-16": ("ViT-B-16", "openai"),
    "openai-vit-l-14": ("ViT-L-14", "openai"),
    "openai-vit-l-14-336": ("ViT-L-14-336", "openai"),
    "laion2b-vit-b-32": ("ViT-B-32", "laion2b_s34b_b79k"),
    "laion2b-vit-b-16": ("ViT-B-16", "laion2b_s34b_b88k"),
    "laion2b-vit-l-14": ("ViT-L-14", "laion2b_s32b_b82k"),
    "laion2b-vit-h-14": ("ViT-H-14", "laion2b_s32b_b79k"),
    "laion2b-vit-g-14": ("ViT-g-14", "laion2b_s34b_b88k"),
    "laion2b-vit-g-14-s12b": ("ViT-g-14", "laion2b_s12b_b42k"),
    "laion2b-vit-bigg-14": ("ViT-bigG-14", "laion2b_s39b_b160k"),
    "laion2b-convnext-base-w": ("convnext_base_w", "laion2b_s13b_b82k"),
    "laion2b-convnext-base-w-augreg": ("convnext_base_w", "laion2b_s13b_b82k_augreg"),
    "datacomp-vit-b-32": ("ViT-B-32", "datacomp_xl_s13b_b90k"),
    "datacomp-vit-b-32-256": ("ViT-B-32-256", "datacomp_s34b_b86k"),
    "datacomp-vit-b-16": ("ViT-B-16", "datacomp_xl_s13b_b90k"),
    "datacomp-vit-l-14": ("ViT-L-14", "datacomp_xl_s13b_b90k"),
    "siglip-b-16-224": ("ViT-B-16-SigLIP", "webli"),
    "siglip-b-16-256": ("ViT-B-16-SigLIP-256", "webli"),
    "siglip-b-16-384": ("ViT-B-16-SigLIP-384", "webli"),
    "siglip-b-16-512": ("ViT-B-16-SigLIP-512", "webli"),
    "siglip-b-16-256-i18n": ("ViT-B-16-SigLIP-i18n-256", "webli"),
    "siglip-l-16-256": ("ViT-L-16-SigLIP-256", "webli"),
    "siglip-l-16-384": ("ViT-L-16-SigLIP-384", "webli"),
    "siglip-so400m-14-224": ("ViT-SO400M-14-SigLIP", "webli"),
    "siglip-so400m-14-384": ("ViT-SO400M-14-SigLIP-384", "webli"),
}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def build(name: str) -> Clip:
    with torch.device("meta"):
        return Clip(architecture(name))


@pytest.fixture(scope="module")
def open_clip() -> Any:
    import_timm()
    return pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


def siglip_reference(transformers: ModuleType, name: str) -> Any:
    """A `transformers` configuration, from nothing but the published name."""
    match = SIGLIP.fullmatch(name)
    assert match is not None
    version, size, patch, image, many_languages = match.groups()
    width, layers, heads, inner = SIGLIP_SIZES[size]
    vision = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    vision |= {"intermediate_size": inner, "patch_size": int(patch)}
    text_width, text_layers, text_heads, text_inner = SIGLIP_SIZES["so400m" if size == "giant-opt" else size]
    text = {"hidden_size": text_width, "num_hidden_layers": text_layers, "num_attention_heads": text_heads}
    text |= {"intermediate_size": text_inner, "projection_size": width}
    text["vocab_size"] = 256_000 if version else 250_000 if many_languages else 32_000
    if name == "siglip-so400m-patch14-224":
        text["max_position_embeddings"] = 16  # the only one that was trained on shorter texts
    if image == "naflex":
        return transformers.Siglip2Config(text_config=text, vision_config=vision | {"num_patches": 256})
    return transformers.SiglipConfig(text_config=text, vision_config=vision | {"image_size": int(image)})


@pytest.mark.parametrize("name", OPEN_CLIPS)
def test_it_has_the_parameters_of_open_clip(open_clip: Any, name: str) -> None:
    config = open_clip.get_model_config(name)
    custom = config.pop("custom_text", False)
    with torch.device("meta"):
        reference = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    assert count(build(name)) == count(reference)


@pytest.mark.parametrize("name", OPEN_CLIPS)
def test_it_has_the_choices_of_open_clip_that_parameters_do_not_show(open_clip: Any, name: str) -> None:
    reference, ours = open_clip.get_model_config(name), architecture(name)
    vision, text = reference["vision_cfg"], reference["text_cfg"]
    act = "quick_gelu" if reference.get("quick_gelu") else "gelu"
    assert (ours.text.num_attention_heads, ours.text.hidden_act) == (text["heads"], act)
    assert ours.text.causal is not text.get("no_causal_mask", False)
    assert (ours.text.pooling, ours.text.end_token_id, ours.text.layer_norm_eps) == ("end_token", 49407, 1e-5)
    assert ours.vision.image_size == vision["image_size"]
    assert ours.objective == "softmax"
    if isinstance(ours.vision, VitConfig):
        assert ours.vision.num_attention_heads == vision["width"] // vision.get("head_width", 64)
        assert (ours.vision.hidden_act, ours.vision.layer_norm_eps) == (act, 1e-5)
        assert ours.vision.position_interpolation == "bicubic_antialias"
    elif isinstance(ours.vision, ResNetConfig):
        assert ours.vision.num_attention_heads == vision["width"] * 32 // 64
    else:
        assert isinstance(ours.vision, TimmConfig)
        assert ours.vision.pool == vision["timm_pool"]
        assert ours.vision.projection == (vision["timm_proj"] or "trunk")


@pytest.mark.parametrize("name", SIGLIPS)
def test_it_has_the_parameters_and_choices_of_transformers(transformers: Any, name: str) -> None:
    config, ours = siglip_reference(transformers, name), architecture(name)
    with torch.device("meta"):
        flexible = config.model_type == "siglip2"
        reference = (transformers.Siglip2Model if flexible else transformers.SiglipModel)(config)
    assert count(build(name)) == count(reference)
    assert isinstance(ours.vision, VitConfig)
    for mine, theirs in ((ours.vision, config.vision_config), (ours.text, config.text_config)):
        assert mine.num_attention_heads == theirs.num_attention_heads
        assert (mine.hidden_act, mine.layer_norm_eps) == ("gelu_tanh", theirs.layer_norm_eps)
    assert ours.text.causal is False
    assert (ours.text.pooling, ours.text.end_token_id, ours.objective) == ("last", 1, "sigmoid")
    assert ours.vision.flexible is flexible
    assert ours.vision.position_interpolation == ("bilinear_antialias" if flexible else "bicubic")


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_it_has_as_many_parameters_as_the_published_file(name: str) -> None:
    assert count(build(name)) == PUBLISHED_COUNTS[name]


def test_an_architecture_extends_one_that_stands_by_itself() -> None:
    entries = json.loads(files("nunbit.presets").joinpath("architectures.json").read_text("utf-8"))
    for name, entry in entries.items():
        assert "extends" not in entries.get(entry.get("extends"), {}), name


def test_a_typo_is_understood() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ViT-B-32'"):
        architecture("ViT-B-32x")
    with pytest.raises(ConfigError, match="known ones: RN50"):
        architecture("?")


@pytest.mark.parametrize("file", ["architectures.json", "models.json"])
def test_no_name_is_used_twice(file: str) -> None:
    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        assert not twice
        return dict(pairs)

    json.loads(files("nunbit.presets").joinpath(file).read_text("utf-8"), object_pairs_hook=check)


def test_every_model_is_complete() -> None:
    presets = list_presets()
    assert {preset.architecture for preset in presets} == set(list_architectures())
    assert max(Counter(preset.hub_id for preset in presets).values()) == 1
    for preset in presets:
        assert preset.name == preset.name.lower()
        assert preset.license in ("MIT", "Apache-2.0", *RESEARCH_LICENSES)
        assert re.fullmatch(r"[\w-]+/[\w.-]+", preset.hub_id)
        assert preset.languages in (("en",), ("multilingual",))
        assert preset.source
        assert preset.zero_shot_imagenet is None or 0 < preset.zero_shot_imagenet < 100
        assert preset.embedding_size == architecture(preset.architecture).embedding_size
        if preset.hub_id.startswith("google/"):
            assert preset.hub_id == f"google/{preset.architecture}"


def test_a_model_is_found_by_its_name() -> None:
    found = find_preset("mobileclip2-s0")
    assert found is not None
    assert (found.architecture, found.license) == ("MobileCLIP2-S0", "apple-amlr")
    assert find_preset("mobileclip2-s9") is None


def test_the_figures_are_those_of_the_published_table(shared: Path) -> None:
    table = shared / "golden" / "published_numbers" / "open_clip_openclip_results.csv"
    with table.open(encoding="utf-8", newline="") as file:
        published = {(row["name"], row["pretrained"]): 100 * float(row["ImageNet 1k"]) for row in csv.DictReader(file)}
    presets = {preset.name: preset for preset in list_presets()}
    assert {name for name, preset in presets.items() if preset.source == TABLE} == set(TABLE_ROWS)
    for name, row in TABLE_ROWS.items():
        assert presets[name].zero_shot_imagenet == pytest.approx(published[row], abs=0.0501), name


def list_models(*arguments: str) -> list[str]:
    ask = f"c.nunbit.main(['models', *{arguments!r}], standalone_mode=False); print('torch' in sys.modules)"
    code = f"import sys, nunbit.cli as c; {ask}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, torch_was_imported = result.stdout.splitlines()
    assert torch_was_imported == "False"
    return lines


def test_the_listing_shows_a_model_a_line_and_a_research_license_as_such() -> None:
    title, first, *others = list_models()
    assert first.split() == ["starter", "512", "-", "Apache-2.0", "shipped"]
    assert [line.split()[0] for line in others] == [preset.name for preset in list_presets()]
    for line, preset in zip(others, list_presets(), strict=True):
        assert ("(research only)" in line) == (preset.license == "apple-amlr")
        assert line.index(preset.hub_id) == title.index("hub id")


def test_the_listing_as_json_says_where_a_figure_is_from() -> None:
    rows = list(map(json.loads, list_models("--json")))
    keys = ["name", "model_type", "embedding_size", "license", "languages", "hub_id", "zero_shot_imagenet", "source"]
    assert all(list(row) == keys for row in rows)
    assert [row["name"] for row in rows] == ["starter", *(preset.name for preset in list_presets())]
