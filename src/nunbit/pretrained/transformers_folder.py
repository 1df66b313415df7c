"""Model folders of `transformers`: ``config.json`` with model_type clip, siglip or siglip2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nunbit.clip import ClipConfig
from nunbit.errors import UnsupportedModel
from nunbit.pretrained.image_processor import read_image_processor
from nunbit.pretrained.parts import ACTIVATION_NAMES, Settings, activation, read_json, square, with_end_token
from nunbit.pretrained.tokenizer_files import read_clip_tokenizer, read_siglip_tokenizer
from nunbit.projector import QFormerConfig
from nunbit.text_encoder import TextConfig
from nunbit.vision_encoder import VitConfig

MODEL_TYPES = ("clip", "siglip", "siglip2")
WEIGHTS = ("model.safetensors",)
_LEGACY_END = 2
"""What old CLIP configurations say of their end token; the highest id is meant."""

# What `transformers` assumes where a configuration is silent.
_TRANSFORMER = {"num_hidden_layers": 12}
_CLIP_TEXT = _TRANSFORMER | {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_CLIP_VISION = _TRANSFORMER | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "num_channels": 3,
}
_SIGLIP = _TRANSFORMER | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_SIGLIP_TEXT = _SIGLIP | {"vocab_size": 32000, "max_position_embeddings": 64}
_SIGLIP_VISION = _SIGLIP | {
    "image_size": 224,
    "patch_size": 16,
    "num_patches": 256,
    "num_channels": 3,
    "vision_use_head": True,
}


def read_settings(folder: Path) -> Settings:
    """Read everything but the weights.

    Raises:
        UnsupportedModel: Something in the folder is missing or not known here.
    """
    content = read_json(folder / "config.json")
    preprocessing = read_image_processor(folder)
    if content["model_type"] == "clip":
        config = clip_config(content)
        tokenizer = read_clip_tokenizer(folder, config, "transformers")
        legacy = int(_section(content, "text", _CLIP_TEXT)["eos_token_id"]) == _LEGACY_END
        return Settings(with_end_token(config, tokenizer, highest=legacy), preprocessing, tokenizer)
    length = int((_SIGLIP_TEXT | (content.get("text_config") or {}))["max_position_embeddings"])
    tokenizer = read_siglip_tokenizer(folder, length)
    return Settings(siglip_config(content, tokenizer.config.end_token_id), preprocessing, tokenizer)


def clip_config(content: Mapping[str, Any]) -> ClipConfig:
    """A dual encoder of model_type clip."""
    text, vision = _section(content, "text", _CLIP_TEXT), _section(content, "vision", _CLIP_VISION)
    size, end = int(content.get("projection_dim") or 512), int(text["eos_token_id"])
    return ClipConfig(
        vision=VitConfig(
            **block_sizes(vision),
            image_size=square(vision["image_size"], "image_size"),
            patch_size=square(vision["patch_size"], "patch_size"),
            class_token=True,
            patch_bias=False,
            pre_norm=True,
            pooling="class_token",
            projection_size=size,
        ),
        text=TextConfig(
            **block_sizes(text),
            vocab_size=int(text["vocab_size"]),
            max_position_embeddings=int(text["max_position_embeddings"]),
            causal=True,
            pooling="end_token",
            end_token_id=int(text["vocab_size"]) - 1 if end == _LEGACY_END else end,
            projection_size=size,
            projection_bias=False,
        ),
        objective="softmax",
    )


def siglip_config(content: Mapping[str, Any], end_token_id: int) -> ClipConfig:
    """A dual encoder of model_type siglip or siglip2; the latter is NaFlex."""
    text, vision = _section(content, "text", _SIGLIP_TEXT), _section(content, "vision", _SIGLIP_VISION)
    if not vision["vision_use_head"]:
        raise UnsupportedModel("a SigLIP without its pooling head has no space that pictures and texts share")
    flexible = content["model_type"] == "siglip2"
    patch = square(vision["patch_size"], "patch_size")
    side = square(vision["image_size"], "image_size")
    return ClipConfig(
        vision=VitConfig(
            **block_sizes(vision),
            image_size=patch * round(int(vision["num_patches"]) ** 0.5) if flexible else side,
            patch_size=patch,
            class_token=False,
            patch_bias=True,
            pre_norm=False,
            pooling="attention",
            projection_size=None,
            flexible=flexible,
            position_interpolation="bilinear_antialias" if flexible else "bicubic",
        ),
        text=TextConfig(
            **block_sizes(text),
            vocab_size=int(text["vocab_size"]),
            max_position_embeddings=int(text["max_position_embeddings"]),
            causal=False,
            pooling="last",
            end_token_id=end_token_id,
            projection_size=int(text.get("projection_size") or text["hidden_size"]),
            projection_bias=True,
        ),
        objective="sigmoid",
    )


def _section(content: Mapping[str, Any], which: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """One tower's settings over their defaults; an older key, where there is one, says all of them anew."""
    section = dict(defaults) | dict(content.get(f"{which}_config") or {})
    older = content.get(f"{which}_config_dict")
    return section if older is None else section | dict(defaults) | dict(older)


def block_sizes(section: Mapping[str, Any]) -> dict[str, Any]:
    """What a tower's section says of its blocks, in this project's terms.

    Raises:
        UnsupportedModel: Pictures of other than three channels, or an activation that is not known here.
    """
    if section.get("num_channels", 3) != 3:
        raise UnsupportedModel(f"pictures of {section['num_channels']} channels; only three are known here")
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return {
        **{name: int(section[name]) for name in names},
        "hidden_act": activation(section["hidden_act"]),
        "layer_norm_eps": float(section["layer_norm_eps"]),
    }


def expressible(config: ClipConfig) -> bool:
    """Tell whether `transformers` has this architecture."""
    vision, text = config.vision, config.text
    if not isinstance(vision, VitConfig):
        return False
    if config.objective == "softmax":
        return (
            (vision.pooling, vision.class_token, vision.patch_bias, vision.pre_norm, vision.flexible)
            == ("class_token", True, False, True, False)
            and (text.causal, text.pooling, text.projection_bias) == (True, "end_token", False)
            and vision.projection_size is not None
        )
    return (vision.pooling, vision.class_token, vision.patch_bias, vision.pre_norm, vision.projection_size) == (
        "attention",
        False,
        True,
        False,
        None,
    ) and (text.causal, text.pooling, text.projection_bias) == (False, "last", True)


def write_config(config: ClipConfig, pad_token_id: int) -> dict[str, Any]:
    """What `transformers` reads, for ``config.json``."""
    vision, text = config.vision, config.text
    assert isinstance(vision, VitConfig)
    family = "clip" if config.objective == "softmax" else "siglip2" if vision.flexible else "siglip"
    vision_config = written_sizes(vision) | {"patch_size": vision.patch_size, "num_channels": 3}
    if vision.flexible:
        vision_config["num_patches"] = vision.grid_size**2
    else:
        vision_config["image_size"] = vision.image_size
    text_config = written_sizes(text) | {
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_position_embeddings,
        "eos_token_id": text.end_token_id,
        "bos_token_id": None,
        "pad_token_id": pad_token_id,
    }
    content: dict[str, Any] = {"model_type": family}
    if family == "clip":
        content |= {"architectures": ["CLIPModel"], "projection_dim": config.embedding_size}
        vision_config["projection_dim"] = text_config["projection_dim"] = config.embedding_size
    else:
        content["architectures"] = ["SiglipModel" if family == "siglip" else "Siglip2Model"]
        text_config["projection_size"] = config.embedding_size
    vision_config["model_type"], text_config["model_type"] = f"{family}_vision_model", f"{family}_text_model"
    return {**content, "vision_config": vision_config, "text_config": text_config}


def written_sizes(tower: VitConfig | TextConfig | QFormerConfig) -> dict[str, Any]:
    """The inverse of `block_sizes`."""
    return {
        "hidden_size": tower.hidden_size,
        "num_hidden_layers": tower.num_hidden_layers,
        "num_attention_heads": tower.num_attention_heads,
        "intermediate_size": tower.intermediate_size,
        "hidden_act": ACTIVATION_NAMES[tower.hidden_act],
        "layer_norm_eps": tower.layer_norm_eps,
    }
